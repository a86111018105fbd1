//! The file system without FUSE: tree, inodes, open files, save policies, the writer thread.
//!
//! A [`Bucket`] is an opened directory on disk; a [`Mount`] serves it. Every call of a [`Mount`]
//! has the meaning that POSIX gives the system call of that name; SEMANTICS.md in the project's
//! root lists the differences. Nothing here knows FUSE, sockets or the command line.

mod bucket;
mod charter;
mod clock;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod decoder_tests;
#[doc(hidden)]
pub mod decoders;
mod error;
mod fetch;
mod file;
mod files;
mod follow;
#[cfg(test)]
mod full_tests;
#[cfg(test)]
mod golden;
mod handles;
mod inodes;
mod key_file;
#[cfg(test)]
mod links_tests;
mod manifest;
#[cfg(all(test, loom))]
mod models;
mod mount;
mod options;
mod order;
#[cfg(test)]
mod pace_tests;
#[cfg(test)]
mod past_tests;
mod peers;
mod pins;
mod places;
#[cfg(test)]
mod random_load;
#[cfg(test)]
mod repair_tests;
#[cfg(test)]
mod replace_tests;
mod room;
#[cfg(test)]
mod rot_tests;
#[cfg(test)]
mod salvage_tests;
mod shared;
#[cfg(test)]
mod slow_disk;
#[cfg(test)]
mod sync_tests;
mod text;
#[cfg(test)]
mod times_tests;
mod tree;
mod types;
mod vault;
mod verify;
mod versions;
mod writer;

pub use cairnfs_merge::ConflictKind;

pub use bucket::{Bucket, BucketId, Description};
pub use error::{Error, Result};
pub use fetch::{Fetch, FetchProgress};
pub use key_file::{Passphrase, Protection, Unlock};
pub use manifest::{INCARNATIONS_MAX, Member, Role};
pub use mount::{Mount, Past, PastEntry, PastItem, PastView, Version, Wanted, Which};
pub use options::{Limits, Options, ParsePolicyError, SavePolicy};
pub use peers::{
    Author, ConflictInfo, ConflictSetting, ConflictSide, Keep, MergeOutcome, MergeStep, Observer,
    Outdated, ParseStrategyError, Published, Seen, Setting, Settings, Strategy, VersionId,
};
pub use room::Waited;
pub use types::{
    Attr, Caller, ChangedPath, DirEntry, Done, Fallocate, Fh, Health, Ino, Kind, OpenFlags,
    PathChange, RenameMode, SetAttr, SetXattr, StatFs, Status, Time, TimeOrNow, Whence,
};
pub use writer::Salvaged;
