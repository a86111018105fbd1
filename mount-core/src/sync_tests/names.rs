//! The names of conflict copies: what is linked by one, and who must forget one that has gone.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Peer, sync, two};
use crate::{Ino, Keep, Observer, Outdated};

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
