//! A bucket's directory: its keys, its store, its lock.
//!
//! ```text
//!   id           the bucket's name for life
//!   key          its secrets, sealed under a passphrase or plain with mode 0600
//!   packs/       the log
//!   index.redb   where in the log each blob lies
//!   lock         who has it open
//! ```

mod taking_away;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use cairnfs_merge::{Edit, NodeId, OpId, VersionVector};
use cairnfs_store::{
    self as store, Appender, Blobs, DeviceKey, KeyRing, Kind as BlobKind, LeftOut, Secret,
    disk::{Disk, RealDisk},
    keys::keyfile::{self, KeyFileError},
    map::Root,
};

use zeroize::Zeroizing;

use crate::{
    Error, Result, Time,
    charter::Charter,
    key_file::{KeyFile, Protection, Unlock},
    manifest::{INCARNATIONS_MAX, Manifest, device_id},
    tree::{
        LiveTree,
        attrs::{self, Times},
        map_edits,
    },
    vault::{Sealer, Vault},
    writer::record::{Head, SaveRecord},
};

/// The name of a bucket for life, the same on every device.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct BucketId(pub [u8; 16]);

impl fmt::Debug for BucketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BucketId({self})")
    }
}

impl fmt::Display for BucketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What can be told of a bucket without its key.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its name for life; `None` if the file that has it is lost or damaged, until the bucket is opened.
    pub id: Option<BucketId>,
    /// Whether a passphrase is needed to open it.
    pub needs_passphrase: bool,
    /// When its key file was written here.
    pub created: SystemTime,
}

/// An opened bucket: locked against other processes, its keys in memory.
#[derive(Debug)]
pub struct Bucket {
    pub(crate) id: BucketId,
    pub(crate) device: Arc<DeviceKey>,
    pub(crate) appender: Appender,
    pub(crate) blobs: Arc<Blobs>,
    /// What was saved since the last version.
    pub(crate) saves: Vec<Vec<u8>>,
    /// What a repair has left out of that.
    pub(crate) left_out: LeftOut,
    /// Where new secrets go; none where the keys are in memory only.
    pub(crate) key_file: Option<KeyFile>,
}

impl Bucket {
    /// Makes a bucket in the new directory `dir` and publishes its first, empty version.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] if `dir` exists; errors of the disk. Nothing is left behind on failure.
    pub fn create(dir: &Path, device: &DeviceKey, protection: Protection<'_>) -> Result<BucketId> {
        let keys = KeyRing::generate()?;
        let id = id_of(&keys);
        make(dir, |unfinished| {
            let (appender, blobs) = lay_out(unfinished, id, keys, protection)?;
            let owner =
                fs::metadata(unfinished).map_err(|err| io_error("read", unfinished, &err))?;
            begin((owner.uid(), owner.gid()), device, id, appender, blobs)
        })?;
        Ok(id)
    }

    /// Makes the bucket `id` in the new directory `dir` for a device that another member invited,
    /// with the secrets it was given. There is no tree in it before the first merge.
    ///
    /// `incarnation` is one that the device has not had in that bucket, see
    /// [`Mount::incarnation`](crate::Mount::incarnation); 0 if it never had the bucket. Whatever it
    /// did there before, whoever knows it, is then not mistaken for what it does from now on.
    ///
    /// # Errors
    ///
    /// As [`Bucket::create`]; [`Error::Invalid`] if these are not the secrets of that bucket, or if the
    /// incarnation is beyond [`INCARNATIONS_MAX`].
    pub fn join(
        dir: &Path,
        device: &DeviceKey,
        protection: Protection<'_>,
        id: BucketId,
        secrets: &[(u16, Zeroizing<[u8; 32]>)],
        incarnation: u32,
    ) -> Result<()> {
        // None of its versions would be taken by others, nor by itself.
        if incarnation > INCARNATIONS_MAX {
            return Err(Error::Invalid("this device began anew too often in the bucket"));
        }
        let secrets = secrets.iter().map(|(epoch, secret)| (*epoch, Secret::new(**secret)));
        let keys = KeyRing::new(secrets)
            .map_err(|_source| Error::Invalid("the first secret of the bucket is missing"))?;
        if id_of(&keys) != id {
            return Err(Error::Invalid("these are the secrets of another bucket"));
        }
        make(dir, |unfinished| {
            let (mut appender, _) = lay_out(unfinished, id, keys, protection)?;
            begin_unknown((device, incarnation), id, &mut appender)
        })
    }

