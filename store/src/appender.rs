//! The one who writes: puts blobs into a batch and saves it.
//!
//! # Invariants
//!
//! 1. One batch is open at a time, and it is the last thing in the log.
//! 2. What is written is written at the log's end; behind the end there is nothing but zeros.
//! 3. A save is one write, where the batch fits the buffer, and one barrier.
//! 4. `poisoned` never goes back to `false`.
//! 5. Zeros are written by themselves only while no batch is open, so that what they share a
//!    barrier with is durable already.

mod ahead;
mod batch;
mod reclaim;
mod roll;
mod sealers;
mod write;

pub use reclaim::{Reclaimed, Surveyed};

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::bytes::len32;
use crate::disk::DiskFile;
use crate::error::IoContext;
use crate::index::{Mark, Trail};
use crate::journal::record::KIND_SAVE;
use crate::journal::save::{self, SaveId};
use crate::journal::{Chain, Loc, Pos, recover::end_of};
use crate::reserve::Reserve;
use crate::seal::{self, Cipher, Label};
use crate::{BlobId, Blobs, Error, Result, Seq};
use ahead::Ahead;
use sealers::Sealers;

/// Buffered bytes of the batch that are handed to the kernel ahead of the save.
const SPILL_BYTES: usize = 4 << 20;

/// How a save stands to those before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SaveKind {
    /// It adds to them: recovery needs them too.
    OnTop,
    /// Recovery needs none of them.
    Checkpoint,
}

impl SaveKind {
    /// [`Self::Checkpoint`] if it is one.
    #[must_use]
    pub const fn checkpoint_if(is_checkpoint: bool) -> Self {
        if is_checkpoint { Self::Checkpoint } else { Self::OnTop }
    }

    const fn is_checkpoint(self) -> bool {
        matches!(self, Self::Checkpoint)
    }
}

/// The writers' side of a store: owned by one thread, the only one that appends.
///
/// Blobs are put, then saved: a batch. Until [`Self::save`] returns `Ok` nothing of the batch is
/// promised to survive.
pub struct Appender {
    // Field order is drop order: the index thread commits and ends before the readers' side goes.
    trail: Trail,
    blobs: Arc<Blobs>,
    cipher: Cipher,
    pack_bytes: u64,
    file: Arc<dyn DiskFile>,
    pack: u32,
    /// Where in the pack the next byte goes that is handed to the kernel.
    written: u64,
    ahead: Ahead,
    chain: Chain,
    checkpoint: Option<Pos>,
    /// The blobs of the open batch.
    batch: Vec<(BlobId, Loc)>,
    batch_bytes: u64,
    /// One record on its way from the cipher to the buffer.
    scratch: Vec<u8>,
    sealers: Sealers,
    reserve: Arc<Reserve>,
    /// A reclaim whose copies are in the batch, or saved.
    plan: Option<reclaim::Plan>,
    /// While a survey is under way: blobs that were put and were here already.
    put_again: Option<HashSet<BlobId>>,
    /// Bytes of save records by pack, as far as they were written since the store was opened.
    spent: BTreeMap<u32, u64>,
    poisoned: bool,
}

impl std::fmt::Debug for Appender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Appender")
            .field("seq", &self.chain.seq)
            .field("pack", &self.pack)
            .field("written", &self.written)
            .field("poisoned", &self.poisoned)
            .finish_non_exhaustive()
    }
}

/// What an appender begins with.
pub(crate) struct Start {
    pub(crate) trail: Trail,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) pack_bytes: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) file_len: u64,
    pub(crate) chain: Chain,
    pub(crate) checkpoint: Option<Pos>,
    pub(crate) reserve: Arc<Reserve>,
}

impl Appender {
    pub(crate) fn new(start: Start) -> Self {
        let end = start.chain.batch_start;
        Self {
            trail: start.trail,
            blobs: start.blobs,
            cipher: Cipher::for_this_cpu(),
            pack_bytes: start.pack_bytes,
            file: start.file,
            pack: end.pack,
            written: u64::from(end.offset),
            ahead: Ahead::new(start.file_len),
            chain: start.chain,
            checkpoint: start.checkpoint,
            batch: Vec::new(),
            batch_bytes: 0,
            scratch: Vec::new(),
            sealers: Sealers::default(),
            reserve: start.reserve,
            plan: None,
            put_again: None,
            spent: BTreeMap::new(),
            poisoned: false,
        }
    }

    /// Makes every blob put so far durable, with `payload`, in one batch.
    ///
    /// Costs one write and one barrier where the batch fits the buffer. On average a save writes no
    /// more than 300 bytes besides its content; see also [`Self::write_ahead`].
    ///
    /// # Errors
    ///
    /// - [`Error::NoSpace`]: nothing is lost; free some space and save again, or drop the batch.
    /// - [`Error::Io`] if the write or the barrier failed. The log is poisoned then, and recovery
    ///   may or may not see the save.
    /// - [`Error::Poisoned`] if an earlier call failed.
    /// - [`Error::TooLarge`] for a payload over 16 GiB.
    pub fn save(&mut self, payload: &[u8], kind: SaveKind) -> Result<Seq> {
        let seq = self.try_save(payload, kind)?;
        self.reserve.ensure();
        Ok(seq)
    }

