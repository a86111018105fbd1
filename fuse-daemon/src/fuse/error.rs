//! Why a mount point could not be taken or given back: one line each, with what would be right.

use std::{io, path::PathBuf};

/// Why nothing was mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    /// The kernel, the device or the helper is missing.
    #[error("FUSE is not available: {reason}")]
    NoFuse {
        /// What is missing and how to get it.
        reason: String,
    },
    /// The mount point does not exist.
    #[error("{} does not exist: make the directory first", .0.display())]
    MissingDir(PathBuf),
    /// The mount point is a file.
    #[error("{} is not a directory: name an empty directory", .0.display())]
    NotADir(PathBuf),
    /// A mount would hide what is in the directory.
    #[error("{} is not empty: name an empty directory", .0.display())]
    NotEmpty(PathBuf),
    /// A FUSE file system is mounted there.
    #[error("{} is mounted already: name another directory, or unmount it first", .0.display())]
    AlreadyMounted(PathBuf),
    /// The dead mount point of some other file system.
    #[error(
        "{} is a dead mount of another file system: unmount it first (umount -l, fusermount3 -uz)",
        .0.display()
    )]
    Stale(PathBuf),
    /// An option that is not known, or that contradicts another setting.
    #[error("mount option {0:?} is not known: use {known}", known = super::options::KNOWN)]
    BadOption(String),
    /// The system does not allow it to this user.
    #[error("{0}")]
    NotAllowed(String),
    /// Anything else that the system refused.
    #[error("cannot {doing} {}: {source}", dir.display())]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// The mount point.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a mount is still there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnmountError {
    /// Open files or working directories are in it.
    #[error("{} is busy: close what is open in it (fuser -vm shows what)", .0.display())]
    Busy(PathBuf),
    /// Something else lies over it, which would be taken away instead.
    #[error("something else is mounted over {dir}: unmount that first (umount {dir})", dir = .0.display())]
    Covered(PathBuf),
    /// The mount is not, or no longer, at its place.
    #[error("{} is not mounted", .0.display())]
    NotMounted(PathBuf),
    /// Anything else that the system refused.
    #[error("cannot unmount {}: {source}", dir.display())]
    Io {
        /// The mount point.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
