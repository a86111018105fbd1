//! Directories that another device has removed while somebody is in them.

use super::{Peer, WRITE, open_files::has, sync, two};
use crate::{Fh, Ino, SetAttr};

fn rmdir(peer: &Peer, path: &str) {
    let (dir, name) = peer.parent(path);
    peer.mount().rmdir(dir, name).unwrap();
}

/// Two devices, the first of which has `top/sub/f` open, which the other has removed with `top`, if
/// it is to go too.
fn with_open_file(removes_top: bool) -> (Peer, Peer, (Ino, Fh)) {
    let (a, b) = two();
    a.mkdir("top");
    a.mkdir("top/sub");
    let mode = SetAttr { mode: Some(0o700), ..SetAttr::default() };
    a.mount().setattr(a.walk("top/sub").unwrap(), None, mode).unwrap();
    a.write("top/sub/f", "one");
    sync(&a, &b);
    let open = a.open("top/sub/f", WRITE);
    b.unlink("top/sub/f");
    rmdir(&b, "top/sub");
    if removes_top {
        rmdir(&b, "top");
    }
    (a, b, open)
}

fn write_on(peer: &Peer, (ino, fh): (Ino, Fh)) {
    peer.write_to(ino, fh, 3, " and two").unwrap();
    peer.close(ino, fh);
}

#[test]
fn what_is_written_to_a_file_that_went_with_its_directories_brings_them_back() {
    for cleanly in [true, false] {
        let (mut a, b, open) = with_open_file(true);
        b.write("f", "of the same name, and nothing to do with it");
        a.pull(&b).unwrap();
        write_on(&a, open);
        a.restart(cleanly);
        sync(&a, &b);
        let tree = b.tree();
        let brought = ["old=0", "top/", "top/sub/", "top/sub/f=one and two"];
        assert_eq!(tree[1..], brought, "{tree:?}");
        assert!(tree[0].starts_with("f=of the same name"), "{tree:?}");
        assert!(b.mount().conflicts(None).unwrap().is_empty());
        let sub = b.mount().getattr(b.walk("top/sub").unwrap()).unwrap();
        assert_eq!(sub.mode, 0o700);
    }
}

#[test]
fn a_directory_is_brought_back_under_what_stands_above_it_wherever_that_is() {
    let (a, b, open) = with_open_file(false);
    b.rename("top", "moved");
    a.pull(&b).unwrap();
    write_on(&a, open);
    sync(&a, &b);
    assert_eq!(b.tree(), ["moved/", "moved/sub/", "moved/sub/f=one and two", "old=0"]);
}

#[test]
fn a_file_comes_back_in_a_directory_that_was_made_again() {
    let (a, b, open) = with_open_file(true);
    b.mkdir("top");
    b.mkdir("top/sub");
    b.write("top/sub/g", "new");
    a.pull(&b).unwrap();
    write_on(&a, open);
    sync(&a, &b);
    let tree = ["old=0", "top/", "top/sub/", "top/sub/f=one and two", "top/sub/g=new"];
    assert_eq!(b.tree(), tree);
    assert!(b.mount().conflicts(None).unwrap().is_empty());
}

#[test]
fn a_file_that_has_the_name_of_a_directory_that_comes_back_stays_beside_it() {
    let (a, b, open) = with_open_file(true);
    b.write("top", "a file by now");
    a.pull(&b).unwrap();
    let (ino, fh) = a.open("top", WRITE);
    write_on(&a, open);
    a.write_to(ino, fh, 0, "A").unwrap();
    a.close(ino, fh);
    sync(&a, &b);
    has(&b, "top/sub/f=one and two");
    has(&b, "=A file by now");
    assert_eq!(a.names("top@").len(), 1);
}

/// As above, but the directory goes by another merge than the file, or is removed here.
#[test]
fn directories_that_go_after_the_file_are_brought_back_too() {
    for here in [true, false] {
        let (a, b, open) = with_open_file(false);
        if here {
            a.pull(&b).unwrap();
            rmdir(&a, "top");
        } else {
            a.pull(&b).unwrap();
            rmdir(&b, "top");
            a.pull(&b).unwrap();
        }
        write_on(&a, open);
        sync(&a, &b);
        assert_eq!(b.tree(), ["old=0", "top/", "top/sub/", "top/sub/f=one and two"]);
    }
}
