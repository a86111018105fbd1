//! Where chunks begin: `FastCDC` (Xia et al., IEEE TPDS 2020) with a table keyed per bucket, so that
//! lengths of chunks tell an observer nothing about known content.
//!
//! The cut points are part of the format: the same content has the same chunks on every device. A
//! test holds them against vectors.

use fastcdc::v2020::{FastCDC, Normalization};

/// A chunk is shorter only at the end of a run of data.
const CHUNK_BYTES_MIN: usize = 16 << 10;
/// The length aimed at.
pub(crate) const CHUNK_BYTES_AVERAGE: usize = 64 << 10;
/// No chunk is longer.
pub(crate) const CHUNK_BYTES_MAX: usize = 256 << 10;

/// Finds cut points, keyed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cutter {
    seed: u64,
}

/// How a chunk's end was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cut {
    /// By the content: bytes that follow do not move it.
    Content(usize),
    /// By the end of the data: more data would move it.
    End(usize),
}

impl Cutter {
    pub(crate) fn new(key: [u8; 8]) -> Self {
        // Zero would select the unkeyed table.
        Self { seed: u64::from_le_bytes(key).max(1) }
    }

    /// Cuts `data`, which begins at a boundary, into chunks, one after the other.
    ///
    /// A cut within the last [`CHUNK_BYTES_MAX`] bytes is right only if the data ends there.
    pub(crate) fn cuts<'a>(&self, data: &'a [u8]) -> impl Iterator<Item = Cut> + use<'a> {
        let cdc = FastCDC::with_level_and_seed(
            data,
            CHUNK_BYTES_MIN,
            CHUNK_BYTES_AVERAGE,
            CHUNK_BYTES_MAX,
            Normalization::Level1,
            self.seed,
        );
        let mut start = 0;
        std::iter::from_fn(move || {
            let remaining = data.len() - start;
            if remaining == 0 {
                return None;
            }
            let (_, end) = cdc.cut(start, remaining);
            let len = end - start;
            start = end;
            let by_content = len < remaining || len == CHUNK_BYTES_MAX;
            Some(if by_content { Cut::Content(len) } else { Cut::End(len) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .take(len)
        .collect()
    }

    #[test]
    fn the_cut_points_are_those_of_the_format() {
        let data = noise(600_000);
        let cuts: Vec<_> = Cutter::new([1, 2, 3, 4, 5, 6, 7, 8]).cuts(&data).collect();
        let lens: Vec<usize> = cuts
            .iter()
            .map(|cut| match cut {
                Cut::Content(len) | Cut::End(len) => *len,
            })
            .collect();
        assert_eq!(lens.iter().sum::<usize>(), data.len());
        assert_eq!(lens, VECTOR, "chunks of known content have moved: old buckets would not dedup");
        assert!(matches!(cuts.last(), Some(Cut::End(_))));
    }

    const VECTOR: &[usize] = &[262_144, 142_920, 48_189, 65_031, 43_694, 17_319, 20_703];

    #[test]
    fn another_key_cuts_elsewhere() {
        let data = noise(400_000);
        let one: Vec<_> = Cutter::new([1; 8]).cuts(&data).collect();
        let two: Vec<_> = Cutter::new([2; 8]).cuts(&data).collect();
        assert_ne!(one, two);
    }
}
