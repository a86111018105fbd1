//! What each role may do, and what strangers may not.

use std::{path::Path, sync::Arc};

use cairnfs_store::open;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::{DIR, ME, Peer, keys, store_options, sync, two};
use crate::{
    Error, Ino, MergeStep, Mount, Observer, Result, Role, VersionId, manifest::Manifest, verify,
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

/// Makes a directory as soon as there is a new version, in the middle of a merge.
struct ChangesInMerge(Mutex<Option<Mount>>, Mutex<Option<Result<()>>>);

impl Observer for ChangesInMerge {
    fn head_changed(&self, _head: VersionId) {
        if let Some(mount) = self.0.lock().take() {
            *self.1.lock() = Some(mount.mkdir(ME, Ino::ROOT, b"d", 0o755).map(drop));
        }
    }
}

#[test]
fn what_a_writer_changed_before_it_knew_that_it_is_one_no_longer_is_kept() {
    let (a, b) = two();
    b.write("x", "1");
    a.mount().set_member(b.key.public(), "b", Some(Role::Reader)).unwrap();
    let changes = Arc::new(ChangesInMerge(Mutex::new(Some(b.mount().clone())), Mutex::default()));
    let head = a.mount().publish().unwrap();
    let (fetch, _) = b.fetch(&a, head).unwrap();
    b.mount().observe(Arc::clone(&changes) as Arc<dyn Observer>);
    let step = b.mount().merge_from(fetch).unwrap().step;
    assert_eq!(step, MergeStep::NotPermitted, "it may not make a version of both");
    let made = changes.1.lock().take();
    let is_refused = matches!(made, Some(Err(Error::ReadOnly { .. })));
    assert!(is_refused, "it could not be published: {made:?}");
    b.write("y", "2");
    assert_eq!(a.pull(&b).unwrap(), MergeStep::Merged);
    assert_eq!(b.pull(&a).unwrap(), MergeStep::FastForward);
    assert!(a.tree().ends_with(&["x=1".into(), "y=2".into()]), "{:?}", a.tree());
    assert_eq!(a.tree(), b.tree());
    let made = b.mount().mkdir(ME, Ino::ROOT, b"e", 0o755);
    assert!(matches!(made, Err(Error::ReadOnly { .. })), "{made:?}");
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

/// As when each of them has removed a device, without knowing of the other's doing so.
#[test]
fn two_who_began_an_epoch_of_one_number_apart_go_on_together() {
    let (a, b) = two();
    for (peer, n) in [(&a, 1), (&b, 2)] {
        peer.mount().learn_secrets(vec![(9, Zeroizing::new([n; 32]))]).unwrap();
        peer.write(&format!("sealed-by-{n}"), "x");
        peer.mount().publish().unwrap();
    }
    for (one, other) in [(&a, &b), (&b, &a)] {
        let fetched = one.fetch(other, other.mount().head().unwrap());
        assert!(matches!(fetched, Err(Error::MissingSecret { epoch: 9 })), "{fetched:?}");
    }
    for (one, other) in [(&a, &b), (&b, &a)] {
        one.mount().learn_secrets(other.mount().secrets(&[0])).unwrap();
    }
    sync(&a, &b);
    assert_eq!(a.names("sealed-by"), ["sealed-by-1", "sealed-by-2"]);
    b.write("after", "x");
    sync(&a, &b);
}

/// The members' secrets go from the one to the other, as when they meet.
fn tell_secrets(from: &Peer, to: &Peer) {
    to.mount().learn_secrets(from.mount().secrets(&[])).unwrap();
}

#[test]
fn what_is_new_after_two_removed_others_apart_can_be_read_by_neither_of_those() {
    let (a, removed_by_a) = two();
    let [b, removed_by_b, writer] =
        [Role::Owner, Role::Writer, Role::Writer].map(|role| a.invite(role));
    b.pull(&a).unwrap();
    let known = a.mount().epochs().len();
    a.mount().set_member(removed_by_a.key.public(), "", None).unwrap();
    b.mount().set_member(removed_by_b.key.public(), "", None).unwrap();
    // Each was a member for the other one still, and got the secret that was new there.
    tell_secrets(&a, &removed_by_b);
    tell_secrets(&b, &removed_by_a);
    for owner in [&a, &b] {
        tell_secrets(owner, &writer);
    }
    assert_eq!(writer.pull(&a).unwrap(), MergeStep::FastForward);
    assert_eq!(writer.mount().epochs().len(), known + 2);
    assert_eq!(writer.pull(&b).unwrap(), MergeStep::Merged);
    assert_eq!(writer.mount().epochs().len(), known + 3);
    for removed in [&removed_by_a, &removed_by_b] {
        let fetched = removed.fetch(&writer, writer.mount().head().unwrap());
        assert!(matches!(fetched, Err(Error::MissingSecret { .. })), "{:?}", fetched.err());
    }
    // Once is enough.
    for owner in [&a, &b] {
        tell_secrets(&writer, owner);
        assert_eq!(owner.pull(&writer).unwrap(), MergeStep::FastForward);
        assert_eq!(owner.mount().epochs().len(), known + 3);
    }
}

#[test]
fn a_merge_of_one_removal_leaves_the_secret_as_it_is() {
    let (a, b) = two();
    let c = a.invite(Role::Writer);
    a.mount().set_member(b.key.public(), "", None).unwrap();
    tell_secrets(&a, &c);
    let known = a.mount().epochs();
    c.write("x", "1");
    assert_eq!(c.pull(&a).unwrap(), MergeStep::Merged);
    assert_eq!(c.mount().epochs(), known);
}

#[test]
fn keys_that_lack_the_newest_secret_are_no_damage() {
    let (mut a, b) = two();
    a.mount().set_member(b.key.public(), "", None).unwrap();
    a.write("new", "secret");
    a.mount().stop().unwrap();
    a.mount = None;
    let disk = Arc::new(a.disk.clone());
    let opened = open(disk, Path::new(DIR), keys(), store_options()).map_err(Error::from);
    assert!(matches!(opened, Err(Error::MissingSecret { .. })), "{:?}", opened.err());
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
    let shared = a.mount().shared();
    let head = shared.core.read().head.manifest.id;
    let by = |author: &Peer| Manifest {
        author: author.key.public(),
        incarnation: 0,
        parents: vec![head],
        ops: 0,
        ..shared.vault.manifest(&head).unwrap().unwrap().as_ref().clone()
    };
    verify::follows(&by(&b), &shared.vault).unwrap();
    let result = verify::follows(&by(&c), &shared.vault);
    assert!(matches!(result, Err(Error::Rejected { .. })), "{result:?}");
}
