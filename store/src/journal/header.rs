//! The first bytes of a pack.
//!
//! ```text
//!  0  magic        8   "cairnpk\0"
//!  8  version      2
//! 10  zero         2
//! 12  number       4   of this pack
//! 16  bucket      16   derived from the bucket's secret
//! 32  prev_len     8   length of the pack before, 0 if this is the first
//! 40  seq          8   the last save before this pack
//! 48  last_save    8   where it is (pack, offset); 0 if there is none
//! 56  batch_start  8   where the batch begins that goes on in this pack
//! 64  hash        16   over that batch so far
//! 80  check        8
//! ```
//!
//! So a pack can be read by itself when those before it are gone, and a pack that lost its end
//! is noticed.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::{Chain, Pos};
use crate::bytes::Reader;
use crate::{Seq, check8};

pub(crate) const HEADER_BYTES: usize = HEADER_BYTES_U32 as usize;
pub(crate) const HEADER_BYTES_U32: u32 = 88;
/// The version of the whole format: packs, records, nodes.
pub(crate) const VERSION: u16 = 1;
const MAGIC: [u8; 8] = *b"cairnpk\0";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackHeader {
    pub(crate) number: u32,
    pub(crate) bucket: [u8; 16],
    pub(crate) prev_len: u64,
    pub(crate) chain: Chain,
}

/// Why a header was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// It never reached the disk: the pack was begun and nothing in it is durable.
    Absent,
    Newer(u16),
    Damaged,
}

impl PackHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        let last_save = self.chain.last_save.unwrap_or_default();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.bucket);
        out.extend_from_slice(&self.prev_len.to_le_bytes());
        out.extend_from_slice(&self.chain.seq.0.to_le_bytes());
        for pos in [last_save, self.chain.batch_start] {
            out.extend_from_slice(&pos.pack.to_le_bytes());
            out.extend_from_slice(&pos.offset.to_le_bytes());
        }
        out.extend_from_slice(&self.chain.hash);
        let check = check8(&out);
        out.extend_from_slice(&check);
        out.try_into().expect("because the fields add up to the header's length")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(HeaderError::Absent);
        };
        if head.iter().all(|&byte| byte == 0) {
            return Err(HeaderError::Absent);
        }
        let mut reader = Reader::new(head);
        let magic = reader.array() == Some(MAGIC);
        match reader.u16() {
            Some(version) if magic && version > VERSION && is_checked(head) => {
                Err(HeaderError::Newer(version))
            }
            Some(VERSION) if magic && is_checked(head) => {
                Self::fields(reader).ok_or(HeaderError::Damaged)
            }
            _ => Err(HeaderError::Damaged),
        }
    }

    fn fields(mut reader: Reader<'_>) -> Option<Self> {
        let zero = reader.u16()?;
        let number = reader.u32()?;
        let bucket = reader.array()?;
        let prev_len = reader.u64()?;
        let seq = Seq(reader.u64()?);
        let mut pos = || Some(Pos { pack: reader.u32()?, offset: reader.u32()? });
        let (last_save, batch_start) = (pos()?, pos()?);
        let hash = reader.array()?;
        let last_save = (last_save != Pos::default()).then_some(last_save);
        let chain = Chain { seq, last_save, batch_start, hash };
        (zero == 0).then_some(Self { number, bucket, prev_len, chain })
    }
}

fn is_checked(head: &[u8; HEADER_BYTES]) -> bool {
    head.split_last_chunk::<8>().is_some_and(|(fields, check)| *check == check8(fields))
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn header() -> PackHeader {
        let chain = Chain {
            seq: Seq(9),
            last_save: Some(Pos { pack: 1, offset: 500 }),
            batch_start: Pos { pack: 1, offset: 700 },
            hash: [3; 16],
        };
        PackHeader { number: 2, bucket: [7; 16], prev_len: 900, chain }
    }

    #[test]
    fn a_header_is_read_back() {
        assert_eq!(PackHeader::decode(&header().encode()), Ok(header()));
    }

    #[test]
    fn a_changed_byte_is_damage_and_not_a_newer_version() {
        let bytes = header().encode();
        for at in 0..HEADER_BYTES {
            let mut bad = bytes;
            bad[at] ^= 2;
            assert_eq!(PackHeader::decode(&bad), Err(HeaderError::Damaged), "byte {at}");
        }
    }

    #[test]
    fn a_newer_version_is_said() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        let check = check8(&bytes[..80]);
        bytes[80..].copy_from_slice(&check);
        assert_eq!(PackHeader::decode(&bytes), Err(HeaderError::Newer(2)));
    }

    #[test]
    fn what_never_arrived_is_absent() {
        assert_eq!(PackHeader::decode(&[0; 200]), Err(HeaderError::Absent));
        assert_eq!(PackHeader::decode(&header().encode()[..87]), Err(HeaderError::Absent));
    }
}
