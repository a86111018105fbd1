//! The parts of a content, and how calls change them.

use super::{
    base::{Base, Data},
    pieces::Pieces,
    view::View,
};
use crate::{Error, Fallocate, Result, Time, follow::Claim, vault::Vault};

/// Longest file in bytes: what an `off_t` can say.
pub(crate) const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// What may lie in memory, in bytes, of a file of which some cannot be cut, as what it must be cut with is
/// damaged: many of the longest chunks, so that who writes past the damage is not stopped by it.
const STUCK_BYTES_MAX: u64 = 4 << 20;

/// The parts of a content, changed together.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(super) base: Base,
    pub(super) pieces: Pieces,
    pub(super) len: u64,
    /// When it was last written to, unless the tree knows already.
    pub(super) written: Option<Time>,
    /// The shortest length since the last snapshot, if it was cut.
    pub(super) cut: Option<u64>,
    /// Whether anything changed since the last snapshot.
    pub(super) unsaved: bool,
    /// Whether a snapshot holds what was unsaved, and no barrier covers it yet.
    pub(super) in_flight: bool,
    /// Whether anything changed since the content in the tree.
    pub(super) changed: bool,
    /// Whether the next save record must say where the base lies.
    pub(super) base_unsaved: bool,
    /// What must happen before it is written to.
    pub(super) claim: Option<Claim>,
    /// Whether this is a snapshot that a save carries as it is: it may lack what was saved before.
    pub(super) to_record: bool,
    /// The memory that the last attempt to cut it left taken, as it failed; else 0.
    pub(super) stuck_bytes: u64,
}

/// How much memory a change took, to be told to the accounts (negative: freed).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Growth {
    /// Change of the memory taken, in bytes.
    pub(crate) held: i64,
    /// Change of the written bytes that no barrier covers.
    pub(crate) unsaved: i64,
}

impl Content {
    /// All of it sealed, in `base`.
    pub(super) fn new(base: Base) -> Self {
        let len = base.sealed_len;
        Self {
            base,
            pieces: Pieces::default(),
            len,
            written: None,
            cut: None,
            unsaved: false,
            in_flight: false,
            changed: false,
            base_unsaved: false,
            claim: None,
            to_record: false,
            stuck_bytes: 0,
        }
    }

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

    /// Whether no barrier covers all of it, be it that a save is under way.
    pub(crate) fn is_at_risk(&self) -> bool {
        self.unsaved || self.in_flight
    }

    /// Whether the content differs from the one in the tree, as far as is known.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    /// The memory that what is dirty takes, in bytes.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.pieces.weight()
    }

    /// Notes how it went to cut what `snapshot` has of it.
    pub(crate) fn note_cut<T>(&mut self, snapshot: &Self, cut: &Result<T>) {
        // Want of space is no matter of this file's.
        let is_stuck = cut.as_ref().is_err_and(|err| !matches!(err, Error::NoSpace));
        self.stuck_bytes = if is_stuck { snapshot.held_bytes() } else { 0 };
    }

    /// The memory that what cannot be cut takes, in bytes.
    pub(crate) fn stuck_bytes(&self) -> u64 {
        self.stuck_bytes.min(self.held_bytes())
    }

    /// How many bytes of it no save has taken.
    #[cfg(all(test, loom))]
    pub(crate) fn unsaved_bytes(&self) -> u64 {
        self.pieces.unsaved_bytes()
    }

    pub(super) fn view<'a>(&'a self, vault: &'a Vault) -> View<'a> {
        View { base: &self.base, pieces: &self.pieces, len: self.len, vault }
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
    /// [`Error::TooLarge`] beyond [`FILE_BYTES_MAX`]; [`Error::Damaged`] if too much waits already for
    /// what cannot be read.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8], now: Time) -> Result<Growth> {
        if data.is_empty() {
            return Ok(Growth::default());
        }
        if self.stuck_bytes() > STUCK_BYTES_MAX {
            let what = "a part of the file, so that no more of it can be saved".into();
            return Err(Error::Damaged { what });
        }
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

    /// Forgets all that is dirty: nobody can reach the content any more.
    pub(crate) fn clear(&mut self) -> Growth {
        let before = (self.pieces.weight(), self.pieces.unsaved_bytes());
        self.pieces = Pieces::default();
        self.unsaved = false;
        self.in_flight = false;
        self.growth_since(before)
    }

    /// Whether nothing dirty lies over the sealed content.
    pub(super) fn is_clean(&self) -> bool {
        self.pieces.is_empty()
            && self.len == self.base.sealed_len
            && self.base.visible == self.base.sealed_len
    }

    pub(super) fn growth_since(&self, before: (u64, u64)) -> Growth {
        let delta = |new: u64, old: u64| new.cast_signed() - old.cast_signed();
        Growth {
            held: delta(self.pieces.weight(), before.0),
            unsaved: delta(self.pieces.unsaved_bytes(), before.1),
        }
    }
}
