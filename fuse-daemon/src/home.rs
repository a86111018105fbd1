//! Where everything that this program keeps lies.
//!
//! ```text
//!   $CAIRNFS_HOME, or           ~/.config/cairnfs/    config.toml
//!   (both parts in one folder)  ~/.local/share/cairnfs/
//!                                 device.key       this device's identity, 0600
//!                                 buckets/NAME/    one bucket each
//!                                 at-start.toml    what the daemon mounts by itself
//!                                 peers.toml       where other devices were found
//!                                 invites.toml     invitations, with hashes of their secrets
//!                                 former.toml      buckets that were dropped or brought anew
//!                                 daemon.log       of a daemon started in the background
//!                                 run/             0700: lock and socket of the daemon
//! ```

use std::{
    env, fmt, fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use cairnfs_mount_core::{Bucket, BucketId};
use cairnfs_store::{
    Error as StoreError,
    disk::RealDisk,
    keys::{DeviceKey, keyfile::KeyFileError},
};
use serde::{Deserialize, Serialize};

use crate::{
    exit::{Code, Failure, Result, plain},
    fuse::SOURCE,
    lock::LockFile,
};

/// Ends the name of the directory of a bucket that is about to go.
const DROPPED: &str = ".dropped";

/// The name of a bucket on this device: also the name of its directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct BucketName(String);

/// The text cannot name a bucket.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} cannot name a bucket: use 1 to 64 letters, digits, '.', '-' and '_', the first one a \
     letter or digit"
)]
pub(crate) struct BadName(String);

impl BucketName {
    /// Longest name in bytes.
    const MAX_BYTES: usize = 64;

    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl BucketName {
    /// A name, or what the table of mounts has for the bucket: mount(8) passes on what stands in fstab,
    /// and takes a line for mounted only if that is what the table has.
    pub(crate) fn from_source(text: &str) -> Result<Self, BadName> {
        text.strip_prefix(SOURCE).unwrap_or(text).parse()
    }
}

impl FromStr for BucketName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        let rest = text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
        if first && rest && text.len() <= Self::MAX_BYTES {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadName(text.to_owned()))
        }
    }
}

impl TryFrom<String> for BucketName {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<BucketName> for String {
    fn from(name: BucketName) -> Self {
        name.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The folders of one person's state; one daemon serves it.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    config: PathBuf,
    data: PathBuf,
    given: bool,
}

impl Home {
    /// Finds it: `given` (a flag or `CAIRNFS_HOME`), else the XDG folders. Makes nothing.
    pub(crate) fn locate(given: Option<&Path>) -> Result<Self> {
        if given.is_some_and(|dir| dir.as_os_str().is_empty()) {
            return Err(Failure::usage("the home is given as nothing: name a folder"));
        }
        if let Some(dir) = given.map(Path::to_owned).or_else(|| set("CAIRNFS_HOME")) {
            let dir = std::path::absolute(&dir)
                .map_err(|err| Failure::file("find the home folder", &dir, &err))?;
            return Ok(Self { config: dir.clone(), data: dir, given: true });
        }
        let folder = |variable: &str, below: &str| {
            let given = set(variable).filter(|dir| dir.is_absolute());
            given.or_else(|| Some(set("HOME")?.join(below))).map(|dir| dir.join("cairnfs"))
        };
        match (folder("XDG_CONFIG_HOME", ".config"), folder("XDG_DATA_HOME", ".local/share")) {
            (Some(config), Some(data)) => Ok(Self { config, data, given: false }),
            _ => Err(Failure::usage(
                "neither CAIRNFS_HOME nor HOME is set: say with --home where the buckets are",
            )),
        }
    }

    /// Makes the folders, readable by nobody else.
    pub(crate) fn prepare(&self) -> Result<()> {
        for dir in [&self.data, &self.buckets_dir(), &self.run_dir()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(|err| Failure::file("make the folder", dir, &err))?;
        }
        Ok(())
    }

    /// The value of `CAIRNFS_HOME` for a child that is to use the same home.
    pub(crate) fn for_children(&self) -> Option<&Path> {
        self.given.then_some(&*self.data)
    }

    /// Held by the daemon for as long as it runs.
    pub(crate) fn daemon_lock(&self) -> PathBuf {
        self.run_dir().join("daemon.lock")
    }

    /// The folder of everything but the configuration.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The configuration, which need not exist.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.config.join("config.toml")
    }

    /// Where buckets lie.
    pub(crate) fn buckets_dir(&self) -> PathBuf {
        self.data.join("buckets")
    }

    /// Where the bucket `name` lies, if it exists.
    pub(crate) fn bucket_dir(&self, name: &BucketName) -> PathBuf {
        self.buckets_dir().join(name.as_str())
    }

    /// Where the secrets of the bucket `name` lie, if it exists.
    pub(crate) fn key_file(&self, name: &BucketName) -> PathBuf {
        self.bucket_dir(name).join("key")
    }

    /// Where the bucket `name` is put together that is to replace the one that is here.
    pub(crate) fn anew_dir(&self, name: &BucketName) -> PathBuf {
        self.buckets_dir().join(format!(".{name}.anew"))
    }

    /// Where the bucket `name` lies when it is none any more, and about to go.
    pub(crate) fn dropped_dir(&self, name: &BucketName) -> PathBuf {
        self.buckets_dir().join(format!(".{name}{DROPPED}"))
    }

