//! Putting blobs into the open batch.

use std::collections::HashSet;
use std::sync::Arc;

use rayon::prelude::*;

use super::{Appender, SPILL_BYTES};
use crate::bytes::len32;
use crate::error::IoContext;
use crate::journal::record::{self, KIND_SAVE_PART, OVERHEAD_BYTES};
use crate::journal::save::{self, SaveId};
use crate::journal::{Loc, Pos};
use crate::seal::{self, BLOB_BYTES_MAX, Label};
use crate::{BlobId, BlobRef, CheckedBlob, Error, Kind, Result};

/// Plaintext that is sealed at a time by [`Appender::put_all`]: it bounds the memory taken.
const SLICE_BYTES: usize = 8 << 20;
/// Less than this is sealed sooner by one thread than it is handed out to several.
const PARALLEL_BYTES: usize = 128 << 10;

impl Appender {
    /// Puts a blob into the batch, unless the store has it. Not durable before [`Self::save`].
    ///
    /// Costs a pass of BLAKE3, and where the blob is new one of zstd, of the cipher, and of
    /// BLAKE3 for the checksum.
    ///
    /// # Errors
    ///
    /// - [`Error::NoSpace`] if the batch had to be written to make room and could not be. This
    ///   blob is then not in the batch; those before it are.
    /// - [`Error::TooLarge`] beyond [`BLOB_BYTES_MAX`].
    /// - [`Error::Poisoned`], [`Error::Io`], [`Error::Index`], [`Error::Random`].
    pub fn put(&mut self, kind: Kind, plain: &[u8]) -> Result<BlobRef> {
        self.check_poison()?;
        let blob = self.name(plain)?;
        if self.wants(&blob.id)? {
            self.seal_and_append(kind as u8, blob.id, Some(blob.id), plain)?;
        }
        Ok(blob)
    }

    /// As [`Self::put`] for each of `plains`, in their order, but hashed and sealed by all cores.
    ///
    /// # Errors
    ///
    /// As [`Self::put`]; some of the blobs may then be in the batch.
    pub fn put_all<B: AsRef<[u8]> + Sync>(
        &mut self,
        kind: Kind,
        plains: &[B],
    ) -> Result<Vec<BlobRef>> {
        let mut refs = Vec::with_capacity(plains.len());
        let mut rest = plains;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |plain: &&B| {
                bytes += plain.as_ref().len();
                bytes <= SLICE_BYTES
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (slice, behind) = rest.split_at(count);
            self.put_slice(kind, slice, bytes, &mut refs)?;
            rest = behind;
        }
        Ok(refs)
    }

    fn put_slice<B: AsRef<[u8]> + Sync>(
        &mut self,
        kind: Kind,
        plains: &[B],
        bytes: usize,
        refs: &mut Vec<BlobRef>,
    ) -> Result<()> {
        let is_worth_it = plains.len() > 1 && bytes >= PARALLEL_BYTES;
        let Some(pool) = is_worth_it.then(|| self.sealers.wake()).flatten() else {
            for plain in plains {
                refs.push(self.put(kind, plain.as_ref())?);
            }
            return Ok(());
        };
        self.check_poison()?;
        let name = || plains.par_iter().map(|plain| self.name(plain.as_ref())).collect();
        let named: Result<Vec<BlobRef>> = pool.install(name);
        let named = named?;
        let mut fresh = HashSet::new();
        let mut todo = Vec::new();
        for (blob, plain) in named.iter().zip(plains) {
            if fresh.insert(blob.id) && self.wants(&blob.id)? {
                todo.push((blob.id, plain.as_ref()));
            }
        }
        let (keys, cipher) = (&self.blobs.keys, self.cipher);
        let seal = |&(id, plain): &(BlobId, &[u8])| {
            let mut record = Vec::with_capacity(plain.len() + OVERHEAD_BYTES);
            let label = Label { kind: kind as u8, id, checkpoint: false };
            seal::seal(&mut record, keys, cipher, label, plain)?;
            Ok((id, record))
        };
        let sealed: Result<Vec<(BlobId, Vec<u8>)>> =
            pool.install(|| todo.par_iter().map(seal).collect());
        for (id, record) in sealed? {
            self.append(Some(id), &record)?;
        }
        refs.extend(named);
        Ok(())
    }

    /// Puts a record that a peer sealed, as it is.
    ///
    /// # Errors
    ///
    /// As [`Self::put`].
    pub fn put_sealed(&mut self, checked: &CheckedBlob) -> Result<BlobRef> {
        self.check_poison()?;
        let blob = checked.blob();
        if self.wants(&blob.id)? {
            self.append(Some(blob.id), checked.as_bytes())?;
        }
        Ok(blob)
    }

