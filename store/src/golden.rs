//! The bytes of the format, as files in `tests/format/`. A change of the format changes one of
//! them, or fails here; FORMAT.md says what they mean.

use std::path::PathBuf;
use std::sync::Arc;

use crate::journal::header::PackHeader;
use crate::journal::record::{Header, KIND_SAVE};
use crate::journal::save::{self, SaveId};
use crate::journal::{Chain, Loc, Pos};
use crate::keys::keyfile::{self, Cost, Protection};
use crate::map::MapNode;
use crate::seal::{self, Cipher, Label};
use crate::{DeviceKey, KeyRing, Kind, Secret, Seq};

fn keys() -> KeyRing {
    KeyRing::new([(0, Secret::new([0x11; 32])), (1, Secret::new([0x22; 32]))]).unwrap()
}

fn sealed(cipher: Cipher, kind: u8, id: Option<crate::BlobId>, plain: &[u8]) -> Vec<u8> {
    let keys = keys();
    let id = id.unwrap_or_else(|| keys.name(plain));
    let label = Label { kind, id, checkpoint: kind == KIND_SAVE };
    let mut out = Vec::new();
    seal::seal_with_nonce(&mut out, &keys, cipher, label, plain, [9; 12]).unwrap();
    out
}

/// Each file with the bytes that today's code makes.
pub(crate) fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let chain = Chain {
        seq: Seq(3),
        last_save: Some(Pos { pack: 1, offset: 400 }),
        batch_start: Pos { pack: 1, offset: 600 },
        hash: [0x33; 16],
    };
    let header = PackHeader { number: 2, bucket: keys().tag(), prev_len: 700, chain };
    let part = Loc { at: Pos { pack: 1, offset: 600 }, len: 1_048_676 };
    let content = save::encode_content(&[part], b"payload");
    let mut leaf = vec![1, 0];
    leaf.extend_from_slice(&[0, 5]);
    leaf.extend_from_slice(b"apple\x03red");
    leaf.extend_from_slice(&[3, 3]);
    leaf.extend_from_slice(b"ron\x00");
    let mut inner = vec![1, 1, 0, 5];
    inner.extend_from_slice(b"apple");
    inner.extend_from_slice(&keys().name(&leaf).0);
    inner.extend_from_slice(&crate::bytes::len32(leaf.len()).to_le_bytes());
    let secrets = keys().secrets();
    let mut plain = zeroize::Zeroizing::new(Vec::new());
    for (epoch, secret) in &secrets {
        plain.extend_from_slice(&epoch.to_le_bytes());
        plain.extend_from_slice(secret.expose());
    }
    let cost = Cost { memory_kib: 64, passes: 2, lanes: 1 };
    let protection = Protection::Passphrase { passphrase: b"correct horse", cost };
    let protected = keyfile::seal_with(plain.clone(), &protection, [7; 16], [8; 12]).unwrap();
    let bare = keyfile::seal_with(plain, &Protection::None, [7; 16], [8; 12]).unwrap();
    vec![
        ("pack_header.bin", header.encode().to_vec()),
        ("record_aes.bin", sealed(Cipher::Aes256Gcm, Kind::Chunk as u8, None, b"some content")),
        ("record_chacha.bin", sealed(Cipher::ChaCha20Poly1305, Kind::Node as u8, None, &leaf)),
        (
            "save.bin",
            sealed(Cipher::Aes256Gcm, KIND_SAVE, Some(SaveId::closing(&chain).encode()), &content),
        ),
        ("map_leaf.bin", leaf),
        ("map_inner.bin", inner),
        ("keyfile_passphrase.bin", protected.to_vec()),
        ("keyfile_bare.bin", bare.to_vec()),
        ("device.bin", DeviceKey::from_seed(&Secret::new([0x44; 32])).encode().to_vec()),
    ]
}

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "format", name].iter().collect()
}

#[test]
fn the_bytes_of_the_format_are_the_golden_ones() {
    let bless = std::env::var_os("CAIRNFS_BLESS").is_some();
    for (name, bytes) in samples() {
        if bless {
            std::fs::write(path(name), &bytes).unwrap();
        }
        let golden = std::fs::read(path(name)).unwrap();
        assert_eq!(bytes, golden, "{name}: the format has changed; see FORMAT.md");
    }
}

/// What zstd writes may change from version to version; what it wrote must stay readable.
#[test]
fn a_compressed_record_of_old_is_readable() {
    let plain = b"again and ".repeat(40);
    let bless = std::env::var_os("CAIRNFS_BLESS").is_some();
    if bless {
        std::fs::write(path("record_zstd.bin"), sealed(Cipher::Aes256Gcm, 1, None, &plain))
            .unwrap();
    }
    let mut golden = std::fs::read(path("record_zstd.bin")).unwrap();
    assert!(Header::decode(&golden).unwrap().flags.compressed);
    let opened = seal::open(&keys(), &mut golden).unwrap().unwrap();
    assert_eq!(opened.plain[..], plain);
}

#[test]
fn the_golden_bytes_are_read_back() {
    for (name, bytes) in samples() {
        match name {
            "map_leaf.bin" | "map_inner.bin" => drop(MapNode::decode(Arc::from(bytes)).unwrap()),
            "keyfile_passphrase.bin" => {
                assert_eq!(
                    keyfile::open(&bytes, Some(b"correct horse")).unwrap(),
                    keys().secrets()
                );
            }
            "keyfile_bare.bin" => {
                assert_eq!(keyfile::open(&bytes, None).unwrap(), keys().secrets());
            }
            "device.bin" => drop(DeviceKey::decode(&bytes).unwrap()),
            "pack_header.bin" => drop(PackHeader::decode(&bytes).unwrap()),
            _ => drop(seal::open(&keys(), &mut bytes.clone()).unwrap().unwrap().plain),
        }
    }
}
