//! Directories that another device has removed while somebody is in them.

use super::{ME, Peer, WRITE, open_files::has, sync, two};
use crate::{DirEntry, Error, Fh, Ino, Kind, MergeStep, Role, SetAttr, inodes::GONE_DIRS_MAX};

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

fn names_in(peer: &Peer, ino: Ino, fh: Fh) -> Vec<String> {
    let mut names = Vec::new();
    let mut take = |entry: DirEntry| {
        names.push(String::from_utf8(entry.name).unwrap());
        true
    };
    peer.mount().readdir(ino, fh, 0, true, &mut take).unwrap();
    names
}

/// As by somebody who stands in one and has opened the other.
#[test]
fn a_directory_that_was_removed_elsewhere_is_an_empty_one_for_who_is_in_it() {
    let (a, b) = two();
    let c = a.invite(Role::Writer);
    for dir in ["top", "top/cwd", "top/open"] {
        a.mkdir(dir);
    }
    a.write("top/open/f", "1");
    for other in [&b, &c] {
        other.pull(&a).unwrap();
    }
    let (cwd, open) = (a.walk("top/cwd").unwrap(), a.walk("top/open").unwrap());
    let fh = a.mount().opendir(open).unwrap();
    b.unlink("top/open/f");
    for dir in ["top/cwd", "top/open", "top"] {
        rmdir(&b, dir);
    }
    a.pull(&b).unwrap();
    assert_eq!(names_in(&a, open, fh), [".", ".."]);
    for ino in [cwd, open] {
        let attr = a.mount().getattr(ino).unwrap();
        assert_eq!((attr.ino, attr.kind, attr.nlink, attr.mode), (ino, Kind::Dir, 0, 0o755));
        let fh = a.mount().opendir(ino).unwrap();
        assert_eq!(names_in(&a, ino, fh), [".", ".."]);
        a.mount().releasedir(fh);
        assert!(matches!(a.mount().lookup(ino, b"f"), Err(Error::NotFound)));
        assert!(matches!(a.mount().mkdir(ME, ino, b"new", 0o755), Err(Error::NotFound)));
    }
    // One who did not know of it has put something in it: for the kernel it is another one then.
    c.write("top/cwd/new", "2");
    a.pull(&c).unwrap();
    assert_ne!(a.walk("top/cwd").unwrap(), cwd);
    has(&a, "top/cwd/new=2");
    assert_eq!(names_in(&a, cwd, a.mount().opendir(cwd).unwrap()), [".", ".."]);
    a.mount().forget(open, 1);
    assert!(matches!(a.mount().getattr(open), Err(Error::Stale)), "it is forgotten");
}

#[test]
fn of_directories_that_were_removed_elsewhere_many_are_remembered_and_all_that_are_open() {
    const MORE: usize = 100;
    let (a, b) = two();
    a.mkdir("n");
    let dir = a.walk("n").unwrap();
    let make = |n: usize| a.mount().mkdir(ME, dir, format!("{n}").as_bytes(), 0o755).unwrap().ino;
    let all: Vec<Ino> = (0..GONE_DIRS_MAX + MORE).map(make).collect();
    let first = a.mount().opendir(all[0]).unwrap();
    b.pull(&a).unwrap();
    let stand = || all.iter().filter(|ino| a.mount().getattr(**ino).is_ok()).count();
    for some in [0..MORE, MORE..all.len()] {
        for n in some {
            rmdir(&b, &format!("n/{n}"));
        }
        assert_eq!(a.pull(&b).unwrap(), MergeStep::FastForward);
    }
    assert_eq!(a.tree(), ["n/", "old=0"]);
    assert_eq!(stand(), GONE_DIRS_MAX + 1);
    assert!(a.mount().getattr(all[0]).is_ok(), "it is open");
    assert!(a.mount().getattr(all[all.len() - 1]).is_ok(), "it went last");
    a.mount().releasedir(first);
}
