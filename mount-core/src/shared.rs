//! What the calls and the writer share.
//!
//! # Lock order
//!
//! A directory handle's listing, then `core`, then `inodes`, then a [`File`](crate::file::File)'s
//! content, then one of the last: `order.rs` has them all, and a debug build asserts it. No lock is
//! held while the disk works, except that looking names up and changing them may read map nodes
//! under `core`.

mod batch;
mod journaled;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use cairnfs_merge::{Edited, NodeId, OpId, Tree, VersionVector};
use cairnfs_store::{BlobRef, DevicePublicKey, Secret};

pub(crate) use self::{
    batch::{Batch, Fate},
    journaled::Journaled,
};
use crate::{
    BucketId, Error, Health, Ino, Observer, Options, Outdated, Result, Role, Time, VersionId,
    charter::Charter,
    clock::{Clock, NEVER, Noted},
    file::{Data, File},
    files::Files,
    handles::Handles,
    inodes::Inodes,
    order::{self, Mutex, RwLock},
    owners::Owners,
    pins::{Pinned, Pins},
    room::Room,
    tree::LiveTree,
    vault::Vault,
    writer::inbox::Inbox,
};

/// One bucket, served.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) bucket: BucketId,
    /// This device's public key.
    pub(crate) key: DevicePublicKey,
    pub(crate) vault: Arc<Vault>,
    pub(crate) core: RwLock<Core, order::Core>,
    pub(crate) inodes: Mutex<Inodes, order::Inodes>,
    pub(crate) handles: Handles,
    pub(crate) report: Mutex<Report, order::Report>,
    pub(crate) room: Room,
    pub(crate) pins: Pins,
    flags: Flags,
    clock: Clock,
    observers: Mutex<Observers, order::Observers>,
    started: Instant,
    /// As they are shown, once there is somebody to show.
    owners: OnceLock<Owners>,
}

/// Those who hear of versions and merges.
#[derive(Default)]
struct Observers(Vec<Arc<dyn Observer>>);

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observers({})", self.0.len())
    }
}

/// The tree and what belongs to it.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) tree: LiveTree,
    /// Contents that are open or hold what the tree does not.
    pub(crate) files: Files,
    /// Dirty contents, as which the kernel knows them, that are shown as no file of their own because
    /// they could not be [made one](Shared::claim_left) yet: nothing is saved before they are.
    pub(crate) unclaimed: Vec<(Ino, Arc<File>)>,
    /// Nodes changed since the last save was begun.
    pub(crate) unsaved: BTreeSet<NodeId>,
    /// Whether a save, version or merge may hold changes that no barrier covers yet.
    pub(crate) saving: bool,
    /// Changed nodes that a save or version under way has taken, and that no barrier covers yet.
    pub(crate) in_flight: usize,
    /// The version that contents lie on which the last record to begin a version has carried over a
    /// merge: the next opening looks them up in it.
    pub(crate) carried_on: Option<Pinned>,
    pub(crate) journaled: Journaled,
    /// The operation that changes are made under; the next version publishes it.
    pub(crate) op: OpId,
    /// The next operation is at least this late: a merge is about to need earlier ones.
    pub(crate) clock_floor: u64,
    /// Counts what this operation has created.
    pub(crate) next_n: u32,
    pub(crate) set_back: SetBack,
    pub(crate) head: HeadState,
}

impl Core {
    /// Changes that are not durable yet.
    pub(crate) fn unsaved_changes(&self) -> u64 {
        let contents = self.files.values().filter(|file| file.lock().is_at_risk()).count();
        (self.unsaved.len() + contents + self.in_flight) as u64
    }

    /// The version we stand on; `None` before the first one of a device that has joined.
    pub(crate) fn version(&self) -> Option<VersionId> {
        (!self.head.vv.is_empty()).then_some(self.head.manifest.id.0)
    }

