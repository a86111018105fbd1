//! The log: pack files, records, batches, and how they are read back.
//!
//! ```text
//!  pack 1: [header][record][record][SAVE][record][SAVE]...
//!  pack 2: [header][record]...                            <- appended to
//! ```
//!
//! A *batch* is the records since the last save, and the save record that ends it. Only the
//! batch that is being written can be incomplete, and only in the last pack: a pack is made
//! durable before the next one is begun.

pub(crate) mod begun;
pub(crate) mod gaps;
pub(crate) mod header;
pub(crate) mod links;
pub(crate) mod marked;
pub(crate) mod packs;
pub(crate) mod record;
pub(crate) mod recover;
pub(crate) mod save;
pub(crate) mod scan;
pub(crate) mod settle;
pub(crate) mod tail;
pub(crate) mod torn;

use serde::{Deserialize, Serialize};

use crate::{Seq, check16};

/// A place in the log.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub(crate) struct Pos {
    /// Number of the pack; they begin at 1.
    pub(crate) pack: u32,
    pub(crate) offset: u32,
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loc {
    pub(crate) at: Pos,
    /// Length of the whole record.
    pub(crate) len: u32,
}

/// What the log knows of itself at a place in it, enough to go on from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The last save.
    pub(crate) seq: Seq,
    /// Where its record begins.
    pub(crate) last_save: Option<Pos>,
    /// Where the batch begins that has not been saved yet.
    pub(crate) batch_start: Pos,
    /// A hash over the checksums of that batch's records so far.
    pub(crate) hash: [u8; 16],
}

impl Chain {
    /// Takes in one more record of the batch, by its checksum.
    pub(crate) fn add(&mut self, checksum: [u8; 16]) {
        let mut input = [0; 32];
        input[..16].copy_from_slice(&self.hash);
        input[16..].copy_from_slice(&checksum);
        self.hash = check16(&input);
    }

    /// Closes the batch: its save record lies at `save` and ends at `end`.
    pub(crate) const fn close(&mut self, save: Pos, end: Pos) {
        self.seq = Seq(self.seq.0 + 1);
        self.last_save = Some(save);
        self.batch_start = end;
        self.hash = [0; 16];
    }
}