    /// The buckets that are none any more, and about to go.
    pub(crate) fn dropped_names(&self) -> Result<Vec<BucketName>> {
        self.names(|name| name.strip_prefix('.')?.strip_suffix(DROPPED)?.parse().ok())
    }

    /// Held by whoever makes a bucket without the daemon.
    pub(crate) fn create_lock(&self) -> PathBuf {
        self.run_dir().join("create.lock")
    }

    /// What the daemon mounts by itself.
    pub(crate) fn at_start_file(&self) -> PathBuf {
        self.data.join("at-start.toml")
    }

    /// Where other devices were found.
    pub(crate) fn peers_file(&self) -> PathBuf {
        self.data.join("peers.toml")
    }

    /// Invitations that were made here.
    pub(crate) fn invites_file(&self) -> PathBuf {
        self.data.join("invites.toml")
    }

    /// Buckets that were dropped here, or brought anew.
    pub(crate) fn former_file(&self) -> PathBuf {
        self.data.join("former.toml")
    }

    /// Where a daemon in the background writes its log.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.data.join("daemon.log")
    }

    /// What exists only while a daemon runs.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.data.join("run")
    }

    /// The names of all buckets, sorted. A home without any is no error.
    pub(crate) fn bucket_names(&self) -> Result<Vec<BucketName>> {
        self.names(|name| name.parse().ok())
    }

    /// What a bucket is called here, whether it opens or not; none if it is not here.
    pub(crate) fn name_of(&self, bucket: BucketId) -> Result<Option<BucketName>> {
        let is_it = |name: &BucketName| Bucket::noted_id(&self.bucket_dir(name)) == Some(bucket);
        Ok(self.bucket_names()?.into_iter().find(is_it))
    }

    /// What `named` makes of what lies where buckets do, sorted.
    fn names(&self, named: impl Fn(&str) -> Option<BucketName>) -> Result<Vec<BucketName>> {
        let dir = self.buckets_dir();
        let failed = |err: &io::Error| Failure::file("read", &dir, err);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(err) => return Err(failed(&err)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|err| failed(&err))?;
            // Anything else was not put here by this program.
            names.extend(entry.file_name().to_str().and_then(&named));
        }
        names.sort();
        Ok(names)
    }

    /// Where this device's identity lies.
    pub(crate) fn device_key_file(&self) -> PathBuf {
        self.data.join("device.key")
    }

    /// This device's identity, made on first use.
    pub(crate) fn device_key(&self) -> Result<DeviceKey> {
        self.prepare()?;
        let path = self.device_key_file();
        let failed = |err: &dyn fmt::Display| {
            Failure::new(Code::Failed, format_args!("device key {}: {err}", path.display()))
        };
        // Two first uses at once must agree on one key.
        let _held = LockFile::wait(&self.run_dir().join("device.lock"))?;
        match fs::symlink_metadata(&path) {
            // Also where it leads to what is not there now: another key would be another device.
            Ok(it) if it.is_symlink() && fs::metadata(&path).is_err() => {
                return Err(failed(&format_args!(
                    "this link leads to what cannot be read now: bring that back, such as the disk it \
                     is on; or remove the link, and with it what this device was"
                )));
            }
            Ok(_) => {
                return DeviceKey::load(&RealDisk, &path).map_err(|err| match err {
                    KeyFileError::Newer { .. } => Failure::new(Code::Newer, failed(&err).message),
                    _ => failed(&err),
                });
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => (),
            Err(err) => return Err(failed(&plain(&err))),
        }
        let key = DeviceKey::generate().map_err(|err| failed(&err))?;
        key.save(&RealDisk, &path).map_err(|err| match err {
            StoreError::NoSpace { .. } => Failure::new(Code::NoSpace, failed(&err).message),
            _ => failed(&err),
        })?;
        log::info!("device-key made={}", key.public());
        Ok(key)
    }
}

/// The value of an environment variable that is set to something.
fn set(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_words() {
        for name in ["photos", "a", "2026.work_files-old", &"x".repeat(64)] {
            assert!(name.parse::<BucketName>().is_ok(), "{name}");
        }
        for name in ["", ".", "..", "-o", "a/b", "a b", "käse", "a\0", &"x".repeat(65)] {
            assert!(name.parse::<BucketName>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_given_home_holds_everything() {
        let home = Home::locate(Some(Path::new("/some/where"))).unwrap();
        assert_eq!(home.config_file(), Path::new("/some/where/config.toml"));
        assert_eq!(home.bucket_dir(&"b".parse().unwrap()), Path::new("/some/where/buckets/b"));
    }

    #[test]
    fn nothing_is_no_home() {
        assert_eq!(Home::locate(Some(Path::new(""))).unwrap_err().code, Code::Usage);
    }

    #[test]
    fn a_new_home_has_no_buckets() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(&dir.path().join("new"))).unwrap();
        assert!(home.bucket_names().unwrap().is_empty());
        home.prepare().unwrap();
        fs::create_dir(home.buckets_dir().join("one")).unwrap();
        for other in [".tmp-x", ".two.dropped", ".three.anew"] {
            fs::create_dir(home.buckets_dir().join(other)).unwrap();
        }
        assert_eq!(home.bucket_names().unwrap(), ["one".parse().unwrap()]);
        let two = "two".parse().unwrap();
        assert!(home.dropped_dir(&two).is_dir());
        assert_eq!(home.dropped_names().unwrap(), [two]);
    }
}
