//! What each role may do, and what strangers may not.

use std::collections::HashMap;

use super::{ME, Peer, two};
use crate::{
    Error, Ino, MergeStep, Role,
    manifest::Manifest,
    versions::{self, Known},
};

#[test]
fn a_reader_reads_and_cannot_write() {
    let a = Peer::first();
    let b = a.invite(Role::Reader);
    assert!(matches!(b.mount().mkdir(ME, Ino::ROOT, b"d", 0o755), Err(Error::ReadOnly { .. })));
    a.write("x", "1");
    b.pull(&a).unwrap();
    assert_eq!(a.tree(), b.tree());
    a.mount().set_member(b.key.public(), "b", Some(Role::Writer)).unwrap();
    b.pull(&a).unwrap();
    b.mkdir("d");
}

#[test]
fn who_is_removed_cannot_read_what_is_new_and_the_others_learn_the_secret() {
    let (a, b) = two();
    let c = a.invite(Role::Writer);
    a.mount().set_member(b.key.public(), "", None).unwrap();
    a.write("new", "secret");
    a.mount().publish().unwrap();
    let head = a.mount().head().unwrap();
    assert!(matches!(b.fetch(&a, head), Err(Error::MissingSecret { .. })));
    assert!(matches!(c.fetch(&a, head), Err(Error::MissingSecret { .. })));
    c.mount().learn_secrets(a.mount().secrets(&c.mount().epochs())).unwrap();
    c.pull(&a).unwrap();
    assert_eq!(a.tree(), c.tree());
    assert_eq!(c.mount().members().len(), 2);
}

#[test]
fn what_strangers_publish_is_rejected() {
    let (a, b) = two();
    a.write("y", "2");
    b.write("x", "1");
    let stranger = Peer::first();
    stranger.write("evil", "x");
    stranger.mount().publish().unwrap();
    let result = a.pull(&stranger);
    assert!(matches!(result, Err(Error::Rejected { .. })), "{result:?}");
    assert_eq!(a.pull(&b).unwrap(), MergeStep::Merged);
}

#[test]
fn what_readers_publish_is_rejected() {
    let (a, b) = two();
    let c = a.invite(Role::Reader);
    a.mount().publish().unwrap();
    // No program of ours makes such a version for a reader.
    let (shared, none) = (a.mount().shared(), HashMap::new());
    let known = Known { new: &none, shared };
    let head = shared.core.read().head.manifest.id;
    let by = |author: &Peer| Manifest {
        author: author.key.public(),
        incarnation: 0,
        parents: vec![head],
        ops: 0,
        ..known.find(&head).unwrap().unwrap().as_ref().clone()
    };
    versions::verify(&by(&b), &known).unwrap();
    let result = versions::verify(&by(&c), &known);
    assert!(matches!(result, Err(Error::Rejected { .. })), "{result:?}");
}