    /// Reads what can be told without the key.
    ///
    /// # Errors
    ///
    /// [`Error::NoBucket`] if there is none at `dir`, [`Error::NoKeyFile`],
    /// [`Error::KeyFileDamaged`], [`Error::Newer`], [`Error::Io`].
    pub fn describe(dir: &Path) -> Result<Description> {
        let path = KeyFile::path(dir);
        let created = fs::metadata(&path).and_then(|meta| meta.modified());
        let created = created.map_err(|err| match err.kind() {
            io::ErrorKind::NotFound if holds_anything(dir) => Error::NoKeyFile(path.clone()),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                Error::NoBucket(dir.to_owned())
            }
            _ => io_error("open", &path, &err),
        })?;
        let key = keyfile::read(&RealDisk, &path)?;
        Ok(Description {
            id: read_id(dir),
            needs_passphrase: keyfile::needs_passphrase(&key)?,
            created,
        })
    }

    /// Opens the bucket at `dir`.
    ///
    /// # Errors
    ///
    /// - of its keys those of [`Bucket::describe`], [`Error::WrongPassphrase`],
    ///   [`Error::NeedsPassphrase`], [`Error::WrongKeyFile`]
    /// - of its log [`Error::Locked`], [`Error::NoPacks`], [`Error::LogDamaged`],
    ///   [`Error::MissingSecret`] if the key file is older than it, [`Error::Damaged`] if it is of
    ///   another bucket, [`Error::Newer`], [`Error::Io`], [`Error::NoSpace`]
    pub fn open(dir: &Path, device: Arc<DeviceKey>, unlock: Unlock<'_>) -> Result<Self> {
        let (id, keys, key_file) = Self::unlock(dir, unlock)?;
        let store::Opened { appender, blobs, saves, left_out, report } =
            store::open(Arc::new(RealDisk), dir, keys, store_options(dir))?;
        log::info!(
            "opened bucket={id} replayed={} cut_bytes={} saves={}",
            report.replayed_records,
            report.cut_bytes,
            saves.len()
        );
        if read_id(dir).is_none() {
            log::warn!("opened bucket={id} id-file=lost written=anew");
            write_id(dir, id)?;
        }
        Ok(Self { id, device, appender, blobs, saves, left_out, key_file: Some(key_file) })
    }

    /// Its name for life.
    #[must_use]
    pub const fn id(&self) -> BucketId {
        self.id
    }

    /// Removes what a crash has left of a key file that was to replace the one of the bucket at
    /// `dir`; says whether there was anything. Nobody may have the bucket open.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn remove_leftover(dir: &Path) -> Result<bool> {
        Ok(keyfile::remove_leftover(&RealDisk, &KeyFile::path(dir))?)
    }

    /// Sees whether `unlock` opens the key of the bucket at `dir`, and opens nothing else.
    ///
    /// # Errors
    ///
    /// As [`Bucket::open`] of its keys.
    pub fn try_key(dir: &Path, unlock: Unlock<'_>) -> Result<()> {
        Self::unlock(dir, unlock).map(drop)
    }

    /// Changes what protects the secrets of the bucket at `dir` on this device; of one that is open
    /// its [`crate::Mount`] does that. Takes half a second.
    ///
    /// # Errors
    ///
    /// As [`Bucket::open`] of its keys, [`Error::Locked`] and [`Error::NoSpace`]; nothing has changed
    /// then.
    pub fn change_passphrase(dir: &Path, present: Unlock<'_>, new: Protection<'_>) -> Result<()> {
        // Locking makes a file, where there is no bucket too.
        Self::describe(dir)?;
        // Who has it open writes the file under the passphrase that it was opened with.
        let _lock = store::lock(&RealDisk, dir)?;
        let (_, keys, mut key_file) = Self::unlock(dir, present)?;
        key_file.rewrap(new.wrapping_key()?, &keys.secrets())
    }

    fn unlock(dir: &Path, unlock: Unlock<'_>) -> Result<(BucketId, KeyRing, KeyFile)> {
        let noted = Self::describe(dir)?.id;
        let (secrets, key_file) = KeyFile::open(dir, unlock)?;
        let keys = KeyRing::new(secrets)?;
        let id = id_of(&keys);
        // Under another name, what it publishes would belong to no bucket.
        if noted.is_some_and(|noted| noted != id) {
            return Err(Error::WrongKeyFile { path: KeyFile::path(dir) });
        }
        Ok((id, keys, key_file))
    }
}

