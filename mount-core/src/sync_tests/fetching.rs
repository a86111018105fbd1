//! What is fetched, and the versions that come with it.

use std::collections::BTreeSet;

use cairnfs_merge::{Content, Node, NodeId, Reg, Tree};
use cairnfs_store::{
    Appender, BlobRef, Kind,
    map::{MapNode, Root},
    sim,
};

use super::{ME, Peer, forging::is_refused, sync, two};
use crate::{
    Error, Ino, MergeStep, OpenFlags, file::Data, tree::keys, vault::offset_key,
    writer::record::SaveRecord,
};

/// A map node as FORMAT.md has it, of keys of one byte; those of a leaf have no value.
fn put_node(appender: &mut Appender, level: u8, entries: &[(u8, Option<BlobRef>)]) -> BlobRef {
    let mut bytes = vec![1, level];
    for (key, child) in entries {
        bytes.extend([0, 1, *key]);
        match child {
            Some(child) => {
                bytes.extend(child.id.0);
                bytes.extend(child.len.to_le_bytes());
            }
            None => bytes.push(0),
        }
    }
    appender.put(Kind::Node, &bytes).unwrap()
}

/// The key of an entry of a map node, and its value or child.
type Entry = (Vec<u8>, Vec<u8>);

/// As [`put_node`], of whatever entries.
fn put_entries(appender: &mut Appender, level: u8, entries: &[Entry]) -> BlobRef {
    let (mut bytes, mut before) = (vec![1, level], &[][..]);
    for (key, value) in entries {
        let shared = before.iter().zip(key).take_while(|(a, b)| a == b).count();
        put_len(&mut bytes, shared);
        put_len(&mut bytes, key.len() - shared);
        bytes.extend(&key[shared..]);
        if level == 0 {
            put_len(&mut bytes, value.len());
        }
        bytes.extend(value);
        before = key;
    }
    appender.put(Kind::Node, &bytes).unwrap()
}

/// As postcard has lengths, too.
fn put_len(bytes: &mut Vec<u8>, len: usize) {
    bytes.extend(postcard::to_stdvec(&len).unwrap());
}

/// What a node above says of its child.
fn child(blob: BlobRef) -> Vec<u8> {
    [&blob.id.0[..], &blob.len.to_le_bytes()].concat()
}

fn entries(node: &MapNode) -> Vec<Entry> {
    let all = 0..node.len();
    all.map(|index| (node.key(index).to_vec(), node.value(index).to_vec())).collect()
}

/// The tree at `blob` with an entry in a leaf of its own besides, which the leaf before has already;
/// nothing if there is no such leaf.
fn twice_in(appender: &mut Appender, blob: BlobRef) -> Option<BlobRef> {
    let node = MapNode::decode(appender.blobs().get(&blob).unwrap()).unwrap();
    let mut all = entries(&node);
    // The first has the root.
    for index in 1..node.len() {
        let below = node.child(index)?;
        if node.level() > 1 {
            let Some(below) = twice_in(appender, below) else { continue };
            all[index].1 = child(below);
            return Some(put_entries(appender, node.level(), &all));
        }
        let leaf = MapNode::decode(appender.blobs().get(&below).unwrap()).unwrap();
        if leaf.len() > 2 && leaf.key(leaf.len() - 1).starts_with(&keys::all_nodes()) {
            let (key, value) = entries(&leaf).swap_remove(1);
            let second = put_entries(appender, 0, &[(key.clone(), value)]);
            all.insert(index + 1, (key, child(second)));
            return Some(put_entries(appender, 1, &all));
        }
    }
    None
}

#[test]
fn a_map_node_of_our_own_that_reaches_into_its_neighbours_place_is_rejected() {
    let (a, mut b) = two();
    for n in 0..600 {
        a.write(&format!("file-{n}"), &format!("{n:0>200}"));
    }
    sync(&a, &b);
    b.forge(|appender, version| {
        let root = twice_in(appender, version.root.0.unwrap()).expect("there are enough files");
        version.root = Root(Some(root));
    });
    is_refused(&a, &b, "not where it belongs");
}

#[test]
fn a_node_of_a_files_map_that_is_in_two_places_is_rejected() {
    const LEVELS: u8 = 12;
    let (a, mut b) = two();
    for level in 0..=LEVELS {
        b.write(&format!("file-{level}"), &"0123456789".repeat(1_000));
    }
    b.mount().publish().unwrap();
    let op = b.mount().shared().core.read().op;
    let mut roots = Vec::new();
    b.restart_after(|appender| {
        let chunk = appender.put(Kind::Chunk, &[7; 5000]).unwrap();
        let extent = (offset_key(0).to_vec(), postcard::to_stdvec(&chunk).unwrap());
        roots.push(put_entries(appender, 0, &[extent]));
        for level in 1..=LEVELS {
            // It can be reached in three ways, what lies below it in nine, and so on.
            let below = child(*roots.last().unwrap());
            let places = [0, 1_u64 << (2 * level + 14), 2_u64 << (2 * level + 14)];
            let places = places.map(|at| (offset_key(at).to_vec(), below.clone()));
            roots.push(put_entries(appender, level, &places));
        }
        SaveRecord { head: None, op, nodes: Vec::new(), files: Vec::new() }
    });
    // Each is the map of a file of its own, too: there it is where it belongs.
    for (level, root) in (0..).zip(roots) {
        forge_content(&b, &format!("file-{level}"), |content| {
            content.len = 1 << 50;
            content.body = Data::Map { root: Root(Some(root)), stored_bytes: 5000 };
        });
    }
    is_refused(&a, &b, "not where it belongs");
}

