//! What guards a bucket's secrets on this device, and the file that they lie in.
//!
//! The file is written by whoever has the bucket: the writer thread of one that is open, else who
//! holds its lock. So no two write it at once, and none writes what another has forgotten.
//!
//! Another passphrase: the caller's thread tries the present one on the file and stretches a key from
//! the new one, while saves go on. The writer then puts all secrets that it knows into a new file, and
//! keeps that key for the next one. If what was tried is not the file that it knows, as when two change
//! the passphrase at once, it changes nothing.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use cairnfs_store::{
    Secret,
    disk::RealDisk,
    keys::keyfile::{self, WrappingKey},
};

use crate::{Error, Result};

/// A passphrase as it was typed, which no log line shows.
#[derive(Clone, Copy)]
pub struct Passphrase<'a>(pub &'a [u8]);

impl fmt::Debug for Passphrase<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// What guards a bucket's secret on this device.
#[derive(Clone, Copy, Debug)]
pub enum Protection<'a> {
    /// A passphrase, stretched by Argon2id.
    Passphrase(Passphrase<'a>),
    /// Nothing but the mode 0600 of the key file.
    KeyFile,
}

impl Protection<'_> {
    /// What a key file is to be sealed with. Takes a quarter of a second for a passphrase.
    pub(crate) fn wrapping_key(&self) -> Result<WrappingKey> {
        let cost = keyfile::Cost::for_this_machine();
        Ok(WrappingKey::new(&match self {
            Self::Passphrase(Passphrase(passphrase)) => {
                keyfile::Protection::Passphrase { passphrase, cost }
            }
            Self::KeyFile => keyfile::Protection::None,
        })?)
    }
}

/// What opens a bucket's secret.
#[derive(Clone, Copy, Debug)]
pub enum Unlock<'a> {
    /// The passphrase.
    Passphrase(Passphrase<'a>),
    /// The bucket is expected to have none.
    KeyFile,
}

/// A bucket's key file, to be written anew when there are more secrets or another passphrase.
#[derive(Debug)]
pub(crate) struct KeyFile {
    path: PathBuf,
    wrapping: WrappingKey,
}

/// Another passphrase for the key file of a bucket that is open.
#[derive(Debug)]
pub(crate) struct Rewrap {
    /// What the file is sealed with that the present passphrase opened.
    pub(crate) present: WrappingKey,
    /// What it is to be sealed with.
    pub(crate) new: WrappingKey,
}

impl Rewrap {
    /// Tries the present passphrase on the key file of the bucket at `dir`, and stretches the new
    /// one. Takes half a second, in which nobody waits.
    ///
    /// # Errors
    ///
    /// As [`KeyFile::open`].
    pub(crate) fn new(dir: &Path, present: Unlock<'_>, new: Protection<'_>) -> Result<Self> {
        let (_, KeyFile { wrapping: present, .. }) = KeyFile::open(dir, present)?;
        Ok(Self { present, new: new.wrapping_key()? })
    }
}

impl KeyFile {
    /// Where the key file of the bucket at `dir` lies.
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join("key")
    }

    /// Takes the secrets out of the key file of the bucket at `dir`.
    ///
    /// # Errors
    ///
    /// [`Error::WrongPassphrase`], [`Error::NeedsPassphrase`], [`Error::KeyFileDamaged`],
    /// [`Error::Newer`], [`Error::Io`].
    pub(crate) fn open(dir: &Path, unlock: Unlock<'_>) -> Result<(Vec<(u16, Secret)>, Self)> {
        let path = Self::path(dir);
        let bytes = keyfile::read(&RealDisk, &path)?;
        let passphrase = match unlock {
            Unlock::Passphrase(Passphrase(passphrase)) => Some(passphrase),
            Unlock::KeyFile => None,
        };
        let (secrets, wrapping) = keyfile::unlock(&bytes, passphrase)?;
        Ok((secrets, Self { path, wrapping }))
    }

    /// Writes it anew with these secrets, under the passphrase that it has.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::NoSpace`].
    pub(crate) fn replace(&self, secrets: &[(u16, Secret)]) -> Result<()> {
        let bytes = self.wrapping.protect(secrets)?;
        Ok(keyfile::replace(&RealDisk, &self.path, &bytes)?)
    }

    /// Whether it is the file that `wrapping` was taken from, and not one of another passphrase.
    pub(crate) fn is_under(&self, wrapping: &WrappingKey) -> bool {
        self.wrapping.is_same_as(wrapping)
    }

    /// Writes it anew with these secrets, under another passphrase.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::NoSpace`].
    pub(crate) fn rewrap(&mut self, new: WrappingKey, secrets: &[(u16, Secret)]) -> Result<()> {
        let bytes = new.protect(secrets)?;
        let replaced = keyfile::replace(&RealDisk, &self.path, &bytes);
        // The new file is there also if only making that durable failed. What is written next must
        // not go back to the old passphrase then.
        let is_there = keyfile::read(&RealDisk, &self.path).is_ok_and(|found| found == bytes);
        if is_there {
            self.wrapping = new;
        }
        replaced.map_err(|err| match err.into() {
            Error::Io(why) if is_there => Error::Io(format!(
                "{why}; the new passphrase holds, but a power cut may bring the old one back"
            )),
            err => err,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_is_in_no_log_line() {
        let passphrase = Passphrase(b"secret");
        let shown = format!(
            "{:?} {:?}",
            Protection::Passphrase(passphrase),
            Unlock::Passphrase(passphrase)
        );
        assert_eq!(shown, "Passphrase(..) Passphrase(..)");
    }
}
