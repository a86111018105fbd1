//! One file's content: what is sealed, what is dirty, and how the two become one.
//!
//! ```text
//!   write --> Pieces (dirty extents) --save--> journal: the extents themselves, as they were written
//!                 |                                     (memory until then and until folded)
//!                 +--fold, at publish or when large --> chunks, named by the Base
//! ```
//!
//! A [`File`] exists while somebody has it open or while it is dirty. The lock in it is held for
//! copying bytes only, never while the disk works: readers take what they need and read without it.

pub(crate) mod base;
pub(crate) mod cut;
pub(crate) mod fold;
pub(crate) mod pieces;
mod record;
mod view;

#[cfg(test)]
mod tests;

#[cfg(loom)]
use loom::sync::atomic::AtomicBool;
#[cfg(not(loom))]
use std::sync::atomic::AtomicBool;
use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

pub(crate) use base::{Base, Data};
pub(crate) use fold::Tail;
pub(crate) use record::FileRecord;

use crate::{
    Error, Fallocate, Result, Time, Whence,
    file::{
        pieces::{PLACE_BYTES, Pieces, to_usize},
        view::{View, block_start},
    },
    files::Unsaved,
    follow::Claim,
    order::{self, Mutex, MutexGuard},
    vault::{Sealer, Vault},
};

/// Longest file in bytes: what an `off_t` can say.
pub(crate) const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// A file with more unsaved bytes is cut into chunks at once, rather than journaled first and cut
/// later: its bytes are written once.
const JOURNAL_BYTES_MAX: u64 = 256 << 10;
/// But not before there are more than this, if they are scattered.
const JOURNAL_SCATTERED_BYTES_MAX: u64 = 4 << 20;
/// Bytes are scattered if chunks of so many times as many would have to be read, cut and sealed.
const SCATTERED: u64 = 4;

/// The content of an open or dirty file.
#[derive(Debug)]
pub(crate) struct File {
    content: Mutex<Content, order::Content>,
    /// Handles that are open. Changed only under the lock of the table of files.
    pub(crate) handles: AtomicU32,
    /// Whether it is in `unsaved`. Changed only under the lock of the content.
    listed: AtomicBool,
    me: Weak<Self>,
    unsaved: Weak<Unsaved>,
}

/// A locked content. It is listed when it is let go if something in it is unsaved.
#[derive(Debug)]
pub(crate) struct ContentGuard<'f> {
    content: MutexGuard<'f, Content, order::Content>,
    file: &'f File,
}

/// The parts of a content, changed together.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    base: Base,
    pieces: Pieces,
    len: u64,
    /// When it was last written to, unless the tree knows already.
    written: Option<Time>,
    /// The shortest length since the last snapshot, if it was cut.
    cut: Option<u64>,
    /// Whether anything changed since the last snapshot.
    unsaved: bool,
    /// Whether anything changed since the content in the tree.
    changed: bool,
    /// Whether the next save record must say where the base lies.
    base_unsaved: bool,
    /// What must happen before it is written to.
    claim: Option<Claim>,
    /// Whether this is a snapshot with nothing in it but what is to be journaled.
    partial: bool,
}

/// How much memory a change took, to be told to the accounts (negative: freed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Growth {
    /// Change of the memory taken, in bytes.
    pub(crate) held: i64,
    /// Change of the written bytes that no barrier covers.
    pub(crate) unsaved: i64,
}

impl File {
    /// A content that no save knows of.
    pub(crate) fn new(base: Base) -> Self {
        Self::of(base, Weak::new(), Weak::new())
    }

