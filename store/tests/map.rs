//! The ordered Merkle map against `BTreeMap`.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]
#![allow(clippy::big_endian_bytes, reason = "keys in the order of their numbers")]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use cairnfs_store::map::{Edit, MapReader, Root, apply};
use cairnfs_store::sim::SimDisk;
use cairnfs_store::{Appender, BlobRef, Error, KeyRing, Kind, Options, Secret, create};
use proptest::prelude::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

struct Store {
    appender: Appender,
    reader: MapReader,
}

impl Store {
    fn new() -> Self {
        let keys = KeyRing::new([(0, Secret::new([5; 32]))]).unwrap();
        let options = Options { reserve_bytes: 0, index_thread: false, ..Options::default() };
        let (appender, blobs) =
            create(Arc::new(SimDisk::new(1)), Path::new("/b"), keys, options).unwrap();
        Self { appender, reader: MapReader::new(blobs, 64 << 20) }
    }

    fn apply(&mut self, root: &Root, edits: impl IntoIterator<Item = Edit>) -> Root {
        apply(&self.reader, &mut self.appender, root, edits).unwrap()
    }

    fn build(&mut self, model: &Model) -> Root {
        let edits = model.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
        self.apply(&Root::EMPTY, edits)
    }

    fn blobs(&self) -> u64 {
        self.reader.blobs().stats().unwrap().blobs
    }

    /// A reader with nothing in its cache.
    fn cold(&self) -> MapReader {
        MapReader::new(Arc::clone(self.reader.blobs()), 64 << 20)
    }

    fn all(&self, root: &Root) -> Model {
        let item = |item: cairnfs_store::Result<_>| {
            let (key, value): (cairnfs_store::map::Slice, cairnfs_store::map::Slice) =
                item.unwrap();
            (key.to_vec(), value.to_vec())
        };
        self.reader.iter(root).map(item).collect()
    }
}

fn merge(model: &mut Model, edits: &BTreeMap<Vec<u8>, Option<Vec<u8>>>) {
    for (key, value) in edits {
        match value {
            Some(value) => model.insert(key.clone(), value.clone()),
            None => model.remove(key),
        };
    }
}

/// Keys from a small space, so that edits meet; some are long and share long prefixes.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => (0u16..600).prop_map(|n| n.to_be_bytes().to_vec()),
        1 => (0u16..40).prop_map(|n| [vec![7; 200], n.to_be_bytes().to_vec()].concat()),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => proptest::collection::vec(any::<u8>(), 0..60),
        2 => (any::<u8>(), 0usize..1500).prop_map(|(byte, len)| vec![byte; len]),
        1 => (any::<u8>(), 3000usize..6000).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn edits() -> impl Strategy<Value = BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
    let edit = || (key(), proptest::option::weighted(0.65, value()));
    prop_oneof![
        3 => proptest::collection::vec(edit(), 0..6),
        1 => proptest::collection::vec(edit(), 50..400),
    ]
    .prop_map(|edits| edits.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: std::env::var("CASES").map_or(200, |n| n.parse().unwrap()), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn a_map_holds_what_a_btree_map_holds_and_equal_content_has_an_equal_root(
        batches in proptest::collection::vec(edits(), 1..12),
        probes in proptest::collection::vec(key(), 20),
    ) {
        let mut store = Store::new();
        let mut model = Model::new();
        let mut root = Root::EMPTY;
        for batch in &batches {
            let before = (root, model.clone());
            merge(&mut model, batch);
            root = store.apply(&root, batch.clone());
            prop_assert_eq!(&store.all(&root), &model);
            prop_assert_eq!(root, store.build(&model), "built at once or bit by bit");
            // A diff says exactly what the models differ by.
            let mut patched = before.1;
            for change in store.reader.diff(&before.0, &root) {
                let change = change.unwrap();
                let old = match change.new {
                    Some(new) => patched.insert(change.key.to_vec(), new.to_vec()),
                    None => patched.remove(&*change.key),
                };
                prop_assert_eq!(old, change.old.map(|old| old.to_vec()));
            }
            prop_assert_eq!(&patched, &model);
        }
        for probe in &probes {
            let found = store.reader.get(&root, probe).unwrap().map(|value| value.to_vec());
            prop_assert_eq!(found.as_ref(), model.get(probe));
            let floor = store.reader.floor(&root, probe).unwrap().map(|(key, _)| key.to_vec());
            prop_assert_eq!(floor.as_ref(), model.range(..=probe.clone()).next_back().map(|e| e.0));
        }
        for pair in probes.windows(2) {
            let (low, high) = (pair[0].clone().min(pair[1].clone()), pair[0].clone().max(pair[1].clone()));
            for (from, to) in [
                (Bound::Included(&low), Bound::Included(&high)),
                (Bound::Included(&low), Bound::Unbounded),
                (Bound::Unbounded, Bound::Excluded(&high)),
                (Bound::Excluded(&low), Bound::Unbounded),
            ] {
                let want: Vec<Vec<u8>> = model.range::<Vec<u8>, _>((from, to)).map(|e| e.0.clone()).collect();
                let (from, to) = (from.map(Vec::as_slice), to.map(Vec::as_slice));
                let got = store.reader.range(&root, from, to).map(|e| e.unwrap().0.to_vec());
                prop_assert_eq!(got.collect::<Vec<_>>(), want);
            }
        }
    }
}

