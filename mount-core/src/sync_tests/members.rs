//! What each role may do, and what strangers may not.

use std::{io::ErrorKind, path::Path, sync::Arc};

use cairnfs_store::{
    Secret, open,
    sim::{Call, Fault},
};
use parking_lot::Mutex;

use super::{DIR, ME, Peer, keys, store_options, sync, tell_secrets, two};
use crate::{
    Error, Ino, MergeStep, Mount, Observer, Result, Role, VersionId, charter::Origin,
    manifest::Manifest, verify,
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
    tell_secrets(&a, &c);
    c.pull(&a).unwrap();
    assert_eq!(a.tree(), c.tree());
    assert_eq!(c.mount().members().len(), 2);
}

/// Nobody else has the new one yet: what is sealed under it could be read by no other device.
#[test]
fn a_removal_that_fails_leaves_the_secret_that_is_sealed_under() {
    let mut failed = 0;
    for nth in 1..20 {
        let (mut a, b) = two();
        a.restart_without_cache();
        let before = a.keys().current();
        a.disk.inject(Fault::Fail { call: Call::Read, nth, kind: ErrorKind::Other });
        let remove = || a.mount().set_member(b.key.public(), "", None);
        if remove().is_ok() {
            continue;
        }
        failed += 1;
        assert_eq!(a.keys().current(), before, "read {nth} failed");
        a.write("after", "x");
        b.pull(&a).unwrap();
        assert_eq!(a.tree(), b.tree());
        remove().unwrap();
        assert_ne!(a.keys().current(), before);
    }
    assert!(failed > 0, "no removal failed");
}

#[test]
fn who_is_being_removed_is_not_given_the_new_secret_by_who_has_not_heard_of_it_yet() {
    let (a, removed) = two();
    let b = a.invite(Role::Writer);
    let given = |peer: &Peer| peer.mount().secrets(&removed.mount().epochs()).len();
    // The secret is made before the version is that says who is removed.
    let during = Arc::new(Mutex::new(None));
    let (mount, seen) = (a.mount().clone(), Arc::clone(&during));
    let key = removed.key.public();
    a.change_charter(move |charter, at| {
        *seen.lock() = Some(mount.secrets(&[]).len());
        charter.set_member(Origin { by: mount.shared().key, at }, key, "", None)
    });
    assert_eq!((during.lock().take(), given(&a)), (Some(1), 1));
    // It needs the secret to fetch that version.
    tell_secrets(&a, &b);
    b.write("meanwhile", "x");
    b.mount().publish().unwrap();
    assert_eq!((b.mount().epochs().len(), given(&b)), (2, 0));
    b.pull(&a).unwrap();
    assert_eq!(given(&b), 1);
}

/// As when it has fetched what a member sealed under a secret that it made up.
fn plant(peer: &Peer, epoch: u16, n: u8) {
    assert!(peer.keys().learn(epoch, Secret::new([n; 32])));
}

#[test]
fn nothing_is_sealed_under_a_secret_that_a_member_made_up_before_it_was_removed() {
    let (mut a, removed) = two();
    let c = a.invite(Role::Writer);
    // No number is higher.
    for peer in [&a, &removed, &c] {
        plant(peer, u16::MAX, 7);
    }
    a.mount().set_member(removed.key.public(), "", None).unwrap();
    // Nor is any of the same number smaller.
    let (epoch, _) = a.keys().current();
    for peer in [&removed, &c] {
        plant(peer, epoch, 0);
    }
    tell_secrets(&a, &c);
    assert_eq!(c.pull(&a).unwrap(), MergeStep::FastForward);
    a.restart(true);
    for peer in [&a, &c] {
        peer.write("new", "secret");
        let head = peer.mount().publish().unwrap();
        let fetched = removed.fetch(peer, head);
        assert!(matches!(fetched, Err(Error::MissingSecret { .. })), "{:?}", fetched.err());
    }
    sync(&a, &c);
}

