//! What is changed while a merge is made meets what the merge brings as if it had been changed a
//! moment before.

use super::{Peer, sync, two};
use crate::{Ino, Mount, RenameMode, SetXattr, Settings, Strategy, random_load::write_all};

/// `a` has a directory with a file, and so has everybody.
fn two_with_a_directory() -> (Peer, Peer) {
    let (a, b) = two();
    a.mkdir("d");
    a.write("d/f", "1");
    a.mkdir("x");
    sync(&a, &b);
    (a, b)
}

/// Merges what `b` did into `a`, where `change` is done meanwhile, and then all into both.
fn merge_while(a: &Peer, b: &Peer, change: impl FnOnce(&Mount) + Send + 'static) {
    b.mount().publish().unwrap();
    let (fetch, _) = a.fetch(b, b.mount().head().unwrap()).unwrap();
    a.write("mine", "published before the merge");
    a.once_published(change);
    a.mount().merge_from(fetch).unwrap();
    sync(a, b);
}

fn remove_directory(mount: &Mount) {
    let dir = mount.lookup(Ino::ROOT, b"d").unwrap().ino;
    mount.unlink(dir, b"f").unwrap();
    mount.rmdir(Ino::ROOT, b"d").unwrap();
}

#[test]
fn what_is_brought_back_from_a_directory_that_was_moved_leaves_the_moves_above_it() {
    let (a, b) = two_with_a_directory();
    b.rename("d", "x/d");
    b.rename("x", "y");
    b.mount().setxattr(b.walk("y").unwrap(), b"user.k", b"v", SetXattr::Any).unwrap();
    merge_while(&a, &b, remove_directory);
    assert_eq!(a.tree(), ["mine=published before the merge", "old=0", "y/", "y/d/", "y/d/f=1"]);
    assert_eq!(a.mount().getxattr(a.walk("y").unwrap(), b"user.k").unwrap(), b"v");
}

#[test]
fn what_was_removed_with_a_directory_that_is_being_moved_is_brought_back() {
    let (a, b) = two_with_a_directory();
    remove_directory(b.mount());
    merge_while(&a, &b, |mount| {
        mount.rename(Ino::ROOT, b"d", Ino::ROOT, b"e", RenameMode::Replace).unwrap();
    });
    assert_eq!(a.tree(), ["e/", "e/f=1", "mine=published before the merge", "old=0", "x/"]);
}

/// Both have a text, and merge its changes line by line.
fn two_with_a_text() -> (Peer, Peer) {
    let (a, b) = two();
    let settings = Settings { strategy: Strategy::MergeText, rules: Vec::new() };
    a.mount().set_settings(settings).unwrap();
    a.write("notes.txt", "one\ntwo\nthree\n");
    sync(&a, &b);
    a.write("notes.txt", "ONE\ntwo\nthree\n");
    b.write("notes.txt", "one\ntwo\nTHREE\n");
    (a, b)
}

#[test]
fn what_a_strategy_decides_stays_where_the_file_is_renamed_meanwhile() {
    let (a, b) = two_with_a_text();
    merge_while(&a, &b, |mount| {
        let (from, to) = (b"notes.txt", b"renamed.txt");
        mount.rename(Ino::ROOT, from, Ino::ROOT, to, RenameMode::Replace).unwrap();
    });
    let tree = a.tree();
    assert_eq!(
        tree,
        ["mine=published before the merge", "old=0", "renamed.txt=ONE\ntwo\nTHREE\n"],
        "{tree:?}"
    );
}

#[test]
fn what_a_strategy_decides_stays_where_the_file_is_written_meanwhile() {
    let (a, b) = two_with_a_text();
    merge_while(&a, &b, |mount| {
        let ino = mount.lookup(Ino::ROOT, b"notes.txt").unwrap().ino;
        mount.setxattr(ino, b"user.k", b"v", SetXattr::Any).unwrap();
        write_all(mount, ino, 0, b"ZERO").unwrap();
    });
    let tree = a.tree();
    for text in ["=ZERO", "=ONE\ntwo\nTHREE\n"] {
        assert!(tree.iter().any(|line| line.contains(text)), "{text} in {tree:?}");
    }
}
