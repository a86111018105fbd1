//! A device whose log has lost the record that says which version it stood on.

use std::{path::Path, sync::Arc};

use cairnfs_store::{BlobId, Kind, disk::Disk, open, repair};

use super::{DIR, Peer, bucket_id, keys, start, store_options, sync, two};
use crate::{
    Bucket, Error, MergeStep, Role, Salvaged, VersionId,
    repair_tests::{Record, records},
    writer::record::SaveRecord,
};

/// As if all records that begin a version had been given up or had rotted, and the versions `lost`;
/// repaired and started again.
fn salvage(peer: &mut Peer, lost: &[VersionId]) -> Salvaged {
    peer.mount().stop().unwrap();
    peer.mount = None;
    let is_lost = |it: &Record| it.is_checkpoint || (it.is_manifest() && lost.contains(&it.name));
    let intact = records(&peer.disk).into_iter().filter(|it| it.is_intact);
    intact.filter(is_lost).for_each(|it| it.rot(&peer.disk));
    let disk: Arc<dyn Disk> = Arc::new(peer.disk.clone());
    repair(&disk, Path::new(DIR), keys(), store_options()).unwrap();
    let opened = open(disk, Path::new(DIR), keys(), store_options()).unwrap();
    let mut bucket = Bucket {
        id: bucket_id(),
        device: Arc::clone(&peer.key),
        appender: opened.appender,
        blobs: opened.blobs,
        saves: opened.saves,
        left_out: opened.left_out,
        key_file: None,
    };
    let salvaged = bucket.salvage(0).unwrap().unwrap();
    drop(bucket);
    peer.mount = Some(start(&peer.disk, &peer.key, keys()).unwrap());
    assert_eq!(peer.mount().head(), Some(salvaged.version));
    salvaged
}

fn head(peer: &Peer) -> VersionId {
    peer.mount().publish().unwrap()
}

/// As if the manifest of a version of another's and the root of its tree had been fetched and saved, and no
/// more.
fn fetch_root(peer: &mut Peer, other: &Peer, version: VersionId) {
    let vault = &other.mount().shared().vault;
    let (_, manifest) = vault.blobs().describe(&BlobId(version)).unwrap();
    let root = vault.manifest(&manifest.id).unwrap().unwrap().root.0.unwrap();
    let op = peer.mount().shared().core.read().op;
    peer.restart_after(|appender| {
        for (kind, blob) in [(Kind::Manifest, manifest), (Kind::Node, root)] {
            appender.put(kind, &vault.blobs().get(&blob).unwrap()).unwrap();
        }
        SaveRecord { head: None, op, nodes: Vec::new(), files: Vec::new() }
    });
}

#[test]
fn what_others_know_of_a_version_that_is_lost_is_not_mistaken_for_what_is_done_next() {
    let (mut a, b) = two();
    sync(&a, &b);
    for (name, incarnation) in [("first", 1), ("second", 2)] {
        let left = head(&a);
        let mut lost = Vec::new();
        for version in ["1", "2"] {
            a.write(name, version);
            lost.push(head(&a));
            sync(&a, &b);
        }
        assert_eq!(salvage(&mut a, &lost).version, left);
        // Under the very numbers that others know with another meaning.
        for version in ["1", "2"] {
            a.write(&format!("{name} again"), version);
            head(&a);
        }
        assert_eq!(b.pull(&a).unwrap(), MergeStep::Merged);
        sync(&a, &b);
        assert_eq!(a.mount().incarnation(), incarnation);
    }
    assert_eq!(a.tree(), ["first again=2", "first=2", "old=0", "second again=2", "second=2"]);
}

#[test]
fn who_only_takes_from_others_goes_on_from_what_it_took_last() {
    let (a, mut b) = two();
    let mut c = a.invite(Role::Reader);
    b.write("mine", "1");
    sync(&a, &b);
    for peer in [&mut b, &mut c] {
        for name in ["next", "last"] {
            a.write(name, "1");
            assert_eq!(peer.pull(&a).unwrap(), MergeStep::FastForward);
        }
        assert_eq!(salvage(peer, &[]).version, head(&a));
        assert_eq!(peer.tree(), a.tree());
    }
    a.write("more", "1");
    assert_eq!(c.pull(&a).unwrap(), MergeStep::FastForward);
    b.write("mine", "2");
    sync(&a, &b);
    assert!(a.tree().contains(&"mine=2".to_owned()), "{:?}", a.tree());
}

#[test]
fn a_version_that_was_refused_takes_the_place_of_none() {
    let (a, mut b) = two();
    let mut c = a.invite(Role::Reader);
    b.write("mine", "1");
    sync(&a, &b);
    c.pull(&a).unwrap();
    let ours = head(&b);
    // It knows all that is known here, and says so of more.
    c.forge(|_, _| ());
    let pulled = b.pull(&c);
    assert!(matches!(pulled, Err(Error::Rejected { .. })), "{pulled:?}");
    fetch_root(&mut b, &c, head(&c));
    assert_eq!(salvage(&mut b, &[]).version, ours);
}

#[test]
fn a_version_of_which_something_is_lacking_takes_the_place_of_none_of_ours() {
    let (a, mut b) = two();
    b.write("mine", "1");
    sync(&a, &b);
    let ours = head(&b);
    a.write("long", &"x".repeat(100_000));
    fetch_root(&mut b, &a, head(&a));
    assert_eq!(salvage(&mut b, &[]).version, ours);
}

#[test]
fn who_has_given_up_parts_of_its_own_version_goes_on_from_what_it_took_since() {
    let (a, mut b) = two();
    let write_all = |peer: &Peer, text: &str| {
        (0..400).for_each(|n| peer.write(&format!("{n:0>200}"), text));
    };
    write_all(&b, "1");
    let ours = head(&b);
    sync(&a, &b);
    let is_node = |it: &Record| it.kind == 2;
    let nodes: Vec<_> = records(&b.disk).into_iter().filter(is_node).collect();
    write_all(&a, "2");
    assert_eq!(b.pull(&a).unwrap(), MergeStep::FastForward);
    // Any but the newest, the root among them, and what comes before the contested names.
    assert!(nodes.len() > 6, "{}", nodes.len());
    nodes[nodes.len() / 2].rot(&b.disk);
    assert_eq!(salvage(&mut b, &[]).version, head(&a));
    assert_eq!(b.tree(), a.tree());
    assert_ne!(ours, head(&a));
}
