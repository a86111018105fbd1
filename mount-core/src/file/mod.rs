//! One file's content: what is sealed, what is dirty, and how the two become one.
//!
//! ```text
//!   write --> Pieces (dirty extents) --save--> journal: the extents themselves, as they were written
//!                 |                                     (memory until then and until folded)
//!                 +--fold, at publish or when large --> chunks, named by the Base
//! ```
//!
//! A [`File`] exists while somebody has it open or while it is dirty. The lock in it is held for
//! copying bytes only, never while the disk works: readers take what they need and read without it.

pub(crate) mod base;
mod content;
pub(crate) mod cut;
mod extract;
pub(crate) mod fold;
pub(crate) mod pieces;
mod record;
mod snapshot;
mod view;

#[cfg(test)]
mod tests;

#[cfg(loom)]
use loom::sync::atomic::AtomicBool;
#[cfg(not(loom))]
use std::sync::atomic::AtomicBool;
use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use cairnfs_merge::NodeId;

pub(crate) use base::{Base, Data};
pub(crate) use content::{Content, FILE_BYTES_MAX, Growth};
pub(crate) use fold::Tail;
pub(crate) use record::FileRecord;

use crate::{
    files::Unsaved,
    order::{self, Mutex, MutexGuard},
};

/// The content of an open or dirty file.
#[derive(Debug)]
pub(crate) struct File {
    content: Mutex<Content, order::Content>,
    /// Handles that are open. Changed only under the lock of the table of files.
    pub(crate) handles: AtomicU32,
    /// The node that it was the content of until another one was renamed over it.
    replaced_at: OnceLock<NodeId>,
    /// Whether it is in `unsaved`. Changed only under the lock of the content.
    listed: AtomicBool,
    me: Weak<Self>,
    unsaved: Weak<Unsaved>,
}

/// A locked content. It is listed when it is let go if something in it is unsaved.
#[derive(Debug)]
pub(crate) struct ContentGuard<'f> {
    content: MutexGuard<'f, Content, order::Content>,
    file: &'f File,
}

impl File {
    /// A content that no save knows of.
    pub(crate) fn new(base: Base) -> Self {
        Self::of(base, Weak::new(), Weak::new())
    }

    /// A content that puts itself into `unsaved` whenever it becomes unsaved.
    pub(crate) fn listed_in(base: Base, unsaved: &Arc<Unsaved>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self::of(base, Weak::clone(me), Arc::downgrade(unsaved)))
    }

    fn of(base: Base, me: Weak<Self>, unsaved: Weak<Unsaved>) -> Self {
        Self {
            content: Mutex::new(Content::new(base)),
            handles: AtomicU32::new(0),
            replaced_at: OnceLock::new(),
            listed: AtomicBool::new(false),
            me,
            unsaved,
        }
    }

    pub(crate) fn lock(&self) -> ContentGuard<'_> {
        ContentGuard { content: self.content.lock(), file: self }
    }

    /// Another content has taken its place as that of `node`.
    pub(crate) fn replaced(&self, node: NodeId) {
        self.replaced_at.get_or_init(|| node);
    }

    /// Whether it was the content of `node` until it was replaced.
    pub(crate) fn was_replaced_at(&self, node: &NodeId) -> bool {
        self.replaced_at.get() == Some(node)
    }

    /// Whether any handle is open.
    pub(crate) fn is_open(&self) -> bool {
        // Only read under the lock that changes it.
        self.handles.load(Ordering::Relaxed) > 0
    }
}

impl ContentGuard<'_> {
    /// A save looks at this content; whatever it leaves unsaved is listed again.
    pub(crate) fn unlist(&mut self) {
        self.file.listed.store(false, Ordering::Relaxed);
    }
}

impl Drop for ContentGuard<'_> {
    fn drop(&mut self) {
        // Before the lock goes with the field: whoever saw the change sees the list with it.
        if self.content.unsaved
            && !self.file.listed.swap(true, Ordering::Relaxed)
            && let Some(unsaved) = self.file.unsaved.upgrade()
        {
            unsaved.push(Weak::clone(&self.file.me));
        }
    }
}

impl Deref for ContentGuard<'_> {
    type Target = Content;

    fn deref(&self) -> &Content {
        &self.content
    }
}

impl DerefMut for ContentGuard<'_> {
    fn deref_mut(&mut self) -> &mut Content {
        &mut self.content
    }
}
