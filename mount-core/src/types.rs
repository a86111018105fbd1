//! The vocabulary of the calls: what a caller hands in and gets back.

use std::time::{Duration, SystemTime};

use crate::Result;

pub use cairnfs_merge::Kind;

/// An inode number: stands for a node of the tree for as long as the kernel remembers it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory of every mount.
    pub const ROOT: Self = Self(1);
}

/// A handle: one open file or directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Fh(pub u64);

/// A place in an open file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FilePos {
    /// The file.
    pub ino: Ino,
    /// One of its handles.
    pub fh: Fh,
    /// In bytes.
    pub offset: u64,
}

/// Takes the result of a call that may have to wait for the disk.
///
/// Called once, from whichever thread learns the result: the calling one when there is nothing to
/// wait for, the writer thread after its barrier otherwise. It must not block.
pub type Done<T = ()> = Box<dyn FnOnce(Result<T>) + Send>;

/// A point in time: seconds since 1970 (negative before) and nanoseconds within the second.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Time {
    /// Whole seconds since 1970-01-01 UTC, rounded down.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 1,000,000,000.
    pub nanos: u32,
}

impl Time {
    /// The wall clock now.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Self {
                seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                nanos: after.subsec_nanos(),
            },
            Err(before) => {
                let before = before.duration();
                let seconds = i64::try_from(before.as_secs()).map_or(i64::MIN, |s| -s);
                match before.subsec_nanos() {
                    0 => Self { seconds, nanos: 0 },
                    nanos => Self { seconds: seconds - 1, nanos: 1_000_000_000 - nanos },
                }
            }
        }
    }
}

impl From<Time> for SystemTime {
    /// Times that [`SystemTime`] cannot hold become 1970.
    fn from(time: Time) -> Self {
        let nanos = Duration::from_nanos(u64::from(time.nanos));
        let whole = Duration::from_secs(time.seconds.unsigned_abs());
        let base = if time.seconds < 0 {
            Self::UNIX_EPOCH.checked_sub(whole)
        } else {
            Self::UNIX_EPOCH.checked_add(whole)
        };
        base.and_then(|base| base.checked_add(nanos)).unwrap_or(Self::UNIX_EPOCH)
    }
}

/// How a [`SystemTime`] is written for another process: serde has no form of its own for times before
/// 1970.
pub(crate) mod system_time {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{SystemTime, Time};

    pub(crate) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        Time::from(*time).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        Time::deserialize(from).map(SystemTime::from)
    }
}

/// A time to set: the clock's or a given one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeOrNow {
    /// The wall clock when the call is carried out.
    Now,
    /// A given time.
    At(Time),
}

/// Who makes a call: decides the owner of what is created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// What `stat` shows of an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// File type.
    pub kind: Kind,
    /// Permission bits, including set-id and sticky: the low 12 bits of `st_mode`.
    pub mode: u32,
    /// Number of names (for a directory: 2 and one for each directory inside).
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a character or block device, else 0.
    pub rdev: u32,
    /// Length in bytes.
    pub size: u64,
    /// 512-byte units that hold data; holes do not count.
    pub blocks: u64,
    /// Last access, as last set: reading does not change it.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the content or the attributes.
    pub ctime: Time,
    /// Creation.
    pub btime: Time,
}

/// The attributes to change; absent ones stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttr {
    /// New permission bits (low 12 bits of `st_mode`).
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New length in bytes: cut off, or extended by a hole.
    pub size: Option<u64>,
    /// New time of last access.
    pub atime: Option<TimeOrNow>,
    /// New time of last change of the content.
    pub mtime: Option<TimeOrNow>,
}

/// How a file is opened; the access mode is checked by the kernel. Whether writes go to the end is
/// no part of it: that may change while it is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenFlags {
    /// Every write waits for its barrier (`O_SYNC`, `O_DSYNC`).
    pub sync: bool,
    /// Cut to length 0 when opened (`O_TRUNC`).
    pub truncate: bool,
    /// Opened for writing.
    pub write: bool,
    /// Fail if the name exists (`O_EXCL`, with create only).
    pub exclusive: bool,
}

/// What `rename` does when the new name exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameMode {
    /// Replaces it.
    Replace,
    /// Fails with [`Error::Exists`](crate::Error::Exists).
    NoReplace,
    /// Swaps the two, both of which must exist.
    Exchange,
}

/// What `setxattr` does when the attribute exists, or does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetXattr {
    /// Creates or replaces.
    Any,
    /// Fails with [`Error::Exists`](crate::Error::Exists) if it exists.
    Create,
    /// Fails with [`Error::NoXattr`](crate::Error::NoXattr) if it does not.
    Replace,
}

/// What `fallocate` does to a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fallocate {
    /// Makes sure that writing there cannot run out of space; may extend the file.
    Allocate {
        /// The length does not change.
        keep_size: bool,
    },
    /// Makes a hole of it; the length does not change.
    PunchHole,
    /// Fills it with zeroes.
    Zero {
        /// The length does not change.
        keep_size: bool,
    },
}

/// What `lseek` looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whence {
    /// The next byte that is not in a hole.
    Data,
    /// The next hole; the end of the file counts as one.
    Hole,
}

/// One entry of a directory listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// The name, as bytes.
    pub name: Vec<u8>,
    /// Inode number.
    pub ino: Ino,
    /// File type.
    pub kind: Kind,
    /// Where the listing goes on after this entry.
    pub next: u64,
    /// The attributes, if the listing was asked for them; absent for `.` and `..`.
    pub attr: Option<Attr>,
}

/// What `statfs` shows, in blocks of `block_bytes`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatFs {
    /// Size of a block in bytes.
    pub block_bytes: u32,
    /// Blocks of the disk below.
    pub blocks: u64,
    /// Blocks free below, less the reserve.
    pub blocks_free: u64,
}

/// Whether saves still reach the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Health {
    /// All is well.
    Good,
    /// The last save found no space, and the dirty data waits in memory; or a write was refused for
    /// want of space that is still not there.
    NoSpace,
    /// A write or barrier failed: read-only until the bucket is opened again.
    Poisoned {
        /// What failed.
        reason: String,
    },
}

/// What there is to know of a mount at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// Written bytes that no barrier has covered yet.
    pub unsaved_bytes: u64,
    /// Changed nodes that no barrier has covered yet.
    pub unsaved_changes: u64,
    /// When the oldest unsaved byte or change was made.
    pub unsaved_since: Option<SystemTime>,
    /// When the last save was durable.
    pub last_save: Option<SystemTime>,
    /// When the newest version was published.
    pub last_publish: Option<SystemTime>,
    /// The newest version's id.
    pub head: [u8; 32],
    /// Whether there are changes, saved or not, that no version holds yet.
    pub unpublished: bool,
    /// How changes are saved.
    pub policy: crate::SavePolicy,
    /// Conflicts: a file with several names counts once. `None` if the tree cannot be read.
    pub conflicts: Option<u64>,
    /// Whether saves still reach the disk.
    pub health: Health,
    /// Whether writing is refused.
    pub read_only: bool,
    /// Barriers issued since the mount was started.
    pub barriers: u64,
    /// Handles open now.
    pub open_handles: u64,
}

/// What a version did to a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathChange {
    /// It was not there before.
    Added,
    /// Its content, attributes or type changed.
    Changed,
    /// It is gone.
    Removed,
}

/// A path that a version changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangedPath {
    /// What happened.
    pub change: PathChange,
    /// The path from the root of the bucket, without a leading slash.
    pub path: Vec<u8>,
}
