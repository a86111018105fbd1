//! Key files on disk.

use std::path::Path;

use zeroize::Zeroizing;

use super::KeyFileError;
use crate::disk::{Disk, Open, remove_unfinished, replace_file, write_new_file};
use crate::error::IoContext;

/// No key file is longer: 30,000 secrets, and a handful in practice.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// Writes a key file of mode 0600 that was not there; durable when this returns.
///
/// # Errors
///
/// [`crate::Error::Io`] if the file exists already or cannot be written.
pub fn create(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), KeyFileError> {
    Ok(write_new_file(disk, path, bytes)?)
}

/// Replaces a key file by one of mode 0600 and the same owner: after a crash there is the old one or
/// the new one, and perhaps what [`remove_leftover`] removes.
///
/// # Errors
///
/// [`crate::Error::Io`] if it cannot be written; nothing is left beside it then.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), KeyFileError> {
    Ok(replace_file(disk, path, bytes)?)
}

/// Removes what a crash in [`replace`] has left beside the key file at `path`: it may hold the
/// secrets under another passphrase than that, or under none. Says whether there was anything.
///
/// # Errors
///
/// [`crate::Error::Io`] if it cannot be removed.
pub fn remove_leftover(disk: &dyn Disk, path: &Path) -> Result<bool, KeyFileError> {
    Ok(remove_unfinished(disk, path)?)
}

/// Overwrites a key file that nobody needs any more with zeros, durably, for what becomes of its
/// place on the disk. A file system that writes elsewhere keeps what was there for a while.
///
/// # Errors
///
/// [`crate::Error::Io`] if it cannot be opened or written.
pub fn overwrite(disk: &dyn Disk, path: &Path) -> Result<(), KeyFileError> {
    let file = disk.open(path, Open::Existing).at("open", path)?;
    let len = file.len().at("read", path)?.min(FILE_BYTES_MAX);
    let zeros = vec![0; usize::try_from(len).unwrap_or(0)];
    file.write_at(&zeros, 0).at("overwrite", path)?;
    Ok(file.barrier().at("sync", path)?)
}

/// Reads a key file's content.
///
/// # Errors
///
/// [`KeyFileError::Store`] if it cannot be read, [`KeyFileError::Corrupt`] if it is too long.
pub fn read(disk: &dyn Disk, path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let file = disk.open(path, Open::Existing).at("open", path)?;
    let len = file.len().at("read", path)?;
    let len = if len > FILE_BYTES_MAX { None } else { usize::try_from(len).ok() };
    let mut bytes = Zeroizing::new(vec![0; len.ok_or(KeyFileError::Corrupt)?]);
    file.read_at(&mut bytes, 0).at("read", path)?;
    Ok(bytes)
}