    /// A content that puts itself into `unsaved` whenever it becomes unsaved.
    pub(crate) fn listed_in(base: Base, unsaved: &Arc<Unsaved>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self::of(base, Weak::clone(me), Arc::downgrade(unsaved)))
    }

    fn of(base: Base, me: Weak<Self>, unsaved: Weak<Unsaved>) -> Self {
        let len = base.sealed_len;
        Self {
            content: Mutex::new(Content {
                base,
                pieces: Pieces::default(),
                len,
                written: None,
                cut: None,
                unsaved: false,
                changed: false,
                base_unsaved: false,
                claim: None,
                partial: false,
            }),
            handles: AtomicU32::new(0),
            listed: AtomicBool::new(false),
            me,
            unsaved,
        }
    }

    pub(crate) fn lock(&self) -> ContentGuard<'_> {
        ContentGuard { content: self.content.lock(), file: self }
    }

    /// Whether any handle is open.
    pub(crate) fn is_open(&self) -> bool {
        // Only read under the lock that changes it.
        self.handles.load(Ordering::Relaxed) > 0
    }
}

impl ContentGuard<'_> {
    /// A save looks at this content; whatever it leaves unsaved is listed again.
    pub(crate) fn unlist(&mut self) {
        self.file.listed.store(false, Ordering::Relaxed);
    }
}

impl Drop for ContentGuard<'_> {
    fn drop(&mut self) {
        // Before the lock goes with the field: whoever saw the change sees the list with it.
        if self.content.unsaved
            && !self.file.listed.swap(true, Ordering::Relaxed)
            && let Some(unsaved) = self.file.unsaved.upgrade()
        {
            unsaved.push(Weak::clone(&self.file.me));
        }
    }
}

impl Deref for ContentGuard<'_> {
    type Target = Content;

    fn deref(&self) -> &Content {
        &self.content
    }
}

impl DerefMut for ContentGuard<'_> {
    fn deref_mut(&mut self) -> &mut Content {
        &mut self.content
    }
}

impl Content {
    /// Where the sealed content lies.
    pub(crate) fn sealed(&self) -> &Data {
        &self.base.data
    }

    /// Length of the sealed content in bytes.
    pub(crate) fn sealed_len(&self) -> u64 {
        self.base.sealed_len
    }

    /// What must happen before it is written to.
    pub(crate) fn claim(&self) -> Option<&Claim> {
        self.claim.as_ref()
    }

    pub(crate) fn set_claim(&mut self, claim: Option<Claim>) {
        self.claim = claim;
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// When it was last written to, unless the tree knows already.
    pub(crate) fn written(&self) -> Option<Time> {
        self.written
    }

    /// The tree has been told another time of last change; a record that says otherwise must be
    /// followed by one that does not.
    pub(crate) fn forget_written(&mut self) {
        self.unsaved |= self.written.take().is_some();
    }

    /// Bytes that are not in holes; dirty ones over sealed ones count twice until they are folded.
    pub(crate) fn stored_bytes(&self) -> u64 {
        let cut = self.base.sealed_len - self.base.visible;
        let sealed = self.base.data.stored_bytes().saturating_sub(cut);
        let punched = self.pieces.holes_below(self.base.visible);
        (sealed.saturating_sub(punched) + self.pieces.bytes()).min(self.len)
    }

    pub(crate) fn is_unsaved(&self) -> bool {
        self.unsaved
    }

    /// Whether the content differs from the one in the tree, as far as is known.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    /// The memory that what is dirty takes, in bytes.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.pieces.weight()
    }

    /// Whether a save carries what is unsaved as it was written, and leaves it to the next version to
    /// cut it into chunks.
    pub(crate) fn is_journaled(&self) -> bool {
        let unsaved = self.pieces.unsaved_bytes();
        unsaved <= JOURNAL_BYTES_MAX
            || (unsaved <= JOURNAL_SCATTERED_BYTES_MAX
                && self.pieces.unsaved_places() * PLACE_BYTES >= unsaved * SCATTERED)
    }

    fn view<'a>(&'a self, vault: &'a Vault) -> View<'a> {
        View { base: &self.base, pieces: &self.pieces, len: self.len, vault }
    }

    /// What is needed to read `offset..offset + len`, without the lock.
    pub(crate) fn extract(&self, offset: u64, len: u64) -> Extract {
        let end = offset.saturating_add(len).min(self.len).max(offset);
        // Whether there is data at the offset depends on all of its block.
        let pieces = self.pieces.part(block_start(offset), end);
        Extract { base: self.base.clone(), pieces, len: self.len, offset, end }
    }

