//! Calls of those who sync: versions to give, versions to fetch, merging, members, settings and keys.

use std::{path::Path, sync::Arc, time::SystemTime};

use cairnfs_merge::VersionVector;
use cairnfs_store::{BlobId, DevicePublicKey, SealedBlob, Secret};
use crossbeam_channel::{Sender, bounded};
use zeroize::Zeroizing;

use super::Mount;
use crate::{
    BucketId, Error, Fetch, MergeOutcome, Observer, Protection, Published, Result, Role, Settings,
    Unlock, VersionId,
    charter::Origin,
    key_file::Rewrap,
    manifest::Member,
    versions::Ancestry,
    writer::{CharterEdit, Command, Errand},
};

impl Mount {
    /// The bucket's name for life.
    #[must_use]
    pub fn bucket_id(&self) -> BucketId {
        self.shared().bucket
    }

    /// Something that only who has the bucket's secret can compute: to recognise each other
    /// without naming the bucket. `challenge` must be fresh for each connection.
    #[must_use]
    pub fn recognise(&self, challenge: &[u8]) -> [u8; 32] {
        self.shared().vault.blobs().keys().hash("recognise", challenge)
    }

    /// The version this device stands on. `None` as long as a device that has joined has not
    /// merged its first version: there is nothing to announce.
    #[must_use]
    pub fn head(&self) -> Option<VersionId> {
        self.shared().core.read().version()
    }

    /// What of this device is published.
    #[must_use]
    pub fn published(&self) -> Published {
        let core = self.shared().core.read();
        Published { head: core.version(), holds_all: core.is_published() }
    }

    /// When a version was published, by the clock of the device that did; `None` if it is not here.
    ///
    /// # Errors
    ///
    /// Damage, [`Error::Io`].
    pub fn time_of(&self, id: &VersionId) -> Result<Option<SystemTime>> {
        let manifest = self.shared().vault.manifest(&BlobId(*id))?;
        Ok(manifest.map(|manifest| manifest.time.into()))
    }

