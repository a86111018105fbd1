//! Lock files: who holds one is alone, until it lets go or ends, however it ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::Read,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use crate::exit::{Failure, Result};

/// A locked file, let go when dropped. The file stays; only the lock on it counts.
#[derive(Debug)]
#[must_use = "the lock is let go when this is dropped"]
pub(crate) struct LockFile {
    file: File,
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Closing is not enough: a child that is just being started shares the file for a moment.
        // If this fails, the end of the process lets go.
        self.file.unlock().ok();
    }
}

/// Who holds a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Holder {
    /// A process that has not written its id yet.
    Unknown,
    /// The process with this id.
    Process(u32),
}

impl LockFile {
    /// Takes the lock, waiting for as long as another holds it.
    pub(crate) fn wait(path: &Path) -> Result<Self> {
        let file = open(path)?;
        file.lock().map_err(|err| Failure::file("lock", path, &err))?;
        Ok(Self { file })
    }

    /// Takes the lock and writes this process's id into it, or says who holds it.
    pub(crate) fn take(path: &Path) -> Result<Result<Self, Holder>> {
        let mut file = open(path)?;
        let failed = |err: &std::io::Error| Failure::file("lock", path, err);
        match file.try_lock() {
            Ok(()) => {
                // Overwritten before it is cut: on a full disk the room that it has must do, and
                // without any the lock still counts, only nobody can be told who holds it.
                let id = format!("{}\n", std::process::id());
                let written = file
                    .write_all_at(id.as_bytes(), 0)
                    .and_then(|()| file.set_len(id.len() as u64));
                match written {
                    Err(err) if err.kind() != std::io::ErrorKind::StorageFull => Err(failed(&err)),
                    _ => Ok(Ok(Self { file })),
                }
            }
            Err(TryLockError::WouldBlock) => Ok(Err(read_holder(&mut file))),
            Err(TryLockError::Error(err)) => Err(failed(&err)),
        }
    }

    /// Who holds the lock at `path`, if anybody does.
    pub(crate) fn holder(path: &Path) -> Result<Option<Holder>> {
        // Only read: the disk may be read-only.
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(Failure::file("open", path, &err)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(read_holder(&mut file))),
            Err(TryLockError::Error(err)) => Err(Failure::file("lock", path, &err)),
        }
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|err| Failure::file("open", path, &err))
}

fn read_holder(file: &mut File) -> Holder {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) => text.trim().parse().map_or(Holder::Unknown, Holder::Process),
        Err(_) => Holder::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(LockFile::holder(&path).unwrap(), None);
        let first = LockFile::take(&path).unwrap().unwrap();
        let me = Holder::Process(std::process::id());
        assert_eq!(LockFile::take(&path).unwrap().unwrap_err(), me);
        assert_eq!(LockFile::holder(&path).unwrap(), Some(me));
        drop(first);
        assert_eq!(LockFile::holder(&path).unwrap(), None);
        assert!(LockFile::take(&path).unwrap().is_ok());
    }
}
