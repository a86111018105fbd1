//! What is written while a merge is made, and while a version is: it is saved, and published later.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use cairnfs_store::sim::Call;
use parking_lot::Mutex;

use super::{ME, NO_CACHE, Peer, WRITE, comes, sync, two};
use crate::{
    Fh, Ino, Limits, Mount, RenameMode,
    slow_disk::{Gate, SlowDisk},
};

impl Peer {
    /// Whether what is changed here gets published though nobody asks for it.
    fn publishes_by_itself(&self) -> bool {
        // Versions are hours apart unless a peer waits for them.
        self.mount().peers_wait(true);
        comes(|| !self.mount().shared().core.read().has_changed_contents())
    }
}

#[test]
fn close_of_what_was_written_in_a_merge_waits_for_the_barrier_of_the_merge() {
    let (mut a, b) = two();
    let (gate, is_written) = (Arc::new(Gate::default()), Arc::new(AtomicBool::default()));
    let (at, pass_after) = (Arc::clone(&gate), Arc::clone(&is_written));
    let barrier = move || {
        if pass_after.load(Ordering::SeqCst) {
            at.pass();
        }
    };
    a.restart_with(SlowDisk::new(&a.disk, "writer", Call::Barrier, barrier), Limits::default());
    let (ino, fh) = a.open("old", WRITE);
    a.write("mine", "published before the merge");
    b.write("theirs", "merged");
    b.mount().publish().unwrap();
    let (fetch, _) = a.fetch(&b, b.mount().head().unwrap()).unwrap();
    a.once_published(move |mount| {
        mount.write(ino, fh, 0, b"in the merge", false, Box::new(|_| ()));
        is_written.store(true, Ordering::SeqCst);
    });
    thread::scope(|scope| {
        let held = gate.hold();
        let merge = scope.spawn(|| a.mount().merge_from(fetch));
        assert!(comes(|| gate.is_waited_for()), "no merge is written");
        let (tell, told) = crossbeam_channel::bounded(1);
        a.mount().flush(ino, fh, Box::new(move |result| tell.send(result).unwrap()));
        assert!(told.try_recv().is_err(), "close has returned before the barrier");
        drop(held);
        merge.join().unwrap().unwrap();
        told.recv().unwrap().unwrap();
    });
    a.restart(false);
    sync(&a, &b);
    assert_eq!(b.tree(), ["mine=published before the merge", "old=in the merge", "theirs=merged"]);
}

#[test]
fn what_was_written_in_a_merge_is_published_by_itself() {
    let (a, b) = two();
    let (ino, fh) = a.open("old", WRITE);
    a.write("mine", "published before the merge");
    b.write("theirs", "merged");
    b.mount().publish().unwrap();
    let (fetch, _) = a.fetch(&b, b.mount().head().unwrap()).unwrap();
    a.once_published(move |mount| {
        mount.write(ino, fh, 0, b"in the merge", false, Box::new(|_| ()));
    });
    a.mount().merge_from(fetch).unwrap();
    assert!(a.mount().status().unpublished, "others cannot have it");
    assert!(a.publishes_by_itself(), "it is not published");
    assert!(!a.mount().status().unpublished);
    let (fetch, _) = b.fetch(&a, a.mount().head().unwrap()).unwrap();
    b.mount().merge_from(fetch).unwrap();
    assert!(b.tree().contains(&"old=in the merge".to_owned()), "{:?}", b.tree());
}

/// Has `b` publish, `a` merge that and do `what` meanwhile, between the first step and the third, and close
/// `path` then. Something else is saved, and the power goes before a version is made.
fn cut_after_a_close_in_a_merge(
    a: &mut Peer,
    b: &Peer,
    what: impl FnOnce(&Mount) + Send + 'static,
    path: &str,
) {
    a.write("mine", "published before the merge");
    b.mount().publish().unwrap();
    let (fetch, _) = a.fetch(b, b.mount().head().unwrap()).unwrap();
    a.once_published(what);
    a.mount().merge_from(fetch).unwrap();
    let (ino, fh) = a.open(path, WRITE);
    a.close(ino, fh);
    a.write("after", "saved");
    a.restart(false);
    assert!(a.tree().contains(&"after=saved".to_owned()), "{:?}", a.tree());
}

#[test]
fn a_file_that_was_made_in_a_merge_is_whole_once_its_close_has_returned() {
    let (mut a, b) = two();
    b.write("theirs", "merged");
    let make = |mount: &Mount| {
        let (attr, fh) = mount.create(ME, Ino::ROOT, b"new", 0o644, WRITE).unwrap();
        mount.write(attr.ino, fh, 0, b"in the merge", false, Box::new(|_| ()));
    };
    cut_after_a_close_in_a_merge(&mut a, &b, make, "new");
    assert!(a.tree().contains(&"new=in the merge".to_owned()), "{:?}", a.tree());
}

#[test]
fn what_was_written_in_a_merge_to_a_file_that_both_made_alike_is_kept_once_its_close_has_returned()
{
    let (mut a, b) = two();
    for peer in [&a, &b] {
        peer.write("log", "same");
    }
    let (ino, fh) = a.open("log", WRITE);
    let append = move |mount: &Mount| {
        mount.write(ino, fh, 4, b" and more", false, Box::new(|_| ()));
    };
    cut_after_a_close_in_a_merge(&mut a, &b, append, "log");
    assert!(a.tree().contains(&"log=same and more".to_owned()), "{:?}", a.tree());
}