fn numbered(count: u32) -> Model {
    (0..count)
        .map(|n| (n.to_be_bytes().to_vec(), blake3::hash(&n.to_le_bytes()).as_bytes().to_vec()))
        .collect()
}

#[test]
fn the_order_of_single_edits_does_not_matter() {
    let model = numbered(800);
    let mut store = Store::new();
    let whole = store.build(&model);
    let mut by_hash: Vec<_> = model.iter().collect();
    by_hash.sort_by_key(|(_, value)| (*value).clone());
    let mut root = Root::EMPTY;
    for (key, value) in by_hash {
        root = store.apply(&root, [(key.clone(), Some(value.clone()))]);
    }
    assert_eq!(root, whole);
    for key in model.keys().rev() {
        root = store.apply(&root, [(key.clone(), None)]);
    }
    assert_eq!(root, Root::EMPTY);
}

/// Found by the test above: the second leaf's removal brought the first one back.
#[test]
fn neighbouring_leaves_can_go_in_one_batch() {
    let mut store = Store::new();
    let model: Model = (0..20u8).map(|n| (vec![n], vec![n; 5000])).collect();
    let root = store.build(&model);
    for count in 1..=20 {
        for from in 0..=20 - count {
            let gone: Vec<Edit> = (from..from + count).map(|n| (vec![n], None)).collect();
            let mut left = model.clone();
            left.retain(|key, _| !(from..from + count).contains(&key[0]));
            let root = store.apply(&root, gone);
            assert_eq!(store.all(&root), left);
            assert_eq!(root, store.build(&left));
        }
    }
}

#[test]
fn k_edits_write_and_read_k_log_n_nodes() {
    let mut store = Store::new();
    let model = numbered(200_000);
    let root = store.build(&model);
    let nodes = store.blobs();
    assert!((1_000..6_000).contains(&nodes), "{nodes} nodes for 200,000 entries of 44 bytes");
    let mut height = 0u32;
    let mut top = root.0;
    while let Some(node) = top {
        let node = store.reader.load(&node).unwrap();
        height += 1;
        top = node.child(0);
    }
    assert!((2..=4).contains(&height), "height {height}");
    let mut most = 0;
    let mut total = 0;
    for n in (0..200_000u32).step_by(997) {
        let before = store.blobs();
        store.apply(&root, [(n.to_be_bytes().to_vec(), Some(b"changed value".to_vec()))]);
        let written = store.blobs() - before;
        most = most.max(written);
        total += written;
    }
    assert!(most <= u64::from(height) + 4, "at most {most} nodes for one edit, height {height}");
    assert!(total <= 201 * (u64::from(height) + 1), "{total} nodes for 201 edits");
    let spread: Vec<Edit> = (0..200_000u32)
        .step_by(2_000)
        .map(|n| (n.to_be_bytes().to_vec(), Some(b"changed too".to_vec())))
        .collect();
    let cold = store.cold();
    let before = store.blobs();
    let changed = apply(&cold, &mut store.appender, &root, spread).unwrap();
    let written = store.blobs() - before;
    assert!(written <= 100 * (u64::from(height) + 1), "{written} nodes for 100 edits");
    assert!(cold.reads() <= 130 + nodes / 30, "{} nodes read for 100 edits", cold.reads());
    // The diff reads the changed leaves on both sides and what leads to them.
    let cold = store.cold();
    assert_eq!(cold.diff(&root, &changed).count(), 100);
    assert!(cold.reads() <= 2 * (110 + nodes / 30), "{} nodes read by the diff", cold.reads());
    let one = store.apply(&root, [(77u32.to_be_bytes().to_vec(), None)]);
    let cold = store.cold();
    assert_eq!(cold.diff(&root, &one).count(), 1);
    assert!(cold.reads() <= 2 * (u64::from(height) + 2), "{} nodes read by the diff", cold.reads());
    let cold = store.cold();
    assert_eq!(cold.diff(&root, &root).count(), 0);
    assert_eq!(cold.reads(), 0, "equal maps are not read");
}

