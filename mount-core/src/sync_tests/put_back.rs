//! Devices that were put back to an older state and cannot go on from there.

use cairnfs_store::BlobId;

use super::{ME, Peer, sync, two};
use crate::{DirEntry, Error, Fetch, Kind, MergeStep, Result, Role};

#[track_caller]
fn is_refused(pulled: &Result<MergeStep>) {
    assert!(matches!(pulled, Err(Error::PutBack)), "{pulled:?}");
}

#[test]
fn who_merged_others_changes_since_the_backup_is_refused_and_nothing_is_lost() {
    let (mut a, b) = two();
    let c = a.invite(Role::Writer);
    sync(&a, &b);
    let backup = a.backup();
    a.write("first", "1");
    sync(&a, &b);
    a.put_back(backup);
    a.write("second", "2");
    // Which knows nothing of what the backup lacks.
    c.write("third", "3");
    sync(&a, &c);
    let (at_a, at_b) = (a.tree(), b.tree());
    is_refused(&a.pull(&b));
    assert_eq!(a.tree(), at_a);
    a.write("fourth", "4");
    is_refused(&a.pull(&b));
    // Not from whoever merged it either.
    for other in [&a, &c] {
        let pulled = b.pull(other);
        assert!(matches!(pulled, Err(Error::WrittenTwice)), "{pulled:?}");
        assert_eq!(b.tree(), at_b);
    }
}

#[test]
fn what_was_done_on_top_of_what_was_forgotten_is_not_taken_for_known() {
    let (mut a, b) = two();
    let c = a.invite(Role::Writer);
    sync(&a, &b);
    let backup = a.backup();
    a.write("first", "1");
    sync(&a, &b);
    a.put_back(backup);
    // Its next operation is later than all that it has forgotten.
    for n in 0..4 {
        c.write("third", &n.to_string());
        c.mount().publish().unwrap();
    }
    sync(&a, &c);
    a.write("second", "2");
    let at_b = b.tree();
    assert_eq!(b.pull(&a).unwrap(), MergeStep::Forgotten);
    assert_eq!(b.tree(), at_b);
}

/// Others know more operations of it than it has made since, but not these.
fn put_back_behind_what_others_know(a: &mut Peer, b: &Peer) {
    let backup = a.backup();
    for name in ["first", "and more"] {
        a.write(name, "1");
        a.mount().publish().unwrap();
    }
    sync(a, b);
    a.put_back(backup);
    a.write("second", "2");
}

#[test]
fn what_a_device_did_after_it_was_put_back_is_not_taken_for_known() {
    let (mut a, b) = two();
    put_back_behind_what_others_know(&mut a, &b);
    let at_b = b.tree();
    // It came, and is no more known for that.
    for _ in 0..2 {
        assert_eq!(b.pull(&a).unwrap(), MergeStep::Forgotten);
        assert!(!b.mount().covers(&a.mount().head().unwrap()).unwrap());
    }
    assert_eq!(b.tree(), at_b);
    sync(&a, &b);
    assert_eq!(b.tree(), ["and more=1", "first=1", "old=0", "second=2"]);
}

#[test]
fn what_it_did_is_not_taken_for_known_through_others_either() {
    let (mut a, b) = two();
    let [c, d] = [a.invite(Role::Writer), a.invite(Role::Writer)];
    for other in [&b, &c, &d] {
        sync(&a, other);
    }
    for (other, name) in [(&c, "c"), (&d, "d")] {
        other.write(name, "3");
        b.pull(other).unwrap();
    }
    put_back_behind_what_others_know(&mut a, &b);
    assert_eq!(c.pull(&a).unwrap(), MergeStep::Merged);
    assert_eq!(d.pull(&c).unwrap(), MergeStep::Merged);
    let at_b = b.tree();
    for other in [&c, &d] {
        assert_eq!(b.pull(other).unwrap(), MergeStep::Forgotten);
    }
    assert_eq!(b.tree(), at_b);
}

#[test]
fn where_versions_were_given_up_it_is_waited_for_what_the_other_makes_of_ours() {
    let (a, mut b) = two();
    b.write("new", "1");
    // From a version that is not here any more.
    b.forge(|_, version| version.parents = vec![BlobId([7; 32])]);
    assert_eq!(b.pull(&a).unwrap(), MergeStep::Forgotten);
    assert_eq!(a.pull(&b).unwrap(), MergeStep::FastForward);
    assert_eq!(b.pull(&a).unwrap(), MergeStep::Nothing);
}

#[test]
fn who_has_given_up_the_version_where_it_and_the_others_parted_is_refused() {
    let (a, mut b) = two();
    b.write("one", "1");
    sync(&a, &b);
    let backup = b.backup();
    for n in 0..4 {
        b.write("later", &n.to_string());
        b.mount().publish().unwrap();
    }
    sync(&a, &b);
    b.put_back(backup);
    // From a version that is not here any more.
    b.forge(|_, version| version.parents = vec![BlobId([7; 32])]);
    b.write("anew", "2");
    b.mount().publish().unwrap();
    let (at_a, at_b) = (a.tree(), b.tree());
    is_refused(&b.pull(&a));
    assert_eq!(b.tree(), at_b);
    drop(a.pull(&b));
    assert_eq!(a.tree(), at_a);
}

