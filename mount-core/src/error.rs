//! What can go wrong; the errno for each is chosen in `fuse-daemon/src/errno.rs`.

use std::path::PathBuf;

use cairnfs_merge::{BadName, ClockExhausted, EditError, MergeError, verify::CheckError};

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No such file or directory.
    #[error("no such file or directory")]
    NotFound,
    /// The inode is gone; looking its path up again may find another.
    #[error("the file is gone")]
    Stale,
    /// The name is taken.
    #[error("the name exists")]
    Exists,
    /// Not a directory where one is needed.
    #[error("not a directory")]
    NotDir,
    /// A directory where none may be.
    #[error("is a directory")]
    IsDir,
    /// The directory has entries.
    #[error("directory is not empty")]
    NotEmpty,
    /// The arguments make no sense together.
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
    /// A name of more than 255 bytes.
    #[error("name is longer than 255 bytes")]
    NameTooLong,
    /// The file would be larger than can be.
    #[error("file too large")]
    TooLarge,
    /// A file cannot have more names.
    #[error("too many links")]
    TooManyLinks,
    /// `lseek` for data or a hole beyond the end.
    #[error("no data or hole at or after the offset")]
    NoSuchOffset,
    /// No such extended attribute.
    #[error("no such extended attribute")]
    NoXattr,
    /// The extended attribute's value does not fit the buffer, or its bounds.
    #[error("extended attribute too large")]
    XattrTooLarge,
    /// Not allowed to anybody.
    #[error("operation not permitted")]
    NotPermitted,
    /// Not offered.
    #[error("not supported: {0}")]
    NotSupported(&'static str),
    /// The handle is not open, or not in the needed way.
    #[error("bad handle")]
    BadHandle,
    /// Mounted read-only, or turned read-only by a failed barrier.
    #[error("read-only: {reason}")]
    ReadOnly {
        /// Why.
        reason: &'static str,
    },
    /// The disk below is full.
    #[error("no space left on the disk of the bucket")]
    NoSpace,
    /// Stored bytes are missing or not what was written.
    #[error("damaged: {what}")]
    Damaged {
        /// The blob or record, and where.
        what: String,
    },
    /// The log is damaged in a place that is not its torn end: the bucket does not open before it is
    /// repaired.
    #[error("{what}")]
    LogDamaged {
        /// Where, and what was found.
        what: String,
    },
    /// The key file is not what was written: only a copy of it helps.
    #[error("its key file is not what was written")]
    KeyFileDamaged,
    /// A read, write or barrier of the disk below failed.
    #[error("the disk below failed: {0}")]
    Io(String),
    /// A failed write or barrier ended all saving.
    #[error("an earlier write or barrier failed, nothing more is saved")]
    Poisoned,
    /// What was to be stored has not the form that it must have.
    #[error("it cannot be stored: {0}")]
    Unstorable(String),
    /// The system's random number generator failed.
    #[error("the system gives no random numbers")]
    Random,
    /// The bucket's logical clock has no next time: only a forged version brings it so far.
    #[error("the clock of the bucket is exhausted")]
    ClockExhausted,
    /// The mount has been stopped.
    #[error("the mount is stopping")]
    Stopped,
    /// What a peer gave is not to be believed.
    #[error("rejected: {why}")]
    Rejected {
        /// What is wrong with it.
        why: String,
    },
    /// This device cannot go on under another name, and takes nothing until it is brought anew.
    #[error(
        "this device's bucket was put back to an older state, and what was changed here since cannot \
         be told from what others did: copy out what only this device has, then have it brought anew"
    )]
    PutBack,
    /// Two versions know the same operations and hold different things.
    #[error(
        "one operation was used for two different changes: a device's bucket was put back to an older \
         state and changed since. Once it has merged it goes on under another name, and nothing is \
         lost; if it cannot, it has to be brought anew, and so has whoever merged what it did since"
    )]
    WrittenTwice,
    /// Something is sealed under a secret that is not here: not yet, if a peer sent it; or the
    /// key file is an older one.
    #[error("sealed under a secret that this device does not have (epoch {epoch})")]
    MissingSecret {
        /// Which secret.
        epoch: u16,
        /// What is sealed so, where a peer can be asked for the secret.
        record: Option<Vec<u8>>,
    },
    /// It is being changed just now: to be tried again.
    #[error("being changed just now")]
    Busy,
    /// It is not what the caller was shown any more: to be looked at again.
    #[error("it has changed meanwhile")]
    Changed,
    /// Another process has the bucket open.
    #[error("the bucket is in use by {}", process(*pid))]
    Locked {
        /// Its process id, if that can be told.
        pid: Option<u32>,
    },
    /// No bucket there.
    #[error("no bucket at {}", .0.display())]
    NoBucket(PathBuf),
    /// A bucket, but without its key file.
    #[error("there is no key file {}", .0.display())]
    NoKeyFile(PathBuf),
    /// A bucket, but with the key file of another one.
    #[error("its id file names another bucket than its key file")]
    WrongKeyFile {
        /// The key file.
        path: PathBuf,
    },
    /// A bucket, but without the packs of its log.
    #[error("there is no pack in {}", .0.display())]
    NoPacks(PathBuf),
    /// The passphrase or key does not open the bucket.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// The bucket is protected by a passphrase and none was given.
    #[error("the bucket needs its passphrase")]
    NeedsPassphrase,
    /// The key file is not the one any more that the bucket was opened with, or that the present
    /// passphrase was tried on.
    #[error("its key file was replaced meanwhile")]
    KeyFileReplaced,
    /// Written by a newer version of this program.
    #[error("written by a newer version of cairnfs (format {found}, this one reads up to {known})")]
    Newer {
        /// The format found.
        found: u32,
        /// The newest that is understood.
        known: u32,
    },
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl Error {
    /// Whether stored bytes are missing or not what was written: a blob, the log, or the key file. One
    /// that is not there at all, as in [`Self::NoKeyFile`] and [`Self::NoPacks`], is not damage.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::LogDamaged { .. } | Self::KeyFileDamaged)
    }
}

