//! A member that has the bucket's secrets and its own key, keeps to the protocol, and lies in what it
//! publishes: FORMAT.md says how, and no program of ours writes it.

use std::{collections::HashMap, path::Path, sync::atomic::AtomicUsize, time::SystemTime};

use cairnfs_merge::{DeviceId, OpId, VersionVector};
use cairnfs_mount_core::{BucketId, Member, Mount, Observer, Published, Result, Time, VersionId};
use cairnfs_store::SaveKind::OnTop;
use cairnfs_store::{
    Appender, BlobId, Blobs, KeyRing, Kind, Options, SealedBlob, Secret, create, map::Root, sim,
};
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use zeroize::Zeroizing;

use super::*;
use crate::net::replica::{Fetching, Secrets};

/// What is done to records of a kind before they are given away.
type Alter = fn(Vec<u8>) -> Vec<u8>;

/// A mount that is offered with another head, or with other bytes.
#[derive(Debug)]
pub(super) struct Forger {
    mount: Mount,
    head: VersionId,
    forged: HashMap<VersionId, Vec<u8>>,
    alter: Option<(Kind, Alter)>,
    /// What its versions are sealed under, if not as the mount's are.
    sealed_under: Option<(u16, [u8; 32])>,
    /// The secrets that it gives, if not the mount's.
    secrets: Option<Vec<(u16, [u8; 32])>>,
    /// The most versions that it puts in one list.
    in_a_list: usize,
    /// How many lists it has given.
    lists: Arc<AtomicUsize>,
    hold: Option<Arc<Hold>>,
}

/// Keeps those that share it from giving more than so many bytes, until it is released.
#[derive(Debug)]
pub(super) struct Hold {
    /// What may be given; none once it is released.
    left_bytes: Mutex<Option<u64>>,
    released: Condvar,
}

impl Hold {
    pub(super) fn after(bytes: u64) -> Arc<Self> {
        Arc::new(Self { left_bytes: Mutex::new(Some(bytes)), released: Condvar::new() })
    }

    pub(super) fn release(&self) {
        *self.left_bytes.lock() = None;
        self.released.notify_all();
    }

    fn pass(&self, bytes: u64) {
        let mut left = self.left_bytes.lock();
        self.released.wait_while_for(&mut left, |left| *left == Some(0), LIMIT);
        *left = left.map(|left| left.saturating_sub(bytes));
    }
}

/// What a manifest says, but for the charter at its end.
#[derive(Serialize, Deserialize)]
pub(super) struct Body {
    pub(super) bucket: BucketId,
    pub(super) author: PeerKey,
    incarnation: u32,
    pub(super) parents: Vec<BlobId>,
    pub(super) vv: VersionVector,
    pub(super) root: Root,
    pub(super) ops: u64,
    time: Time,
}

#[derive(Serialize, Deserialize)]
struct Signed {
    format: u32,
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
    signature: ByteArray<64>,
}