    /// Changes the content by `change` and accounts for it.
    fn change(&mut self, now: Time, change: impl FnOnce(&mut Self)) -> Growth {
        let before = (self.pieces.weight(), self.pieces.unsaved_bytes());
        change(self);
        self.written = Some(now);
        self.unsaved = true;
        self.changed = true;
        self.growth_since(before)
    }

    /// Writes `data` at `offset`, extending the file as needed.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] beyond [`FILE_BYTES_MAX`].
    pub(crate) fn write(&mut self, offset: u64, data: &[u8], now: Time) -> Result<Growth> {
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= FILE_BYTES_MAX);
        let end = end.ok_or(Error::TooLarge)?;
        Ok(self.change(now, |this| {
            this.pieces.write(offset, data);
            this.len = this.len.max(end);
        }))
    }

    /// Cuts off or extends by a hole.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] beyond [`FILE_BYTES_MAX`].
    pub(crate) fn set_len(&mut self, len: u64, now: Time) -> Result<Growth> {
        if len > FILE_BYTES_MAX {
            return Err(Error::TooLarge);
        }
        Ok(self.change(now, |this| this.cut_or_extend(len)))
    }

    fn cut_or_extend(&mut self, len: u64) {
        if len < self.len {
            self.pieces.truncate(len);
            self.base.visible = self.base.visible.min(len);
            self.cut = Some(self.cut.map_or(len, |cut| cut.min(len)));
        }
        self.len = len;
    }

    /// Carries out `fallocate`. Allocating stores nothing: a full disk is said by the save, where
    /// sealed content would need new space anyway.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] beyond [`FILE_BYTES_MAX`].
    pub(crate) fn allocate(
        &mut self,
        mode: Fallocate,
        offset: u64,
        len: u64,
        now: Time,
    ) -> Result<Growth> {
        let end = offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX);
        let end = end.ok_or(Error::TooLarge)?;
        Ok(self.change(now, |this| match mode {
            Fallocate::Allocate { keep_size: true } => (),
            Fallocate::Allocate { keep_size: false } => this.len = this.len.max(end),
            Fallocate::PunchHole => this.pieces.punch(offset, end.min(this.len)),
            Fallocate::Zero { keep_size } => {
                if !keep_size {
                    this.len = this.len.max(end);
                }
                this.pieces.punch(offset, end.min(this.len));
            }
        }))
    }

    /// A copy to fold or to record without the lock; it shares the bytes. What becomes of it is told
    /// with [`Content::saved`] or [`Content::not_saved`].
    pub(crate) fn snapshot(&mut self) -> Self {
        let snapshot = self.clone();
        self.taken();
        snapshot
    }

    /// As [`Content::snapshot`], but not to be folded: costs what was changed since the last one,
    /// not what was changed since the last version.
    pub(crate) fn snapshot_to_record(&mut self) -> Self {
        if self.base_unsaved {
            return self.snapshot();
        }
        let snapshot = Self {
            base: self.base.clone(),
            pieces: self.pieces.unsaved_part(),
            partial: true,
            claim: None,
            ..*self
        };
        self.taken();
        snapshot
    }

    /// Everything is in a snapshot.
    fn taken(&mut self) {
        self.unsaved = false;
        self.cut = None;
        self.base_unsaved = false;
    }

    /// Seals what is dirty in this snapshot; see [`fold::fold`].
    ///
    /// # Errors
    ///
    /// Damage in a chunk that must be read; a failed write.
    ///
    /// # Panics
    ///
    /// If this is a snapshot to record: its view would lack what was saved before.
    pub(crate) fn fold(&self, vault: &Vault, sealer: &mut Sealer<'_>, tail: Tail) -> Result<Base> {
        assert!(!self.partial, "only a whole snapshot is folded");
        fold::fold(&self.view(vault), sealer, tail)
    }

    /// This snapshot with `base`, which was folded from it, below what was not folded.
    pub(crate) fn with_base(&self, base: Base) -> Self {
        let mut folded = self.clone();
        folded.pieces.remove_sealed(&self.pieces, base.visible);
        folded.base = base;
        folded.base_unsaved = true;
        folded
    }

    /// A barrier covers `snapshot`, and `base` if it was folded from it: the pieces in that go.
    pub(crate) fn saved(&mut self, snapshot: &Self, base: Option<Base>) -> Growth {
        let before = (self.pieces.weight(), self.pieces.unsaved_bytes());
        // First, so that what is left of a piece that was sealed in part is saved too.
        self.pieces.mark_saved(&snapshot.pieces);
        if let Some(base) = base {
            self.pieces.remove_sealed(&snapshot.pieces, base.visible);
            self.base = base;
            if let Some(cut) = self.cut {
                self.base.visible = self.base.visible.min(cut);
            }
        }
        self.growth_since(before)
    }

    /// The next record must stand alone: the file has taken the place of another.
    pub(crate) fn must_record_all(&mut self) {
        self.base_unsaved = true;
        self.unsaved = true;
        self.changed = true;
    }

    /// The save of `snapshot` failed: everything in it is unsaved still.
    pub(crate) fn not_saved(&mut self, snapshot: &Self) {
        self.unsaved |= snapshot.unsaved;
        self.base_unsaved |= snapshot.base_unsaved;
        self.cut = match (self.cut, snapshot.cut) {
            (Some(now), Some(then)) => Some(now.min(then)),
            (now, then) => now.or(then),
        };
    }

    /// The tree holds the content of `snapshot` now.
    pub(crate) fn published(&mut self, snapshot: &Self) {
        if self.written == snapshot.written {
            self.written = None;
        }
        self.changed = self.written.is_some() || !self.is_clean();
    }

    /// Forgets all that is dirty: nobody can reach the content any more.
    pub(crate) fn clear(&mut self) -> Growth {
        let before = (self.pieces.weight(), self.pieces.unsaved_bytes());
        self.pieces = Pieces::default();
        self.unsaved = false;
        self.growth_since(before)
    }

    /// The next record must say where the sealed content lies: the node does not tell.
    pub(crate) fn must_record_base(&mut self) {
        self.base_unsaved = true;
    }

    /// Whether nothing dirty lies over the sealed content.
    fn is_clean(&self) -> bool {
        self.pieces.is_empty()
            && self.len == self.base.sealed_len
            && self.base.visible == self.base.sealed_len
    }

    fn growth_since(&self, before: (u64, u64)) -> Growth {
        let delta = |new: u64, old: u64| new.cast_signed() - old.cast_signed();
        Growth {
            held: delta(self.pieces.weight(), before.0),
            unsaved: delta(self.pieces.unsaved_bytes(), before.1),
        }
    }
}

