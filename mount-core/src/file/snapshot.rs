//! What a save or a version takes of a content, and what becomes of it when that has ended.

use super::{
    base::Base,
    content::{Content, Growth},
    fold::{self, Tail},
    pieces::PLACE_BYTES,
};
use crate::{
    Result,
    vault::{Sealer, Vault},
};

/// A file with more unsaved bytes is cut into chunks at once, rather than journaled first and cut
/// later: its bytes are written once.
const JOURNAL_BYTES_MAX: u64 = 256 << 10;
/// But not before there are more than this, if they are scattered.
const JOURNAL_SCATTERED_BYTES_MAX: u64 = 4 << 20;
/// Bytes are scattered if chunks of so many times as many would have to be read, cut and sealed.
const SCATTERED: u64 = 4;

impl Content {
    /// Whether a save carries what is unsaved as it was written, and leaves it to the next version to
    /// cut it into chunks.
    pub(crate) fn is_journaled(&self) -> bool {
        let unsaved = self.pieces.unsaved_bytes();
        unsaved <= JOURNAL_BYTES_MAX
            || (unsaved <= JOURNAL_SCATTERED_BYTES_MAX
                && self.pieces.unsaved_places() * PLACE_BYTES >= unsaved * SCATTERED)
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
        // Where the base is told anew, what lies over it is as well.
        let pieces =
            if self.base_unsaved { self.pieces.clone() } else { self.pieces.unsaved_part() };
        let snapshot =
            Self { base: self.base.clone(), pieces, to_record: true, claim: None, ..*self };
        self.taken();
        snapshot
    }

    /// Whether this is a snapshot to record.
    pub(crate) fn is_to_record(&self) -> bool {
        self.to_record
    }

    /// Everything is in a snapshot.
    fn taken(&mut self) {
        self.in_flight |= self.unsaved;
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
        assert!(!self.to_record, "only a whole snapshot is folded");
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
        self.in_flight = false;
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
        self.in_flight = false;
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
        // What has been moved to another node since is not in that one.
        self.changed = self.written.is_some() || self.base_unsaved || !self.is_clean();
    }

    /// The next record must say where the sealed content lies: the node does not tell.
    pub(crate) fn must_record_base(&mut self) {
        self.base_unsaved = true;
    }
}