/// Has `peer` publish a version with the tree that `put` makes.
fn forge(peer: &mut Peer, put: impl FnOnce(&mut Appender) -> BlobRef) {
    peer.forge(|appender, version| version.root = Root(Some(put(appender))));
}

#[test]
fn a_map_node_that_reaches_into_its_neighbours_place_is_rejected() {
    let (a, mut b) = two();
    forge(&mut b, |appender| {
        let leaf = |appender: &mut Appender, key| put_node(appender, 0, &[(key, None)]);
        let (first, second) = (leaf(appender, 2), leaf(appender, 3));
        // It can be reached in two ways, what lies below it in four, and so on.
        let left = put_node(appender, 1, &[(2, Some(first)), (3, Some(second))]);
        let right = put_node(appender, 1, &[(3, Some(second))]);
        put_node(appender, 2, &[(2, Some(left)), (3, Some(right))])
    });
    let result = a.fetch(&b, b.mount().head().unwrap());
    let is_it = |why: &str| why.contains("not where it belongs");
    assert!(matches!(&result, Err(Error::Rejected { why }) if is_it(why)), "{result:?}");
}

#[test]
fn a_fetch_brings_only_what_is_lacking_and_goes_on_where_it_was_cut() {
    let (a, b) = two();
    for n in 0..300 {
        a.write(&format!("file-{n}"), &format!("{n:0>3000}"));
    }
    sync(&a, &b);
    a.write("file-7", "changed");
    a.mount().publish().unwrap();
    let head = a.mount().head().unwrap();
    let (fetch, blobs) = b.fetch(&a, head).unwrap();
    assert!(blobs < 20, "{blobs} blobs for one small change");
    drop(fetch);
    let (fetch, again) = b.fetch(&a, head).unwrap();
    assert_eq!(again, 0, "everything was kept");
    b.mount().merge_from(fetch).unwrap();
    assert_eq!(a.tree(), b.tree());
}

#[test]
fn many_versions_behind_is_one_fetch() {
    let (a, b) = two();
    for n in 0..20 {
        a.write("old", &format!("version {n}"));
        a.mount().publish().unwrap();
    }
    assert_eq!(b.pull(&a).unwrap(), MergeStep::FastForward);
    assert_eq!(a.tree(), b.tree());
}

#[test]
fn however_many_versions_were_missed_they_are_asked_for_in_lists() {
    const VERSIONS: usize = 100;
    const IN_A_LIST: usize = 10;
    let (a, b) = two();
    for n in 0..VERSIONS {
        a.write("old", &format!("version {n}"));
        a.mount().publish().unwrap();
    }
    let (head, have) = (a.mount().head().unwrap(), b.mount().head().unwrap());
    let mut fetch = b.mount().fetch(head).unwrap();
    let (mut lists, mut rounds) = (0, 0);
    while !fetch.is_complete() {
        let wanted = fetch.wanted(VERSIONS).unwrap();
        if let Some(version) = fetch.unlisted() {
            let list = a.mount().ancestry(&version, &[have], IN_A_LIST).unwrap();
            assert_eq!((list[0], list.len()), (version, IN_A_LIST));
            fetch.expect_ancestors(&list);
            lists += 1;
        }
        let blobs = wanted.iter().map(|id| a.mount().sealed(id).unwrap().unwrap());
        fetch.supply(blobs.collect()).unwrap();
        rounds += 1;
    }
    assert_eq!(lists, VERSIONS / IN_A_LIST);
    assert!(rounds < 3 * lists, "{rounds} rounds for {lists} lists");
    assert_eq!(b.mount().merge_from(fetch).unwrap().step, MergeStep::FastForward);
}

