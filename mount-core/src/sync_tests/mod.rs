//! Several devices in one process: what one publishes the others merge into their live mounts.

mod believing;
mod bounds;
mod conflicts;
mod cost;
mod escalation;
mod failing;
mod fetching;
mod forging;
mod gone_dirs;
mod knowledge;
mod landing;
mod links;
mod members;
mod mending;
mod merging;
mod names;
mod nodes;
mod open_files;
mod put_back;
mod random_merges;
mod salvaging;
mod saving;
mod searching;
mod settling;
mod showing;

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use cairnfs_merge::OpId;
use cairnfs_store::{
    Appender, DeviceKey, KeyRing, Options as StoreOptions, Secret, create, disk::Disk, open, sim,
};
use parking_lot::Mutex;

use crate::{
    Bucket, BucketId, Caller, Fh, Ino, Keep, Kind, Limits, MergeStep, Mount, Observer, OpenFlags,
    Options, RenameMode, Result, Role, Seen, VersionId,
    bucket::{begin, begin_unknown},
    charter::Charter,
    writer::{Command, Errand, record::SaveRecord},
};

const DIR: &str = "/bucket";
const ME: Caller = Caller { uid: 0, gid: 0 };
const READ: OpenFlags = OpenFlags { sync: false, truncate: false, write: false, exclusive: false };
const WRITE: OpenFlags = OpenFlags { write: true, ..READ };
/// So little memory that whatever is needed is read.
const NO_CACHE: Limits = Limits { cache_bytes: 0, dirty_bytes: 32 << 20 };

type Once = Box<dyn FnOnce(&Mount) + Send>;

/// See [`Peer::once_published`].
struct OncePublished(Mutex<Option<(Mount, Once)>>);

impl Observer for OncePublished {
    fn head_changed(&self, _head: VersionId) {
        if let Some((mount, what)) = self.0.lock().take() {
            what(&mount);
        }
    }
}

/// Whether it is so within a minute.
pub(crate) fn comes(is_so: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while !is_so() && begun.elapsed() < Duration::from_secs(60) {
        thread::sleep(Duration::from_millis(5));
    }
    is_so()
}

/// A device with its disk.
struct Peer {
    disk: sim::SimDisk,
    key: Arc<DeviceKey>,
    mount: Option<Mount>,
}

fn keys() -> KeyRing {
    KeyRing::new([(0, Secret::new([3; 32]))]).unwrap()
}

fn bucket_id() -> BucketId {
    BucketId([1; 16])
}

fn store_options() -> StoreOptions {
    StoreOptions { pack_bytes: 1 << 20, reserve_bytes: 64 << 10, ..StoreOptions::default() }
}

fn start(disk: &sim::SimDisk, key: &Arc<DeviceKey>, keys: KeyRing) -> Result<Mount> {
    start_with(Arc::new(disk.clone()), key, keys, Limits::default())
}

fn start_with(
    disk: Arc<dyn Disk>,
    key: &Arc<DeviceKey>,
    keys: KeyRing,
    limits: Limits,
) -> Result<Mount> {
    let opened = open(disk, Path::new(DIR), keys, store_options())?;
    let bucket = Bucket {
        id: bucket_id(),
        device: Arc::clone(key),
        appender: opened.appender,
        blobs: opened.blobs,
        saves: opened.saves,
        left_out: opened.left_out,
        key_file: None,
    };
    // Versions are made when the test says so.
    let hour = Duration::from_secs(3600);
    let options = Options { limits, publish_quiet: hour, publish_max: hour, ..Options::default() };
    Mount::start(bucket, options)
}

impl Peer {
    fn fresh(fill: impl FnOnce(&DeviceKey, Appender, Arc<cairnfs_store::Blobs>)) -> Self {
        Self::of_key(Arc::new(DeviceKey::generate().unwrap()), fill)
    }

