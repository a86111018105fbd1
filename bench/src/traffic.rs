//! What was written to the disk, by the account of its device.
//!
//! The account of a process (`/proc/PID/io`) will not do: it counts the pages of the page cache
//! that became dirty, and where the file system below uses large folios a write of 4 KiB counts as
//! up to 1 MiB. Seen on ext4, kernel 6.18: 262,144 bytes for each overwrite of 4 KiB, of which
//! 9,900 reached the disk.

use std::{fs, os::linux::fs::MetadataExt, path::Path};

use anyhow::{Context, Result};

/// The account of the device that a directory is on. Everybody's writes are in it, and those of the
/// journal of the file system: take the least of several rounds.
#[derive(Clone, Debug)]
pub struct Account {
    path: String,
}

impl Account {
    /// Of the device below `dir`.
    ///
    /// # Errors
    ///
    /// If `dir` is on no block device.
    pub fn of(dir: &Path) -> Result<Self> {
        let device = fs::metadata(dir)?.st_dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let account = Self { path: format!("/sys/dev/block/{major}:{minor}/stat") };
        account.written_bytes()?;
        Ok(account)
    }

    /// Bytes written so far.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell.
    pub fn written_bytes(&self) -> Result<u64> {
        let stat = fs::read_to_string(&self.path).with_context(|| self.path.clone())?;
        // Documentation/block/stat.rst: the seventh field, in units of 512 bytes.
        let sectors = stat.split_whitespace().nth(6).context("no account of writes")?;
        Ok(sectors.parse::<u64>()? * 512)
    }
}