/// The name under which a device writes that never lost its memory.
pub(super) fn device_id(key: &PeerKey) -> DeviceId {
    let mut hasher = blake3::Hasher::new_derive_key("cairnfs 2026-11 device id");
    hasher.update(&key.0);
    hasher.update(&0_u32.to_le_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    DeviceId(id)
}

impl Body {
    /// One operation of `author` after the version `parent`, which this body is of: it changes
    /// nothing.
    pub(super) fn follow(&mut self, author: &DeviceKey, parent: VersionId) {
        self.author = author.public();
        self.parents = vec![BlobId(parent)];
        let lamport = self.vv.max_lamport() + 1;
        self.vv.learn(&OpId { lamport, device: device_id(&self.author) });
        self.ops = 1;
    }

    /// As [`Self::follow`], but it removes all.
    pub(super) fn remove_all(&mut self, author: &DeviceKey, parent: VersionId) {
        self.follow(author, parent);
        self.root = Root::EMPTY;
    }
}

impl Forger {
    /// Tells the truth so far.
    pub(super) fn of(mount: &Mount) -> Self {
        let head = mount.head().unwrap();
        let forged = HashMap::new();
        let mount = mount.clone();
        let (in_a_list, lists) = (usize::MAX, Arc::default());
        let (alter, sealed_under, secrets, hold) = (None, None, None, None);
        Self { mount, head, forged, alter, sealed_under, secrets, in_a_list, lists, hold }
    }

    /// Seals its versions under this secret.
    pub(super) fn sealing_under(self, epoch: u16, secret: [u8; 32]) -> Self {
        Self { sealed_under: Some((epoch, secret)), ..self }
    }

    /// Gives these secrets, whatever it is asked for.
    pub(super) fn giving(self, secrets: Vec<(u16, [u8; 32])>) -> Self {
        Self { secrets: Some(secrets), ..self }
    }

    /// Stands on a version that says something else than the true one, signed by `key`.
    pub(super) fn version(mut self, key: &DeviceKey, change: impl FnOnce(&mut Body)) -> Self {
        let mut mint = Mint::of(&self.mount, self.sealed_under);
        let plain = mint.open(self.mount.sealed(&self.head).unwrap().unwrap());
        let signed: Signed = postcard::from_bytes(&plain).unwrap();
        let (mut body, charter) = postcard::take_from_bytes::<Body>(&signed.body).unwrap();
        change(&mut body);
        let body = [&postcard::to_stdvec(&body).unwrap(), charter].concat();
        let what_for = format!("cairnfs manifest {}\0", signed.format);
        let signature = ByteArray::new(key.sign(&[what_for.as_bytes(), &body].concat()));
        let plain = postcard::to_stdvec(&Signed { body, signature, ..signed }).unwrap();
        let sealed = mint.seal(&plain);
        self.head = sealed.claims().id.0;
        self.forged.insert(self.head, sealed.into());
        self
    }

    /// Gives records of this kind as something else.
    pub(super) fn altering(self, kind: Kind, alter: Alter) -> Self {
        Self { alter: Some((kind, alter)), ..self }
    }

    /// Puts so few versions in one list; counts the lists.
    pub(super) fn listing(self, in_a_list: usize) -> (Self, Arc<AtomicUsize>) {
        let lists = Arc::clone(&self.lists);
        (Self { in_a_list, ..self }, lists)
    }

    /// Gives records of the mount as long as `hold` lets it.
    pub(super) fn held_by(self, hold: &Arc<Hold>) -> Self {
        Self { hold: Some(Arc::clone(hold)), ..self }
    }

    /// Is offered instead of the mount.
    pub(super) fn serve(self, peer: &Peer) {
        let replica: Arc<dyn Replica> = Arc::new(self);
        peer.net.serve_replica(&name(), &replica, Serving::Both);
    }
}

/// Opens and seals under the secrets of a bucket.
struct Mint {
    appender: Appender,
    blobs: Arc<Blobs>,
}

impl Mint {
    fn of(mount: &Mount, sealed_under: Option<(u16, [u8; 32])>) -> Self {
        let secrets = mount.secrets(&[]).into_iter().map(|(epoch, secret)| (epoch, *secret));
        let secrets = secrets.chain(sealed_under);
        let secrets = secrets.map(|(epoch, secret)| (epoch, Secret::new(secret)));
        let keys = KeyRing::new(secrets).unwrap();
        let options =
            Options { pack_bytes: 1 << 20, reserve_bytes: 64 << 10, ..Options::default() };
        let disk = Arc::new(sim::SimDisk::new(1));
        let (appender, blobs) = create(disk, Path::new("/mint"), keys, options).unwrap();
        Self { appender, blobs }
    }

    fn open(&mut self, sealed: Vec<u8>) -> Arc<[u8]> {
        let checked = self.blobs.check(SealedBlob::from_bytes(sealed).unwrap()).unwrap();
        let blob = self.appender.put_sealed(&checked).unwrap();
        self.appender.save(b"", OnTop).unwrap();
        self.blobs.get(&blob).unwrap()
    }

    fn seal(&mut self, manifest: &[u8]) -> SealedBlob {
        let blob = self.appender.put(Kind::Manifest, manifest).unwrap();
        self.appender.save(b"", OnTop).unwrap();
        self.blobs.get_sealed(&blob.id).unwrap()
    }
}

impl Replica for Forger {
    fn bucket_id(&self) -> BucketId {
        self.mount.bucket_id()
    }

    fn recognise(&self, challenge: &[u8]) -> [u8; 32] {
        self.mount.recognise(challenge)
    }

    fn head(&self) -> Option<VersionId> {
        Some(self.head)
    }

    fn published(&self) -> Published {
        Published { head: self.head(), holds_all: true }
    }

    fn time_of(&self, id: &VersionId) -> Result<Option<SystemTime>> {
        self.mount.time_of(id)
    }

    fn observe(&self, observer: Arc<dyn Observer>) {
        self.mount.observe(observer);
    }

    fn peers_wait(&self, waiting: bool) {
        self.mount.peers_wait(waiting);
    }

    fn covers(&self, id: &VersionId) -> Result<bool> {
        self.mount.covers(id)
    }

    fn ancestry(&self, head: &VersionId, have: &[VersionId], max: usize) -> Result<Vec<VersionId>> {
        if self.forged.contains_key(head) {
            return Ok(vec![*head]);
        }
        self.lists.fetch_add(1, Ordering::Relaxed);
        self.mount.ancestry(head, have, max.min(self.in_a_list))
    }

    fn name_of(&self, sealed: &[u8]) -> Option<[u8; 32]> {
        self.mount.name_of(sealed)
    }

    fn sealed(&self, id: &[u8; 32]) -> Result<Option<Vec<u8>>> {
        if let Some(forged) = self.forged.get(id) {
            return Ok(Some(forged.clone()));
        }
        let sealed = self.mount.sealed(id)?;
        if let Some(hold) = &self.hold {
            hold.pass(sealed.as_ref().map_or(0, |bytes| bytes.len() as u64));
        }
        Ok(sealed.map(|bytes| {
            let kind = SealedBlob::from_bytes(bytes.clone()).unwrap().kind();
            match self.alter {
                Some((altered, alter)) if altered == kind => alter(bytes),
                _ => bytes,
            }
        }))
    }

    fn fetch(&self, head: VersionId) -> Result<Box<dyn Fetching>> {
        Replica::fetch(&self.mount, head)
    }

    fn mend(&self) -> Result<Box<dyn Fetching>> {
        Replica::mend(&self.mount)
    }

    fn awaits_first_version(&self) -> bool {
        self.mount.awaits_first_version()
    }

    fn members(&self) -> Vec<Member> {
        self.mount.members()
    }

    fn removal(&self, key: &PeerKey) -> Option<[u8; 32]> {
        self.mount.removal(key)
    }

    fn removals(&self) -> Vec<[u8; 32]> {
        self.mount.removals()
    }

    fn role(&self) -> Option<Role> {
        self.mount.role()
    }

    fn lacks_space(&self) -> bool {
        self.mount.lacks_space()
    }

    fn set_member(&self, key: PeerKey, name: &str, role: Option<Role>) -> Result<()> {
        self.mount.set_member(key, name, role)
    }

    fn secrets(&self, have: &[u16]) -> Secrets {
        match &self.secrets {
            Some(given) => given.iter().map(|(epoch, it)| (*epoch, Zeroizing::new(*it))).collect(),
            None => self.mount.secrets(have),
        }
    }

    fn epochs(&self) -> Vec<u16> {
        self.mount.epochs()
    }

    fn learn_secret(&self, record: Vec<u8>, offered: Secrets) -> Result<bool> {
        self.mount.learn_secret(record, offered)
    }

    fn publish(&self) -> Result<()> {
        Replica::publish(&self.mount)
    }
}
