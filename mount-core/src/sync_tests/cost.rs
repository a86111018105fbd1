//! What a merge costs, counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use cairnfs_store::sim::Call;
use parking_lot::Mutex;

use super::{ME, NO_CACHE, Peer, two};
use crate::{Keep, MergeStep, Mount, PastItem, Which, slow_disk::SlowDisk};

#[test]
fn what_a_merge_reads_does_not_grow_with_the_history() {
    let (a, b) = two();
    b.write("mine", "the last that was made here");
    a.pull(&b).unwrap();
    let reads = |n: usize| {
        a.write("theirs", &n.to_string());
        a.mount().publish().unwrap();
        let (fetch, _) = b.fetch(&a, a.mount().head().unwrap()).unwrap();
        let before = b.disk.counters().reads;
        assert_eq!(b.mount().merge_from(fetch).unwrap().step, MergeStep::FastForward);
        b.disk.counters().reads - before
    };
    let early = (0..10).map(reads).max().unwrap();
    let late = (10..200).map(reads).max().unwrap();
    assert!(late <= early + 20, "{early} reads at first, {late} after 200 versions");
}

#[test]
fn who_opens_something_does_not_wait_while_what_a_merge_brings_is_read() {
    let (mut a, b) = two();
    b.mkdir("n");
    link(&b, 500, "b");
    a.pull(&b).unwrap();
    for n in 0..500 {
        b.rename(&format!("n/f{n:05}"), &format!("n/g{n:05}"));
    }
    let merging = Arc::new(Mutex::new(None::<Mount>));
    let (reads, waits) = (Arc::new(AtomicUsize::default()), Arc::new(AtomicUsize::default()));
    let (at, all, locked) = (Arc::clone(&merging), Arc::clone(&reads), Arc::clone(&waits));
    let read = move || {
        let Some(mount) = &*at.lock() else { return };
        let others_wait = || mount.shared().core.try_read().is_none();
        let others_wait = thread::scope(|scope| scope.spawn(others_wait).join().unwrap());
        all.fetch_add(1, Ordering::SeqCst);
        locked.fetch_add(usize::from(others_wait), Ordering::SeqCst);
    };
    a.restart_with(SlowDisk::new(&a.disk, "writer", Call::Read, read), NO_CACHE);
    let head = b.mount().publish().unwrap();
    let (fetch, _) = a.fetch(&b, head).unwrap();
    *merging.lock() = Some(a.mount().clone());
    assert_eq!(a.mount().merge_from(fetch).unwrap().step, MergeStep::FastForward);
    merging.lock().take();
    let (reads, waits) = (reads.load(Ordering::SeqCst), waits.load(Ordering::SeqCst));
    assert!(reads > 500, "{reads} reads: there is a cache");
    assert!(waits < 10, "{waits} of {reads} reads with the tree locked");
}

/// Each name would cost what all of them cost, several times: this would not end.
#[test]
fn thousands_of_contested_names_in_one_directory_are_merged_found_and_settled() {
    const COUNT: usize = 3_000;
    let (a, b) = two();
    a.mkdir("n");
    b.pull(&a).unwrap();
    for (peer, target) in [(&a, "a"), (&b, "b")] {
        link(peer, COUNT, target);
    }
    assert_eq!(b.pull(&a).unwrap(), MergeStep::Merged);
    let dir = b.walk("n").unwrap();
    let fh = b.mount().opendir(dir).unwrap();
    let mut names = Vec::new();
    let mut take = |entry: crate::DirEntry| {
        names.push(entry.name);
        true
    };
    b.mount().readdir(dir, fh, 2, true, &mut take).unwrap();
    assert_eq!(names.len(), 2 * COUNT);
    for name in &names {
        b.mount().lookup(dir, name).unwrap();
    }
    assert_eq!(b.mount().conflicts(None).unwrap().len(), COUNT);
    let seen = b.seen(b"n");
    for n in 0..COUNT {
        b.mount().resolve(format!("n/f{n:05}").as_bytes(), &Keep::Shown, &seen).unwrap();
    }
    assert!(b.mount().conflicts(None).unwrap().is_empty());
    assert_eq!(a.pull(&b).unwrap(), MergeStep::FastForward);
    assert!(a.mount().conflicts(None).unwrap().is_empty());
}

/// Makes links in the directory `n` of `peer`.
fn link(peer: &Peer, count: usize, target: &str) {
    let dir = peer.walk("n").unwrap();
    for n in 0..count {
        let name = format!("f{n:05}");
        peer.mount().symlink(ME, dir, name.as_bytes(), target.as_bytes()).unwrap();
    }
}

#[test]
fn a_conflict_elsewhere_does_not_have_a_directory_read_at_once() {
    let (a, b) = two();
    a.mkdir("n");
    link(&a, 3_000, "a");
    b.pull(&a).unwrap();
    a.write("x", "a");
    b.write("x", "b");
    assert_eq!(b.pull(&a).unwrap(), MergeStep::Merged);
    assert_eq!(b.mount().conflicts(None).unwrap().len(), 1);
    let dir = b.walk("n").unwrap();
    let fh = b.mount().opendir(dir).unwrap();
    b.mount().readdir(dir, fh, 2, false, &mut |_| false).unwrap();
    let read = b.mount().shared().handles.dir(fh).unwrap().listing.lock().names.len();
    assert!(read < 2_000, "{read} names were read for one");
}

#[test]
fn one_contested_name_does_not_have_its_directory_read_at_once() {
    const COUNT: usize = 3_000;
    let (a, b) = two();
    a.mkdir("n");
    link(&a, COUNT, "a");
    b.pull(&a).unwrap();
    a.write("n/x", "a");
    b.write("n/x", "b");
    assert_eq!(b.pull(&a).unwrap(), MergeStep::Merged);
    let dir = b.walk("n").unwrap();
    let fh = b.mount().opendir(dir).unwrap();
    b.mount().readdir(dir, fh, 2, false, &mut |_| false).unwrap();
    let read = b.mount().shared().handles.dir(fh).unwrap().listing.lock().names.len();
    assert!(read < 2_000, "{read} names were read for one");
    let mut names = Vec::new();
    let mut take = |entry: crate::DirEntry| {
        names.push(entry.name);
        true
    };
    b.mount().readdir(dir, fh, 2, true, &mut take).unwrap();
    assert_eq!(names.len(), COUNT + 2, "both versions, and each name once");
    names.sort();
    names.dedup();
    assert_eq!(names.len(), COUNT + 2, "both versions, and each name once");
}

#[test]
fn a_walk_over_an_old_version_reads_contested_names_once() {
    let (a, mut b) = two();
    a.mkdir("n");
    b.pull(&a).unwrap();
    link(&a, 1_000, "a");
    link(&b, 500, "b");
    assert_eq!(b.pull(&a).unwrap(), MergeStep::Merged);
    b.restart_without_cache();
    let past = b.mount().past(&Which::By(crate::Time::now())).unwrap().unwrap();
    let before = b.disk.counters().reads;
    let mut names = 0;
    let mut take = |item: PastItem<'_>| {
        names += usize::from(matches!(item, PastItem::Entry(_)));
        true
    };
    past.walk(b"n", crate::Wanted::default(), &mut take).unwrap();
    assert_eq!(names, 1 + 1_500);
    let reads = b.disk.counters().reads - before;
    // Some twenty a name; a look at all contested names for each copy made it 3.8 million.
    assert!(reads < 100_000, "{reads} reads");
}
