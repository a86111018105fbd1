//! What can go wrong in the store.

use std::io;
use std::path::{Path, PathBuf};

use crate::{BlobId, SealedBlob};

/// What the store's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and with what.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk refused; the log is poisoned if this came from appending to it.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// The verb: "open", "write".
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk is full. Nothing that was saved is lost and the log is not poisoned: free some
    /// space and try again, or drop the batch.
    #[error("no space left for {}", path.display())]
    NoSpace {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// An earlier write or barrier failed, so nothing more is written until the store is opened
    /// again.
    #[error("the log is poisoned by an earlier failure of the disk")]
    Poisoned,
    /// The caller does not want to go on.
    #[error("stopped before the end")]
    Stopped,
    /// Another process has the store open.
    #[error("the bucket is in use by process {}", pid.map_or("?".to_owned(), |pid| pid.to_string()))]
    Locked {
        /// Its process id, if the lock file says it.
        pid: Option<u32>,
    },
    /// No blob of this name is stored here.
    #[error("blob {id} is not here")]
    Missing {
        /// The name asked for.
        id: BlobId,
    },
    /// The bytes read back are not the bytes that were written.
    #[error("blob {id} fails authentication in {} at {offset}", pack.display())]
    Corrupt {
        /// The name asked for.
        id: BlobId,
        /// The pack file with the bad record.
        pack: PathBuf,
        /// Where the record begins in it.
        offset: u64,
    },
    /// The log is damaged in a place that is not its torn tail.
    #[error("{} is damaged at {offset} ({reason})", pack.display())]
    Damaged {
        /// The damaged pack file.
        pack: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was found.
        reason: &'static str,
    },
    /// Written by a newer version of this software.
    #[error("{} has format version {found}, this version reads up to {supported}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u16,
        /// The newest known version.
        supported: u16,
    },
    /// The directory holds no pack, so there is no store, or all of its log is lost.
    #[error("no pack in {}", dir.display())]
    NotAStore {
        /// The directory.
        dir: PathBuf,
    },
    /// A store is already there.
    #[error("there is already a bucket in {}", dir.display())]
    Exists {
        /// The directory.
        dir: PathBuf,
    },
    /// The keys belong to another bucket.
    #[error("{} belongs to another bucket", path.display())]
    WrongBucket {
        /// The file that says so.
        path: PathBuf,
    },
    /// The key ring has no secret for this epoch.
    #[error("no secret for key epoch {epoch}")]
    UnknownEpoch {
        /// The epoch asked for.
        epoch: u16,
    },
    /// A record from outside that no secret of its epoch opens which is here.
    #[error("no secret here of key epoch {epoch} opens blob {}", record.claims().id)]
    Unopened {
        /// The epoch asked for.
        epoch: u16,
        /// The record.
        record: Box<SealedBlob>,
    },
    /// More bytes than a blob, key or value may have.
    #[error("{len} bytes are more than the {max} allowed")]
    TooLarge {
        /// What was offered.
        len: usize,
        /// What is allowed.
        max: usize,
    },
    /// A sealed blob from outside is not what its name says.
    #[error("sealed blob {id} is not what its name says")]
    Forged {
        /// The name it claims.
        id: BlobId,
    },
    /// A map node breaks the rules of its format.
    #[error("map node {id} is invalid: {reason}")]
    BadNode {
        /// The node.
        id: BlobId,
        /// Which rule.
        reason: &'static str,
    },
    /// The edits given to a map are not in strictly ascending order of their keys.
    #[error("the edits of a map are not in ascending order")]
    Unsorted,
    /// The index failed; it can be rebuilt from the packs.
    #[error("the index failed")]
    Index {
        /// What the database said.
        source: Box<redb::Error>,
    },
    /// The system's random number generator failed.
    #[error("the system gives no random numbers")]
    Random,
}

impl Error {
    pub(crate) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        if is_full(&source) {
            return Self::NoSpace { path: path.to_owned() };
        }
        Self::Io { what, path: path.to_owned(), source }
    }

    pub(crate) fn index(source: impl Into<redb::Error>) -> Self {
        match source.into() {
            redb::Error::Io(err) if is_full(&err) => {
                Self::NoSpace { path: PathBuf::from("index.redb") }
            }
            source => Self::Index { source: Box::new(source) },
        }
    }
}

/// Whether an error means that the disk or the quota is used up.
pub(crate) fn is_full(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether the bytes are not there, as opposed to not readable.
pub(crate) fn is_gone(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
}

/// Whether the medium cannot give the bytes. What else may keep them from being read, too many open
/// files for one, passes.
pub(crate) fn is_unreadable(err: &io::Error) -> bool {
    err.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Puts what was tried and with which file beside an error of the system.
pub(crate) trait IoContext<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::io(what, path, source))
    }
}

impl From<redb::Error> for Error {
    fn from(source: redb::Error) -> Self {
        Self::index(source)
    }
}