#[test]
fn a_merge_with_what_knows_of_no_removal_is_sealed_as_what_knows_of_it() {
    let (a, b) = two();
    let c = a.invite(Role::Writer);
    b.pull(&a).unwrap();
    // It joined and was removed, and who did not hear of it seals as before.
    let removed = a.invite(Role::Writer);
    a.mount().set_member(removed.key.public(), "", None).unwrap();
    tell_secrets(&a, &c);
    for peer in [&b, &c] {
        peer.write(&format!("by {}", peer.key.public()), "x");
        tell_secrets(&a, peer);
        assert_eq!(peer.pull(&a).unwrap(), MergeStep::Merged);
        assert_eq!(peer.keys().current(), a.keys().current());
    }
    sync(&b, &c);
    assert_eq!(b.mount().epochs().len(), 2, "one secret was enough");
}

/// As when each of them has removed a device, without knowing of the other's doing so.
#[test]
fn two_who_began_an_epoch_of_one_number_apart_go_on_together() {
    let (a, b) = two();
    for (peer, n) in [(&a, 1), (&b, 2)] {
        plant(peer, 9, n);
        peer.keys().seal_under(9, &Secret::new([n; 32]));
        peer.write(&format!("sealed-by-{n}"), "x");
        peer.mount().publish().unwrap();
    }
    for (one, other) in [(&a, &b), (&b, &a)] {
        let fetched = one.fetch(other, other.mount().head().unwrap());
        assert!(matches!(fetched, Err(Error::MissingSecret { epoch: 9, .. })), "{fetched:?}");
    }
    for (one, other) in [(&a, &b), (&b, &a)] {
        tell_secrets(other, one);
    }
    sync(&a, &b);
    assert_eq!(a.names("sealed-by"), ["sealed-by-1", "sealed-by-2"]);
    b.write("after", "x");
    sync(&a, &b);
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

/// What was begun for it is given to the members of the version that is merged in between.
#[test]
fn a_secret_of_a_merge_that_failed_seals_nothing_once_another_version_was_merged() {
    let mut begun = 0;
    for nth in 1..30 {
        let (a, removed_by_a) = two();
        let [b, removed_by_b, mut writer, another] =
            [Role::Owner, Role::Writer, Role::Writer, Role::Writer].map(|role| a.invite(role));
        b.pull(&a).unwrap();
        a.mount().set_member(removed_by_a.key.public(), "", None).unwrap();
        b.mount().set_member(removed_by_b.key.public(), "", None).unwrap();
        for peer in [&writer, &another] {
            tell_secrets(&a, peer);
            tell_secrets(&b, peer);
            assert_eq!(peer.pull(&a).unwrap(), MergeStep::FastForward);
        }
        writer.restart_without_cache();
        let (fetch, _) = writer.fetch(&b, b.mount().head().unwrap()).unwrap();
        let known = writer.mount().epochs();
        writer.disk.inject(Fault::Fail { call: Call::Read, nth, kind: ErrorKind::Other });
        if writer.mount().merge_from(fetch).is_ok() || writer.mount().epochs() == known {
            continue;
        }
        begun += 1;
        another.write("in between", "x");
        assert_eq!(writer.pull(&another).unwrap(), MergeStep::FastForward);
        let is_member = |key| writer.mount().members().iter().any(|member| member.key == key);
        assert!(is_member(removed_by_b.key.public()), "it is given what a member is");
        tell_secrets(&writer, &removed_by_b);
        assert_eq!(writer.pull(&b).unwrap(), MergeStep::Merged);
        writer.write("new", "secret");
        let fetched = removed_by_b.fetch(&writer, writer.mount().publish().unwrap());
        assert!(matches!(fetched, Err(Error::MissingSecret { .. })), "read {nth} failed");
    }
    assert!(begun > 0, "no merge failed behind its secret");
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
