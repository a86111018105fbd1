//! Random calls on a mount over the simulated disk, beside a model of what must be there: what the
//! tests of power cuts, full disks and turned bits put their buckets through.

mod op;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use cairnfs_store::{
    DeviceKey, KeyRing, Options as StoreOptions, Repaired, Secret, create, disk::Disk, open,
    repair, sim,
};

use crate::{
    Bucket, BucketId, Caller, Ino, Limits, Mount, OpenFlags, Options, RenameMode, Result, Salvaged,
    SetAttr, bucket::begin,
};

use op::Name;
pub(crate) use op::{Op, Rng};

const DIR: &str = "/bucket";
pub(crate) const ME: Caller = Caller { uid: 0, gid: 0 };
const WRITE: OpenFlags = OpenFlags { sync: false, truncate: false, write: true, exclusive: false };

/// Path to content; a directory has none.
pub(crate) type Model = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// How much of what is random a run does: what the environment says, if it does.
pub(crate) fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

fn keys() -> KeyRing {
    KeyRing::new([(0, Secret::new([3; 32]))]).unwrap()
}

fn store_options() -> StoreOptions {
    StoreOptions { pack_bytes: 256 << 10, reserve_bytes: 64 << 10, ..StoreOptions::default() }
}

/// An empty bucket on a disk of its own, the device that has it, and what decides.
pub(crate) fn fresh(seed: u64) -> (sim::SimDisk, Arc<DeviceKey>, Rng) {
    let device = Arc::new(DeviceKey::from_seed(&Secret::new([9; 32])));
    let disk = sim::SimDisk::new(seed);
    let (appender, blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), store_options()).unwrap();
    begin((0, 0), &device, BucketId([1; 16]), appender, blobs).unwrap();
    (disk, device, Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1))
}

pub(crate) fn mount(disk: &sim::SimDisk, device: &Arc<DeviceKey>) -> Result<Mount> {
    // Versions are made all the time, so that cuts fall into them too.
    mount_publishing(disk, device, Duration::from_millis(1), Duration::from_millis(5))
}

pub(crate) fn mount_publishing(
    disk: &sim::SimDisk,
    device: &Arc<DeviceKey>,
    publish_quiet: Duration,
    publish_max: Duration,
) -> Result<Mount> {
    mount_on(Arc::new(disk.clone()), device, publish_quiet, publish_max)
}

pub(crate) fn mount_on(
    disk: Arc<dyn Disk>,
    device: &Arc<DeviceKey>,
    publish_quiet: Duration,
    publish_max: Duration,
) -> Result<Mount> {
    let options = Options {
        publish_quiet,
        publish_max,
        limits: Limits { cache_bytes: 1 << 20, dirty_bytes: 256 << 10 },
        ..Options::default()
    };
    Mount::start(bucket_on(disk, device)?, options)
}

/// The bucket of [`fresh`], opened.
pub(crate) fn bucket_on(disk: Arc<dyn Disk>, device: &Arc<DeviceKey>) -> Result<Bucket> {
    bucket_with(disk, device, store_options())
}

/// As [`bucket_on`], with so much kept for deleting.
pub(crate) fn bucket_with_reserve(
    disk: &sim::SimDisk,
    device: &Arc<DeviceKey>,
    reserve_bytes: u64,
) -> Result<Bucket> {
    let options = StoreOptions { reserve_bytes, ..store_options() };
    bucket_with(Arc::new(disk.clone()), device, options)
}

fn bucket_with(
    disk: Arc<dyn Disk>,
    device: &Arc<DeviceKey>,
    options: StoreOptions,
) -> Result<Bucket> {
    let opened = open(disk, Path::new(DIR), keys(), options)?;
    Ok(Bucket {
        id: BucketId([1; 16]),
        device: Arc::clone(device),
        appender: opened.appender,
        blobs: opened.blobs,
        saves: opened.saves,
        left_out: opened.left_out,
        key_file: None,
    })
}

/// Makes the bucket of [`fresh`] open again.
pub(crate) fn repair_on(disk: &sim::SimDisk) -> Repaired {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    repair(&disk, Path::new(DIR), keys(), store_options()).unwrap()
}

/// As [`repair_on`], and gives the log a version to begin with again, as a repair does.
pub(crate) fn salvage_on(disk: Arc<dyn Disk>, device: &Arc<DeviceKey>) -> Result<Option<Salvaged>> {
    repair(&disk, Path::new(DIR), keys(), store_options())?;
    bucket_on(disk, device)?.salvage(0)
}

pub(crate) fn save(mount: &Mount) -> Result<()> {
    let (tell, told) = crossbeam_channel::bounded(1);
    mount.save(Box::new(move |result| tell.send(result).unwrap()));
    told.recv().unwrap()
}

pub(crate) fn write_all(mount: &Mount, ino: Ino, at: u64, data: &[u8]) -> Result<()> {
    let fh = mount.open(ino, WRITE)?;
    let (tell, told) = crossbeam_channel::bounded(1);
    mount.write(ino, fh, at, data, false, Box::new(move |result| tell.send(result).unwrap()));
    let written = told.recv().unwrap();
    mount.release(ino, fh, Box::new(|_| ()));
    written.map(drop)
}

/// What is there at a moment, and which of the names are of one file.
#[derive(Clone, Default)]
struct State {
    shown: Model,
    files: BTreeMap<Vec<u8>, u64>,
    made: u64,
}

