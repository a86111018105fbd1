//! The save record: what makes a batch whole.
//!
//! Its `id` field does not name content. It says which save this is, where the one before lies,
//! and the hash over the batch; being part of what is authenticated, and of what the key is
//! derived from, none of it can be changed or spliced into another log without the keys.
//!
//! ```text
//!  id:       seq 8, previous save (pack 4, offset 4; 0 if none), hash over the batch 16
//!  content:  number of parts 4, parts (pack 4, offset 4, length 4) each, end of the payload
//! ```
//!
//! A payload longer than [`PART_BYTES`] begins in *part* records of the same batch; their `id`
//! is seq 8, index 4, then zeros.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::{Chain, Loc, Pos};
use crate::bytes::{Reader, len32};
use crate::{BlobId, Seq};

/// How much of a payload goes into one record.
pub(crate) const PART_BYTES: usize = 1 << 20;
/// More parts than this are 16 GiB of payload: not ours.
const PARTS_MAX: u32 = 1 << 14;

/// What the `id` field of a save record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SaveId {
    pub(crate) seq: Seq,
    pub(crate) previous: Option<Pos>,
    pub(crate) hash: [u8; 16],
}

impl SaveId {
    /// What closes the batch that `chain` stands in.
    pub(crate) const fn closing(chain: &Chain) -> Self {
        Self { seq: Seq(chain.seq.0.wrapping_add(1)), previous: chain.last_save, hash: chain.hash }
    }

    pub(crate) fn encode(&self) -> BlobId {
        let previous = self.previous.unwrap_or_default();
        let mut out = Vec::with_capacity(32);
        out.extend_from_slice(&self.seq.0.to_le_bytes());
        out.extend_from_slice(&previous.pack.to_le_bytes());
        out.extend_from_slice(&previous.offset.to_le_bytes());
        out.extend_from_slice(&self.hash);
        BlobId(out.try_into().expect("because the fields add up to 32 bytes"))
    }

    pub(crate) fn decode(id: &BlobId) -> Self {
        let mut reader = Reader::new(&id.0);
        let seq = Seq(reader.u64().unwrap_or_default());
        let previous = Pos {
            pack: reader.u32().unwrap_or_default(),
            offset: reader.u32().unwrap_or_default(),
        };
        let hash = reader.array().unwrap_or_default();
        Self { seq, previous: (previous != Pos::default()).then_some(previous), hash }
    }
}

/// The `id` field of a part.
pub(crate) fn part_id(seq: Seq, index: u32) -> BlobId {
    let mut out = Vec::with_capacity(32);
    out.extend_from_slice(&seq.0.to_le_bytes());
    out.extend_from_slice(&index.to_le_bytes());
    out.resize(32, 0);
    BlobId(out.try_into().expect("because it was made 32 bytes long"))
}

/// The content of a save record.
pub(crate) fn encode_content(parts: &[Loc], end: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(end.len().saturating_add(4));
    out.extend_from_slice(&len32(parts.len()).to_le_bytes());
    for part in parts {
        for field in [part.at.pack, part.at.offset, part.len] {
            out.extend_from_slice(&field.to_le_bytes());
        }
    }
    out.extend_from_slice(end);
    out
}

/// Splits the content of a save record into its parts and the end of the payload.
pub(crate) fn decode_content(content: &[u8]) -> Option<(Vec<Loc>, &[u8])> {
    let mut reader = Reader::new(content);
    let count = reader.u32().filter(|&count| count <= PARTS_MAX)?;
    let mut parts = Vec::new();
    for _ in 0..count {
        let at = Pos { pack: reader.u32()?, offset: reader.u32()? };
        parts.push(Loc { at, len: reader.u32()? });
    }
    Some((parts, reader.rest()))
}