    /// As [`Self::put_sealed`], but stores the record even if there is one of this name: it
    /// takes the place of one that is damaged.
    ///
    /// # Errors
    ///
    /// As [`Self::put_sealed`].
    pub fn heal(&mut self, checked: &CheckedBlob) -> Result<BlobRef> {
        self.check_poison()?;
        let blob = checked.blob();
        self.append(Some(blob.id), checked.as_bytes())?;
        Ok(blob)
    }

    /// Hands what is buffered to the kernel, without a barrier. Happens by itself every few MiB.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`] (the bytes stay buffered), [`Error::Io`], [`Error::Poisoned`].
    pub fn spill(&mut self) -> Result<()> {
        self.check_poison()?;
        self.write_pending(false)
    }

    /// Drops everything put since the last save. References to those blobs lead nowhere then.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if what was spilled could not be cut off: the log is then poisoned.
    /// [`Error::Poisoned`].
    pub fn discard_batch(&mut self) -> Result<()> {
        self.check_poison()?;
        let start = self.chain.batch_start;
        self.plan = None;
        let dropped = std::mem::take(&mut self.batch);
        self.blobs.tail.batch_dropped(&dropped);
        self.batch_bytes = 0;
        self.chain.hash = [0; 16];
        self.blobs.tail.written(start);
        let spilled = self.pack != start.pack || self.written != u64::from(start.offset);
        if spilled {
            let cut = self.cut_to(start);
            if let Err(err) = &cut {
                // Even a full disk: what stands there now must not be taken for what comes.
                self.poison(err);
            }
            cut?;
        }
        Ok(())
    }

    fn cut_to(&mut self, start: Pos) -> Result<()> {
        let blobs = Arc::clone(&self.blobs);
        for number in ((start.pack + 1)..=self.pack).rev() {
            blobs.packs.remove(number)?;
        }
        let path = blobs.packs.path(start.pack);
        let file = blobs.packs.file(start.pack)?;
        file.set_len(u64::from(start.offset)).at("cut", &path)?;
        file.barrier().at("sync", &path)?;
        self.file = file;
        self.pack = start.pack;
        self.written = u64::from(start.offset);
        self.ahead = super::Ahead::new(self.written);
        blobs.packs.set_size(self.pack, self.written);
        Ok(())
    }

    fn name(&self, plain: &[u8]) -> Result<BlobRef> {
        if plain.len() > BLOB_BYTES_MAX {
            return Err(Error::TooLarge { len: plain.len(), max: BLOB_BYTES_MAX });
        }
        Ok(BlobRef { id: self.blobs.keys.name(plain), len: len32(plain.len()) })
    }

    /// The pieces of a long payload that go before the save record.
    pub(super) fn put_parts(&mut self, payload: &[u8]) -> Result<Vec<Loc>> {
        let seq = SaveId::closing(&self.chain).seq;
        let mut parts = Vec::new();
        for (piece, index) in payload.chunks(save::PART_BYTES).zip(0..) {
            let id = save::part_id(seq, index);
            let loc = self.seal_and_append(KIND_SAVE_PART, id, None, piece)?;
            *self.spent.entry(loc.at.pack).or_default() += u64::from(loc.len);
            parts.push(loc);
        }
        Ok(parts)
    }

    fn seal_and_append(
        &mut self,
        kind: u8,
        id: BlobId,
        findable: Option<BlobId>,
        plain: &[u8],
    ) -> Result<Loc> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let label = Label { kind, id, checkpoint: false };
        let appended = seal::seal(&mut scratch, &self.blobs.keys, self.cipher, label, plain)
            .and_then(|_len| self.append(findable, &scratch));
        self.scratch = scratch;
        appended
    }

    pub(super) fn append(&mut self, id: Option<BlobId>, record: &[u8]) -> Result<Loc> {
        // Before the record is taken in: if there is no room, the batch is as it was.
        self.make_room(record.len())?;
        let loc = Loc { at: self.end(), len: len32(record.len()) };
        let (_, checksum) = record::checksum_of(record)
            .expect("because a record was just sealed or checked, and ends in its checksum");
        self.blobs.tail.push(id, loc, record);
        self.chain.add(checksum);
        self.batch_bytes += record.len() as u64;
        if let Some(id) = id {
            self.batch.push((id, loc));
        }
        Ok(loc)
    }

    /// Sees to it that the next record fits the buffer and the pack.
    pub(super) fn make_room(&mut self, len: usize) -> Result<()> {
        let pending = self.blobs.tail.pending_len();
        let used = self.written + pending as u64;
        if used + len as u64 > self.pack_bytes && used > self.pack_bytes / 2 {
            return self.roll();
        }
        if pending + len > SPILL_BYTES && pending > 0 {
            return self.write_pending(false);
        }
        Ok(())
    }
}
