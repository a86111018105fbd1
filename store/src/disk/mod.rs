//! Everything the store asks of a disk, and the one place that issues barriers.
//!
//! The store never touches the file system but through [`Disk`]: [`RealDisk`] passes the calls
//! on, [`crate::sim::SimDisk`] loses, tears and refuses them.

mod real;
mod whole;

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use real::RealDisk;
pub use whole::replace_file;
pub(crate) use whole::{remove_unfinished, unfinished, write_new_file};

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// It must be there.
    Existing,
    /// It is made, with mode 0600, if it is not there.
    OrCreate,
    /// It must not be there and is made with mode 0600.
    New,
}

/// The space of the file system below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that can still be written by this user.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// What [`Disk::lock`] answers when it has no lock to give.
#[derive(Debug)]
pub enum LockError {
    /// Somebody else holds it; their process id, if known.
    Held(Option<u32>),
    /// The lock file cannot be used.
    Io(io::Error),
}

/// A held lock; dropping it lets go.
pub type Lock = Box<dyn Any + Send + Sync>;

/// A place with directories and files.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>>;

    /// The names in a directory, in no order.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes a directory of mode 0700, and its parents. No error if it is there.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Gives a file another name, replacing what had it.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Has the file at `path` belong to whom the file at `like` does, if there is one.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn give_to_owner_of(&self, path: &Path, like: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes what was created, renamed and removed in `dir` durable.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// The space of the file system that `dir` is on.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn space(&self, dir: &Path) -> io::Result<Space>;

    /// Takes the lock that the file at `path` stands for, without waiting.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`] if another process, or another store of this one, has it.
    fn lock(&self, path: &Path) -> Result<Lock, LockError>;
}

/// An open file.
#[allow(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait DiskFile: Send + Sync + Debug {
    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the file ends before; else what the system says.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `data` at `offset`, growing the file if need be.
    ///
    /// # Errors
    ///
    /// What the system says; part of `data` may then be written.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// The file's length in bytes.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn len(&self) -> io::Result<u64>;

    /// Cuts or grows the file; what is added reads as zeros.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes every write before it durable, with the length: `fdatasync`.
    ///
    /// # Errors
    ///
    /// What the system says. The writes before it are then lost or not, and asking again proves
    /// nothing (Rebello et al., ATC 2020).
    fn barrier(&self) -> io::Result<()>;

    /// Has the system read from the medium what is asked for next, where it has that in memory and
    /// takes it for written; as far as it can be told to.
    fn forget_cached(&self);
}