    /// As [`Self::save`], with the reserve at hand where the disk is full: for saves that delete.
    ///
    /// # Errors
    ///
    /// As [`Self::save`]; [`Error::NoSpace`] if the reserve is used up too.
    pub fn save_urgent(&mut self, payload: &[u8], kind: SaveKind) -> Result<Seq> {
        match self.try_save(payload, kind) {
            Err(Error::NoSpace { path }) => {
                if !self.reserve.release()? {
                    return Err(Error::NoSpace { path });
                }
                self.try_save(payload, kind)
            }
            Ok(seq) => {
                self.reserve.ensure();
                Ok(seq)
            }
            Err(err) => Err(err),
        }
    }

    /// So long a batch may be, with its payload, that one [`Self::save_urgent`] after another finds room
    /// in the reserve.
    #[must_use]
    pub fn urgent_bytes_max(&self) -> u64 {
        self.reserve.bytes() / 2
    }

    /// Whether [`Self::write_ahead`] would spare saves to come some time.
    #[must_use]
    pub fn wants_ahead(&self) -> bool {
        let open = !self.batch.is_empty() || self.batch_bytes > 0;
        !open && !self.poisoned && self.ahead.is_short(self.written)
    }

    /// Writes zeros ahead of the log, durably, so that the next saves do not make the file longer:
    /// in all as many as small saves have brought, and never more than 1 MiB ahead. For when
    /// nobody waits for a save; does nothing unless [`Self::wants_ahead`].
    ///
    /// Costs a write of up to 1 MiB and a barrier.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the write or the barrier failed; the log is poisoned then, although
    /// everything that was saved is durable. A full disk is no error.
    pub fn write_ahead(&mut self) -> Result<()> {
        if !self.wants_ahead() {
            return Ok(());
        }
        let outcome = self.ahead.extend(&*self.file, self.written);
        let path = self.blobs.packs.path(self.pack);
        self.judge(outcome.at("write", &path))?;
        self.barrier()
    }

    fn try_save(&mut self, payload: &[u8], kind: SaveKind) -> Result<Seq> {
        self.check_poison()?;
        let (head, end) = payload.split_at(payload.len() - payload.len() % save::PART_BYTES);
        // A payload that fits one record is not split.
        let (head, end) =
            if payload.len() <= save::PART_BYTES { (&[][..], payload) } else { (head, end) };
        let parts = self.put_parts(head)?;
        let content = save::encode_content(&parts, end);
        let id = SaveId::closing(&self.chain).encode();
        self.scratch.clear();
        let label = Label { kind: KIND_SAVE, id, checkpoint: kind.is_checkpoint() };
        let mut scratch = std::mem::take(&mut self.scratch);
        let sealed = seal::seal(&mut scratch, &self.blobs.keys, self.cipher, label, &content);
        self.scratch = scratch;
        sealed?;
        self.make_room(self.scratch.len())?;
        let before = self.blobs.tail.pending_len();
        let loc = Loc { at: self.end(), len: len32(self.scratch.len()) };
        self.blobs.tail.push(None, loc, &self.scratch);
        if let Err(err) = self.write_pending(true) {
            // Without its record the batch is open again, and can be saved or dropped.
            self.blobs.tail.truncate_pending(before);
            return Err(err);
        }
        self.barrier()?;
        self.saved(loc, kind);
        Ok(self.chain.seq)
    }

    /// Notes that the save record at `loc` is durable, with its batch.
    fn saved(&mut self, loc: Loc, kind: SaveKind) {
        self.chain.close(loc.at, end_of(loc));
        self.blobs.tail.batch_saved();
        self.plan_saved();
        for (id, _) in &self.batch {
            self.blobs.rotten.forget(id);
        }
        *self.spent.entry(loc.at.pack).or_default() += u64::from(loc.len);
        if kind.is_checkpoint() {
            self.checkpoint = Some(loc.at);
        }
        log::debug!(
            "save seq={} records={} bytes={} checkpoint={}",
            self.chain.seq,
            self.batch.len(),
            self.batch_bytes,
            kind.is_checkpoint()
        );
        let mark = Mark {
            end: self.chain.batch_start,
            seq: self.chain.seq,
            last_save: self.chain.last_save,
            checkpoint: self.checkpoint,
        };
        let bytes = std::mem::take(&mut self.batch_bytes) + u64::from(loc.len);
        self.trail.push(&mut self.batch, bytes, mark);
        self.scratch.shrink_to(256 << 10);
    }

    /// The last save.
    #[must_use]
    pub const fn seq(&self) -> Seq {
        self.chain.seq
    }

    /// The readers' side.
    #[must_use]
    pub const fn blobs(&self) -> &Arc<Blobs> {
        &self.blobs
    }

    /// Whether an earlier failure keeps this store from being written to.
    #[must_use]
    pub const fn poisoned(&self) -> bool {
        self.poisoned
    }

    /// Bytes of records in the open batch.
    #[must_use]
    pub const fn batch_bytes(&self) -> u64 {
        self.batch_bytes
    }

    /// Has the index take in everything that is saved. Not needed for anything but a quicker
    /// next opening; dropping the appender does it too.
    ///
    /// # Errors
    ///
    /// [`Error::Index`]. Nothing is lost by it.
    pub fn flush_index(&self) -> Result<()> {
        self.trail.flush()
    }

    /// Lets go what only large batches need, until one comes again.
    pub fn rest(&mut self) {
        self.sealers.rest();
    }

    /// Refuses all further writes, as after a failure of the disk: for who can no longer tell what
    /// a write would mean.
    pub const fn abandon(&mut self) {
        self.poisoned = true;
    }
}
