//! The bytes that this crate puts into the store, as files in `tests/format/`. A change of what is
//! written changes one of them, or fails here; what older forms wrote must stay readable. FORMAT.md
//! says what they mean.

use std::{path::PathBuf, sync::Arc};

use cairnfs_merge::{
    AttrKey, AttrValue, Carry, Content, ContentId, LinkId, Name, Node, NodeId, OpId, Place, Reg,
};
use cairnfs_store::{BlobId, BlobRef, DeviceKey, DevicePublicKey, Secret, map::Root};

use crate::{
    BucketId, Kind, Settings, Strategy, Time,
    charter::{Charter, Origin},
    file::{Base, Data, File},
    manifest::{Manifest, Member, Role, device_id},
    writer::record::{Head, SaveRecord},
};

/// That of `store/tests/format/device.bin`.
pub(crate) fn key() -> DeviceKey {
    DeviceKey::from_seed(&Secret::new([0x44; 32]))
}

fn op(lamport: u64) -> OpId {
    OpId { lamport, device: device_id(&key().public(), 0) }
}

fn blob(byte: u8) -> BlobRef {
    BlobRef { id: BlobId([byte; 32]), len: 100 + u32::from(byte) }
}

fn reg<T: Ord + Clone>(lamport: u64, value: T) -> Reg<T> {
    let mut reg = Reg::default();
    reg.set(op(lamport), value);
    reg
}

/// A version with something in every field.
pub(crate) fn manifest() -> Manifest {
    let mut charter = Charter::begin(key().public(), op(1));
    let origin = |lamport| Origin { by: key().public(), at: op(lamport) };
    let me = key().public();
    charter.set_member(origin(2), me, "desk", Some(Role::Owner)).unwrap();
    charter.set_member(origin(3), DevicePublicKey([8; 32]), "phone", Some(Role::Reader)).unwrap();
    charter.set_member(origin(4), DevicePublicKey([8; 32]), "phone", None).unwrap();
    let rules = vec![("*.txt".into(), Strategy::MergeText)];
    charter.set_settings(origin(5), Settings { strategy: Strategy::Fork, rules }).unwrap();
    Manifest {
        bucket: BucketId([1; 16]),
        author: key().public(),
        incarnation: 0,
        parents: vec![BlobId([2; 32]), BlobId([3; 32])],
        vv: [(op(0).device, 300)].into_iter().collect(),
        root: Root(Some(blob(4))),
        ops: 6,
        time: Time { seconds: 1_764_000_000, nanos: 5 },
        charter,
    }
}

/// A leaf with this content.
fn leaf(kind: Kind, data: Data) -> Option<Arc<Node<Data>>> {
    let mut node = Node::empty(kind);
    node.live = reg(6, Carry::Same);
    let mut place = Place::new(NodeId::Root, Name::new(b"new").unwrap());
    place.prev = Some((NodeId::Born { op: op(2), n: 1 }, Name::new(b"old").unwrap()));
    node.places.insert(LinkId::First, reg(6, place));
    let mut content = Content::new(ContentId([9; 32]), 5, data);
    content.hist = vec![ContentId([10; 32])];
    node.content = reg(7, content);
    let mode = AttrValue::new(&[0xa4, 1, 0, 0]).unwrap();
    node.attrs.insert(AttrKey::new(b"mode").unwrap(), reg(6, Some(mode)));
    node.attrs.insert(AttrKey::new(b"user.gone").unwrap(), reg(8, None));
    Some(Arc::new(node))
}

/// A save with every kind of content and of change.
pub(crate) fn save_record() -> SaveRecord {
    let file = File::new(Base::new(Data::Inline(b"old".to_vec()), 3));
    let mut content = file.lock();
    content.write(1, &[7; 500], Time { seconds: 1_764_000_000, nanos: 5 }).unwrap();
    content.set_len(90_000, Time { seconds: 1_764_000_001, nanos: 0 }).unwrap();
    let born = |n| NodeId::Born { op: op(3), n };
    let chunks = Data::Map { root: Root(Some(blob(5))), stored_bytes: 70_000 };
    SaveRecord {
        head: Some(Head {
            manifest: blob(8),
            devices: vec![op(0).device, device_id(&DevicePublicKey([5; 32]), 1)],
            incarnation: 1,
            before: Some(blob(6)),
        }),
        op: op(9),
        nodes: vec![
            (born(1), leaf(Kind::File, Data::Inline(b"hello".to_vec()))),
            (born(2), leaf(Kind::File, Data::Chunk(blob(7)))),
            (born(3), leaf(Kind::File, chunks)),
            (born(4), leaf(Kind::CharDevice, Data::Device(259))),
            (born(5), None),
        ],
        files: vec![(born(1), content.record())],
    }
}

fn golden(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "format", name].iter().collect()
}

#[test]
fn what_is_written_is_the_golden_bytes() {
    let bless = std::env::var_os("CAIRNFS_BLESS").is_some();
    for (name, bytes) in
        [("manifest_3.bin", manifest().sign(&key())), ("save_2.bin", save_record().encode())]
    {
        if bless {
            std::fs::write(golden(name), &bytes).unwrap();
        }
        let golden = std::fs::read(golden(name)).unwrap();
        assert_eq!(bytes, golden, "{name}: the format has changed; see FORMAT.md");
    }
}

#[test]
fn the_golden_bytes_are_read_back() {
    let manifest_3 = std::fs::read(golden("manifest_3.bin")).unwrap();
    assert_eq!(Manifest::open(&manifest_3).unwrap(), manifest());
    let save_2 = std::fs::read(golden("save_2.bin")).unwrap();
    assert_eq!(SaveRecord::decode(&save_2).unwrap().encode(), save_record().encode());
}

/// Nothing writes it any more. Of each member it has the last change only.
#[test]
fn a_manifest_of_format_2_is_read() {
    let manifest_2 = std::fs::read(golden("manifest_2.bin")).unwrap();
    let Manifest { charter, .. } = Manifest::open(&manifest_2).unwrap();
    let mut expected = vec![
        Member { key: DevicePublicKey([7; 32]), role: Role::Writer, name: "laptop".into() },
        Member { key: key().public(), role: Role::Owner, name: String::new() },
    ];
    expected.sort_by_key(|member| member.key);
    assert_eq!(charter.members(), expected);
    assert!(charter.was_removed(&DevicePublicKey([8; 32])));
    assert_eq!(charter.settings(), manifest().charter.settings());
    assert_eq!(Manifest { charter, ..manifest() }, Manifest::open(&manifest_2).unwrap());
}

/// Nothing writes it any more.
#[test]
fn a_save_record_of_the_first_form_is_read() {
    let mut expected = save_record();
    expected.head.as_mut().unwrap().before = None;
    let save_1 = std::fs::read(golden("save_1.bin")).unwrap();
    assert_eq!(SaveRecord::decode(&save_1).unwrap().encode(), expected.encode());
}