    fn of_key(
        key: Arc<DeviceKey>,
        fill: impl FnOnce(&DeviceKey, Appender, Arc<cairnfs_store::Blobs>),
    ) -> Self {
        let disk = sim::SimDisk::new(1);
        let (appender, blobs) =
            create(Arc::new(disk.clone()), Path::new(DIR), keys(), store_options()).unwrap();
        fill(&key, appender, blobs);
        let mount = Some(start(&disk, &key, keys()).unwrap());
        Self { disk, key, mount }
    }

    fn first() -> Self {
        Self::fresh(|key, appender, blobs| {
            begin((0, 0), key, bucket_id(), appender, blobs).unwrap();
        })
    }

    /// A device that `self` invites, with the tree that `self` has.
    fn invite(&self, role: Role) -> Self {
        let peer = Self::fresh(|key, mut appender, _| {
            begin_unknown((key, 0), bucket_id(), &mut appender).unwrap();
        });
        self.mount().set_member(peer.key.public(), "peer", Some(role)).unwrap();
        assert!(peer.mount().awaits_first_version());
        assert_eq!(peer.pull(self).unwrap(), MergeStep::FastForward);
        assert!(!peer.mount().awaits_first_version());
        peer
    }

    /// The same device with a new copy of what `from` has: its own was dropped.
    fn join_again(&self, from: &Self) -> Self {
        let incarnation = self.mount().incarnation() + 1;
        let peer = Self::of_key(Arc::clone(&self.key), |key, mut appender, _| {
            begin_unknown((key, incarnation), bucket_id(), &mut appender).unwrap();
        });
        assert_eq!(peer.pull(from).unwrap(), MergeStep::FastForward);
        peer
    }

    /// Fetches what `other` stands on and merges it.
    fn pull(&self, other: &Self) -> Result<MergeStep> {
        other.mount().publish().unwrap();
        let head = other.mount().head().unwrap();
        if self.mount().covers(&head)? {
            return Ok(MergeStep::Nothing);
        }
        let (fetch, _) = self.fetch(other, head)?;
        let outcome = self.mount().merge_from(fetch)?;
        assert_eq!(self.mount().covers(&head)?, outcome.step.knows_theirs());
        Ok(outcome.step)
    }

    /// Fetches `head`; says how many blobs came.
    fn fetch(&self, other: &Self, head: [u8; 32]) -> Result<(crate::Fetch, u64)> {
        let mut fetch = self.mount().fetch(head)?;
        let have: Vec<_> = self.mount().head().into_iter().collect();
        fetch.expect_ancestors(&other.mount().ancestry(&head, &have, 1000)?);
        other.serve(&mut fetch)?;
        let blobs = fetch.progress().blobs;
        Ok((fetch, blobs))
    }

    /// Gives `fetch` all that it wants.
    fn serve(&self, fetch: &mut crate::Fetch) -> Result<()> {
        while !fetch.is_complete() {
            let wanted = fetch.wanted(16)?;
            let mut blobs = Vec::new();
            for id in &wanted {
                match self.mount().sealed(id)? {
                    Some(blob) => blobs.push(blob),
                    None => fetch.unavailable(&[*id])?,
                }
            }
            fetch.supply(blobs)?;
        }
        Ok(())
    }

    /// As if it were started again: after a clean stop, or after its power was cut.
    fn restart(&mut self, cleanly: bool) {
        if cleanly {
            self.mount().stop().unwrap();
        } else {
            self.disk = self.disk.crash(7);
            self.mount().stop().ok();
        }
        self.start_on(self.disk.clone());
    }

    /// A copy of its disk as it is after a clean stop.
    fn backup(&mut self) -> sim::SimDisk {
        self.mount().stop().unwrap();
        let backup = self.disk.crash(1);
        self.start_on(self.disk.clone());
        backup
    }

    fn put_back(&mut self, backup: sim::SimDisk) {
        self.mount().stop().unwrap();
        self.start_on(backup);
    }

