//! Bytes from a disk or a peer, changed at random: an error or a value, never a panic.

use cairnfs_merge::NodeId;
use proptest::prelude::*;

use crate::{
    file::{Base, File},
    golden,
    manifest::Manifest,
    tree::keys,
    writer::record::SaveRecord,
};

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
    let whole = golden::manifest().seal(&golden::key());
    damaged(whole.clone()).prop_map(move |bytes| (whole.clone(), bytes))
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
    fn a_damaged_save_record_is_an_error_or_a_record(bytes in damaged(golden::save_record().encode())) {
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
