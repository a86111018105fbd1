//! Sealing: from plaintext to a record and back.
//!
//! A blob is compressed if that gains something, then sealed under a key of its own, which is
//! derived from the epoch's secret, the blob's name and the cipher. The nonce is random and
//! stands in the record: one key always seals the same content, but not always the same bytes,
//! since two versions of the compressor may differ.
//!
//! # Invariants
//!
//! 1. What a record decrypts to under the key of its name is the plaintext of that name, for
//!    whoever holds the keys sealed it so. So opening needs no second pass to hash; only what
//!    comes from a peer is hashed, once, by [`open_foreign`].
//! 2. Kind, cipher, compression, epoch, lengths and name are authenticated with the content.

mod cipher;
mod compress;

pub use cipher::Cipher;
use cipher::{AeadKey, TAG_BYTES};

use crate::journal::record::{self, CHECKSUM_BYTES, Flags, HEADER_BYTES, Header};
use crate::keys::KeyRing;
use crate::{BlobId, Error, Result};

/// The longest plaintext of one blob: 16 MiB.
pub const BLOB_BYTES_MAX: usize = 16 << 20;

/// What is to be sealed, besides the plaintext.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label {
    pub(crate) kind: u8,
    pub(crate) id: BlobId,
    /// Set on the last save of a checkpoint.
    pub(crate) checkpoint: bool,
}

/// Appends the whole record of `plain` to `out`. Answers with its length.
///
/// # Errors
///
/// [`Error::TooLarge`], [`Error::Random`]. `out` is then as it was.
pub(crate) fn seal(
    out: &mut Vec<u8>,
    keys: &KeyRing,
    cipher: Cipher,
    label: Label,
    plain: &[u8],
) -> Result<usize> {
    seal_with_nonce(out, keys, cipher, label, plain, cipher::nonce()?)
}

/// As [`seal`], with the nonce given: for the golden files.
pub(crate) fn seal_with_nonce(
    out: &mut Vec<u8>,
    keys: &KeyRing,
    cipher: Cipher,
    label: Label,
    plain: &[u8],
    nonce: [u8; 12],
) -> Result<usize> {
    if plain.len() > BLOB_BYTES_MAX {
        return Err(Error::TooLarge { len: plain.len(), max: BLOB_BYTES_MAX });
    }
    let (epoch, key) = AeadKey::current(keys, &label.id, cipher);
    let start = out.len();
    out.resize(start + HEADER_BYTES, 0);
    let compressed = compress::append_if_smaller(out, plain);
    if !compressed {
        out.extend_from_slice(plain);
    }
    let body_len = out.len() - start - HEADER_BYTES + TAG_BYTES;
    let header = Header {
        body_len: crate::bytes::len32(body_len),
        kind: label.kind,
        flags: Flags { cipher, compressed, checkpoint: label.checkpoint },
        epoch,
        plain_len: crate::bytes::len32(plain.len()),
        id: label.id,
        nonce,
    };
    let encoded = header.encode();
    out[start..start + HEADER_BYTES].copy_from_slice(&encoded);
    let tag = key.seal(nonce, record::authenticated(&encoded), &mut out[start + HEADER_BYTES..]);
    out.extend_from_slice(&tag);
    let checksum = record::checksum(&out[start..]);
    out.extend_from_slice(&checksum);
    debug_assert_eq!(out.len() - start, header.record_len(), "the header says the length");
    Ok(out.len() - start)
}

/// Opens the record in `bytes`, which are used up by it. `None` if it is not authentic.
///
/// Costs one pass of the cipher, and one of the decompressor where it was compressed.
///
/// # Errors
///
/// [`Error::UnknownEpoch`] if the ring lacks the secret.
pub(crate) fn open(keys: &KeyRing, bytes: &mut [u8]) -> Result<Option<Opened>> {
    let Some(header) = Header::decode(bytes) else { return Ok(None) };
    let body_end = HEADER_BYTES + header.body_len as usize;
    if bytes.len() != body_end + CHECKSUM_BYTES {
        return Ok(None);
    }
    let mut candidates =
        AeadKey::candidates(keys, header.epoch, &header.id, header.flags.cipher)?.peekable();
    let (head, body) = bytes[..body_end].split_at_mut(HEADER_BYTES);
    let aad = record::authenticated(head);
    while let Some(key) = candidates.next() {
        // A key that does not fit leaves garbage behind.
        let kept = candidates.peek().is_some().then(|| body.to_vec());
        if let Some(body) = key.open(header.nonce, aad, body) {
            return Ok(decompressed(header, body));
        }
        if let Some(kept) = kept {
            body.copy_from_slice(&kept);
        }
    }
    Ok(None)
}

fn decompressed(header: Header, body: &[u8]) -> Option<Opened> {
    let plain = if header.flags.compressed {
        compress::decompress(body, header.plain_len as usize)
    } else {
        (body.len() == header.plain_len as usize).then(|| body.into())
    };
    plain.map(|plain| Opened { header, plain })
}

