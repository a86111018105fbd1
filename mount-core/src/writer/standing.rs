//! Standing on another version: the record by which the bucket does from the next opening on.

use std::{sync::Arc, time::Instant};

use cairnfs_merge::OpId;
use cairnfs_store::BlobRef;

use super::{
    Writer,
    anew::Renaming,
    record::{Head, SaveRecord},
    save::Snapshot,
};
use crate::{
    Error, Result,
    pins::Pinned,
    shared::{Fate, HeadState, Shared},
};

/// What the record that begins a merged version says of what is in no version.
struct Carried {
    /// The version that the contents lie on, if that is not the merged one.
    before: Option<BlobRef>,
    /// The operation that changes are made under.
    op: OpId,
    /// Contents that are changed.
    contents: Vec<Snapshot>,
}

impl Writer {
    /// The disk stands on a version that memory could not follow to.
    pub(super) fn part_from_disk(&mut self, err: &Error) {
        self.appender.abandon();
        self.note_failure(err);
    }

    /// Step 3: from the next opening on, the bucket stands on `head`. Contents that are changed but
    /// in no version are carried over, under their new names if there are some.
    ///
    /// Whatever can fail comes before it: once it has returned, what is live must land on `head` or
    /// [part from the disk](Self::part_from_disk).
    pub(super) fn write_head(
        &mut self,
        head: &HeadState,
        renaming: Option<&Renaming>,
    ) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let Carried { before, op, contents } = shared.begin_carrying(renaming);
        let record = SaveRecord {
            head: Some(Head {
                manifest: head.manifest,
                devices: shared.inodes.lock().devices().to_vec(),
                incarnation: head.incarnation,
                before,
            }),
            op,
            nodes: Vec::new(),
            files: contents.iter().filter_map(Snapshot::whole_record).collect(),
        };
        let result = self.append(&record);
        // What was saved before and carried nevertheless is due already, or damaged.
        let is_late = contents.iter().any(|it| it.content.is_unsaved());
        shared.end_carrying(contents, record.before(), Fate::of(&result));
        if is_late && let Ok(bytes) = result {
            self.schedule.carried(Instant::now(), bytes as u64);
        }
        let result = result.map(drop);
        self.note(&result);
        result
    }
}

impl Shared {
    /// Takes what the record that begins the merged version carries.
    fn begin_carrying(&self, renaming: Option<&Renaming>) -> Carried {
        let mut core = self.core.write();
        let changed = core.files.iter().filter_map(|(shown, file)| {
            let mut content = file.lock();
            let id = renaming.map_or(shown.node, |renaming| renaming.of_node(shown.node));
            content.is_changed().then(|| Snapshot {
                id: Some(id),
                file: Arc::clone(file),
                content: content.snapshot(),
                base: None,
            })
        });
        let contents: Vec<_> = changed.collect();
        core.saving = true;
        let op = renaming.map_or(core.op, |renaming| renaming.of(core.op));
        // Under new names they lie on the new version itself.
        let before = renaming.is_none().then_some(core.head.manifest);
        Carried { before, op, contents }
    }

    /// What was carried is durable where it belonged before. Only the next save has it where it belongs
    /// on the new version, and with the nodes that were made meanwhile: it takes all of it once more, and
    /// who waits for a save waits for that one.
    fn end_carrying(&self, contents: Vec<Snapshot>, before: Option<BlobRef>, fate: Fate) {
        let files: Vec<_> = contents.iter().map(|it| Arc::clone(&it.file)).collect();
        let mut core = self.core.write();
        core.saving_ends();
        if fate == Fate::Durable {
            core.journaled.begin(&contents);
        }
        self.settle(contents, fate);
        if fate == Fate::Durable {
            let tree = core.tree.base().clone();
            core.carried_on = before.map(|version| Pinned { id: version.id, tree });
            files.iter().for_each(|file| file.lock().must_record_all());
        }
    }
}
