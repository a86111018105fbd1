//! Bytes from a disk or a peer, changed at random: an error or a value, never a panic.

use proptest::prelude::*;

use crate::{decoders, golden, manifest::Manifest};

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
    let whole = golden::manifest().sign(&golden::key());
    damaged(whole.clone()).prop_map(move |bytes| (whole.clone(), bytes))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_save_record_is_an_error_or_a_record(bytes in damaged(golden::save_record().encode())) {
        let _accepted: bool = decoders::decode(1, &bytes);
    }

    #[test]
    fn a_damaged_manifest_is_refused((whole, bytes) in sealed_manifest()) {
        prop_assert_eq!(Manifest::open(&bytes).is_ok(), bytes == whole);
    }

    #[test]
    fn any_bytes_are_an_error_or_a_value(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Manifest::open(&bytes).is_err());
        for (_, accepts) in decoders::ALL {
            let _accepted: bool = accepts(&bytes);
        }
    }
}
