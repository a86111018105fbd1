//! The mount as a whole: beginning, ending, and what there is to know of it.

use std::{sync::Arc, thread, time::SystemTime};

use cairnfs_store::{BlobId, DevicePublicKey, Rot};

use super::{Inner, Mount};
use crate::{
    Bucket, ChangedPath, Done, Error, Options, Result, StatFs, Status,
    order::Mutex,
    shared::Shared,
    vault::Vault,
    writer::{
        Command, Writer,
        inbox::inbox,
        recover::{Recovered, recover},
    },
};

/// Commands that wait for the writer at the most; beyond it, callers wait to send.
const INBOX_LEN: usize = 1024;

/// A published version, as `cairnfs log` shows it.
#[derive(Clone, Debug)]
pub struct Version {
    /// The id of its manifest.
    pub id: [u8; 32],
    /// When its author published it.
    pub time: SystemTime,
    /// The public key of the author's device.
    pub author: DevicePublicKey,
    /// The versions it follows from; several for a merge.
    pub parents: Vec<[u8; 32]>,
    /// Whether all that it holds is here.
    pub is_whole: bool,
    /// What changed against its parent; empty for a merge, where that was not asked for, and where
    /// the tree of one of the two is not all here.
    pub changes: Vec<ChangedPath>,
    /// Whether `changes` was cut short.
    pub more_changes: bool,
}

/// Seals what is new under the secret that the version is sealed under which the bucket stands on:
/// others may lie in the key file, that some member made up or that no version is sealed under yet.
pub(crate) fn seal_as(head: &BlobId, vault: &Vault) {
    match vault.blobs().sealed_under(head) {
        Ok((epoch, secret)) => vault.blobs().keys().seal_under(epoch, &secret),
        // It could be read, or the bucket would not have opened: so its checksum has rotted.
        Err(err) => log::warn!("seal epoch=highest reason={:?}", err.to_string()),
    }
}

impl Mount {
    /// Serves `bucket`: brings back what was saved after the last version and starts the writer.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if what was saved makes no sense or cannot be given its place,
    /// [`Error::Newer`], [`Error::Io`].
    pub fn start(bucket: Bucket, options: Options) -> Result<Self> {
        let vault = Arc::new(Vault::new(bucket.blobs, options.limits.cache_bytes));
        let Recovered { core, inodes, published, unpublished, parted } =
            recover(&bucket.saves, &bucket.left_out, &vault)?;
        seal_as(&core.head.manifest.id, &vault);
        let shared = Arc::new(Shared::new(
            options,
            (bucket.id, bucket.device.public()),
            vault,
            core,
            inodes,
            published.into(),
        ));
        // Nobody has been told of a name yet.
        shared.follow(&mut shared.core.write(), parted, &mut Vec::new());
        shared.claim_left(&mut shared.core.write())?;
        let journaled = bucket.saves.iter().map(|save| save.len() as u64).sum();
        let (inbox, commands) = inbox(INBOX_LEN);
        let writer = Writer::new(
            Arc::clone(&shared),
            bucket.appender,
            bucket.device,
            bucket.key_file,
            unpublished.then_some(journaled),
        );
        let thread = thread::Builder::new()
            .name("writer".into())
            .spawn(move || writer.run(commands.inbox()))
            .map_err(|err| Error::Io(format!("cannot start a thread: {err}")))?;
        let inner = Inner { shared, inbox, writer: Mutex::new(Some(thread)) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What `statfs` shows: the disk below, less what saving takes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn statfs(&self) -> Result<StatFs> {
        const BLOCK_BYTES: u32 = 4096;
        let space = self.shared().vault.space()?;
        let free_bytes = self.shared().room.left_of(space).max(0).cast_unsigned();
        let blocks = |bytes: u64| bytes / u64::from(BLOCK_BYTES);
        Ok(StatFs {
            block_bytes: BLOCK_BYTES,
            blocks: blocks(space.total_bytes),
            blocks_free: blocks(free_bytes),
        })
    }

    /// What there is to know at this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        let shared = self.shared();
        let (head, unpublished, unsaved_changes) = {
            let core = shared.core.read();
            (core.head.manifest.id.0, !core.is_published(), core.unsaved_changes())
        };
        let conflicts = match self.conflict_count() {
            Ok(count) => Some(count as u64),
            Err(err) => {
                log::warn!("status conflicts=unknown reason={:?}", err.to_string());
                None
            }
        };
        let open_handles = shared.handles.count();
        let health = shared.health();
        let report = shared.report.lock();
        let unsaved_bytes = shared.room.unsaved_bytes();
        let unsaved = unsaved_bytes > 0 || unsaved_changes > 0;
        Status {
            unsaved_bytes,
            unsaved_changes,
            unsaved_since: report.unsaved_since.filter(|_| unsaved),
            last_save: report.last_save,
            last_publish: report.last_publish,
            head,
            unpublished,
            policy: shared.options.policy,
            conflicts,
            health,
            read_only: shared.is_read_only(),
            barriers: report.barriers,
            open_handles,
        }
    }

    /// What readers found damaged since the bucket was opened, and no check has found whole since.
    #[must_use]
    pub fn rot(&self) -> Option<Rot> {
        self.shared().vault.blobs().rot()
    }

    /// Bytes and changes that are not durable yet, without waiting for anything: the changes are not
    /// told while the tree is being changed, however long that takes.
    #[must_use]
    pub fn unsaved(&self) -> (u64, Option<u64>) {
        let changes = self.shared().core.try_read().map(|core| core.unsaved_changes());
        (self.shared().room.unsaved_bytes(), changes)
    }

    /// Saves everything now; `done` after the barrier.
    pub fn save(&self, done: Done) {
        self.save_then(done);
    }

    /// Saves everything, seals it as a version and returns its id once it is durable.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`], [`Error::Poisoned`], [`Error::Stopped`], damage.
    pub fn publish(&self) -> Result<[u8; 32]> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        self.send(Command::Publish(reply));
        answer.recv().unwrap_or(Err(Error::Stopped))
    }

    /// Last save, publish, end of the writer thread. Later changes fail with [`Error::Stopped`].
    ///
    /// # Errors
    ///
    /// What the last save failed with; the thread has ended all the same. Where only the version could not be
    /// made, nothing is lost, and the next mount makes it.
    pub fn stop(&self) -> Result<()> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        self.send(Command::Stop(reply));
        let result = answer.recv().unwrap_or(Ok(()));
        if let Some(thread) = self.inner.writer.lock().take()
            && thread.join().is_err()
        {
            return Err(Error::Io("the writer thread has panicked".into()));
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use crate::random_load::{fresh, mount};

    #[test]
    fn what_is_unsaved_is_told_however_long_the_tree_is_being_changed() {
        let (disk, device, _) = fresh(1);
        let mounted = mount(&disk, &device).unwrap();
        assert!(matches!(mounted.unsaved(), (0, Some(_))));
        let changing = mounted.shared().core.write();
        thread::scope(|scope| {
            let ask = || mounted.unsaved();
            let asking = thread::Builder::new().name("ask".into()).spawn_scoped(scope, ask);
            assert_eq!(asking.unwrap().join().unwrap(), (0, None));
        });
        drop(changing);
    }
}