impl State {
    fn make(&mut self, name: &[u8], content: Option<Vec<u8>>) {
        self.made += 1;
        self.files.insert(name.to_vec(), self.made);
        self.shown.insert(name.to_vec(), content);
    }

    /// Changes the file called `name`, under all its names.
    fn change(&mut self, name: &[u8], change: impl FnOnce(&mut Vec<u8>)) {
        let mut content = self.shown[name].clone().expect("because it fits");
        change(&mut content);
        for (other, file) in &self.files {
            if *file == self.files[name] {
                self.shown.insert(other.clone(), Some(content.clone()));
            }
        }
    }

    fn link(&mut self, from: &[u8], to: &[u8]) {
        self.files.insert(to.to_vec(), self.files[from]);
        self.shown.insert(to.to_vec(), self.shown[from].clone());
    }

    fn rename(&mut self, from: &[u8], to: &[u8]) {
        // Two names of one file both stay: rename(2).
        if self.files.get(to) != Some(&self.files[from]) {
            self.link(from, to);
            self.remove(from);
        }
    }

    fn remove(&mut self, name: &[u8]) {
        self.files.remove(name);
        self.shown.remove(name);
    }
}

/// What the bucket may hold: the state of the last acknowledged save, and all that follow. The last
/// is the one that the mount shows.
pub(crate) struct Possible(Vec<State>);

impl Possible {
    /// Nothing, and nothing else.
    pub(crate) fn empty() -> Self {
        Self(vec![State::default()])
    }

    /// A state that is about to come; even a call that is refused may have brought it.
    fn next(&mut self, change: impl FnOnce(&mut State)) {
        let mut next = self.last().clone();
        change(&mut next);
        self.0.push(next);
    }

    fn last(&self) -> &State {
        self.0.last().expect("because it begins with the empty one")
    }

    pub(crate) fn now(&self) -> &Model {
        &self.last().shown
    }

    pub(crate) fn saved(&mut self) {
        self.0.drain(..self.0.len() - 1);
    }

    pub(crate) fn all(&self) -> impl ExactSizeIterator<Item = &Model> {
        self.0.iter().map(|state| &state.shown)
    }

    /// It turns out that the mount shows `found`; says whether it may.
    pub(crate) fn must_be(&mut self, found: &Model) -> bool {
        let state = self.0.iter().rfind(|state| state.shown == *found).cloned();
        let may_be = state.is_some();
        self.0.extend(state);
        may_be
    }
}

/// Makes a call on the mount and on the model, unless it makes no sense there.
pub(crate) fn step(mount: &Mount, states: &mut Possible, op: &Op) -> Result<()> {
    if !op.fits(states.now()) {
        return Ok(());
    }
    let ino = |name: &Name| mount.lookup(Ino::ROOT, &name.bytes()).map(|attr| attr.ino);
    if let Op::Create { name, .. } = op {
        states.next(|state| state.make(&name.bytes(), Some(Vec::new())));
        mount.mknod(ME, Ino::ROOT, &name.bytes(), crate::Kind::File, 0o644, 0)?;
    }
    if !matches!(op, Op::Save) {
        states.next(|state| op.apply(state));
    }
    match op {
        // A write of nothing is a change too, which the kernel never sends.
        Op::Create { content, .. } if content.is_empty() => Ok(()),
        Op::Create { name, content } => write_all(mount, ino(name)?, 0, &content.bytes()),
        Op::Write { name, at, data } => write_all(mount, ino(name)?, *at, &data.bytes()),
        Op::Truncate { name, len } => {
            let changes = SetAttr { size: Some(*len), ..SetAttr::default() };
            mount.setattr(ino(name)?, None, changes).map(drop)
        }
        Op::Unlink(name) => mount.unlink(Ino::ROOT, &name.bytes()),
        Op::Rename { from, to } => {
            let (from, to) = (from.bytes(), to.bytes());
            mount.rename(Ino::ROOT, &from, Ino::ROOT, &to, RenameMode::Replace)
        }
        Op::Link { from, to } => mount.link(ino(from)?, Ino::ROOT, &to.bytes()).map(drop),
        Op::Mkdir(name) => mount.mkdir(ME, Ino::ROOT, &name.bytes(), 0o755).map(drop),
        Op::Rmdir(name) => mount.rmdir(Ino::ROOT, &name.bytes()),
        Op::Save => save(mount).map(|()| states.saved()),
    }
}

pub(crate) fn read_back(mount: &Mount) -> Result<Model> {
    let fh = mount.opendir(Ino::ROOT)?;
    let mut found = Vec::new();
    mount.readdir(Ino::ROOT, fh, 0, false, &mut |entry| {
        found.push(entry);
        true
    })?;
    let mut model = Model::new();
    for entry in found.into_iter().skip(2) {
        let content = if entry.kind == crate::Kind::Dir {
            None
        } else {
            let fh = mount.open(entry.ino, OpenFlags::default())?;
            let len = mount.getattr(entry.ino)?.size;
            Some(mount.read(fh, 0, u32::try_from(len).unwrap())?)
        };
        model.insert(entry.name, content);
    }
    Ok(model)
}

pub(crate) fn sizes(model: &Model) -> Vec<(String, Option<usize>)> {
    let show = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    model.iter().map(|(name, data)| (show(name), data.as_ref().map(Vec::len))).collect()
}
