//! The operating system's files.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Advice, FlockOperation};

use super::{Disk, DiskFile, Lock, LockError, Open, Space};

/// The file system as the operating system has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        match how {
            Open::Existing => &mut options,
            Open::OrCreate => options.create(true),
            Open::New => options.create_new(true),
        };
        Ok(Arc::new(RealFile { file: options.open(path)? }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            // Names that are not UTF-8 are none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn give_to_owner_of(&self, path: &Path, like: &Path) -> io::Result<()> {
        let like = match std::fs::metadata(like) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            like => like?,
        };
        // The group alone is no reason: it has no rights in a file of mode 0600.
        if std::fs::metadata(path)?.uid() == like.uid() {
            return Ok(());
        }
        std::os::unix::fs::chown(path, Some(like.uid()), Some(like.gid()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    #[allow(clippy::disallowed_methods, reason = "this is the module that owns barriers")]
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(Space {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }

    fn lock(&self, path: &Path) -> Result<Lock, LockError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(LockError::Io)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => (),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = std::fs::read_to_string(path).ok();
                return Err(LockError::Held(holder.and_then(|text| text.trim().parse().ok())));
            }
            Err(err) => return Err(LockError::Io(err.into())),
        }
        // The process id is for people and for the error message; the lock is the flock. A full
        // disk must not keep anybody from opening a bucket, so a failure here is no failure.
        let noted = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        if let Err(err) = noted {
            log::debug!("lock pid-noted=no reason={err}");
        }
        Ok(Box::new(RealLock { file }))
    }
}

/// A lock that is let go when dropped: not when its file is closed, for a process that another
/// thread is just starting has a copy of that until it runs its program.
#[derive(Debug)]
struct RealLock {
    file: File,
}

impl Drop for RealLock {
    fn drop(&mut self) {
        if let Err(err) = rustix::fs::flock(&self.file, FlockOperation::Unlock) {
            log::debug!("lock released=no reason={err}");
        }
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    #[allow(clippy::disallowed_methods, reason = "this is the module that owns barriers")]
    fn barrier(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn forget_cached(&self) {
        if let Err(err) = rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed) {
            log::debug!("cache forgotten=no reason={err}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_let_go_though_a_child_has_a_copy_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = RealDisk.lock(&path).unwrap();
        assert!(matches!(RealDisk.lock(&path), Err(LockError::Held(Some(_)))));
        let copy = lock.downcast_ref::<RealLock>().unwrap().file.try_clone().unwrap();
        drop(lock);
        assert!(RealDisk.lock(&path).is_ok());
        drop(copy);
    }
}
