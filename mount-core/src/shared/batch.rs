//! What a save takes of the live state, and what becomes of it.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use cairnfs_merge::{Node, NodeId, OpId};

use super::Shared;
use crate::{Result, file::Data, writer::save::Snapshot};

/// Everything that one save makes durable.
pub(crate) struct Batch {
    pub(crate) op: OpId,
    pub(crate) nodes: Vec<(NodeId, Option<Arc<Node<Data>>>)>,
    pub(crate) files: Vec<Snapshot>,
}

impl Batch {
    /// Whether there is anything that has lost its last name.
    pub(crate) fn has_nameless(&self) -> bool {
        self.files.iter().any(|snapshot| snapshot.id.is_none())
    }

    /// Leaves what has lost its last name unsaved.
    pub(crate) fn leave_nameless(&mut self) {
        for snapshot in self.files.extract_if(.., |snapshot| snapshot.id.is_none()) {
            snapshot.file.lock().not_saved(&snapshot.content);
        }
    }
}

/// What became of what was taken to be saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// A barrier has covered it.
    Durable,
    /// It is as unsaved as it was.
    Unsaved,
}

impl Fate {
    /// That of what a save or version was to hold which ended so.
    pub(crate) fn of<T>(result: &Result<T>) -> Self {
        if result.is_ok() { Self::Durable } else { Self::Unsaved }
    }
}

impl Shared {
    /// Takes everything that no save has covered; `None` if there is nothing. Costs what it takes,
    /// however much is loaded.
    ///
    /// # Errors
    ///
    /// As [`Shared::claim_left`]: nothing has been taken then.
    pub(crate) fn begin_save(&self) -> Result<Option<Batch>> {
        let taken = self.clock.save_begins(|| self.snapshot());
        taken.inspect_err(|_failed| self.note_save(Fate::Unsaved))
    }

    fn snapshot(&self) -> Result<Option<Batch>> {
        let mut core = self.core.write();
        self.claim_left(&mut core)?;
        let nodes: Vec<_> = std::mem::take(&mut core.unsaved)
            .into_iter()
            .filter_map(|id| Some((id, core.tree.changed(&id)?)))
            .collect();
        let mut files = core.files.snapshots();
        if self.room.is_pressed() {
            // They need not survive, but no version will free the memory that they take.
            let orphans = self.inodes.lock().orphans();
            files.extend(orphans.into_iter().filter_map(Snapshot::nameless));
        }
        core.saving = !(nodes.is_empty() && files.is_empty());
        if !core.saving {
            self.report.lock().unsaved_since = None;
            return Ok(None);
        }
        core.in_flight = nodes.len();
        Ok(Some(Batch { op: core.op, nodes, files }))
    }

    /// Settles what [`Shared::begin_save`] took.
    pub(crate) fn end_save(&self, batch: Batch, fate: Fate) {
        let mut core = self.core.write();
        core.saving_ends();
        if fate == Fate::Durable {
            core.journaled.save(&batch);
        }
        self.settle(batch.files, fate);
        if fate == Fate::Unsaved {
            core.unsaved.extend(batch.nodes.into_iter().map(|(id, _)| id));
        }
        drop(core);
        self.note_save(fate);
    }

    /// Settles what was taken of contents.
    pub(crate) fn settle(&self, taken: impl IntoIterator<Item = Snapshot>, fate: Fate) {
        for Snapshot { file, content, base, .. } in taken {
            let mut live = file.lock();
            match fate {
                Fate::Durable => self.room.account(live.saved(&content, base)),
                Fate::Unsaved => live.not_saved(&content),
            }
        }
    }

    fn note_save(&self, fate: Fate) {
        let mut report = self.report.lock();
        match fate {
            Fate::Durable => {
                report.barriers += 1;
                report.last_save = Some(SystemTime::now());
                // A change after the snapshot has been noted again.
                if self.clock.dirty_since().is_none() {
                    report.unsaved_since = None;
                }
            }
            Fate::Unsaved => {
                self.clock.note(self.micros(Instant::now()));
            }
        }
    }
}
