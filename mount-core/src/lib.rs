//! The file system without FUSE: tree, inodes, open files, save policies, the writer thread.
//!
//! A [`Bucket`] is an opened directory on disk; a [`Mount`] serves it. Every call of a [`Mount`]
//! has the meaning that POSIX gives the system call of that name; SEMANTICS.md in the project's
//! root lists the differences. Nothing here knows FUSE, sockets or the command line.
//!
//! ```text
//!   calls of the kernel          verbs                      peers
//!           |                      |                          |
//!           v                      v                          v
//!   mount/: one family of calls a file                fetch/: what a peer sends, checked
//!           |                      |                          |  before it is kept
//!           v                      v                          |
//!   tree/: live, frozen, base    file/: sealed, dirty         |
//!           |                      |                          |
//!           +----------- Command --+--[1024]------------------+
//!                                  v
//!   writer/: one thread saves, publishes, merges, gets space back
//!           |                                         vault: all reading, through caches
//!           v                                                 |
//!   cairnfs-store: Appender, one barrier a save       cairnfs-store: Blobs, from any thread
//! ```
//!
//! `cairnfs-merge` says what the tree shows and what two of them come to; it is called wherever
//! names are looked up or changed, and by the writer in a merge.
//!
//! | file, in reading order | has |
//! |---|---|
//! | `types`, `options`, `error` | what a caller hands in and gets back |
//! | `bucket`, `key_file` | a directory on disk, opened; its secrets |
//! | `mount/` | the calls: `names`, `files`, `attrs`, `xattrs`, `dirs`; `whole` for the mount itself, `conflicts`, `sync`, `check`, `history` for verbs and peers |
//! | `tree/`, `places` | the three layers, their keys in the map; the way from a name to a node |
//! | `inodes`, `handles` | the numbers by which the kernel names nodes; what is open |
//! | `file/`, `files` | one content, sealed and dirty; those that are loaded, and which are unsaved |
//! | `shared`, `room`, `clock` | what calls and writer share; memory and space; how a change and a writer that falls asleep do not miss each other (`models` has a model checker try it) |
//! | `writer/` | the writer thread: its own page has the rest of the order |
//! | `vault` | reading chunks, map nodes and versions through caches |
//! | `manifest`, `charter`, `versions`, `verify` | what a version holds, its members and settings, how versions follow from one another, when one is believed |
//! | `fetch/`, `peers` | bringing a version from a peer; what is said of versions and conflicts |
//! | `follow`, `text` | open contents in a merge; putting edits of a text together |
//! | `mount/past`, `mount/walking`, `mount/view`, `pins` | older versions: finding one, what it holds, its calls, and what keeps it |
//! | `owners` | as whom owners are shown |
//! | `order` | the places of the locks in the order of all |
//!
//! # Invariants
//!
//! 1. Only the thread `writer` appends to the log, and writes the key file of an open bucket.
//! 2. Who waits for a save is answered `Ok` only after a barrier that covers all it had changed.
//! 3. A save takes names, attributes and contents at one moment. Two writes to two files, with no
//!    other call between them, may end up on either side of it.
//! 4. A change of the tree is taken whole or, on an error, not at all.
//! 5. Nothing that a peer sent is kept before it was opened and found to be what its name says, and
//!    no version is stood on before it was verified.
//! 6. A merge is made of a published version only; what is changed meanwhile is under an operation
//!    later than all that the merge knows.
//! 7. Between the barrier by which a new version is stood on and memory standing on it nothing fails,
//!    or the log is poisoned.
//! 8. Nothing that a pinned version holds is given up for space, but for the pack that was being
//!    emptied when it was pinned.

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
mod owners;
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
pub use options::{Limits, Options, Owner, ParsePolicyError, SavePolicy};
pub use peers::{
    Author, ConflictInfo, ConflictSetting, ConflictSide, Keep, MergeOutcome, MergeStep, Observer,
    OtherName, Outdated, ParseStrategyError, Published, Seen, Setting, Settings, Strategy,
    VersionId,
};
pub use room::Waited;
pub use types::{
    Attr, Caller, ChangedPath, DirEntry, Done, Fallocate, Fh, FilePos, Health, Ino, Kind,
    OpenFlags, PathChange, RenameMode, SetAttr, SetXattr, StatFs, Status, Time, TimeOrNow, Whence,
};
pub use writer::Salvaged;
