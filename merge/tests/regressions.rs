//! Short histories in which something was lost once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod support;

use std::collections::BTreeMap;

use support::peer::Peer;

fn shown(peer: &Peer) -> BTreeMap<String, String> {
    peer.show().into_iter().filter_map(|(path, text)| Some((path, text?))).collect()
}

fn files<const N: usize>(files: [(&str, &str); N]) -> BTreeMap<String, String> {
    files.map(|(path, text)| (path.to_owned(), text.to_owned())).into()
}

/// A file `x` that is also `y`, written by two: `x` = 2, and 1 is its copy, at both names.
fn contested_links() -> (Peer, String) {
    let mut a = Peer::new('A');
    a.write("x", "0").unwrap();
    a.hard_link("x", "y").unwrap();
    let mut b = Peer::new('B');
    b.pull(&a);
    a.write("x", "1").unwrap();
    b.write("x", "2").unwrap();
    a.pull(&b);
    let [copy] = a.copies("x").unwrap().try_into().unwrap();
    (a, copy)
}

#[test]
fn a_copy_renamed_over_its_winner_leaves_the_other_names_what_they_show() {
    let (mut a, copy) = contested_links();
    let mut expected = shown(&a);
    let text = expected.remove(&copy).unwrap();
    expected.insert("x".to_owned(), text);
    a.mv(&copy, "x").unwrap();
    assert_eq!(shown(&a), expected);
}

#[test]
fn a_copy_exchanged_with_its_winner_leaves_the_other_names_what_they_show() {
    let (mut a, copy) = contested_links();
    let mut expected = shown(&a);
    let (of_copy, of_winner) = (expected[&copy].clone(), expected["x"].clone());
    expected.extend([("x".to_owned(), of_copy), (copy.clone(), of_winner)]);
    a.exchange(&copy, "x").unwrap();
    assert_eq!(shown(&a), expected);
}

/// `d/x` is 2, its copy 1; a file that is called as the copy lies in `e`. A weak `d` was removed.
fn contested_beside(weak: bool) -> (Peer, String) {
    let mut a = Peer::new('A');
    a.mkdir("d").unwrap();
    a.mkdir("e").unwrap();
    a.write("d/x", "0").unwrap();
    let mut b = Peer::new('B');
    b.pull(&a);
    let mut remover = Peer::new('C');
    remover.pull(&a);
    remover.rmr("d").unwrap();
    a.write("d/x", "1").unwrap();
    b.write("d/x", "2").unwrap();
    a.pull(&b);
    if weak {
        a.pull(&remover);
    }
    let [copy] = a.copies("d/x").unwrap().try_into().unwrap();
    a.write(&copy.replace("d/", "e/"), "3").unwrap();
    (a, copy)
}

#[test]
fn a_contested_file_that_is_exchanged_leaves_its_copy_where_it_is() {
    for weak in [false, true] {
        let (start, copy) = contested_beside(weak);
        let other = copy.replace("d/", "e/");
        for (one, two) in [("d/x", other.as_str()), (&other, "d/x"), ("d/x", &copy)] {
            let mut a = start.clone();
            let mut expected = shown(&a);
            let (left, right) = (expected[one].clone(), expected[two].clone());
            expected.extend([(one.to_owned(), right), (two.to_owned(), left)]);
            a.exchange(one, two).unwrap();
            assert_eq!(shown(&a), expected, "{one} with {two}");
        }
    }
}

#[test]
fn two_links_of_one_file_that_are_exchanged_both_stay() {
    let mut a = Peer::new('A');
    a.write("x", "1").unwrap();
    a.hard_link("x", "y").unwrap();
    a.exchange("x", "y").unwrap();
    assert_eq!(shown(&a), files([("x", "1"), ("y", "1")]));
}

#[test]
fn what_was_removed_with_a_moved_directory_comes_back_though_a_third_device_wrote_there() {
    let orders: [&[(usize, usize)]; 4] =
        [&[(1, 0), (1, 2)], &[(2, 0), (1, 2)], &[(0, 2), (0, 1)], &[(1, 2), (1, 0)]];
    for order in orders {
        let mut a = Peer::new('A');
        a.mkdir("d").unwrap();
        a.write("d/x", "1").unwrap();
        a.write("d/y", "2").unwrap();
        let (mut b, mut c) = (Peer::new('B'), Peer::new('C'));
        b.pull(&a);
        c.pull(&a);
        a.rmr("d").unwrap();
        b.mv("d", "e").unwrap();
        c.write("d/n", "3").unwrap();
        let mut peers = [a, b, c];
        let rounds = [(0, 1), (1, 2), (2, 0), (0, 1), (1, 2), (2, 0)];
        for (to, from) in order.iter().copied().chain(rounds) {
            let from = peers[from].clone();
            peers[to].pull(&from);
        }
        for peer in &peers {
            let all = files([("e/n", "3"), ("e/x", "1"), ("e/y", "2")]);
            assert_eq!(shown(peer), all, "{order:?}");
        }
    }
}

#[test]
fn what_was_removed_with_a_moved_directory_comes_back_whoever_merges_first() {
    for remover_is_first in [true, false] {
        for order in [[(0, 1), (1, 0)], [(1, 0), (0, 1)]] {
            let mut a = Peer::new('A');
            a.mkdir("d").unwrap();
            a.write("d/x", "1").unwrap();
            a.write("d/y", "2").unwrap();
            let mut b = Peer::new('B');
            b.pull(&a);
            let (remover, mover) =
                if remover_is_first { (&mut a, &mut b) } else { (&mut b, &mut a) };
            remover.rmr("d").unwrap();
            mover.mv("d", "e").unwrap();
            let mut peers = [a, b];
            for (from, to) in order {
                let other = peers[from].clone();
                peers[to].pull(&other);
            }
            for peer in &peers {
                assert_eq!(shown(peer), files([("e/x", "1"), ("e/y", "2")]));
            }
        }
    }
}

#[test]
fn who_resolves_a_conflict_carries_what_was_decided() {
    let mut a = Peer::new('A');
    a.write("t", "old").unwrap();
    a.resolve("t", "new").unwrap();
    let id = a.get("t").unwrap().id();
    assert_eq!(a.tree.state().nodes[&id].carried(), None);
}

#[test]
fn what_two_move_into_folders_that_become_one_was_moved_to_one_place() {
    let mut a = Peer::new('A');
    a.write("f", "1").unwrap();
    a.mkdir("d").unwrap();
    a.write("d/x", "2").unwrap();
    let mut b = Peer::new('B');
    b.pull(&a);
    for peer in [&mut a, &mut b] {
        peer.mkdir("arch").unwrap();
        peer.mv("f", "arch/f").unwrap();
        peer.mv("d", "arch/d").unwrap();
    }
    a.pull(&b);
    assert_eq!(shown(&a), files([("arch/d/x", "2"), ("arch/f", "1")]));
    assert!(a.kinds().is_empty(), "{:?}", a.kinds());
    // Two names in it are two.
    b.pull(&a);
    a.mv("arch/f", "arch/g").unwrap();
    b.mv("arch/f", "arch/h").unwrap();
    a.pull(&b);
    assert_eq!(a.kinds().len(), 1, "{:?}", a.kinds());
}
