//! What is open, and what the kernel remembers, when a merge changes it.

use std::{io::ErrorKind, sync::Arc, thread};

use cairnfs_store::sim::{Call, Fault};
use parking_lot::Mutex;

use super::{READ, WRITE, sync, two};
use crate::{Ino, MergeStep, Mount, Observer, OpenFlags, Outdated};

/// Remembers what the kernel would be told.
#[derive(Default)]
struct Heard(Mutex<Vec<Outdated>>, Mutex<Option<Mount>>);

impl Observer for Heard {
    fn outdated(&self, what: Vec<Outdated>) {
        if let Some(mount) = self.1.lock().as_ref() {
            let others = || mount.shared().core.try_read().is_some();
            let is_seen = thread::scope(|scope| scope.spawn(others).join().unwrap());
            assert!(!is_seen, "somebody may open what has changed before this is heard");
        }
        self.0.lock().extend(what);
    }
}

#[test]
fn the_kernel_is_told_of_every_name_and_inode_that_a_merge_changes() {
    let (a, b) = two();
    let heard = Arc::new(Heard::default());
    *heard.1.lock() = Some(a.mount().clone());
    a.mount().observe(Arc::clone(&heard) as Arc<dyn Observer>);
    let old = a.walk("old").unwrap();
    b.write("old", "1");
    b.write("new", "2");
    a.pull(&b).unwrap();
    let told = heard.0.lock().clone();
    let name = |name: &str| Outdated::Name { dir: Ino::ROOT, name: name.into() };
    assert!(told.contains(&Outdated::Inode(old)), "{told:?}");
    assert!(told.contains(&name("new")), "{told:?}");
    heard.0.lock().clear();
    a.walk("new").unwrap();
    b.unlink("new");
    a.write("twice", "a");
    b.write("twice", "b");
    a.pull(&b).unwrap();
    let told = heard.0.lock().clone();
    let gone = |it: &Outdated| matches!(it, Outdated::Gone { name, .. } if name == b"new");
    assert!(told.iter().any(gone), "{told:?}");
    for copy in a.names("twice") {
        assert!(told.contains(&name(&copy)), "{copy} in {told:?}");
    }
    // The observer belongs to the mount: the two must not keep each other.
    *heard.1.lock() = None;
}

#[test]
fn an_open_handle_keeps_the_bytes_it_was_opened_on() {
    let (a, b) = two();
    let heard = Arc::new(Heard::default());
    a.mount().observe(Arc::clone(&heard) as Arc<dyn Observer>);
    let (ino, fh) = a.open("old", READ);
    b.write("old", "changed elsewhere");
    assert_eq!(a.pull(&b).unwrap(), MergeStep::FastForward);
    assert_eq!(a.read_from(ino, fh), "0", "the handle");
    let name = Outdated::Name { dir: Ino::ROOT, name: b"old".to_vec() };
    assert!(heard.0.lock().contains(&name), "the kernel goes on showing what was opened");
    let (now, fresh) = a.open("old", READ);
    assert_eq!(a.read_from(now, fresh), "changed elsewhere", "the name");
    assert_ne!(ino, now, "pages of one must not be mixed with those of the other");
}

#[test]
fn a_write_through_a_handle_on_replaced_bytes_becomes_a_version_of_its_own() {
    let (mut a, b) = two();
    let (ino, fh) = a.open("old", WRITE);
    b.write("old", "theirs");
    assert_eq!(a.pull(&b).unwrap(), MergeStep::FastForward);
    a.write_to(ino, fh, 0, "from the past").unwrap();
    assert_eq!(a.read_from(ino, fh), "from the past");
    a.close(ino, fh);
    a.restart(false);
    sync(&a, &b);
    let tree = b.tree();
    assert_eq!(tree.len(), 2, "{tree:?}");
    assert!(tree.contains(&"old=from the past".to_owned()), "{tree:?}");
    assert!(tree[1].starts_with("old@") && tree[1].ends_with("=theirs"), "{tree:?}");
    assert_eq!(a.mount().conflicts(None).unwrap().len(), 1);
}

#[test]
fn a_write_through_a_handle_on_a_removed_file_brings_it_back() {
    let (a, b) = two();
    let (ino, fh) = a.open("old", WRITE);
    b.unlink("old");
    a.pull(&b).unwrap();
    assert_eq!(a.tree(), Vec::<String>::new());
    a.write_to(ino, fh, 1, " and on").unwrap();
    a.close(ino, fh);
    sync(&a, &b);
    assert_eq!(b.tree(), ["old=0 and on"]);
}

#[test]
fn a_handle_follows_its_bytes_to_the_conflict_copy() {
    let (a, b) = two();
    a.write("test", "a");
    let (ino, fh) = a.open("test", WRITE);
    // The later operation has the name.
    b.write("other", "1");
    b.mount().publish().unwrap();
    b.write("test", "b");
    a.pull(&b).unwrap();
    assert_eq!(a.read_from(ino, fh), "a");
    a.write_to(ino, fh, 1, "!").unwrap();
    a.close(ino, fh);
    sync(&a, &b);
    let tree = b.tree();
    assert!(tree.iter().any(|line| line == "test=b"), "{tree:?}");
    assert!(tree.iter().any(|line| line.starts_with("test@") && line.ends_with("=a!")), "{tree:?}");
}

#[test]
fn opening_that_fails_leaves_no_handle() {
    let (mut a, b) = two();
    a.restart_without_cache();
    let (ino, _held) = a.open("old", READ);
    b.unlink("old");
    a.pull(&b).unwrap();
    // What is written to it now must become a file first, and the tree is read for that.
    let handles = a.mount().status().open_handles;
    let truncating = OpenFlags { truncate: true, ..WRITE };
    let mut failed = 0;
    for nth in 1..100 {
        a.disk.inject(Fault::Fail { call: Call::Read, nth, kind: ErrorKind::Other });
        if a.mount().open(ino, truncating).is_ok() {
            break;
        }
        failed += 1;
        assert_eq!(a.mount().status().open_handles, handles, "read {nth} failed");
    }
    assert!(failed > 0, "no read failed");
}