/// Has `fill` put a bucket together, and gives it its name once it is whole.
fn make(dir: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if fs::symlink_metadata(dir).is_ok() {
        return Err(Error::Exists);
    }
    let unfinished = unfinished(dir)?;
    let made = fill(&unfinished).and_then(|()| {
        fs::rename(&unfinished, dir).map_err(|err| io_error("rename", &unfinished, &err))
    });
    if let Err(err) = made {
        if let Err(left) = fs::remove_dir_all(&unfinished) {
            log::warn!("create left-behind reason={left}");
        }
        return Err(err);
    }
    match dir.parent() {
        Some(parent) => RealDisk.sync_dir(parent).map_err(|err| io_error("sync", parent, &err)),
        None => Ok(()),
    }
}

/// The files of a new bucket, but for what is in the log.
fn lay_out(
    dir: &Path,
    id: BucketId,
    keys: KeyRing,
    protection: Protection<'_>,
) -> Result<(Appender, Arc<Blobs>)> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|err| io_error("create", dir, &err))?;
    let key = protection.wrapping_key()?.protect(&keys.secrets())?;
    keyfile::create(&RealDisk, &KeyFile::path(dir), &key)?;
    write_id(dir, id)?;
    Ok(store::create(Arc::new(RealDisk), dir, keys, store_options(dir))?)
}

fn id_of(keys: &KeyRing) -> BucketId {
    let mut id = BucketId([0; 16]);
    id.0.copy_from_slice(&keys.hash("bucket id", &[])[..16]);
    id
}

/// Begins the log of a device that has joined: it stands on a version that knows nothing, so that
/// every other follows from it.
pub(crate) fn begin_unknown(
    (device, incarnation): (&DeviceKey, u32),
    bucket: BucketId,
    appender: &mut Appender,
) -> Result<()> {
    let manifest = Manifest {
        bucket,
        author: device.public(),
        incarnation,
        parents: Vec::new(),
        vv: VersionVector::default(),
        root: Root::EMPTY,
        ops: 0,
        time: Time::now(),
        charter: Charter::unknown(),
    };
    let blob = appender.put(BlobKind::Manifest, &manifest.sign(device))?;
    let me = device_id(&device.public(), incarnation);
    let record = SaveRecord {
        head: Some(Head { manifest: blob, devices: Vec::new(), incarnation, before: None }),
        op: OpId { lamport: 1, device: me },
        nodes: Vec::new(),
        files: Vec::new(),
    };
    appender.save(&record.encode(), record.kind())?;
    Ok(())
}

/// Publishes the first version: a root directory that belongs to `owner`, a user and a group.
pub(crate) fn begin(
    owner: (u32, u32),
    device: &DeviceKey,
    bucket: BucketId,
    mut appender: Appender,
    blobs: Arc<Blobs>,
) -> Result<()> {
    let author = device_id(&device.public(), 0);
    let op = OpId { lamport: 1, device: author };
    let vault = Arc::new(Vault::new(blobs, 1 << 20));
    let mut tree = LiveTree::open(Arc::clone(&vault), Root::EMPTY)?;
    let mut edit = Edit::new(&tree, op);
    let now = Time::now();
    for (key, value) in [
        (attrs::mode_key(), attrs::number(0o755)),
        (attrs::uid_key(), attrs::number(owner.0)),
        (attrs::gid_key(), attrs::number(owner.1)),
        (attrs::times_key(), attrs::encode(&Times::born(now))),
    ] {
        edit.set_attr(&NodeId::Root, key, Some(value))?;
    }
    let edited = edit.finish();
    tree.apply(edited);
    let layer = tree.freeze();
    let mut sealer = Sealer::new(&mut appender, &vault);
    let edits: BTreeMap<_, _> = map_edits(&layer, |long| sealer.put_node(long))?;
    let root = sealer.apply(Root::EMPTY, edits)?;
    let manifest = Manifest {
        bucket,
        author: device.public(),
        incarnation: 0,
        parents: Vec::new(),
        vv: [(author, op.lamport)].into_iter().collect::<VersionVector>(),
        root,
        ops: op.lamport,
        time: now,
        charter: Charter::begin(device.public(), op),
    };
    let blob = appender.put(BlobKind::Manifest, &manifest.sign(device))?;
    let record = SaveRecord {
        head: Some(Head { manifest: blob, devices: vec![author], incarnation: 0, before: None }),
        op: OpId { lamport: op.lamport + 1, device: author },
        nodes: Vec::new(),
        files: Vec::new(),
    };
    appender.save(&record.encode(), record.kind())?;
    Ok(())
}

