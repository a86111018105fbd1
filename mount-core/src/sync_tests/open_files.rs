//! What is open, and what the kernel remembers, when a merge changes it.

use std::{io::ErrorKind, sync::Arc, thread};

use cairnfs_store::sim::{Call, Fault};
use parking_lot::Mutex;

use super::{Peer, READ, WRITE, sync, two};
use crate::{Ino, MergeStep, Mount, Observer, OpenFlags, Outdated, RenameMode, Role};

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
    assert_eq!(a.read_from(fh), "0", "the handle");
    let name = Outdated::Name { dir: Ino::ROOT, name: b"old".to_vec() };
    assert!(heard.0.lock().contains(&name), "the kernel goes on showing what was opened");
    let (now, fresh) = a.open("old", READ);
    assert_eq!(a.read_from(fresh), "changed elsewhere", "the name");
    assert_ne!(ino, now, "pages of one must not be mixed with those of the other");
}

#[test]
fn a_write_through_a_handle_on_replaced_bytes_becomes_a_version_of_its_own() {
    let (mut a, b) = two();
    let (ino, fh) = a.open("old", WRITE);
    b.write("old", "theirs");
    assert_eq!(a.pull(&b).unwrap(), MergeStep::FastForward);
    a.write_to(ino, fh, 0, "from the past").unwrap();
    assert_eq!(a.read_from(fh), "from the past");
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
    assert_eq!(a.read_from(fh), "a");
    a.write_to(ino, fh, 1, "!").unwrap();
    a.close(ino, fh);
    sync(&a, &b);
    let tree = b.tree();
    assert!(tree.iter().any(|line| line == "test=b"), "{tree:?}");
    assert!(tree.iter().any(|line| line.starts_with("test@") && line.ends_with("=a!")), "{tree:?}");
}

