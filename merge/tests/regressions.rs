//! Short histories in which something was lost once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod support;

use std::collections::BTreeMap;

use support::peer::Peer;

fn shown(peer: &Peer) -> BTreeMap<String, String> {
    peer.show().into_iter().filter_map(|(path, text)| Some((path, text?))).collect()
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