/// A device that makes four versions, which others get, is put back to before them, and makes two.
fn forgets_four_and_makes_two(a: &mut Peer, b: &Peer) {
    let backup = a.backup();
    for n in 0..4 {
        a.write(&format!("first{n}"), "1");
        a.mount().publish().unwrap();
    }
    sync(a, b);
    a.put_back(backup);
    for n in 0..2 {
        a.write(&format!("second{n}"), "2");
        a.mount().publish().unwrap();
    }
    b.mount().publish().unwrap();
}

/// As the daemon fetches, so many blobs at a time, and with lists of versions if there are any; `None`
/// if it is cut off after some rounds.
fn fetched(a: &Peer, b: &Peer, lists: bool, (max, rounds): (usize, usize)) -> Option<Fetch> {
    let (head, have) = (b.mount().head().unwrap(), a.mount().head().unwrap());
    let mut fetch = a.mount().fetch(head).unwrap();
    for _ in 0..rounds {
        if fetch.is_complete() {
            return Some(fetch);
        }
        let wanted = fetch.wanted(max).unwrap();
        if let Some(version) = fetch.unlisted().filter(|_| lists) {
            let list = b.mount().ancestry(&version, &[have], 1000).unwrap();
            fetch.expect_ancestors(&list);
        }
        let blobs = wanted.iter().map(|id| b.mount().sealed(id).unwrap().unwrap());
        fetch.supply(blobs.collect()).unwrap();
    }
    None
}

const ALL: (usize, usize) = (16, 1000);

#[track_caller]
fn keeps_what_it_made(a: &Peer, fetch: Fetch) {
    let merged = a.mount().merge_from(fetch);
    let tree = a.tree();
    for made in ["second0=2", "second1=2"] {
        assert!(tree.iter().any(|line| line == made), "{merged:?}: {tree:?}");
    }
}

#[test]
fn what_a_device_made_after_it_was_put_back_stays_whether_lists_of_versions_come_or_not() {
    for lists in [true, false] {
        let (mut a, b) = two();
        forgets_four_and_makes_two(&mut a, &b);
        let fetch = fetched(&a, &b, lists, ALL).unwrap();
        keeps_what_it_made(&a, fetch);
    }
}

#[test]
fn what_a_device_made_after_it_was_put_back_stays_wherever_a_fetch_was_cut_off_before() {
    for (max, rounds) in [(1, 1), (1, 2), (1, 3), (1, 4), (2, 2), (2, 3)] {
        let (mut a, b) = two();
        forgets_four_and_makes_two(&mut a, &b);
        assert!(fetched(&a, &b, true, (max, rounds)).is_none());
        let fetch = fetched(&a, &b, true, ALL).unwrap();
        keeps_what_it_made(&a, fetch);
    }
}

#[test]
fn what_a_device_made_after_it_was_put_back_stays_with_who_meets_it_through_another() {
    let (mut a, b) = two();
    let c = a.invite(Role::Writer);
    for other in [&b, &c] {
        sync(&a, other);
    }
    forgets_four_and_makes_two(&mut a, &b);
    // It has not met b since.
    c.write("c", "3");
    c.pull(&a).unwrap();
    c.mount().publish().unwrap();
    let (at_b, at_c) = (b.tree(), c.tree());
    let fetch = fetched(&b, &c, false, ALL).unwrap();
    let merged = b.mount().merge_from(fetch);
    assert!(matches!(merged, Err(Error::WrittenTwice)), "{merged:?}");
    assert_eq!((b.tree(), c.tree()), (at_b, at_c));
}

#[test]
fn a_device_that_is_put_back_again_to_before_it_began_anew_has_another_name_once_more() {
    let (mut a, b) = two();
    let backup = a.backup();
    a.write("forgotten", "");
    sync(&a, &b);
    for life in 1..3 {
        a.put_back(backup.crash(1));
        let kept = format!("kept{life}");
        a.write(&kept, "");
        sync(&a, &b);
        assert_eq!(a.mount().incarnation(), life);
        assert!(!b.names(&kept).is_empty());
    }
}

/// Of which more is read than one page.
#[test]
fn a_directory_that_is_open_while_its_device_begins_anew_is_listed_to_its_end() {
    const FILES: usize = 2500;
    let (mut a, b) = two();
    let backup = a.backup();
    a.write("forgotten", "");
    sync(&a, &b);
    a.put_back(backup);
    a.mkdir("dir");
    for n in 0..FILES {
        let (dir, name) = (a.walk("dir").unwrap(), format!("{n}"));
        a.mount().mknod(ME, dir, name.as_bytes(), Kind::File, 0o644, 0).unwrap();
    }
    let ino = a.walk("dir").unwrap();
    let fh = a.mount().opendir(ino).unwrap();
    let (mut listed, mut next) = (0, 0);
    let mut list_until = |a: &Peer, names: usize| {
        let from = next;
        let take = &mut |entry: DirEntry| {
            let is_taken = listed < names;
            if is_taken {
                (listed, next) = (listed + 1, entry.next);
            }
            is_taken
        };
        a.mount().readdir(ino, fh, from, true, take).unwrap();
        listed
    };
    list_until(&a, 10);
    sync(&a, &b);
    assert_eq!(a.mount().incarnation(), 1);
    assert_eq!(list_until(&a, usize::MAX), FILES + 2);
}
