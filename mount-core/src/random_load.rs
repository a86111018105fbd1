//! Random calls on a mount over the simulated disk, beside a model of what must be there: what the
//! tests of power cuts, full disks and turned bits put their buckets through.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use cairnfs_store::{
    DeviceKey, KeyRing, Options as StoreOptions, Secret, create, disk::Disk, open, sim,
};

use crate::{
    Bucket, BucketId, Caller, Ino, Limits, Mount, OpenFlags, Options, RenameMode, Result, SetAttr,
    bucket::begin,
};

const DIR: &str = "/bucket";
pub(crate) const ME: Caller = Caller { uid: 0, gid: 0 };
const WRITE: OpenFlags =
    OpenFlags { append: false, sync: false, truncate: false, write: true, exclusive: false };

/// Path to content; a directory has none.
pub(crate) type Model = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Small numbers from a seed (xorshift, Marsaglia 2003).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    pub(crate) fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.below(256).to_le_bytes()[0]).collect()
    }
}

fn keys() -> KeyRing {
    KeyRing::new([(0, Secret::new([3; 32]))]).unwrap()
}

fn store_options() -> StoreOptions {
    StoreOptions { pack_bytes: 256 << 10, reserve_bytes: 64 << 10, ..StoreOptions::default() }
}

/// An empty bucket on a disk of its own, the device that has it, and what decides.
pub(crate) fn fresh(seed: u64) -> (sim::SimDisk, Arc<DeviceKey>, Rng) {
    let device = Arc::new(DeviceKey::generate().unwrap());
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
    let opened = open(disk, Path::new(DIR), keys(), store_options())?;
    let bucket = Bucket {
        id: BucketId([1; 16]),
        device: Arc::clone(device),
        appender: opened.appender,
        blobs: opened.blobs,
        saves: opened.saves,
        key_file: None,
    };
    let options = Options {
        publish_quiet,
        publish_max,
        limits: Limits { cache_bytes: 1 << 20, dirty_bytes: 256 << 10 },
        ..Options::default()
    };
    Mount::start(bucket, options)
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

/// What the bucket may hold: the state of the last acknowledged save, and all that follow. The last
/// is the one that the mount shows.
pub(crate) struct Possible(pub(crate) Vec<Model>);

impl Possible {
    /// A state that is about to come; even a call that is refused may have brought it.
    fn next(&mut self, change: impl FnOnce(&mut Model)) {
        let mut next = self.now().clone();
        change(&mut next);
        self.0.push(next);
    }

    pub(crate) fn now(&self) -> &Model {
        self.0.last().expect("because it begins with the empty one")
    }

    pub(crate) fn saved(&mut self) {
        self.0.drain(..self.0.len() - 1);
    }
}

/// One random call, on the mount and on the model.
pub(crate) fn step(mount: &Mount, states: &mut Possible, rng: &mut Rng) -> Result<()> {
    let name = vec![b'a' + rng.below(6).to_le_bytes()[0]];
    let other = vec![b'a' + rng.below(6).to_le_bytes()[0]];
    let known = states.now().contains_key(&name);
    let over_dir = matches!(states.now().get(&other), Some(None));
    let content = states.now().get(&name).cloned().flatten();
    match (rng.below(8), content) {
        (0 | 1, None) if !known => {
            let len = [0, 100, 3_000, 40_000, 300_000][usize::try_from(rng.below(5)).unwrap()];
            let data = rng.bytes(len);
            states.next(|model| drop(model.insert(name.clone(), Some(Vec::new()))));
            let ino = mount.mknod(ME, Ino::ROOT, &name, crate::Kind::File, 0o644, 0)?.ino;
            states.next(|model| drop(model.insert(name, Some(data.clone()))));
            write_all(mount, ino, 0, &data)
        }
        (0..=2, Some(mut new)) => {
            let at = rng.below(new.len() as u64 + 1);
            let len = 1 + rng.below(20_000);
            let data = rng.bytes(len);
            let (from, to) = (usize::try_from(at).unwrap(), usize::try_from(at + len).unwrap());
            new.resize(new.len().max(to), 0);
            new[from..to].copy_from_slice(&data);
            states.next(|model| drop(model.insert(name.clone(), Some(new))));
            write_all(mount, mount.lookup(Ino::ROOT, &name)?.ino, at, &data)
        }
        (3, Some(mut new)) => {
            let len = rng.below(new.len() as u64 + 1);
            new.truncate(usize::try_from(len).unwrap());
            states.next(|model| drop(model.insert(name.clone(), Some(new))));
            let changes = SetAttr { size: Some(len), ..SetAttr::default() };
            mount.setattr(ME, mount.lookup(Ino::ROOT, &name)?.ino, None, changes).map(drop)
        }
        (4, Some(_)) => {
            states.next(|model| drop(model.remove(&name)));
            mount.unlink(Ino::ROOT, &name)
        }
        (5 | 6, Some(moved)) if !over_dir => {
            states.next(|model| {
                model.remove(&name);
                model.insert(other.clone(), Some(moved));
            });
            mount.rename(Ino::ROOT, &name, Ino::ROOT, &other, RenameMode::Replace)
        }
        (7, None) if !known => {
            states.next(|model| drop(model.insert(name.clone(), None)));
            mount.mkdir(ME, Ino::ROOT, &name, 0o755).map(drop)
        }
        (_, None) if known => {
            states.next(|model| drop(model.remove(&name)));
            mount.rmdir(Ino::ROOT, &name)
        }
        _ => Ok(()),
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
            let len = mount.getattr(entry.ino, None)?.size;
            Some(mount.read(entry.ino, fh, 0, u32::try_from(len).unwrap())?)
        };
        model.insert(entry.name, content);
    }
    Ok(model)
}

pub(crate) fn sizes(model: &Model) -> Vec<(String, Option<usize>)> {
    let show = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    model.iter().map(|(name, data)| (show(name), data.as_ref().map(Vec::len))).collect()
}
