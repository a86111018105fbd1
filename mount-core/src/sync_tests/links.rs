//! A file with several names, one of which is contested: what has the others goes on under them.

use super::{Peer, WRITE, settling::link, sync, two};

/// `a` has a file `log` that is called `h` too, and `b` a later file `log` of its own; the two have met.
fn two_with_a_contested_name() -> (Peer, Peer) {
    let (a, b) = two();
    a.write("log", "a");
    link(&a, "log", "h");
    for n in 0..9 {
        b.write("old", &n.to_string());
        b.mount().publish().unwrap();
    }
    b.write("log", "b");
    (a, b)
}

fn content(peer: &Peer, name: &str) -> String {
    let (ino, fh) = peer.open(name, super::READ);
    let content = peer.read_from(fh);
    peer.mount().release(ino, fh, Box::new(|_| ()));
    content
}

#[test]
fn a_handle_on_a_name_that_nobody_contests_writes_to_that() {
    let (a, b) = two_with_a_contested_name();
    let (ino, fh) = a.open("h", WRITE);
    a.pull(&b).unwrap();
    a.write_to(ino, fh, 0, "through the handle").unwrap();
    a.close(ino, fh);
    assert_eq!(content(&a, "h"), "through the handle");
    assert_eq!(content(&a, "log"), "b");
    a.mount().publish().unwrap();
    assert_eq!(content(&a, "h"), "through the handle");
    sync(&a, &b);
    assert_eq!((content(&b, "h"), content(&b, "log")), ("through the handle".into(), "b".into()));
}

#[test]
fn what_is_written_to_a_name_that_nobody_contests_is_published_there() {
    let (a, b) = two_with_a_contested_name();
    a.pull(&b).unwrap();
    a.write("h", "new");
    a.mount().publish().unwrap();
    assert_eq!(content(&a, "h"), "new");
    sync(&a, &b);
    assert_eq!((content(&b, "h"), content(&b, "log")), ("new".into(), "b".into()));
}

#[test]
fn a_name_shows_the_version_that_has_it_also_where_another_name_is_contested() {
    for n in 0..8 {
        let (a, b) = two();
        a.write("g", "base");
        link(&a, "g", "h");
        sync(&a, &b);
        a.rename("g", "f");
        a.write("f", &format!("a{n}"));
        b.write("h", &format!("b{n}"));
        b.write("f", "another");
        sync(&a, &b);
        for peer in [&a, &b] {
            let copies = peer.names("h@");
            let shown = content(peer, "h");
            assert_eq!(copies.len(), 1, "{:?}", peer.tree());
            assert_ne!(shown, content(peer, &copies[0]), "{:?}", peer.tree());
        }
    }
}