impl From<EditError<Self>> for Error {
    fn from(err: EditError<Self>) -> Self {
        match err {
            EditError::Tree(err) => err,
            EditError::Exists => Self::Exists,
            EditError::NotFound => Self::Stale,
            EditError::NotADirectory => Self::NotDir,
            EditError::IsADirectory => Self::IsDir,
            EditError::NotEmpty => Self::NotEmpty,
            EditError::IntoSelf => Self::Invalid("a directory cannot be moved into itself"),
            EditError::NoContent => Self::Invalid("a leaf needs a content"),
        }
    }
}

impl From<MergeError<Self>> for Error {
    fn from(err: MergeError<Self>) -> Self {
        match err {
            MergeError::Tree(err) => err,
            MergeError::Clock(err) => err.into(),
        }
    }
}

impl From<ClockExhausted> for Error {
    fn from(_exhausted: ClockExhausted) -> Self {
        Self::ClockExhausted
    }
}

impl From<CheckError<Self>> for Error {
    fn from(err: CheckError<Self>) -> Self {
        match err {
            CheckError::Tree(err) => err,
            CheckError::Reject(reject) => Self::Rejected { why: reject.to_string() },
        }
    }
}

impl From<BadName> for Error {
    fn from(err: BadName) -> Self {
        match err {
            BadName::TooLong { .. } => Self::NameTooLong,
            BadName::Empty => Self::NotFound,
            BadName::Dots | BadName::Forbidden => Self::Invalid("such a name cannot be"),
        }
    }
}

impl From<cairnfs_store::Error> for Error {
    fn from(err: cairnfs_store::Error) -> Self {
        use cairnfs_store::Error as Store;
        let text = |err: &dyn std::error::Error| match err.source() {
            Some(source) => format!("{err}: {source}"),
            None => err.to_string(),
        };
        match err {
            Store::NoSpace { .. } => Self::NoSpace,
            Store::Poisoned => Self::Poisoned,
            Store::Locked { pid } => Self::Locked { pid },
            // The key file was there, or nobody would have looked for the log.
            Store::NotAStore { dir } => Self::NoPacks(dir.join("packs")),
            Store::Exists { .. } => Self::Exists,
            Store::Stopped => Self::Stopped,
            Store::UnknownEpoch { epoch } => Self::MissingSecret { epoch, record: None },
            Store::Unopened { epoch, record } => {
                Self::MissingSecret { epoch, record: Some((*record).into()) }
            }
            Store::Newer { found, supported, .. } => {
                Self::Newer { found: found.into(), known: supported.into() }
            }
            Store::Damaged { .. } => Self::LogDamaged { what: text(&err) },
            Store::Missing { .. }
            | Store::Corrupt { .. }
            | Store::WrongBucket { .. }
            | Store::Forged { .. }
            | Store::BadNode { .. } => Self::Damaged { what: text(&err) },
            Store::TooLarge { .. } | Store::Unsorted => Self::Unstorable(text(&err)),
            Store::Random => Self::Random,
            Store::Io { .. } | Store::Index { .. } => Self::Io(text(&err)),
        }
    }
}