/// The name was contested before the merge and is after it, and of the same file.
#[test]
fn a_contested_name_that_comes_to_mean_other_bytes_than_what_is_open_is_told() {
    let (a, b) = two();
    a.write("old", "a");
    b.write("old", "b");
    sync(&a, &b);
    // The later operation has the name.
    for n in ["1", "2", "3"] {
        b.write("pad", n);
        b.mount().publish().unwrap();
    }
    b.write("old", "b again");
    a.write("old", "a again");
    let (ino, fh) = a.open("old", WRITE);
    let heard = Arc::new(Heard::default());
    a.mount().observe(Arc::clone(&heard) as Arc<dyn Observer>);
    a.pull(&b).unwrap();
    assert_eq!(a.read_from(fh), "a again");
    assert_ne!(a.walk("old").unwrap(), ino);
    let name = Outdated::Name { dir: Ino::ROOT, name: b"old".to_vec() };
    let told = heard.0.lock().clone();
    assert!(told.contains(&name), "who opens it writes to the copy: {told:?}");
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

/// Has `peer` be later than others by `count` versions.
pub(super) fn later_by(peer: &Peer, count: usize) {
    for n in 0..count {
        peer.write("pad", &n.to_string());
        peer.mount().publish().unwrap();
    }
}

#[track_caller]
pub(super) fn has(peer: &Peer, text: &str) {
    let tree = peer.tree();
    assert!(tree.iter().any(|line| line.ends_with(text)), "{text} is lost: {tree:?}");
}

/// The name was contested before, and goes on being so: only who has it is another.
#[test]
fn a_handle_follows_its_bytes_when_a_contested_name_goes_to_a_third_version() {
    for n in 0..6 {
        let (a, b) = two();
        let c = a.invite(Role::Writer);
        a.write("f", "base");
        sync(&a, &b);
        let of_b = format!("from b {n}");
        b.write("f", &of_b);
        b.mount().publish().unwrap();
        later_by(&a, 9);
        a.write("f", "from a");
        assert_eq!(a.pull(&b).unwrap(), MergeStep::Merged);
        let (ino, fh) = a.open("f", WRITE);
        later_by(&c, 20);
        c.write("f", "c");
        assert_eq!(a.pull(&c).unwrap(), MergeStep::Merged);
        assert!(a.tree().contains(&"f=c".to_owned()), "{:?}", a.tree());
        a.write_to(ino, fh, 0, "Z").unwrap();
        a.close(ino, fh);
        a.mount().publish().unwrap();
        has(&a, &of_b);
        has(&a, "Zrom a");
    }
}

/// As above, and what is open is opened under its new name as well.
#[test]
fn a_file_whose_name_was_lost_again_is_one_content_under_both_handles() {
    let (mut a, b) = two();
    later_by(&a, 3);
    a.write("f", "from a");
    a.mount().publish().unwrap();
    b.write("f", "b1");
    a.pull(&b).unwrap();
    let (ino, fh) = a.open("f", WRITE);
    later_by(&b, 20);
    b.write("f", "b2");
    a.pull(&b).unwrap();
    let copy = a.names("f@").remove(0);
    let reader = a.open(&copy, READ);
    a.write_to(ino, fh, 0, "ZZZZ").unwrap();
    assert_eq!(a.read_from(reader.1), "ZZZZ a");
    let writer = a.open(&copy, WRITE);
    for (ino, fh) in [(ino, fh), writer, reader] {
        a.close(ino, fh);
    }
    a.mount().publish().unwrap();
    has(&a, "ZZZZ a");
    a.restart(false);
    has(&a, "ZZZZ a");
}

/// The handle is on the copy then; of two versions with the same bytes one is shown.
#[test]
fn a_handle_on_a_copy_whose_bytes_are_written_to_the_contested_name_can_be_written_through() {
    let (a, b) = two();
    a.write("test", "base");
    sync(&a, &b);
    a.write("test", "from a");
    let (ino, fh) = a.open("test", WRITE);
    later_by(&b, 9);
    b.write("test", "from b");
    a.pull(&b).unwrap();
    a.write("test", "from a");
    a.mount().publish().unwrap();
    assert_eq!(a.read_from(fh), "from a");
    a.write_to(ino, fh, 6, " and more").unwrap();
    a.close(ino, fh);
    sync(&a, &b);
    has(&b, "=from a and more");
    has(&b, "=from a");
}

/// As by somebody who has looked a name up just before another file is renamed over what has it.
#[test]
fn what_is_written_by_the_number_of_a_replaced_file_goes_to_the_copy_that_its_bytes_became() {
    for cleanly in [true, false] {
        let (mut a, b) = two();
        let replaced = a.walk("old").unwrap();
        a.write("temp", "from a");
        a.rename("temp", "old");
        let fh = a.mount().open(replaced, WRITE).unwrap();
        later_by(&b, 3);
        b.write("old", "from b");
        b.mount().publish().unwrap();
        assert_eq!(a.pull(&b).unwrap(), MergeStep::Merged);
        assert_eq!(a.read_from(fh), "from a");
        a.write_to(replaced, fh, 6, " and more").unwrap();
        a.close(replaced, fh);
        a.restart(cleanly);
        sync(&a, &b);
        has(&b, "old=from b");
        has(&b, "=from a and more");
    }
}

/// As of any other file: what is removed stays so for those who have it open, and what is moved is
/// written to where it is.
#[test]
fn a_version_of_a_conflict_that_is_open_is_removed_replaced_and_moved_like_a_file() {
    for (name, shown) in [("new", 0), ("new", 1), ("old", 0), ("old", 1)] {
        for change in ["unlink", "replace", "move", "exchange", "be exchanged"] {
            let (a, b) = two();
            a.write(name, "one");
            b.write(name, "two");
            a.mkdir("sub");
            sync(&a, &b);
            let names = a.names(name);
            let (version, other) = (&names[shown], &names[1 - shown]);
            let (ino, fh) = a.open(version, WRITE);
            let exchange = |from: &str, to: &str| {
                let ((dir, from), (new_dir, to)) = (a.parent(from), a.parent(to));
                a.mount().rename(dir, from, new_dir, to, RenameMode::Exchange).unwrap();
            };
            let held = a.read_from(fh);
            let kept = a.tree().into_iter().find(|line| line.starts_with(&format!("{other}=")));
            let kept = kept.unwrap().split_once('=').unwrap().1.to_owned();
            match change {
                "unlink" => a.unlink(version),
                "replace" => {
                    a.write("tmp", "three");
                    a.rename("tmp", version);
                }
                "move" => a.rename(version, "sub/moved"),
                _ => {
                    a.write("sub/plain", "four");
                    let [from, to] = [version.as_str(), "sub/plain"];
                    if change == "exchange" { exchange(from, to) } else { exchange(to, from) }
                }
            }
            a.write_to(ino, fh, 0, "X").unwrap();
            let written = format!("X{}", &held[1..]);
            assert_eq!(a.read_from(fh), written, "{change} {version}");
            a.close(ino, fh);
            sync(&a, &b);
            let mut wanted = vec!["sub/".to_owned(), format!("{other}={kept}")];
            match change {
                "unlink" => (),
                "replace" => wanted.push(format!("{version}=three")),
                "move" => wanted.push(format!("sub/moved={written}")),
                _ => wanted.extend([format!("{version}=four"), format!("sub/plain={written}")]),
            }
            if name == "new" {
                wanted.push("old=0".to_owned());
            }
            wanted.sort();
            assert_eq!(a.tree(), wanted, "{change} {version}");
            assert_eq!(b.tree(), wanted, "{change} {version}");
        }
    }
}