    /// Tells `observer` what happens from now on.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        self.shared().observe(observer);
    }

    /// Publishes sooner after a change as long as somebody waits for versions.
    pub fn peers_wait(&self, waiting: bool) {
        self.shared().set_awaited(waiting);
        self.send(Command::Wake);
    }

    /// Whether all that the version `id` knows is known here, with the same meaning; `false` also if
    /// it is not here, or if that cannot be told.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn covers(&self, id: &VersionId) -> Result<bool> {
        if self.shared().core.read().head.manifest.id.0 == *id {
            return Ok(true);
        }
        let covered = self.shared().vault.manifest(&BlobId(*id)).and_then(|theirs| match theirs {
            Some(theirs) => self.shared().holds_all_of(BlobId(*id), &theirs),
            None => Ok(false),
        });
        match covered {
            // Whether a peer has sent that, or this disk has lost it, a fetch finds out.
            Err(err) if err.is_damage() => Ok(false),
            covered => covered,
        }
    }

    /// The versions from `head` back, newest first, up to those that are in `have` or that were
    /// given up; at most `max`. For a peer that lacks them.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if `head` is not here, damage, [`Error::Io`].
    pub fn ancestry(
        &self,
        head: &VersionId,
        have: &[VersionId],
        max: usize,
    ) -> Result<Vec<VersionId>> {
        self.shared().note_given();
        let vault = &self.shared().vault;
        let head = BlobId(*head);
        let theirs = vault.manifest(&head)?.ok_or(Error::NotFound)?;
        let mut known_there = VersionVector::new();
        for id in have {
            if let Some(manifest) = vault.manifest(&BlobId(*id))? {
                known_there.join(&manifest.vv);
            }
        }
        if known_there.dominates(&theirs.vv) {
            return Ok(Vec::new());
        }
        let missed = Ancestry::beyond(vec![head], &known_there, vault).take(max);
        missed.map(|version| Ok(version?.0.0)).collect()
    }

    /// A blob as it is stored, to be given to a member; `None` if it is not here.
    ///
    /// # Errors
    ///
    /// Damage, [`Error::Io`].
    pub fn sealed(&self, id: &[u8; 32]) -> Result<Option<Vec<u8>>> {
        self.shared().note_given();
        let blobs = self.shared().vault.blobs();
        let id = BlobId(*id);
        if !blobs.contains(&id)? {
            return Ok(None);
        }
        Ok(Some(blobs.get_sealed(&id)?.into()))
    }

    /// The name of a blob that a member gave; `None` if it is not what it claims to be.
    #[must_use]
    pub fn name_of(&self, sealed: &[u8]) -> Option<[u8; 32]> {
        let sealed = SealedBlob::from_bytes(sealed.to_vec()).ok()?;
        Some(self.shared().vault.blobs().check(sealed).ok()?.blob().id.0)
    }

    /// Begins to fetch the version `head`; see [`Fetch`].
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`].
    pub fn fetch(&self, head: VersionId) -> Result<Fetch> {
        // What came for one that was cut off may wait for the writer yet, and need not come again.
        self.ask(|reply| Command::Errand(Errand::Keep(Vec::new(), reply)))?;
        Ok(Fetch::begin(Arc::clone(&self.inner.shared), self.inner.inbox.clone(), head))
    }

    /// Begins to fetch what cannot be read here of the newest version and those before it; see
    /// [`Fetch`]. What is supplied takes the place of what is damaged.
    ///
    /// # Errors
    ///
    /// As [`Mount::publish`], which it does first.
    pub fn mend(&self) -> Result<Fetch> {
        self.publish()?;
        Fetch::begin_mending(Arc::clone(&self.inner.shared), self.inner.inbox.clone())
    }

    /// Merges what was fetched: saves and publishes what was changed here, then merges, and returns
    /// when the result is durable.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] if the version is not to be believed, [`Error::WrittenTwice`],
    /// [`Error::PutBack`]; nothing has changed then.
    /// [`Error::Busy`] if it must be fetched again, see [`Fetch`]. [`Error::NoSpace`],
    /// [`Error::Poisoned`], [`Error::Stopped`], damage.
    pub fn merge_from(&self, fetched: Fetch) -> Result<MergeOutcome> {
        self.ask(|reply| Command::Errand(Errand::Merge(Box::new(fetched), reply)))
    }

    /// Whether this device has joined but not merged its first version: the tree is not there yet.
    #[must_use]
    pub fn awaits_first_version(&self) -> bool {
        self.head().is_none()
    }

    /// The devices that have the bucket, by key.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.shared().core.read().head.charter.members()
    }

    /// Whether the device `key` had the bucket once and was removed, as far as is known here: a name
    /// for that, which no other removal has, not even of the same device.
    #[must_use]
    pub fn removal(&self, key: &DevicePublicKey) -> Option<[u8; 32]> {
        self.shared().core.read().head.charter.removal(key)
    }

    /// The names of all removals that hold, as far as is known here.
    #[must_use]
    pub fn removals(&self) -> Vec<[u8; 32]> {
        self.shared().core.read().head.charter.removals()
    }

    /// Which of its lives in the bucket this device leads: it begins another one when it is put back
    /// to an older state, or joins again after it had the bucket before.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.shared().core.read().head.incarnation
    }

    /// What this device may do; `None` if it has been removed.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        self.shared().core.read().head.charter.role(&self.shared().key)
    }

    /// Adds the device `key` or changes what it may do; with `None` removes it, and seals what is
    /// new under a secret that it does not have. Durable and published when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::NotPermitted`] unless this device is an owner, and for the last owner;
    /// [`Error::NotFound`] if who is to be removed is no member; as [`Mount::publish`].
    pub fn set_member(&self, key: DevicePublicKey, name: &str, role: Option<Role>) -> Result<()> {
        let (me, name) = (self.shared().key, name.to_owned());
        let change: CharterEdit = Box::new(move |charter, at| {
            charter.set_member(Origin { by: me, at }, key, &name, role)
        });
        self.ask(|reply| Command::Errand(Errand::Charter(change, reply)))
    }

    /// The bucket's secrets whose epochs are not in `have`, for another member: those of the version
    /// that this device stands on. One that was learnt for a newer version may be of the removal of
    /// just that member, and is given only once a version has been merged, or the bucket was opened anew.
    #[must_use]
    pub fn secrets(&self, have: &[u16]) -> Vec<(u16, Zeroizing<[u8; 32]>)> {
        let secrets = Arc::clone(&self.shared().core.read().head.secrets);
        let lacking = secrets.iter().filter(|(epoch, _)| !have.contains(epoch));
        lacking.map(|(epoch, secret)| (*epoch, Zeroizing::new(*secret.expose()))).collect()
    }

    /// The epochs of the secrets that this device has.
    #[must_use]
    pub fn epochs(&self) -> Vec<u16> {
        let secrets = self.shared().vault.blobs().keys().secrets();
        secrets.into_iter().map(|(epoch, _)| epoch).collect()
    }

    /// Keeps, durably, the one of these secrets that opens the record of an
    /// [`Error::MissingSecret`]; `false` if none does, or there is no room for it. So a member can
    /// give only secrets that something is sealed under.
    ///
    /// Tries them one after the other: whoever calls bounds how many there are.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::NoSpace`], [`Error::Stopped`].
    pub fn learn_secret(
        &self,
        record: Vec<u8>,
        offered: Vec<(u16, Zeroizing<[u8; 32]>)>,
    ) -> Result<bool> {
        let record = SealedBlob::from_bytes(record)?;
        let blobs = self.shared().vault.blobs();
        let mut offered = offered.into_iter().map(|(epoch, it)| (epoch, Secret::new(*it)));
        let fitting = offered.find(|(epoch, it)| blobs.is_opened_by(&record, *epoch, it));
        let Some((epoch, secret)) = fitting else { return Ok(false) };
        self.ask(|reply| Command::Errand(Errand::Learn(epoch, secret, reply)))
    }

    /// Changes what protects the secrets on this device, in the key file of `dir`, where the bucket
    /// lies. Durable when this returns. Takes half a second, in which saves go on.
    ///
    /// # Errors
    ///
    /// [`Error::WrongPassphrase`], [`Error::NeedsPassphrase`]; [`Error::KeyFileReplaced`] if that is
    /// not the file that the bucket was opened with. [`Error::Io`], [`Error::NoSpace`],
    /// [`Error::Stopped`].
    pub fn change_passphrase(
        &self,
        dir: &Path,
        present: Unlock<'_>,
        new: Protection<'_>,
    ) -> Result<()> {
        let rewrap = Box::new(Rewrap::new(dir, present, new)?);
        self.ask(|reply| Command::Errand(Errand::Rewrap(rewrap, reply)))
    }

    /// How conflicts are treated.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.shared().core.read().head.charter.settings().clone()
    }

    /// Changes how conflicts are treated, for all devices. Durable and published when this
    /// returns.
    ///
    /// # Errors
    ///
    /// [`Error::NotPermitted`] unless this device is an owner; [`Error::Invalid`] for a glob that
    /// is none; as [`Mount::publish`].
    pub fn set_settings(&self, settings: Settings) -> Result<()> {
        let me = self.shared().key;
        let change: CharterEdit = Box::new(move |charter, at| {
            charter.set_settings(Origin { by: me, at }, settings.clone())
        });
        self.ask(|reply| Command::Errand(Errand::Charter(change, reply)))
    }

    /// Has the writer do something and waits for its answer.
    fn ask<T>(&self, command: impl FnOnce(Sender<Result<T>>) -> Command) -> Result<T> {
        let (reply, answer) = bounded(1);
        self.send(command(reply));
        answer.recv().unwrap_or(Err(Error::Stopped))
    }
}