#[test]
fn the_log_holds_the_versions_of_all_devices_each_once() {
    let (a, b) = two();
    a.write("x", "a");
    b.write("y", "b");
    sync(&a, &b);
    a.write("z", "a");
    sync(&a, &b);
    let log = a.mount().log(None, 100, 100).unwrap();
    let ids: BTreeSet<_> = log.iter().map(|version| version.id).collect();
    assert_eq!(ids.len(), log.len());
    let changed = |name: &str| {
        log.iter()
            .filter(|version| version.changes.iter().any(|change| change.path == name.as_bytes()))
            .count()
    };
    assert_eq!((changed("x"), changed("z")), (1, 1));
    assert_eq!(log.iter().filter(|version| version.parents.len() == 2).count(), 1);
    let authors: BTreeSet<_> = log.iter().map(|it| it.author).collect();
    assert_eq!(authors.len(), 2);
    let mut damage = Vec::new();
    let mut found =
        |path: Option<&[u8]>, what: &str| damage.push((path.map(<[u8]>::to_vec), what.to_owned()));
    b.mount().check(&mut |_, _| true, &mut found).unwrap();
    assert!(damage.is_empty(), "{damage:?}");
}

#[test]
fn what_a_failed_save_took_with_it_is_fetched_again() {
    let (a, b) = two();
    b.write("new", &"b".repeat(100_000));
    b.mount().publish().unwrap();
    let (fetch, _) = a.fetch(&b, b.mount().head().unwrap()).unwrap();
    a.mkdir("d");
    for nth in 1..20 {
        let kind = std::io::ErrorKind::StorageFull;
        a.disk.inject(sim::Fault::Fail { call: sim::Call::Write, nth, kind });
    }
    let save = || {
        let (tell, told) = crossbeam_channel::bounded(1);
        a.mount().save(Box::new(move |result| tell.send(result).unwrap()));
        told.recv().unwrap()
    };
    assert!(matches!(save(), Err(Error::NoSpace)));
    assert!((0..100).any(|_| save().is_ok()), "there is space again");
    let merged = a.mount().merge_from(fetch);
    assert!(matches!(merged, Err(Error::Busy)), "{merged:?}");
    sync(&a, &b);
    assert_eq!(a.names("new"), ["new"]);
}

/// Has the file `name` of `peer` be what `claim` makes of it.
fn forge_content(peer: &Peer, name: &str, claim: impl FnOnce(&mut Content<Data>)) {
    let mut core = peer.mount().shared().core.write();
    let children = core.tree.children(&NodeId::Root, None, 99).unwrap();
    let id = children.iter().find(|child| child.0.as_bytes() == name.as_bytes()).unwrap().1;
    let mut node = Node::clone(&core.tree.node(&id).unwrap().unwrap());
    let (&op, content) = node.content.last().unwrap();
    let mut content = content.clone();
    claim(&mut content);
    node.content = Reg::one(op, content);
    core.tree.replay([(id, Some(node.into()))].into()).unwrap();
    core.unsaved.insert(id);
}

#[test]
fn a_symbolic_link_that_claims_to_be_longer_than_any_is_not_read_and_not_believed() {
    let (a, b) = two();
    let link = b.mount().symlink(ME, Ino::ROOT, b"link", b"target").unwrap().ino;
    forge_content(&b, "link", |content| {
        content.len = 1 << 62;
        content.body = Data::Map { root: Root::EMPTY, stored_bytes: 1 << 62 };
    });
    let read = b.mount().readlink(link);
    assert!(matches!(read, Err(Error::Damaged { .. })), "{read:?}");
    let pulled = a.pull(&b);
    let is_it = |why: &str| why.contains("too long");
    assert!(matches!(&pulled, Err(Error::Rejected { why }) if is_it(why)), "{pulled:?}");
}

#[test]
fn a_file_that_claims_to_store_more_or_less_than_it_does_is_read_and_written() {
    for claimed in [1, u64::MAX] {
        let (a, b) = two();
        let text = "0123456789".repeat(50_000);
        b.write("file", &text);
        b.mount().publish().unwrap();
        forge_content(&b, "file", |content| {
            let Data::Map { stored_bytes, .. } = &mut content.body else { panic!("it is short") };
            *stored_bytes = claimed;
        });
        a.pull(&b).unwrap();
        let (ino, fh) = a.open("file", OpenFlags { write: true, ..OpenFlags::default() });
        a.write_to(ino, fh, 70_000, "changed").unwrap();
        a.close(ino, fh);
        a.mount().publish().unwrap();
        let mut changed = text;
        changed.replace_range(70_000..70_007, "changed");
        assert!(a.tree().contains(&format!("file={changed}")));
    }
}

#[test]
fn a_blob_that_is_here_and_said_to_be_of_another_length_is_refused() {
    for (times, more) in [(1_000, 1), (1_000, u32::MAX), (50_000, 1)] {
        let (a, b) = two();
        let text = "0123456789".repeat(times);
        b.write("here", &text);
        sync(&a, &b);
        b.write("again", &text);
        b.mount().publish().unwrap();
        forge_content(&b, "again", |content| {
            let (Data::Chunk(blob) | Data::Map { root: Root(Some(blob)), .. }) = &mut content.body
            else {
                panic!("it is short")
            };
            blob.len = blob.len.wrapping_add(more);
            if let Data::Chunk(blob) = content.body {
                content.len = blob.len.into();
            }
        });
        is_refused(&a, &b, "length");
    }
}
