//! What of a bucket the network needs; in tests another thing than a mount stands behind it.

use std::{
    fmt::Debug,
    sync::{Arc, atomic::AtomicBool},
    time::SystemTime,
};

use cairnfs_mount_core::{
    BucketId, Fetch, FetchProgress, Health, Member, MergeOutcome, Mount, Observer, Published,
    Result, Role, VersionId,
};
use zeroize::Zeroizing;

use super::tls::PeerKey;

/// Secrets of a bucket by their epoch.
pub(super) type Secrets = Vec<(u16, Zeroizing<[u8; 32]>)>;

/// A bucket that is served here; [`Mount`] has the meaning of each call.
pub(super) trait Replica: Send + Sync + Debug {
    fn bucket_id(&self) -> BucketId;
    fn recognise(&self, challenge: &[u8]) -> [u8; 32];
    fn head(&self) -> Option<VersionId>;
    fn published(&self) -> Published;
    fn time_of(&self, id: &VersionId) -> Result<Option<SystemTime>>;
    fn observe(&self, observer: Arc<dyn Observer>);
    fn peers_wait(&self, waiting: bool);
    fn covers(&self, id: &VersionId) -> Result<bool>;
    fn ancestry(&self, head: &VersionId, have: &[VersionId], max: usize) -> Result<Vec<VersionId>>;
    fn sealed(&self, id: &[u8; 32]) -> Result<Option<Vec<u8>>>;
    fn name_of(&self, sealed: &[u8]) -> Option<[u8; 32]>;
    fn fetch(&self, head: VersionId) -> Result<Box<dyn Fetching>>;
    fn mend(&self) -> Result<Box<dyn Fetching>>;
    fn awaits_first_version(&self) -> bool;
    fn members(&self) -> Vec<Member>;
    fn removal(&self, key: &PeerKey) -> Option<[u8; 32]>;
    fn removals(&self) -> Vec<[u8; 32]>;
    fn role(&self) -> Option<Role>;
    /// Whether writes are refused for want of space.
    fn lacks_space(&self) -> bool;
    fn set_member(&self, key: PeerKey, name: &str, role: Option<Role>) -> Result<()>;
    fn secrets(&self, have: &[u16]) -> Secrets;
    fn epochs(&self) -> Vec<u16>;
    fn learn_secret(&self, record: Vec<u8>, offered: Secrets) -> Result<bool>;
    fn publish(&self) -> Result<()>;
}

/// A version that is being fetched; [`Fetch`] has the meaning of each call.
pub(super) trait Fetching {
    fn give_up_when(&mut self, closed: Arc<AtomicBool>);
    fn unlisted(&mut self) -> Option<VersionId>;
    fn expect_ancestors(&mut self, ids: &[VersionId]);
    fn wanted(&mut self, max: usize) -> Result<Vec<[u8; 32]>>;
    fn supply(&mut self, blobs: Vec<Vec<u8>>) -> Result<()>;
    fn unavailable(&mut self, ids: &[[u8; 32]]) -> Result<()>;
    fn is_complete(&self) -> bool;
    fn progress(&self) -> FetchProgress;
    /// [`Mount::merge_from`].
    fn merge(self: Box<Self>) -> Result<MergeOutcome>;
}

impl Replica for Mount {
    fn bucket_id(&self) -> BucketId {
        self.bucket_id()
    }

    fn recognise(&self, challenge: &[u8]) -> [u8; 32] {
        self.recognise(challenge)
    }

    fn head(&self) -> Option<VersionId> {
        self.head()
    }

    fn published(&self) -> Published {
        self.published()
    }

    fn time_of(&self, id: &VersionId) -> Result<Option<SystemTime>> {
        self.time_of(id)
    }

    fn observe(&self, observer: Arc<dyn Observer>) {
        self.observe(observer);
    }

    fn peers_wait(&self, waiting: bool) {
        self.peers_wait(waiting);
    }

    fn covers(&self, id: &VersionId) -> Result<bool> {
        self.covers(id)
    }

    fn ancestry(&self, head: &VersionId, have: &[VersionId], max: usize) -> Result<Vec<VersionId>> {
        self.ancestry(head, have, max)
    }

    fn name_of(&self, sealed: &[u8]) -> Option<[u8; 32]> {
        self.name_of(sealed)
    }

    fn sealed(&self, id: &[u8; 32]) -> Result<Option<Vec<u8>>> {
        self.sealed(id)
    }

    fn fetch(&self, head: VersionId) -> Result<Box<dyn Fetching>> {
        let fetch = self.fetch(head)?;
        Ok(Box::new(MountFetch { mount: self.clone(), fetch }))
    }

    fn mend(&self) -> Result<Box<dyn Fetching>> {
        let fetch = self.mend()?;
        Ok(Box::new(MountFetch { mount: self.clone(), fetch }))
    }

    fn awaits_first_version(&self) -> bool {
        self.awaits_first_version()
    }

    fn members(&self) -> Vec<Member> {
        self.members()
    }

    fn removal(&self, key: &PeerKey) -> Option<[u8; 32]> {
        self.removal(key)
    }

    fn removals(&self) -> Vec<[u8; 32]> {
        self.removals()
    }

    fn role(&self) -> Option<Role> {
        self.role()
    }

    fn lacks_space(&self) -> bool {
        self.status().health == Health::NoSpace
    }

    fn set_member(&self, key: PeerKey, name: &str, role: Option<Role>) -> Result<()> {
        self.set_member(key, name, role)
    }

    fn secrets(&self, have: &[u16]) -> Secrets {
        self.secrets(have)
    }

    fn epochs(&self) -> Vec<u16> {
        self.epochs()
    }

    fn learn_secret(&self, record: Vec<u8>, offered: Secrets) -> Result<bool> {
        self.learn_secret(record, offered)
    }

    fn publish(&self) -> Result<()> {
        self.publish().map(drop)
    }
}

struct MountFetch {
    mount: Mount,
    fetch: Fetch,
}

impl Fetching for MountFetch {
    fn give_up_when(&mut self, closed: Arc<AtomicBool>) {
        self.fetch.give_up_when(closed);
    }

    fn unlisted(&mut self) -> Option<VersionId> {
        self.fetch.unlisted()
    }

    fn expect_ancestors(&mut self, ids: &[VersionId]) {
        self.fetch.expect_ancestors(ids);
    }

    fn wanted(&mut self, max: usize) -> Result<Vec<[u8; 32]>> {
        self.fetch.wanted(max)
    }

    fn supply(&mut self, blobs: Vec<Vec<u8>>) -> Result<()> {
        self.fetch.supply(blobs)
    }

    fn unavailable(&mut self, ids: &[[u8; 32]]) -> Result<()> {
        self.fetch.unavailable(ids)
    }

    fn is_complete(&self) -> bool {
        self.fetch.is_complete()
    }

    fn progress(&self) -> FetchProgress {
        self.fetch.progress()
    }

    fn merge(self: Box<Self>) -> Result<MergeOutcome> {
        self.mount.merge_from(self.fetch)
    }
}