/// Opens a record that came from elsewhere, and checks that the content has the name.
///
/// # Errors
///
/// See [`NotOpened`].
pub(crate) fn open_foreign(keys: &KeyRing, bytes: &[u8]) -> Result<Opened, NotOpened> {
    let header = Header::decode(bytes).filter(|_| record::is_intact(bytes));
    let Some(Header { id, epoch, .. }) = header else {
        return Err(NotOpened::Forged { id: BlobId([0; 32]) });
    };
    match open(keys, &mut bytes.to_vec()) {
        Ok(Some(opened)) if keys.name(&opened.plain) == id => Ok(opened),
        Err(Error::UnknownEpoch { .. }) => Err(NotOpened::NoSecret { epoch }),
        Ok(None) if epoch > 0 => Err(NotOpened::NoSecret { epoch }),
        _ => Err(NotOpened::Forged { id }),
    }
}

/// Why a record that came from elsewhere is not opened.
#[derive(Debug)]
pub(crate) enum NotOpened {
    /// Something about it is wrong.
    Forged {
        /// The name it claims.
        id: BlobId,
    },
    /// No secret that is here opens it: there may be another one of its epoch that is not here (never
    /// of epoch 0), or it is forged too.
    NoSecret {
        /// The epoch it names.
        epoch: u16,
    },
}

/// An opened record.
pub(crate) struct Opened {
    pub(crate) header: Header,
    pub(crate) plain: std::sync::Arc<[u8]>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, Secret};

    fn sealed(keys: &KeyRing, cipher: Cipher, plain: &[u8]) -> Vec<u8> {
        let label = Label { kind: Kind::Chunk as u8, id: keys.name(plain), checkpoint: false };
        let mut out = Vec::new();
        seal(&mut out, keys, cipher, label, plain).unwrap();
        out
    }

    #[test]
    fn both_ciphers_give_the_plaintext_back() {
        let keys = KeyRing::generate().unwrap();
        let noise: Vec<u8> =
            (0..5000u32).map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[0]).collect();
        for plain in [&b""[..], b"x", &[7; 100_000], &noise] {
            for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
                let record = sealed(&keys, cipher, plain);
                assert!(record::is_intact(&record));
                let opened = open(&keys, &mut record.clone()).unwrap().unwrap();
                assert_eq!(&opened.plain[..], plain);
                assert_eq!(opened.header.flags.compressed, plain.len() == 100_000);
                open_foreign(&keys, &record).unwrap();
            }
        }
    }

    #[test]
    fn any_changed_bit_is_noticed_even_with_a_fresh_checksum() {
        let keys = KeyRing::generate().unwrap();
        let record = sealed(&keys, Cipher::Aes256Gcm, &[b'a'; 300]);
        let body_end = record.len() - CHECKSUM_BYTES;
        for at in (0..60).chain(HEADER_BYTES..body_end) {
            let mut bad = record.clone();
            bad[at] ^= 4;
            assert!(!record::is_intact(&bad));
            record::reseal_checksums(&mut bad);
            assert!(!matches!(open(&keys, &mut bad), Ok(Some(_))), "byte {at}");
        }
    }

    #[test]
    fn a_peer_cannot_give_one_content_the_name_of_another() {
        let keys = KeyRing::generate().unwrap();
        let label = Label { kind: 1, id: keys.name(b"promised"), checkpoint: false };
        let mut record = Vec::new();
        seal(&mut record, &keys, Cipher::Aes256Gcm, label, b"delivered").unwrap();
        assert!(matches!(open_foreign(&keys, &record), Err(NotOpened::Forged { .. })));
        let other = KeyRing::generate().unwrap();
        let record = sealed(&keys, Cipher::Aes256Gcm, b"x");
        assert!(matches!(open_foreign(&other, &record), Err(NotOpened::Forged { .. })));
    }

    #[test]
    fn what_was_sealed_under_either_secret_of_an_epoch_is_opened_by_who_has_both() {
        let [root, one, other] = [1, 2, 3].map(|n| Secret::new([n; 32]));
        let ring = |secrets: &[&Secret]| {
            let late = secrets.iter().map(|secret| (5, (*secret).clone()));
            KeyRing::new(late.chain([(0, root.clone())])).unwrap()
        };
        let both = ring(&[&one, &other]);
        for (mine, theirs) in [(&one, &other), (&other, &one)] {
            for plain in [&[7; 1000][..], b"x"] {
                let record = sealed(&ring(&[mine]), Cipher::Aes256Gcm, plain);
                assert_eq!(&open_foreign(&both, &record).unwrap().plain[..], plain);
                let alone = open_foreign(&ring(&[theirs]), &record);
                assert!(matches!(alone, Err(NotOpened::NoSecret { epoch: 5 })));
            }
        }
    }
}
