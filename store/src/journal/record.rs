//! One record of the log: a header, what is sealed, a checksum.
//!
//! ```text
//!  0  marker     4   "crn1"
//!  4  body_len   4   ciphertext and tag
//!  8  kind       1
//!  9  flags      1   bit 0: ChaCha20-Poly1305; bit 1: compressed; bit 2: checkpoint
//! 10  epoch      2
//! 12  plain_len  4
//! 16  id        32
//! 48  nonce     12
//! 60  check      8   of the 60 bytes before
//! 68  body       body_len
//!     checksum  16   of header and body
//! ```
//!
//! Numbers are little-endian, checks are the first bytes of plain BLAKE3. The header has a check
//! of its own so that its length can be believed before the body is read, and so that a header
//! can be told from other bytes when one is searched for.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::bytes::Reader;
use crate::seal::{BLOB_BYTES_MAX, Cipher};
use crate::{BlobId, check8, check16};

pub(crate) const MARKER: [u8; 4] = *b"crn1";
pub(crate) const HEADER_BYTES: usize = HEADER_BYTES_U32 as usize;
pub(crate) const HEADER_BYTES_U32: u32 = 68;
pub(crate) const CHECKSUM_BYTES: usize = 16;
/// What a record costs besides its content: header, tag and checksum.
pub(crate) const OVERHEAD_BYTES: usize = HEADER_BYTES + 16 + CHECKSUM_BYTES;
/// The longest body: compression never makes one longer.
pub(crate) const BODY_BYTES_MAX: usize = BLOB_BYTES_MAX + 16;
/// Longest record.
pub(crate) const RECORD_BYTES_MAX: usize = HEADER_BYTES + BODY_BYTES_MAX + CHECKSUM_BYTES;

/// The kind of a save record; those of blobs are in [`crate::Kind`].
pub(crate) const KIND_SAVE: u8 = 0x80;
/// The kind of a piece of a long save's payload.
pub(crate) const KIND_SAVE_PART: u8 = 0x81;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) cipher: Cipher,
    pub(crate) compressed: bool,
    pub(crate) checkpoint: bool,
}

impl Flags {
    fn encode(self) -> u8 {
        u8::from(self.cipher == Cipher::ChaCha20Poly1305)
            | (u8::from(self.compressed) << 1)
            | (u8::from(self.checkpoint) << 2)
    }

    fn decode(byte: u8) -> Option<Self> {
        let cipher = if byte & 1 == 0 { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 };
        let flags = Self { cipher, compressed: byte & 2 != 0, checkpoint: byte & 4 != 0 };
        (byte & !7 == 0).then_some(flags)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) body_len: u32,
    pub(crate) kind: u8,
    pub(crate) flags: Flags,
    pub(crate) epoch: u16,
    pub(crate) plain_len: u32,
    pub(crate) id: BlobId,
    pub(crate) nonce: [u8; 12],
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut fields = Vec::with_capacity(HEADER_BYTES);
        fields.extend_from_slice(&MARKER);
        fields.extend_from_slice(&self.body_len.to_le_bytes());
        fields.push(self.kind);
        fields.push(self.flags.encode());
        fields.extend_from_slice(&self.epoch.to_le_bytes());
        fields.extend_from_slice(&self.plain_len.to_le_bytes());
        fields.extend_from_slice(&self.id.0);
        fields.extend_from_slice(&self.nonce);
        let check = check8(&fields);
        fields.extend_from_slice(&check);
        fields.try_into().expect("because the fields add up to the header's length")
    }

    /// The header at the beginning of `bytes`, if there is an intact and permissible one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<HEADER_BYTES>()?;
        let mut reader = Reader::new(head);
        if reader.array() != Some(MARKER) {
            return None;
        }
        let body_len = reader.u32()?;
        let kind = reader.u8()?;
        let flags = Flags::decode(reader.u8()?)?;
        let epoch = reader.u16()?;
        let plain_len = reader.u32()?;
        let id = BlobId(reader.array()?);
        let nonce = reader.array()?;
        let check: [u8; 8] = reader.array()?;
        let (fields, _check) = head.split_last_chunk::<8>()?;
        let header = Self { body_len, kind, flags, epoch, plain_len, id, nonce };
        (check == check8(fields) && header.in_bounds()).then_some(header)
    }

    fn in_bounds(&self) -> bool {
        let body = usize::try_from(self.body_len).ok().and_then(|len| len.checked_sub(16));
        let plain = usize::try_from(self.plain_len).unwrap_or(usize::MAX);
        plain <= BLOB_BYTES_MAX
            && body.is_some_and(
                |body| {
                    if self.flags.compressed { body <= plain } else { body == plain }
                },
            )
    }

    /// Length of the whole record.
    pub(crate) fn record_len(&self) -> usize {
        debug_assert!(self.body_len as usize <= BODY_BYTES_MAX, "decode and seal bound it");
        HEADER_BYTES.saturating_add(self.body_len as usize).saturating_add(CHECKSUM_BYTES)
    }
}

/// The part of a header that the seal authenticates: lengths, kind, flags, epoch and name.
pub(crate) fn authenticated(header: &[u8]) -> &[u8] {
    header.get(4..48).unwrap_or_default()
}

/// The checksum of a record, from everything before it.
pub(crate) fn checksum(before: &[u8]) -> [u8; CHECKSUM_BYTES] {
    check16(before)
}

/// Whether `bytes` are exactly one record, as it was written. Needs no keys.
pub(crate) fn is_intact(bytes: &[u8]) -> bool {
    let whole = Header::decode(bytes).is_some_and(|header| header.record_len() == bytes.len());
    whole && checksum_of(bytes).is_some_and(|(before, found)| checksum(before) == found)
}

/// Splits a record at its checksum.
pub(crate) fn checksum_of(bytes: &[u8]) -> Option<(&[u8], [u8; CHECKSUM_BYTES])> {
    bytes.split_last_chunk::<CHECKSUM_BYTES>().map(|(before, found)| (before, *found))
}

/// Makes the checks of a tampered record fit again, as an attacker would.
#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "a test's tool")]
pub(crate) fn reseal_checksums(bytes: &mut [u8]) {
    let head = check8(&bytes[..60]);
    bytes[60..68].copy_from_slice(&head);
    let body_end = bytes.len() - CHECKSUM_BYTES;
    let sum = checksum(&bytes[..body_end]);
    bytes[body_end..].copy_from_slice(&sum);
}
