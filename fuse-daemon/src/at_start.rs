//! The mounts that the daemon makes by itself when it starts: `at-start.toml`.
//!
//! Passphrases are not in it, only where they come from.

use std::path::{Path, PathBuf};

use cairnfs_mount_core::{Bucket, Options, Owner};
use serde::{Deserialize, Serialize};

use crate::{
    control::{How, MountRequest, Opening},
    durable,
    exit::{Failure, Result},
    home::{BucketName, Home},
    lock::LockFile,
    passphrase::Source,
    values::{Size, Span},
};

/// One mount to make.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Remembered {
    bucket: BucketName,
    dir: PathBuf,
    save: String,
    cache: String,
    dirty: String,
    publish_quiet: String,
    publish_max: String,
    #[serde(default)]
    read_only: bool,
    #[serde(default)]
    allow_other: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(default)]
    fuse: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    passphrase: Option<Source>,
}

/// The file.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct AtStart {
    #[serde(default)]
    mount: Vec<Remembered>,
}

impl Remembered {
    /// Of a mount that was made, with where its passphrase comes from.
    pub(crate) fn new(request: &MountRequest, passphrase: Option<Source>) -> Self {
        let how = request.how.clone();
        Self {
            bucket: request.opening.bucket.clone(),
            dir: request.dir.clone(),
            save: how.save,
            cache: Size(how.cache_bytes).to_string(),
            dirty: Size(how.dirty_bytes).to_string(),
            publish_quiet: Span(how.publish_quiet).to_string(),
            publish_max: Span(how.publish_max).to_string(),
            read_only: how.read_only,
            allow_other: how.allow_other,
            uid: how.owner.user,
            gid: how.owner.group,
            fuse: how.fuse,
            passphrase,
        }
    }

    /// The bucket.
    pub(crate) fn bucket(&self) -> &BucketName {
        &self.bucket
    }

    /// Where.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where its passphrase comes from; none if it needed none when this was written.
    pub(crate) fn passphrase(&self) -> Option<&Source> {
        self.passphrase.as_ref()
    }

    /// As the daemon is to mount it: gets the passphrase.
    pub(crate) fn request(&self, home: &Home) -> Result<MountRequest> {
        let size = |text: &str| text.parse().map(|Size(bytes)| bytes).map_err(Failure::usage);
        let span = |text: &str| text.parse().map(|Span(time)| time).map_err(Failure::usage);
        let options = Options {
            policy: self.save.parse().map_err(Failure::usage)?,
            limits: cairnfs_mount_core::Limits {
                cache_bytes: size(&self.cache)?,
                dirty_bytes: size(&self.dirty)?,
            },
            read_only: self.read_only,
            publish_quiet: span(&self.publish_quiet)?,
            publish_max: span(&self.publish_max)?,
            owner: Owner { user: self.uid, group: self.gid },
        };
        let bucket = Some(&self.bucket);
        let source = match &self.passphrase {
            Some(source) => Some(source.clone()),
            // It may have got one since.
            None if self.needs_passphrase(home) => Source::credential(bucket),
            None => None,
        };
        let secret = source.map(|source| source.read(bucket)).transpose()?;
        Ok(MountRequest {
            opening: Opening { bucket: self.bucket.clone(), secret },
            dir: self.dir.clone(),
            how: How::new(&options, self.allow_other, self.fuse.clone()),
        })
    }

    fn needs_passphrase(&self, home: &Home) -> bool {
        // Why it cannot be told is said by who opens it.
        Bucket::describe(&home.bucket_dir(&self.bucket)).is_ok_and(|it| it.needs_passphrase)
    }
}

/// What is to be mounted.
pub(crate) fn read(home: &Home) -> Result<Vec<Remembered>> {
    durable::load(&home.at_start_file()).map(|AtStart { mount }| mount)
}

/// Will mount `new` at start, instead of whatever was to be mounted of the bucket or there.
pub(crate) fn remember(home: &Home, new: Remembered) -> Result<()> {
    change(home, |mounts| {
        mounts.retain(|one| one.bucket != new.bucket && one.dir != new.dir);
        mounts.push(new);
    })
}

/// Will not mount anything at `dir` at start; says whether anything was to be.
pub(crate) fn forget(home: &Home, dir: &Path) -> Result<bool> {
    let mut found = false;
    change(home, |mounts| {
        found = mounts.iter().any(|one| one.dir == dir);
        mounts.retain(|one| one.dir != dir);
    })?;
    Ok(found)
}

/// Will not mount the bucket at start any more.
pub(crate) fn forget_bucket(home: &Home, bucket: &BucketName) -> Result<()> {
    change(home, |mounts| mounts.retain(|one| one.bucket != *bucket))
}

fn change(home: &Home, change: impl FnOnce(&mut Vec<Remembered>)) -> Result<()> {
    home.prepare()?;
    let _held = LockFile::wait(&home.run_dir().join("at-start.lock"))?;
    let path = home.at_start_file();
    let mut at_start: AtStart = durable::load(&path)?;
    let before = at_start.mount.clone();
    change(&mut at_start.mount);
    if at_start.mount == before {
        return Ok(());
    }
    let comment = "Mounted by the daemon when it starts: 'cairnfs mount --at-start'.";
    durable::store(&path, comment, &at_start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(dir.path())).unwrap();
        assert!(read(&home).unwrap().is_empty());
        let owner = Owner { user: Some(1026), group: None };
        let options = Options { owner, ..Options::default() };
        let request = MountRequest {
            opening: Opening { bucket: "b".parse().unwrap(), secret: None },
            dir: "/mnt".into(),
            how: How::new(&options, true, vec!["noatime".into()]),
        };
        let command = Source::PassphraseCommand("pass show b".into());
        for source in [None, Some(command), Some(Source::Credential)] {
            let one = Remembered::new(&request, source);
            remember(&home, one.clone()).unwrap();
            assert_eq!(read(&home).unwrap(), [one]);
        }
        let back = Remembered::new(&request, None).request(&home).unwrap();
        assert_eq!(back.how, request.how);
        assert!(forget(&home, Path::new("/mnt")).unwrap());
        assert!(!forget(&home, Path::new("/mnt")).unwrap());
        remember(&home, Remembered::new(&request, None)).unwrap();
        forget_bucket(&home, &"another".parse().unwrap()).unwrap();
        assert_eq!(read(&home).unwrap().len(), 1);
        forget_bucket(&home, &request.opening.bucket).unwrap();
        assert!(read(&home).unwrap().is_empty());
    }
}
