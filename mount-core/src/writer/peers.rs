//! What peers, members and the owner of the key file ask of the writer besides a merge.

use std::{cmp::Reverse, sync::Arc};

use cairnfs_store::{BlobId, CheckedBlob, Secret};

use super::{CharterEdit, Writer, record::SaveRecord};
use crate::{Error, Result, Role, charter::Charter, key_file::Rewrap};

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
        let result = self.append(&record).map(drop);
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
    pub(super) fn change_charter(&mut self, change: &CharterEdit) -> Result<()> {
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
        let secret = if charter.has_lost_some_of(&before) {
            let head = self.shared.core.read().head.manifest.id;
            self.begin_secret_for(head)?
        } else {
            self.shared.vault.blobs().keys().current()
        };
        // Before: what is saved stays if the version fails, and is to be read by whoever gets the next.
        self.save()?;
        self.sealing_under(secret, |this| this.publish_with(Some(change)))?;
        self.shared.note_rights(&self.shared.core.read());
        Ok(())
    }

    /// Does `write` with everything sealed under another secret; if it fails, what comes is sealed
    /// under the one before.
    pub(super) fn sealing_under<R>(
        &mut self,
        (epoch, secret): (u16, Secret),
        write: impl FnOnce(&mut Self) -> Result<R>,
    ) -> Result<R> {
        let shared = Arc::clone(&self.shared);
        let keys = shared.vault.blobs().keys();
        let (before, before_secret) = keys.current();
        keys.seal_under(epoch, &secret);
        let result = write(self);
        if result.is_err() {
            keys.seal_under(before, &before_secret);
        }
        result
    }

    /// What a version of both is to be sealed under: a secret that nobody has who is removed by it.
    /// That of a version which knew of all the removals is one; where neither did, each of the removed
    /// may have the other's.
    ///
    /// # Errors
    ///
    /// As [`Writer::begin_secret`]; damage.
    pub(super) fn secret_of_both(
        &mut self,
        ours: &Charter,
        (theirs_id, theirs): (BlobId, &Charter),
        joined: &Charter,
    ) -> Result<(u16, Secret)> {
        let their_secret = self.shared.vault.blobs().sealed_under(&theirs_id)?;
        let our_secret = self.shared.vault.blobs().keys().current();
        match (ours.knows_removals_of(joined), theirs.knows_removals_of(joined)) {
            (true, false) => Ok(our_secret),
            (false, true) => Ok(their_secret),
            // Whoever merges them chooses the same.
            (true, true) => {
                Ok(std::cmp::max_by_key(our_secret, their_secret, |(epoch, secret)| {
                    (*epoch, Reverse(*secret.expose()))
                }))
            }
            (false, false) => self.begin_secret_for(theirs_id),
        }
    }

    fn begin_secret_for(&mut self, theirs: BlobId) -> Result<(u16, Secret)> {
        // There is not room for many secrets, and a merge may fail again and again.
        match &self.begun_for {
            Some((id, begun)) if *id == theirs => Ok(begun.clone()),
            _ => {
                let begun = self.begin_secret()?;
                self.begun_for = Some((theirs, begun.clone()));
                Ok(begun)
            }
        }
    }

    /// Makes a secret that only the present members are to get.
    ///
    /// # Errors
    ///
    /// As [`Writer::keep_secret`]; [`Error::Invalid`] if the key file has no room for more.
    fn begin_secret(&mut self) -> Result<(u16, Secret)> {
        let keys = self.shared.vault.blobs().keys().clone();
        loop {
            let secret = Secret::random()?;
            // Two owners may do this without knowing of each other. One number for two secrets is no
            // harm, but means that who lacks one finds out only when it opens nothing.
            let [skip, low, high, ..] = *blake3::hash(secret.expose()).as_bytes();
            let next = keys.highest_epoch().checked_add(1 + u16::from(skip));
            // Behind the last number any will do: what seals is not told by it.
            let epoch = next.unwrap_or(u16::from_le_bytes([low, high]));
            if self.keep_secret(epoch, secret.clone())? {
                return Ok((epoch, secret));
            }
        }
    }

    /// Keeps a secret that a peer gave. Says whether there was room for it.
    ///
    /// # Errors
    ///
    /// As [`Writer::keep_secret`].
    pub(super) fn learn(&mut self, epoch: u16, secret: Secret) -> Result<bool> {
        if !self.shared.vault.blobs().keys().has_room() {
            log::warn!("secret epoch={epoch} taken=no reason=\"there are too many\"");
            return Ok(false);
        }
        self.keep_secret(epoch, secret)
    }

    /// Keeps a secret: in the key file first. Says whether it was new, and there was room for it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::NoSpace`].
    fn keep_secret(&mut self, epoch: u16, secret: Secret) -> Result<bool> {
        let keys = self.shared.vault.blobs().keys().clone();
        if !keys.takes(epoch, &secret) {
            return Ok(false);
        }
        if let Some(key_file) = &self.key_file {
            let all = keys.secrets().into_iter().chain([(epoch, secret.clone())]);
            key_file.replace(&all.collect::<Vec<_>>())?;
        }
        log::info!("secret epoch={epoch}");
        Ok(keys.learn(epoch, secret))
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
