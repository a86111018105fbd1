//! The places of this crate's locks in the order of all.
//!
//! The store's have higher ranks: names are looked up in its map with `core` held.

#[cfg(loom)]
mod checked;

use cairnfs_store::order::LAST;
pub(crate) use cairnfs_store::order::RwLock;
#[cfg(not(loom))]
pub(crate) use cairnfs_store::order::{Mutex, MutexGuard};
#[cfg(loom)]
pub(crate) use checked::{Mutex, MutexGuard};

cairnfs_store::places! {
    /// Held while the end of the writer's thread is waited for.
    Ending = 8, "the writer's end";
    /// Held while names are read for it.
    Listing = 9, "a directory's listing";
    Core = 10, "core";
    Inodes = 11, "the inodes";
    Content = 12, "a content";
    Unsaved = LAST, "the list of unsaved contents";
    Throttled = LAST, "the calls that wait for memory";
    Report = LAST, "the report";
    Observers = LAST, "the observers";
    Pins = LAST, "the versions that are read";
    Past = LAST, "a version that is shown";
    Subdirs = LAST, "the counts of subdirectories";
    OnceCopies = LAST, "the names of what once were copies";
    FileHandles = LAST, "the handles of files";
    DirHandles = LAST, "the handles of directories";
}