#[test]
fn nodes_are_of_a_moderate_length_whatever_the_values_are() {
    for value_len in [4usize, 100, 1000, 4000] {
        let mut store = Store::new();
        let model: Model = (0..2_000u32)
            .map(|n| (n.to_be_bytes().to_vec(), vec![n.to_le_bytes()[0]; value_len]))
            .collect();
        let root = store.build(&model);
        let mut sizes = Vec::new();
        let node = |sizes: &mut Vec<u32>, node: &BlobRef| {
            sizes.push(node.len);
            Ok::<_, Error>(true)
        };
        store.reader.walk(&root, &mut sizes, node, |_, _, _| Ok(())).unwrap();
        let mean = sizes.iter().sum::<u32>() / u32::try_from(sizes.len()).unwrap();
        assert!(
            (1_000..8_000).contains(&mean),
            "mean node {mean} bytes with values of {value_len}"
        );
        assert!(*sizes.iter().max().unwrap() < 70_000);
    }
}

#[test]
fn bad_edits_are_refused() {
    let mut store = Store::new();
    let edit = |key: &[u8]| (key.to_vec(), Some(Vec::new()));
    let Store { appender, reader } = &mut store;
    for edits in [vec![edit(b"b"), edit(b"a")], vec![edit(b"a"), edit(b"a")]] {
        assert!(matches!(apply(reader, appender, &Root::EMPTY, edits), Err(Error::Unsorted)));
    }
    let long = apply(reader, appender, &Root::EMPTY, [edit(&[0; 1025])]);
    assert!(matches!(long, Err(Error::TooLarge { .. })));
}

#[test]
fn a_lying_node_is_refused_and_no_walk_goes_astray() {
    let mut store = Store::new();
    let leaf = store.appender.put(Kind::Node, &[1, 0, 0, 1, b'm', 0]).unwrap();
    let parent = |level: u8, key: u8| {
        let mut plain = vec![1, level, 0, 1, key];
        plain.extend_from_slice(&leaf.id.0);
        plain.extend_from_slice(&leaf.len.to_le_bytes());
        plain
    };
    let honest = store.appender.put(Kind::Node, &parent(1, b'm')).unwrap();
    assert!(store.reader.get(&Root(Some(honest)), b"m").unwrap().is_some());
    for lie in [parent(2, b'm'), parent(1, b'a'), parent(15, b'm')] {
        let lie = Root(Some(store.appender.put(Kind::Node, &lie).unwrap()));
        assert!(matches!(store.reader.get(&lie, b"m"), Err(Error::BadNode { .. })));
        assert!(store.reader.iter(&lie).next().unwrap().is_err());
        assert!(store.reader.diff(&lie, &Root::EMPTY).any(|change| change.is_err()));
        let edit = [(b"q".to_vec(), Some(Vec::new()))];
        assert!(apply(&store.reader, &mut store.appender, &lie, edit).is_err());
    }
}
