//! What peers, members and the owner of the key file ask of the writer besides a merge.

use cairnfs_store::{BlobId, CheckedBlob, KeyRing, Secret};

use super::{CharterChange, Writer, record::SaveRecord};
use crate::{Error, Result, Role, key_file::Rewrap};

/// What was fetched is made durable when there is so much of it, so that a fetch that is cut off
/// need not begin anew.
const KEPT_BYTES: u64 = 32 << 20;

impl Writer {
    /// Keeps what a peer sent: durable with the next save, or once there is much of it.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`], [`Error::Io`], [`Error::Poisoned`].
    pub(super) fn keep(&mut self, blobs: &[CheckedBlob]) -> Result<()> {
        for blob in blobs {
            self.appender.put_sealed(blob)?;
        }
        if self.appender.batch_bytes() >= KEPT_BYTES { self.save_blobs() } else { Ok(()) }
    }

    /// Puts what a peer sent in the place of what is damaged here, durably.
    ///
    /// # Errors
    ///
    /// As [`Writer::keep`].
    pub(super) fn heal(&mut self, blobs: &[CheckedBlob]) -> Result<()> {
        for blob in blobs {
            let healed = self.appender.heal(blob)?;
            log::warn!("healed blob={}", healed.id);
        }
        self.save_blobs()
    }

    /// Makes what was put durable.
    fn save_blobs(&mut self) -> Result<()> {
        let op = self.shared.core.read().op;
        let record = SaveRecord { head: None, op, nodes: Vec::new(), files: Vec::new() };
        let result = self.append(&record, false).map(drop);
        self.note(&result);
        if result.is_err() {
            self.drop_batch();
        }
        result
    }

    /// Publishes a version with other members or settings.
    ///
    /// # Errors
    ///
    /// [`Error::NotPermitted`] unless this device is an owner; what `change` fails with, and
    /// nothing has changed then; as [`Writer::publish`].
    pub(super) fn change_charter(&mut self, change: &CharterChange) -> Result<()> {
        self.shared.writable()?;
        let (mut charter, op) = {
            let core = self.shared.core.read();
            (core.head.charter.clone(), core.op)
        };
        if charter.role(&self.shared.key) != Some(Role::Owner) {
            return Err(Error::NotPermitted);
        }
        let before = charter.clone();
        change(&mut charter, op)?;
        if charter.has_lost_some_of(&before) {
            self.rotate()?;
        }
        self.save()?;
        self.publish_with(Some(change))?;
        self.shared.note_rights(&self.shared.core.read());
        Ok(())
    }

    /// Before the version `theirs` is merged that removes other devices than ours does: each of them
    /// may have the secret that was begun without the others.
    ///
    /// # Errors
    ///
    /// As [`Writer::learn`].
    pub(super) fn rotate_for(&mut self, theirs: BlobId) -> Result<()> {
        // There are not many numbers for secrets, and a merge may fail again and again.
        if self.rotated_for != Some(theirs) {
            self.rotate()?;
            self.rotated_for = Some(theirs);
        }
        Ok(())
    }

    /// Has everything new sealed under a secret that only the present members get.
    fn rotate(&mut self) -> Result<()> {
        let keys = self.shared.vault.blobs().keys();
        // Two owners may do this without knowing of each other. One number for two secrets is no
        // harm, but means that who lacks one finds out only when it opens nothing.
        let secret = Secret::random()?;
        let [skip, ..] = *blake3::hash(secret.expose()).as_bytes();
        let epoch = keys.current_epoch().checked_add(1 + u16::from(skip));
        let epoch = epoch.ok_or(Error::Invalid("its secret was changed too often"))?;
        self.learn(vec![(epoch, secret)])
    }

    /// Keeps secrets: in the key file first.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::NoSpace`].
    pub(super) fn learn(&mut self, secrets: Vec<(u16, Secret)>) -> Result<()> {
        let keys = self.shared.vault.blobs().keys().clone();
        let known = keys.secrets();
        let all = known.iter().chain(&secrets).cloned();
        // A ring takes no more than it has room for.
        let all = KeyRing::new(all)?.secrets();
        if all.len() == known.len() {
            return Ok(());
        }
        if let Some(key_file) = &self.key_file {
            key_file.replace(&all)?;
        }
        for (epoch, secret) in secrets {
            if keys.learn(epoch, secret) {
                log::info!("secret epoch={epoch}");
            }
        }
        Ok(())
    }

    /// Writes the key file under another passphrase, with all secrets there are by now.
    ///
    /// # Errors
    ///
    /// [`Error::KeyFileReplaced`] if the present one was tried on another file than is written here.
    /// [`Error::Io`], [`Error::NoSpace`].
    pub(super) fn rewrap(&mut self, rewrap: Rewrap) -> Result<()> {
        let secrets = self.shared.vault.blobs().keys().secrets();
        match &mut self.key_file {
            Some(key_file) if key_file.is_under(&rewrap.present) => {
                key_file.rewrap(rewrap.new, &secrets)
            }
            _ => Err(Error::KeyFileReplaced),
        }
    }
}
