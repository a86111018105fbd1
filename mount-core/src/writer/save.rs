//! Saving: everything that has changed becomes durable with one barrier.

use std::{sync::Arc, time::Instant};

use cairnfs_merge::NodeId;

use super::{Writer, record::SaveRecord};
use crate::{
    Error, Result,
    file::{Base, Content, File, FileRecord, Tail},
    shared::{Batch, Fate},
    vault::Sealer,
};

/// What may be saved from the reserve, however small it is.
const URGENT_BYTES_MIN: u64 = 128 << 10;

/// A file and its content at the moment of the save.
pub(crate) struct Snapshot {
    /// Its node; `None` if it has lost its last name, and so is not recorded.
    pub(crate) id: Option<NodeId>,
    pub(crate) file: Arc<File>,
    pub(crate) content: Content,
    /// What the content was folded into.
    pub(crate) base: Option<Base>,
}

impl Snapshot {
    /// Of a file that has lost its last name; `None` if it takes no memory.
    pub(crate) fn nameless(file: Arc<File>) -> Option<Self> {
        let content = {
            let mut content = file.lock();
            (content.held_bytes() > 0).then(|| content.snapshot())?
        };
        Some(Self { id: None, file, content, base: None })
    }

    /// The record that stands alone over the content in the tree, for what is recorded at all.
    pub(super) fn whole_record(&self) -> Option<(NodeId, FileRecord)> {
        Some((self.id?, self.content.whole_record()))
    }

    fn record(&self) -> FileRecord {
        match &self.base {
            Some(base) => self.content.with_base(base.clone()).record(),
            None => self.content.record(),
        }
    }
}

impl Writer {
    /// Saves everything. Does nothing if nothing has changed.
    ///
    /// # Errors
    ///
    /// A full disk, a failed write or barrier; something dirty that could not be made a file:
    /// everything is unsaved still.
    pub(super) fn save(&mut self) -> Result<()> {
        let started = Instant::now();
        let mut batch = match self.shared.begin_save() {
            Ok(Some(batch)) => batch,
            Ok(None) => {
                self.schedule.unchanged();
                return Ok(());
            }
            Err(err) => {
                self.note_failure(&err);
                return Err(err);
            }
        };
        let is_alone = self.appender.batch_bytes() == 0 && !batch.has_nameless();
        let mut result = self.write_save(&mut batch);
        if !is_alone && matches!(result, Err(Error::NoSpace)) {
            // What others sent can come again, and what has no name need not be saved: neither must
            // take the room of what must.
            self.drop_batch();
            batch.leave_nameless();
            result = self.write_save(&mut batch);
        }
        match &result {
            Ok(bytes) => {
                self.schedule.saved(Instant::now(), *bytes as u64);
                log::debug!(
                    "save nodes={} files={} bytes={bytes} waiters={} us={}",
                    batch.nodes.len(),
                    batch.files.len(),
                    self.waiting.len(),
                    started.elapsed().as_micros()
                );
            }
            Err(_) => self.drop_batch(),
        }
        let result = result.map(drop);
        self.note(&result);
        self.shared.end_save(batch, Fate::of(&result));
        result
    }

    /// Takes what was put for a save that failed out of the log again.
    pub(super) fn drop_batch(&mut self) {
        let drops = self.appender.batch_bytes() > 0;
        // A poisoned log refuses this too, and whoever met what poisoned it says so.
        let was_poisoned = self.appender.poisoned();
        if let Err(err) = self.appender.discard_batch()
            && !was_poisoned
        {
            log::error!("discard failed reason={err}");
            self.note_poison(&err.into());
        }
        // Last: a fetch that begins before it may have found here what goes.
        if drops {
            self.shared.blobs_dropped();
        }
    }

    /// Appends `batch` with one barrier; says how long its record was.
    fn write_save(&mut self, batch: &mut Batch) -> Result<usize> {
        for snapshot in batch.files.iter_mut().filter(|it| !it.content.is_to_record()) {
            let tail = if snapshot.id.is_some() { Tail::Keep } else { Tail::Seal };
            match self.fold(snapshot, tail) {
                // Then it is journaled: a file that cannot be read must not keep all others from
                // being saved.
                Err(err) if !self.ends_saving(&err) => {
                    let node = snapshot.id.map_or_else(|| "none".into(), |id| id.to_string());
                    log::warn!("cut failed node={node} reason={:?}", err.to_string());
                }
                result => result?,
            }
        }
        let record = SaveRecord {
            head: None,
            op: batch.op,
            nodes: batch.nodes.clone(),
            files: batch
                .files
                .iter()
                .filter_map(|snapshot| Some((snapshot.id?, snapshot.record())))
                .collect(),
        };
        self.append(&record)
    }

    /// Appends `record` and what was put before it with one barrier; says how long it was.
    ///
    /// What takes no more than half of the reserve may use it: on a full disk that is what deletes, as new
    /// data has been refused before.
    pub(super) fn append(&mut self, record: &SaveRecord) -> Result<usize> {
        let bytes = record.encode();
        let urgent_bytes_max = self.appender.urgent_bytes_max().max(URGENT_BYTES_MIN);
        if self.appender.batch_bytes() + bytes.len() as u64 <= urgent_bytes_max {
            self.appender.save_urgent(&bytes, record.kind())?;
            if self.appender.blobs().reserve_lacks_bytes() > 0 {
                // What was thought to be left was left with it.
                self.shared.room.look_again();
            }
        } else {
            self.appender.save(&bytes, record.kind())?;
        }
        Ok(bytes.len())
    }

    /// Whether what failed in cutting one content fails all that is saved with it: it could not be
    /// written. Else something of that content could not be read.
    pub(super) fn ends_saving(&self, err: &Error) -> bool {
        matches!(err, Error::NoSpace) || self.appender.poisoned()
    }

    /// Cuts what is dirty in `snapshot` into chunks.
    pub(super) fn fold(&mut self, snapshot: &mut Snapshot, tail: Tail) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        // What it was folded into before may have gone with a batch that failed.
        snapshot.base = None;
        let mut sealer = Sealer::new(&mut self.appender, &shared.vault);
        let folded = snapshot.content.fold(&shared.vault, &mut sealer, tail);
        snapshot.file.lock().note_cut(&snapshot.content, &folded);
        snapshot.base = Some(folded?);
        Ok(())
    }
}
