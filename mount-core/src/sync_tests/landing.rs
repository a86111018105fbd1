//! What is changed while a merge is made meets what the merge brings as if it had been changed a
//! moment before.

use super::{Peer, sync, two};
use crate::{Ino, Mount, RenameMode, SetXattr};

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