/// Packs are small on small disks, where a pack that is partly dead would hold too much.
fn store_options(dir: &Path) -> store::Options {
    let defaults = store::Options::default();
    let total = RealDisk.space(dir).map_or(u64::MAX, |space| space.total_bytes);
    store::Options {
        pack_bytes: (total / 64).clamp(1 << 20, defaults.pack_bytes),
        reserve_bytes: (total / 32).clamp(256 << 10, defaults.reserve_bytes),
        ..defaults
    }
}

/// Where a bucket is put together before it gets its name.
fn unfinished(dir: &Path) -> Result<PathBuf> {
    let name = dir.file_name().ok_or(Error::Invalid("a bucket needs a name"))?;
    let mut unfinished = std::ffi::OsString::from(".");
    unfinished.push(name);
    unfinished.push(".unfinished");
    let path = dir.with_file_name(unfinished);
    match fs::remove_dir_all(&path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &path, &err)),
        _ => Ok(path),
    }
}

/// Whether there is a directory `dir` with something in it: a bucket's is never empty.
fn holds_anything(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

fn write_id(dir: &Path, id: BucketId) -> Result<()> {
    Ok(keyfile::replace(&RealDisk, &dir.join("id"), format!("{id}\n").as_bytes())?)
}

fn read_id(dir: &Path) -> Option<BucketId> {
    parse_id(fs::read_to_string(dir.join("id")).ok()?.trim())
}

fn parse_id(hex: &str) -> Option<BucketId> {
    let mut id = [0; 16];
    if hex.len() != 32 || !hex.is_ascii() {
        return None;
    }
    for (byte, digits) in id.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(BucketId(id))
}

fn io_error(what: &str, path: &Path, err: &io::Error) -> Error {
    match err.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace,
        _ => Error::Io(format!("cannot {what} {}: {err}", path.display())),
    }
}

impl From<KeyFileError> for Error {
    fn from(err: KeyFileError) -> Self {
        match err {
            KeyFileError::WrongPassphrase => Self::WrongPassphrase,
            KeyFileError::NeedsPassphrase => Self::NeedsPassphrase,
            KeyFileError::Newer { found, supported } => {
                Self::Newer { found: found.into(), known: supported.into() }
            }
            KeyFileError::Store(err) => err.into(),
            KeyFileError::TooMany => Self::Invalid("its secret was changed too often"),
            KeyFileError::BadCost => Self::Invalid("the cost of a passphrase is out of bounds"),
            KeyFileError::NoMemory => {
                Self::Invalid("there is too little memory to try a passphrase")
            }
            KeyFileError::Corrupt => Self::KeyFileDamaged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_began_anew_as_often_as_others_take_it_joins_and_no_oftener() {
        let root = tempfile::tempdir().unwrap();
        let device = DeviceKey::generate().unwrap();
        let secret = [7; 32];
        let id = id_of(&KeyRing::new([(0, Secret::new(secret))]).unwrap());
        let join = |name, incarnation| {
            let dir = root.path().join(name);
            let secrets = [(0, Zeroizing::new(secret))];
            Bucket::join(&dir, &device, Protection::KeyFile, id, &secrets, incarnation)
        };
        join("last", INCARNATIONS_MAX).unwrap();
        let refused = join("one more", INCARNATIONS_MAX + 1).unwrap_err();
        assert!(refused.to_string().contains("too often"), "{refused}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
