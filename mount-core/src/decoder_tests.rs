//! Bytes from a disk or a peer, changed at random: an error or a value, never a panic.

use cairnfs_merge::NodeId;
use cairnfs_store::{BlobId, BlobRef, DeviceKey, Secret, map::Root};
use proptest::prelude::*;

use crate::{
    BucketId, Time,
    charter::Charter,
    file::{Base, Data, File},
    manifest::{Manifest, device_id},
    tree::keys,
    writer::record::{Head, SaveRecord},
};

fn manifest(key: &DeviceKey) -> Manifest {
    let author = device_id(&key.public(), 0);
    Manifest {
        bucket: BucketId([1; 16]),
        author: key.public(),
        incarnation: 0,
        parents: vec![BlobId([2; 32])],
        vv: [(author, 7)].into_iter().collect(),
        root: Root::EMPTY,
        ops: 1,
        time: Time::default(),
        charter: Charter::begin(key.public(), cairnfs_merge::OpId { lamport: 1, device: author }),
    }
}

fn save_record() -> SaveRecord {
    let file = File::new(Base::new(Data::Inline(b"old".to_vec()), 3));
    let mut content = file.lock();
    content.write(1, &[7; 500], Time::default()).unwrap();
    content.set_len(90_000, Time::default()).unwrap();
    let op = cairnfs_merge::OpId { lamport: 3, device: device_id(&[5; 32], 1) };
    let id = NodeId::Born { op, n: 4 };
    let node = std::sync::Arc::new(cairnfs_merge::Node::empty(crate::Kind::File));
    let manifest = BlobRef { id: BlobId([8; 32]), len: 100 };
    SaveRecord {
        head: Some(Head {
            manifest,
            devices: vec![op.device],
            incarnation: 1,
            before: Some(manifest),
        }),
        op,
        nodes: vec![(id, Some(node)), (NodeId::Root, None)],
        files: vec![(id, content.record())],
    }
}

/// `bytes` with some of them changed, and cut.
fn damaged(bytes: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let len = bytes.len();
    let changes = prop::collection::vec((0..len, any::<u8>()), 0..6);
    (changes, 0..=len).prop_map(move |(changes, cut)| {
        let mut bytes = bytes.clone();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(cut);
        bytes
    })
}

/// A signed manifest, and what may have become of it.
fn sealed_manifest() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let key = DeviceKey::from_seed(&Secret::new([9; 32]));
    let whole = manifest(&key).seal(&key);
    damaged(whole.clone()).prop_map(move |bytes| (whole.clone(), bytes))
}

#[test]
fn a_save_record_of_the_first_form_is_read() {
    let record = save_record();
    let head = record.head.as_ref().map(|it| (it.manifest, &it.devices, it.incarnation));
    let old = (head, record.op, &record.nodes, &record.files);
    let bytes = postcard::to_extend(&old, vec![1]).unwrap();
    let mut expected = save_record();
    expected.head.as_mut().unwrap().before = None;
    assert_eq!(SaveRecord::decode(&bytes).unwrap().encode(), expected.encode());
}

fn applied(record: SaveRecord) {
    for (_, file) in record.files {
        let fresh = File::new(Base::empty());
        let mut content = fresh.lock();
        if content.apply(file).is_ok() {
            drop(content.snapshot());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_save_record_is_an_error_or_a_record(bytes in damaged(save_record().encode())) {
        if let Ok(record) = SaveRecord::decode(&bytes) {
            applied(record);
        }
    }

    #[test]
    fn a_damaged_manifest_is_refused((whole, bytes) in sealed_manifest()) {
        prop_assert_eq!(Manifest::open(&bytes).is_ok(), bytes == whole);
    }

    #[test]
    fn any_bytes_are_an_error_or_a_value(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(record) = SaveRecord::decode(&bytes) {
            applied(record);
        }
        prop_assert!(Manifest::open(&bytes).is_err());
        drop((keys::parse_child(&NodeId::Root, &bytes), keys::parse_contested(&bytes)));
        let (_node, _kind) = (keys::parse_only_node(&bytes), keys::parse_kind(&bytes));
    }
}