#[test]
fn what_was_written_and_renamed_in_a_merge_is_kept_once_its_close_has_returned() {
    let (mut a, b) = two();
    a.write("f", "ours");
    // Of the two theirs is the newer one, and keeps the name.
    for text in ["theirs", "theirs, again", "theirs, and newer"] {
        b.write("f", text);
        b.mount().publish().unwrap();
    }
    let (ino, fh) = a.open("f", WRITE);
    let append = move |mount: &Mount| {
        mount.write(ino, fh, 4, b" and more", false, Box::new(|_| ()));
        mount.rename(Ino::ROOT, b"f", Ino::ROOT, b"moved", RenameMode::Replace).unwrap();
    };
    cut_after_a_close_in_a_merge(&mut a, &b, append, "moved");
    let tree = a.tree();
    for line in ["f=theirs, and newer", "moved=ours and more"] {
        assert!(tree.contains(&line.to_owned()), "{tree:?}");
    }
}

#[test]
fn what_a_version_has_sealed_is_counted_as_unsaved_until_its_barrier() {
    let (mut a, _b) = two();
    // Long enough that the writer must read the rest of one to seal what was written to it.
    let names = ["first", "second"];
    names.iter().for_each(|name| a.write(name, &"soon ".repeat(5_000)));
    a.mount().publish().unwrap();
    let open = Open::default();
    let counts = Arc::new(Mutex::new(Vec::new()));
    let (at_read, counted) = (Arc::clone(&open), Arc::clone(&counts));
    let read = move || {
        write_next(&at_read);
        if let Some((mount, files)) = &*at_read.lock()
            && files.is_empty()
        {
            // The writer itself may hold the lock.
            let count = || mount.shared().core.try_read().map(|core| core.unsaved_changes());
            counted.lock().extend(thread::scope(|scope| scope.spawn(count).join().unwrap()));
        }
    };
    a.restart_with(SlowDisk::new(&a.disk, "writer", Call::Read, read), NO_CACHE);
    let files: VecDeque<_> = names.iter().map(|name| a.open(name, WRITE)).collect();
    let (ino, fh) = files[0];
    a.write_to(ino, fh, 0, "late").unwrap();
    *open.lock() = Some((a.mount().clone(), files));
    // The first is saved before it is sealed; the second is written to meanwhile, and sealed then.
    a.mount().publish().unwrap();
    open.lock().take();
    let counts = counts.lock().clone();
    assert!(!counts.is_empty() && !counts.contains(&0), "{counts:?}");
    assert_eq!(a.mount().status().unsaved_changes, 0);
}

/// Files that are open, to be written to one after the other.
type Open = Arc<Mutex<Option<(Mount, VecDeque<(Ino, Fh)>)>>>;

/// Once the writer has taken what was written to the first of them, writes to the next.
fn write_next(open: &Open) {
    let mut open = open.lock();
    let Some((mount, files)) = &mut *open else { return };
    let is_taken = |fh| !mount.shared().handles.file(fh).unwrap().file.lock().is_unsaved();
    if files.front().is_some_and(|(_, fh)| is_taken(*fh)) {
        files.pop_front();
        if let Some((ino, fh)) = files.front() {
            mount.write(*ino, *fh, 0, b"late", false, Box::new(|_| ()));
        }
    }
}

#[test]
fn what_was_written_too_late_for_a_version_is_published_by_the_next() {
    let (mut a, b) = two();
    // Long enough that the writer must read the rest of one to seal what was written to it.
    let names = ["first", "second", "third", "fourth"];
    names.iter().for_each(|name| a.write(name, &"soon ".repeat(5_000)));
    a.mount().publish().unwrap();
    let open = Open::default();
    let at_read = Arc::clone(&open);
    let read = move || write_next(&at_read);
    a.restart_with(SlowDisk::new(&a.disk, "writer", Call::Read, read), NO_CACHE);
    let files: VecDeque<_> = names.iter().map(|name| a.open(name, WRITE)).collect();
    let (ino, fh) = files[0];
    a.write_to(ino, fh, 0, "late").unwrap();
    *open.lock() = Some((a.mount().clone(), files));
    // Contents are sealed in three rounds, and each time the next one is written to.
    a.mount().publish().unwrap();
    let (_, left) = open.lock().take().unwrap();
    assert!(left.is_empty(), "{left:?} was not written to");
    assert!(a.mount().shared().core.read().has_changed_contents(), "the version holds all");
    assert!(a.mount().status().unpublished, "others cannot have it");
    assert!(a.publishes_by_itself(), "it is not published");
    let (fetch, _) = b.fetch(&a, a.mount().head().unwrap()).unwrap();
    b.mount().merge_from(fetch).unwrap();
    let is_late = |line: &String| line.ends_with("soon ") && line.contains("=late soon ");
    assert_eq!(b.tree().iter().filter(|line| is_late(line)).count(), 4);
}