    /// The files that are [set back](SetBack), until a version has them as they are.
    pub(crate) fn set_back(&self) -> impl Iterator<Item = &NodeId> {
        self.set_back.files.iter().filter(|_| self.set_back.on == Some(self.head.manifest))
    }

    /// Whether all that was changed is in the version we stand on.
    pub(crate) fn is_published(&self) -> bool {
        self.tree.is_published() && !self.has_changed_contents() && self.unclaimed.is_empty()
    }

    /// Whether any content is not the one that the tree holds.
    pub(crate) fn has_changed_contents(&self) -> bool {
        self.files.values().any(|file| file.lock().is_changed())
    }

    /// Puts in what an [`Edit`](cairnfs_merge::Edit) of the tree has changed.
    pub(crate) fn apply(&mut self, edited: Edited<Data>) {
        self.unsaved.extend(edited.nodes.keys());
        self.tree.apply(edited);
    }

    /// What a save or version under way has taken is durable, or given back under the same lock.
    pub(crate) fn saving_ends(&mut self) {
        self.saving = false;
        self.in_flight = 0;
    }
}

/// Files of which something was saved that could not be brought back, because a repair has left out what
/// was saved before it: they are as they were before that.
#[derive(Debug, Default)]
pub(crate) struct SetBack {
    /// The version that they were changed on: the next one has them as they are.
    pub(crate) on: Option<BlobRef>,
    pub(crate) files: BTreeSet<NodeId>,
}

/// The version that the tree's base is.
#[derive(Clone, Debug)]
pub(crate) struct HeadState {
    pub(crate) manifest: BlobRef,
    pub(crate) vv: VersionVector,
    pub(crate) charter: Charter,
    pub(crate) incarnation: u32,
    /// The secrets that its members may have. One that was learnt since is not among them: it may be of a
    /// removal of which the version does not know. All that are here, where a device starts or merges:
    /// of which version each was learnt is written nowhere.
    pub(crate) secrets: Arc<[(u16, Secret)]>,
}

impl HeadState {
    /// Those of the version that follows from this one here, and is sealed under `current`.
    pub(crate) fn secrets_and(&self, current: (u16, Secret)) -> Arc<[(u16, Secret)]> {
        if self.secrets.contains(&current) {
            return Arc::clone(&self.secrets);
        }
        self.secrets.iter().cloned().chain([current]).collect()
    }
}

/// What `status` tells.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) health: Health,
    pub(crate) unsaved_since: Option<SystemTime>,
    pub(crate) last_save: Option<SystemTime>,
    pub(crate) last_publish: Option<SystemTime>,
    pub(crate) barriers: u64,
}