    /// As if it had saved the record that `put` makes.
    fn restart_after(&mut self, put: impl FnOnce(&mut Appender) -> SaveRecord) {
        self.mount().stop().unwrap();
        let keys = self.key_file();
        self.mount = None;
        let disk = Arc::new(self.disk.clone());
        let opened = open(disk, Path::new(DIR), keys.clone(), store_options()).unwrap();
        let mut appender = opened.appender;
        let record = put(&mut appender);
        appender.save(&record.encode(), record.kind()).unwrap();
        drop((appender, opened.blobs));
        self.mount = Some(start(&self.disk, &self.key, keys).unwrap());
    }

    /// As if it were started again, with so little memory that whatever it needs is read.
    fn restart_without_cache(&mut self) {
        self.restart_with(Arc::new(self.disk.clone()), NO_CACHE);
    }

    /// As if it were started again; `disk` is its own, with something before its calls.
    fn restart_with(&mut self, disk: Arc<dyn Disk>, limits: Limits) {
        self.mount().stop().unwrap();
        let keys = self.key_file();
        self.mount = None;
        self.mount = Some(start_with(disk, &self.key, keys, limits).unwrap());
    }

    fn change_charter(&self, change: impl Fn(&mut Charter, OpId) -> Result<()> + Send + 'static) {
        let (reply, answer) = crossbeam_channel::bounded(1);
        self.mount().send(Command::Errand(Errand::Charter(Box::new(change), reply)));
        answer.recv().unwrap().unwrap();
    }

    /// What a key file would hold.
    fn key_file(&self) -> KeyRing {
        let known = self.mount.as_ref().map(|_| self.keys().secrets());
        known.map_or_else(keys, |known| KeyRing::new(known).unwrap())
    }

    fn keys(&self) -> &KeyRing {
        self.mount().shared().vault.blobs().keys()
    }

    /// Does `what` once, as soon as it stands on a new version: in a merge before which something
    /// is to be published, this is between its first step and the third.
    fn once_published(&self, what: impl FnOnce(&Mount) + Send + 'static) {
        let what: Once = Box::new(what);
        let waits = Mutex::new(Some((self.mount().clone(), what)));
        self.mount().observe(Arc::new(OncePublished(waits)));
    }

    fn start_on(&mut self, disk: sim::SimDisk) {
        let keys = self.key_file();
        // The bucket is let go with the last clone.
        self.mount = None;
        self.mount = Some(start(&disk, &self.key, keys).unwrap());
        self.disk = disk;
    }

    fn mount(&self) -> &Mount {
        self.mount.as_ref().expect("it is taken only while another is started")
    }

    fn walk(&self, path: &str) -> Result<Ino> {
        let names = path.split('/').filter(|name| !name.is_empty());
        names
            .into_iter()
            .try_fold(Ino::ROOT, |dir, name| Ok(self.mount().lookup(dir, name.as_bytes())?.ino))
    }