/// What a reader took from a content: reads without its lock.
#[derive(Debug)]
pub(crate) struct Extract {
    base: Base,
    pieces: Pieces,
    /// Length of the whole content in bytes.
    len: u64,
    offset: u64,
    end: u64,
}

impl Extract {
    fn view<'a>(&'a self, vault: &'a Vault) -> View<'a> {
        View { base: &self.base, pieces: &self.pieces, len: self.len, vault }
    }

    /// The bytes; fewer than were asked for only at the end of the content.
    ///
    /// # Errors
    ///
    /// A chunk that is missing or damaged.
    pub(crate) fn read(&self, vault: &Vault) -> Result<Vec<u8>> {
        self.view(vault).read(self.offset, to_usize(self.end - self.offset))
    }

    /// The next data or hole at or after the offset, if all from there on was taken.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchOffset`] at or beyond the end, and where only holes follow.
    pub(crate) fn seek(&self, vault: &Vault, whence: Whence) -> Result<u64> {
        if self.offset >= self.len {
            return Err(Error::NoSuchOffset);
        }
        let view = self.view(vault);
        let data = view.next_data(self.offset)?;
        match whence {
            Whence::Data => data.ok_or(Error::NoSuchOffset),
            Whence::Hole if data == Some(self.offset) => view.data_end(self.offset, self.len),
            Whence::Hole => Ok(self.offset),
        }
    }
}