/// What calls, the writer and fetches tell each other. But for `fetches` each stands alone.
#[derive(Debug, Default)]
struct Flags {
    stopped: AtomicBool,
    read_only: AtomicBool,
    /// Whether the bucket's members let this device write.
    may_write: AtomicBool,
    /// Fetches under way: what they brought is referred to by nothing yet.
    fetches: AtomicU64,
    /// How often blobs were given up: those of a batch that could not be saved, what a fetch brought
    /// among them; and those that only older versions held.
    drops: AtomicU64,
    /// Whether peers wait for versions.
    awaited: AtomicBool,
    /// The last operation of this device that the observers were told of in a version.
    told: AtomicU64,
    /// The last one of which another device may know.
    given: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        options: Options,
        (bucket, key): (BucketId, DevicePublicKey),
        vault: Arc<Vault>,
        core: Core,
        inodes: Inodes,
        last_publish: SystemTime,
    ) -> Self {
        let held = core.files.values().map(|file| file.lock().held_bytes()).sum();
        let room = Room::new(Arc::clone(&vault), options.limits.dirty_bytes, held);
        room.account_tree(core.tree.held_bytes());
        let flags = Flags::default();
        flags.read_only.store(options.read_only, Ordering::Relaxed);
        flags.may_write.store(may_write(&core, &key), Ordering::Relaxed);
        Self {
            options,
            bucket,
            key,
            core: RwLock::new(core),
            inodes: Mutex::new(inodes),
            handles: Handles::default(),
            report: Mutex::new(Report {
                health: Health::Good,
                unsaved_since: None,
                last_save: None,
                last_publish: Some(last_publish),
                barriers: 0,
            }),
            room,
            vault,
            pins: Pins::default(),
            flags,
            clock: Clock::new(),
            observers: Mutex::default(),
            started: Instant::now(),
            owners: OnceLock::new(),
        }
    }

    /// As whom owners are shown, who are in `tree` as they are.
    pub(crate) fn owners<T: Tree<Data, Error = Error>>(&self, tree: &T) -> Result<Owners> {
        if let Some(owners) = self.owners.get() {
            return Ok(*owners);
        }
        let owners = Owners::of(tree, &self.options.owner)?;
        Ok(owners.map_or_else(Owners::default, |owners| *self.owners.get_or_init(|| owners)))
    }

    /// Whether the mount has been stopped, or is about to be.
    pub(crate) fn has_stopped(&self) -> bool {
        self.flags.stopped.load(Ordering::Relaxed)
    }

    /// Fails if nothing may be changed.
    pub(crate) fn writable(&self) -> Result<()> {
        if self.has_stopped() {
            return Err(Error::Stopped);
        }
        if self.flags.read_only.load(Ordering::Relaxed) {
            let poisoned = matches!(self.report.lock().health, Health::Poisoned { .. });
            let reason =
                if poisoned { "an earlier write or barrier failed" } else { "mounted read-only" };
            return Err(Error::ReadOnly { reason });
        }
        if !self.flags.may_write.load(Ordering::Relaxed) {
            return Err(Error::ReadOnly { reason: "this device may only read the bucket" });
        }
        Ok(())
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.flags.read_only.load(Ordering::Relaxed)
            || !self.flags.may_write.load(Ordering::Relaxed)
    }

    /// Has nothing changed until [`Shared::note_rights`].
    pub(crate) fn suspend_writing(&self) {
        // Under the lock: what was let in before has been made once it is taken.
        let _core = self.core.write();
        self.flags.may_write.store(false, Ordering::Relaxed);
    }

    /// Whether what is changed can become a version.
    pub(crate) fn may_publish(&self) -> bool {
        !self.flags.read_only.load(Ordering::Relaxed) && may_write(&self.core.read(), &self.key)
    }

    /// Takes note of what the members of the version we stand on let this device do.
    pub(crate) fn note_rights(&self, core: &Core) {
        self.flags.may_write.store(may_write(core, &self.key), Ordering::Relaxed);
    }

    pub(crate) fn observe(&self, observer: Arc<dyn Observer>) {
        self.observers.lock().0.push(observer);
    }

    /// Tells the observers of the version we stand on.
    pub(crate) fn tell_head(&self) {
        let head = {
            let core = self.core.read();
            self.flags.told.store(core.head.vv.get(&core.op.device), Ordering::Relaxed);
            core.head.manifest.id.0
        };
        let observers = self.observers.lock().0.clone();
        observers.iter().for_each(|observer| observer.head_changed(head));
    }

    /// Tells the observers what is no longer as it was; the caller holds the lock of `core` if names of it
    /// mean other files now.
    pub(crate) fn tell_outdated(&self, outdated: &[Outdated]) {
        if !outdated.is_empty() {
            let observers = self.observers.lock().0.clone();
            observers.iter().for_each(|observer| observer.outdated(outdated.to_vec()));
        }
    }

    /// Another device asks for what is published: from now on it may know all of that.
    pub(crate) fn note_given(&self) {
        self.flags.given.fetch_max(self.flags.told.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Whether another device may know what `op` of this one has made.
    pub(crate) fn may_be_known(&self, op: &OpId) -> bool {
        op.lamport <= self.flags.given.load(Ordering::Relaxed)
    }

    pub(crate) fn fetch_begins(&self) {
        self.flags.fetches.fetch_add(1, Ordering::Relaxed);
    }

    /// Wakes the writer, whose inbox that is: it may have waited for the last one.
    pub(crate) fn fetch_ends(&self, inbox: &Inbox) {
        // Whoever sees that it has ended sees what it has pinned: this pairs with `is_fetching`.
        if self.flags.fetches.fetch_sub(1, Ordering::Release) == 1 {
            // The writer itself must not wait for room in it.
            inbox.wake();
        }
    }

    pub(crate) fn is_fetching(&self) -> bool {
        self.flags.fetches.load(Ordering::Acquire) > 0
    }

    pub(crate) fn blobs_dropped(&self) {
        self.flags.drops.fetch_add(1, Ordering::Relaxed);
    }

    /// How often blobs were given up that were here: what was seen to be here before may not be now.
    pub(crate) fn drops(&self) -> u64 {
        self.flags.drops.load(Ordering::Relaxed)
    }

    pub(crate) fn set_awaited(&self, awaited: bool) {
        self.flags.awaited.store(awaited, Ordering::Relaxed);
    }

    pub(crate) fn is_awaited(&self) -> bool {
        self.flags.awaited.load(Ordering::Relaxed)
    }

    /// Takes note of a change that has been made; `true` if the writer must be woken, as it sleeps
    /// for longer than a change may stay unsaved.
    pub(crate) fn changed(&self) -> bool {
        let max_age = self.options.policy.max_age().as_micros();
        let max_age = u64::try_from(max_age).unwrap_or(NEVER);
        match self.clock.changed(self.micros(Instant::now()), max_age) {
            Noted::Before => false,
            Noted::First { wake } => {
                self.report.lock().unsaved_since.get_or_insert_with(SystemTime::now);
                wake
            }
        }
    }

    /// The writer sleeps until `deadline`, unless it is woken; `None` for ever. Returns when the
    /// first change was made that no save has begun to cover: then it must not sleep for too long.
    pub(crate) fn writer_sleeps(&self, deadline: Option<Instant>) -> Option<Instant> {
        let until = deadline.map_or(NEVER, |deadline| self.micros(deadline));
        self.clock.writer_sleeps(until).map(|since| self.instant(since))
    }

    /// The writer is awake, and calls [`Shared::writer_sleeps`] before it sleeps. Returns the same.
    pub(crate) fn writer_wakes(&self) -> Option<Instant> {
        self.clock.writer_wakes().map(|since| self.instant(since))
    }

    pub(crate) fn last_change(&self) -> Instant {
        self.instant(self.clock.last_change())
    }

    /// `micros` after the start of the mount.
    fn instant(&self, micros: u64) -> Instant {
        self.started + Duration::from_micros(micros)
    }

    /// Microseconds from the start of the mount to `at`.
    fn micros(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.started);
        u64::try_from(since.as_micros()).unwrap_or(NEVER - 1)
    }

    /// How saving fares, and whether writes are refused for want of space.
    pub(crate) fn health(&self) -> Health {
        let health = self.report.lock().health.clone();
        let is_good = health == Health::Good;
        if is_good && self.room.is_refused() { Health::NoSpace } else { health }
    }

    pub(crate) fn note_publish(&self, time: Time) {
        self.report.lock().last_publish = Some(time.into());
    }

    pub(crate) fn set_health(&self, health: Health) {
        if matches!(health, Health::Poisoned { .. }) {
            self.flags.read_only.store(true, Ordering::Relaxed);
        }
        self.report.lock().health = health;
    }

    pub(crate) fn stopped(&self) {
        self.flags.stopped.store(true, Ordering::Relaxed);
    }
}

fn may_write(core: &Core, key: &DevicePublicKey) -> bool {
    core.head.charter.role(key).is_some_and(|role| role >= Role::Writer)
}