    fn parent<'p>(&self, path: &'p str) -> (Ino, &'p [u8]) {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.walk(dir).unwrap(), name.as_bytes())
    }

    fn write(&self, path: &str, text: &str) {
        let (dir, name) = self.parent(path);
        let flags = OpenFlags { truncate: true, ..WRITE };
        let (attr, fh) = self.mount().create(ME, dir, name, 0o644, flags).unwrap();
        self.write_to(attr.ino, fh, 0, text).unwrap();
        self.close(attr.ino, fh);
    }

    fn write_to(&self, ino: Ino, fh: Fh, at: u64, text: &str) -> Result<()> {
        let (tell, told) = crossbeam_channel::bounded(1);
        let done = Box::new(move |result| tell.send(result).unwrap());
        self.mount().write(ino, fh, at, text.as_bytes(), false, done);
        told.recv().unwrap().map(drop)
    }

    fn close(&self, ino: Ino, fh: Fh) {
        self.flush(ino, fh).unwrap();
        self.mount().release(ino, fh, Box::new(|_| ()));
    }

    /// What `close` says.
    fn flush(&self, ino: Ino, fh: Fh) -> Result<()> {
        let (tell, told) = crossbeam_channel::bounded(1);
        self.mount().flush(ino, fh, Box::new(move |result| tell.send(result).unwrap()));
        told.recv().unwrap()
    }

    fn mkdir(&self, path: &str) {
        let (dir, name) = self.parent(path);
        self.mount().mkdir(ME, dir, name, 0o755).unwrap();
    }

    /// Settles what conflicts at `path` by somebody who has just looked at it.
    fn resolve(&self, path: &[u8], keep: &Keep) -> Result<()> {
        self.mount().resolve(path, keep, &self.seen(path))
    }

    fn seen(&self, path: &[u8]) -> Seen {
        let mut seen = Seen::default();
        let listed = self.mount().conflicts_to_settle(Some(path)).unwrap();
        listed.iter().for_each(|conflict| seen.add(conflict));
        seen
    }

    fn unlink(&self, path: &str) {
        let (dir, name) = self.parent(path);
        self.mount().unlink(dir, name).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        let ((dir, name), (new_dir, new_name)) = (self.parent(from), self.parent(to));
        self.mount().rename(dir, name, new_dir, new_name, RenameMode::Replace).unwrap();
    }

    fn open(&self, path: &str, flags: OpenFlags) -> (Ino, Fh) {
        let ino = self.walk(path).unwrap();
        (ino, self.mount().open(ino, flags).unwrap())
    }

    fn read_from(&self, fh: Fh) -> String {
        String::from_utf8_lossy(&self.mount().read(fh, 0, 1 << 20).unwrap()).into_owned()
    }

    /// Every path with its content, directories with a slash.
    fn tree(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut dirs = vec![(String::new(), Ino::ROOT)];
        while let Some((path, ino)) = dirs.pop() {
            let fh = self.mount().opendir(ino).unwrap();
            let mut entries = Vec::new();
            self.mount()
                .readdir(ino, fh, 2, true, &mut |entry| {
                    entries.push(entry);
                    true
                })
                .unwrap();
            for entry in entries {
                let path = format!("{path}{}", String::from_utf8_lossy(&entry.name));
                if entry.kind == Kind::Dir {
                    found.push(format!("{path}/"));
                    dirs.push((format!("{path}/"), entry.ino));
                } else {
                    let fh = self.mount().open(entry.ino, READ).unwrap();
                    found.push(format!("{path}={}", self.read_from(fh)));
                    self.mount().release(entry.ino, fh, Box::new(|_| ()));
                }
            }
        }
        found.sort();
        found
    }

    /// The paths in the root that begin with `prefix`.
    fn names(&self, prefix: &str) -> Vec<String> {
        let tree = self.tree().into_iter();
        let names = tree.filter_map(|line| Some(line.split_once('=')?.0.to_owned()));
        names.filter(|name| name.starts_with(prefix)).collect()
    }
}

/// The members' secrets go from the one to the other, as when they meet.
fn tell_secrets(from: &Peer, to: &Peer) {
    for (epoch, secret) in from.mount().secrets(&[]) {
        let _is_new = to.keys().learn(epoch, Secret::new(*secret));
    }
}

/// Pulls both ways until nobody learns anything.
fn sync(a: &Peer, b: &Peer) {
    for _ in 0..4 {
        let steps = (a.pull(b).unwrap(), b.pull(a).unwrap());
        if steps == (MergeStep::Nothing, MergeStep::Nothing) {
            assert_eq!(a.tree(), b.tree());
            return;
        }
    }
    panic!("no rest after four rounds");
}

fn two() -> (Peer, Peer) {
    let a = Peer::first();
    a.write("old", "0");
    let b = a.invite(Role::Writer);
    (a, b)
}
