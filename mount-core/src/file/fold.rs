//! Sealing what is dirty: cuts the changed parts of a file into chunks and says where they lie.
//!
//! Only dirty ranges are cut again: from the last boundary that the change cannot have moved until
//! the new boundaries meet the old ones. So the work depends on what changed, and the chunks depend
//! only on the content, never on the order of the writes that made it.
//!
//! # Invariants
//!
//! 1. Each run of data between holes is cut on its own, from its first block.
//! 2. A cut depends on the bytes of its chunk and the one byte after it.
//! 3. Old chunks outside the ranges cut again are kept untouched.

use std::collections::BTreeMap;

use cairnfs_store::{BlobRef, map};

use super::{
    base::{Base, Data, INLINE_BYTES_MAX},
    cut::{CHUNK_BYTES_MAX, Cut},
    pieces::{Fill, to_usize},
    view::{View, block_end, block_start},
};
use crate::{Result, vault::Sealer};

/// How much content is read at once at the most: enough for several of the longest chunks.
const WINDOW_BYTES_MAX: u64 = 16 * CHUNK_BYTES_MAX as u64;
/// How much is read beyond a change: boundaries mostly meet again within two chunks, and a cut is
/// believed only with the longest chunk behind it.
const BEYOND_BYTES: u64 = 2 * CHUNK_BYTES_MAX as u64;

/// What to do with the last chunk, which more data would move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tail {
    /// Seal it: the content is complete.
    Seal,
    /// Leave it dirty: more is being written behind it.
    Keep,
}

/// Seals the dirty parts of `view`. The returned base holds all content below its length; with
/// [`Tail::Keep`] it may be shorter than the view.
///
/// Reads and writes what changed and at most two of the longest chunks for each dirty range, and
/// O(log n) nodes of the file's map.
///
/// # Errors
///
/// Damage in a chunk that must be read; a failed write.
pub(crate) fn fold(view: &View<'_>, sealer: &mut Sealer<'_>, tail: Tail) -> Result<Base> {
    if view.len <= INLINE_BYTES_MAX {
        return match tail {
            Tail::Keep => Ok(view.base.clone()),
            Tail::Seal => {
                let bytes = view.read(0, to_usize(view.len))?;
                Ok(Base::new(Data::Inline(bytes), view.len))
            }
        };
    }
    let mut recut = Recut {
        view,
        sealer,
        tail,
        edits: BTreeMap::new(),
        stored_bytes: chunked_bytes(view.base),
        sealed_to: view.len,
    };
    recut.drop_invisible()?;
    recut.run()?;
    let Recut { edits, stored_bytes, sealed_to, .. } = recut;
    let data = settle(view, sealer, &edits, stored_bytes, sealed_to)?;
    Ok(Base::new(data, sealed_to))
}

/// Bytes of the base that lie in chunks.
fn chunked_bytes(base: &Base) -> u64 {
    match &base.data {
        Data::Inline(_) | Data::Device(_) => 0,
        data => data.stored_bytes(),
    }
}

/// Applies the edits to the file's map and picks the smallest form for the result.
fn settle(
    view: &View<'_>,
    sealer: &mut Sealer<'_>,
    edits: &BTreeMap<u64, Option<BlobRef>>,
    stored_bytes: u64,
    len: u64,
) -> Result<Data> {
    let old = match &view.base.data {
        Data::Map { root, .. } => *root,
        Data::Inline(_) | Data::Chunk(_) | Data::Device(_) => map::Root::EMPTY,
    };
    // A lone chunk has no map yet: it joins the edits unless they replace it.
    let mut edits = edits.clone();
    if let Data::Chunk(blob) = &view.base.data {
        edits.entry(0).or_insert(Some(*blob));
    }
    if old == map::Root::EMPTY {
        edits.retain(|_, blob| blob.is_some());
        if let Some((0, Some(blob))) = edits.iter().next().map(|(start, blob)| (*start, *blob))
            && edits.len() == 1
            && u64::from(blob.len) == len
        {
            return Ok(Data::Chunk(blob));
        }
    }
    let root = sealer.apply_extents(old, &edits)?;
    if stored_bytes == len
        && let Some(only) = view.vault.extent_after(root, 0)?
        && only.end() == len
        && only.start == 0
    {
        return Ok(Data::Chunk(only.blob));
    }
    Ok(Data::Map { root, stored_bytes })
}

