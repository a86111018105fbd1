//! The names of conflict copies: what is linked by one, and who must forget one that has gone.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Peer, sync, two};
use crate::{Ino, Keep, Observer, Outdated, PastView, PathChange, Version, Which, peers::hex};

/// Two devices that have both written `x`, and the name of the copy.
fn with_copy() -> (Peer, Peer, String) {
    let (a, b) = two();
    a.write("x", "from a");
    b.write("x", "from b!");
    sync(&a, &b);
    let copy = a.names("x@").remove(0);
    (a, b, copy)
}

fn content(peer: &Peer, name: &str) -> String {
    let (ino, fh) = peer.open(name, super::READ);
    let content = peer.read_from(fh);
    peer.close(ino, fh);
    content
}

#[test]
fn a_link_to_a_conflict_copy_is_one_to_the_copy() {
    for is_open in [false, true] {
        let (a, b, copy) = with_copy();
        let (shown, copied) = (content(&a, "x"), content(&a, &copy));
        let open = is_open.then(|| a.open(&copy, super::READ));
        let linked = a.mount().link(a.walk(&copy).unwrap(), Ino::ROOT, b"kept").unwrap();
        assert_eq!(linked.nlink, 2);
        assert_eq!(a.walk(&copy).unwrap(), linked.ino);
        assert_eq!(content(&a, "kept"), copied);
        if let Some((ino, fh)) = open {
            assert_eq!(a.read_from(fh), copied);
            assert_eq!(a.mount().getattr(ino).unwrap().ino, linked.ino);
        }
        sync(&a, &b);
        assert_eq!(
            [content(&b, "x"), content(&b, &copy), content(&b, "kept")],
            [shown, copied.clone(), copied]
        );
        assert_eq!(b.names("kept"), ["kept"]);
        // Both are names of one file.
        b.write("kept", "changed");
        assert_eq!(content(&b, &copy), "changed");
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<Outdated>>);

impl Observer for Heard {
    fn outdated(&self, what: Vec<Outdated>) {
        self.0.lock().extend(what);
    }
}

#[test]
fn the_kernel_is_told_of_a_copy_that_goes_when_its_conflict_is_settled() {
    let (a, _b, copy) = with_copy();
    let heard = Arc::new(Heard::default());
    a.mount().observe(heard.clone());
    a.resolve(b"x", &Keep::Ours).unwrap();
    assert_eq!(a.names("x"), ["x"]);
    let gone = Outdated::Name { dir: Ino::ROOT, name: copy.into_bytes() };
    assert!(heard.0.lock().contains(&gone), "{:?}", heard.0.lock());
}

#[test]
fn the_log_calls_a_copy_that_went_by_the_name_that_it_was_shown_under() {
    for name in ["x", "old"] {
        let (a, b) = two();
        a.write(name, "from a");
        b.write(name, "from b!");
        sync(&a, &b);
        let copy = a.names(&format!("{name}@")).remove(0);
        a.unlink(&copy);
        a.mount().publish().unwrap();
        let log = |path: Option<&str>| a.mount().log(path.map(str::as_bytes), 1, 10).unwrap();
        let removed = |version: &Version| {
            let removed = version.changes.iter().filter(|it| it.change == PathChange::Removed);
            removed.map(|it| String::from_utf8(it.path.clone()).unwrap()).collect::<Vec<_>>()
        };
        let last = log(None).remove(0);
        assert_eq!(removed(&last), [copy.as_str()]);
        assert_eq!(log(Some(&copy))[0].id, last.id, "what became of the copy");
        let of_name = removed(&log(Some(name))[0]);
        assert!(!of_name.iter().any(|it| it == name), "{name} is there: {of_name:?}");
    }
}

#[test]
fn directories_that_are_shown_as_one_are_one_link() {
    let (a, b) = two();
    a.mkdir("n");
    a.mkdir("n/other");
    sync(&a, &b);
    for peer in [&a, &b] {
        peer.mkdir("n/both");
        peer.mkdir("n/both/within");
    }
    // A name that is contested, and of which one is a directory.
    a.write("n/x", "a file");
    b.mkdir("n/x");
    sync(&a, &b);
    let links =
        |peer: &Peer, path: &str| peer.mount().getattr(peer.walk(path).unwrap()).unwrap().nlink;
    for peer in [&a, &b] {
        assert_eq!((links(peer, "n"), links(peer, "n/both")), (5, 3));
    }
    let version = a.mount().publish().unwrap();
    let past = a.mount().past(&Which::Id(hex(&version))).unwrap().map(PastView::new).unwrap();
    let n = past.lookup(Ino::ROOT, b"n").unwrap();
    assert_eq!(n.nlink, 5);
    // It follows what is done.
    a.rename("n/both", "both");
    assert_eq!((links(&a, "n"), links(&a, "both")), (4, 3));
    a.rename("both/within", "n/within");
    assert_eq!((links(&a, "n"), links(&a, "both")), (5, 2));
    a.rename("n/within", "both/again");
    a.rename("both", "n/back");
    assert_eq!((links(&a, "n"), links(&a, "n/back")), (5, 3));
    sync(&a, &b);
    assert_eq!((links(&b, "n"), links(&b, "n/back")), (5, 3));
}