/// The state of one fold.
struct Recut<'v, 's, 'a> {
    view: &'v View<'v>,
    sealer: &'s mut Sealer<'a>,
    tail: Tail,
    /// Changes of the file's map: removed and added chunks by offset.
    edits: BTreeMap<u64, Option<BlobRef>>,
    /// Sum of the lengths of the chunks that remain.
    stored_bytes: u64,
    /// Content from here on stays dirty.
    sealed_to: u64,
}

impl Recut<'_, '_, '_> {
    /// Removes the chunks that a truncation has made invisible.
    fn drop_invisible(&mut self) -> Result<()> {
        let base = self.view.base;
        if base.visible < base.sealed_len {
            let whole = Base::new(base.data.clone(), base.sealed_len);
            self.drop_chunks(&whole, base.visible, base.sealed_len)?;
        }
        Ok(())
    }

    /// Removes the chunks of `base` that start within `from..to`.
    fn drop_chunks(&mut self, base: &Base, from: u64, to: u64) -> Result<()> {
        let mut at = from;
        while let Some(extent) = base.chunk_after(self.view.vault, at)? {
            if extent.start >= to {
                break;
            }
            if extent.start >= from && self.edits.insert(extent.start, None).is_none() {
                self.forget(extent.blob);
            }
            at = extent.end();
        }
        Ok(())
    }

    /// The sum that a peer claims for a file of its own may be any: then what comes of it is wrong
    /// too, which is nothing but the number of blocks that `stat` shows.
    fn forget(&mut self, chunk: BlobRef) {
        self.stored_bytes = self.stored_bytes.saturating_sub(u64::from(chunk.len));
    }

    fn run(&mut self) -> Result<()> {
        let mut dirty = self.dirty_ranges().into_iter().peekable();
        let mut clean_from = 0;
        while let Some((start, mut end)) = dirty.next() {
            let first = self.restart(start)?.max(clean_from);
            let mut at = first;
            loop {
                // Ranges that were reached on the way belong to this one.
                while let Some((_, next_end)) = dirty.next_if(|(next, _)| *next <= at.max(end)) {
                    end = end.max(next_end);
                }
                if at >= self.view.len || (at >= end && self.is_old_boundary(at)?) {
                    break;
                }
                let Some(data) = self.view.next_data(at)? else {
                    at = self.view.len;
                    break;
                };
                if data > at {
                    // A hole ends a run; what follows it begins one.
                    at = data;
                    continue;
                }
                let next = self.cut_run(at, end)?;
                if next == at {
                    // Only the tail is left, and stays dirty.
                    self.sealed_to = at;
                    self.drop_replaced(first, self.view.base.visible)?;
                    return Ok(());
                }
                at = next;
            }
            self.drop_replaced(first, at)?;
            clean_from = at;
        }
        Ok(())
    }

    /// Removes the old chunks that start within `from..to` and were not put there by this fold.
    fn drop_replaced(&mut self, from: u64, to: u64) -> Result<()> {
        let mut at = from;
        while let Some(extent) = self.view.base.chunk_after(self.view.vault, at)? {
            if extent.start >= to {
                break;
            }
            if extent.start >= from {
                self.forget(extent.blob);
                self.edits.entry(extent.start).or_insert(None);
            }
            at = extent.end();
        }
        Ok(())
    }

    /// Byte ranges, grown to whole blocks, in which old cuts mean nothing.
    fn dirty_ranges(&self) -> Vec<(u64, u64)> {
        let View { base, pieces, len, .. } = *self.view;
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        if base.inline().is_some() && base.visible > 0 {
            ranges.push((0, block_end(base.visible).min(len)));
        } else if base.visible < base.sealed_len || base.visible < len {
            // The last chunk was cut short, or the end it was cut at is the end no more.
            ranges.push((base.visible, block_end(base.visible).min(len).max(base.visible)));
        }
        for (start, piece) in pieces.iter() {
            let end = block_end(start + piece.fill.len()).min(len);
            ranges.push((block_start(start), end));
        }
        ranges.sort_unstable();
        ranges.dedup_by(|next, kept| {
            let joins = next.0 <= kept.1;
            if joins {
                kept.1 = kept.1.max(next.1);
            }
            joins
        });
        ranges
    }

    /// Where cutting must begin for a change at `start`: a chunk's cut depends on the byte after
    /// it, so the chunk that ends at `start` is cut again too.
    fn restart(&self, start: u64) -> Result<u64> {
        let before = start.saturating_sub(1);
        match self.view.base.chunk_after(self.view.vault, before)? {
            Some(extent) if extent.start <= before => Ok(extent.start),
            _ => Ok(block_start(start)),
        }
    }

    fn is_old_boundary(&self, at: u64) -> Result<bool> {
        if at >= self.view.len {
            return Ok(true);
        }
        let old = self.view.base.chunk_after(self.view.vault, at)?;
        Ok(old.is_some_and(|extent| extent.start == at))
    }

    /// Cuts the run of data at `at` until its end, or until a boundary at or after `end` that an
    /// old chunk starts at. Returns where it stopped: `at` itself if only an unsealed tail is left.
    fn cut_run(&mut self, at: u64, end: u64) -> Result<u64> {
        let mut at = at;
        loop {
            let limit = (end.max(at) + BEYOND_BYTES).min(at + WINDOW_BYTES_MAX);
            let data_end = self.view.data_end(at, limit)?;
            let run_ends = data_end < limit || (data_end == limit && limit == self.view.len);
            let bytes = self.view.read(at, to_usize(data_end.min(limit) - at))?;
            let (next, done) = self.cut_window(at, &bytes, run_ends, end)?;
            at = next;
            if done {
                return Ok(at);
            }
        }
    }

    /// Cuts one window of content. Returns where it stopped and whether the run is done with.
    fn cut_window(
        &mut self,
        at: u64,
        bytes: &[u8],
        run_ends: bool,
        end: u64,
    ) -> Result<(u64, bool)> {
        let mut chunks: Vec<&[u8]> = Vec::new();
        let mut from = 0;
        let mut done = run_ends;
        for cut in self.view.vault.cutter().cuts(bytes) {
            let len = match cut {
                // Near the end of a window that goes on, a cut is not to be believed.
                _ if !run_ends && bytes.len() - from <= CHUNK_BYTES_MAX + 1 => break,
                Cut::End(_) if self.keeps_tail(at + from as u64, at + bytes.len() as u64) => break,
                Cut::Content(len) | Cut::End(len) => len,
            };
            chunks.push(&bytes[from..from + len]);
            from += len;
            let here = at + from as u64;
            if here >= end && self.is_old_boundary(here)? {
                done = true;
                break;
            }
        }
        let mut start = at;
        for blob in self.sealer.put_chunks(&chunks)? {
            self.stored_bytes = self.stored_bytes.saturating_add(u64::from(blob.len));
            self.edits.insert(start, Some(blob));
            start += u64::from(blob.len);
        }
        Ok((start, done))
    }

    /// Whether `start..end` is a tail to be left dirty: it can be if pieces hold all of it.
    fn keeps_tail(&self, start: u64, end: u64) -> bool {
        if self.tail == Tail::Seal || end != self.view.len {
            return false;
        }
        let mut held_to = start;
        for (piece_start, piece) in self.view.pieces.over(start, end) {
            if piece_start > held_to || matches!(piece.fill, Fill::Hole(_)) {
                return false;
            }
            held_to = piece_start + piece.fill.len();
        }
        held_to >= end
    }
}
