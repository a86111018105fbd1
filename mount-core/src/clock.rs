//! How a change and a writer that falls asleep do not miss each other.
//!
//! No lock: every call that changes something passes here. Times are microseconds since the mount
//! started; what the time is, the caller says.
//!
//! # Invariants
//!
//! 1. A change that is noted while the writer falls asleep is seen by the writer before it sleeps,
//!    or its caller is told to wake it, unless the writer wakes up by itself in time.
//! 2. A change that a save's snapshot misses is noted when the save has begun, or later.
//!
//! `models.rs` tries both in every interleaving. For that the order is made by fences: the model
//! checker does not know sequentially consistent accesses.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// No time.
pub(crate) const NEVER: u64 = u64::MAX;

/// What has changed since when, and until when the writer sleeps.
#[derive(Debug)]
pub(crate) struct Clock {
    /// When the first change was made that no save has begun to cover.
    dirty_since: AtomicU64,
    /// When the writer will look at `dirty_since` by itself. 0 while it is awake: before it sleeps
    /// it says until when, and then looks. A change is noted first, and then this is looked at. With
    /// a sequentially consistent fence between the two on either side, one of them sees the other.
    wakes_at: AtomicU64,
    /// When the last change was made.
    last_change: AtomicU64,
}

/// What came of noting a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    /// One before it was noted, that no save has begun to cover: what is to be done, is.
    Before,
    /// It is the first one.
    First {
        /// The writer must be woken: it sleeps for longer than a change may stay unsaved.
        wake: bool,
    },
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            dirty_since: AtomicU64::new(NEVER),
            wakes_at: AtomicU64::new(0),
            last_change: AtomicU64::new(0),
        }
    }

    /// Takes note at `now` of a change that has been made, and that may stay unsaved for `max_age`.
    pub(crate) fn changed(&self, now: u64, max_age: u64) -> Noted {
        self.last_change.store(now, Ordering::Relaxed);
        if !self.note(now) {
            return Noted::Before;
        }
        // Pairs with the one in `writer_sleeps`.
        fence(Ordering::SeqCst);
        let due = now.saturating_add(max_age);
        Noted::First { wake: self.wakes_at.load(Ordering::Relaxed) > due }
    }

    /// Something is dirty since `now` at the latest; `true` if nothing was before.
    pub(crate) fn note(&self, now: u64) -> bool {
        let dirty_since = &self.dirty_since;
        dirty_since.compare_exchange(NEVER, now, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The writer sleeps until `until` unless it is woken, but for what this returns: when the first
    /// change was made that no save has begun to cover.
    pub(crate) fn writer_sleeps(&self, until: u64) -> Option<u64> {
        self.wakes_at.store(until, Ordering::Relaxed);
        // Pairs with the one in `changed`.
        fence(Ordering::SeqCst);
        self.dirty_since()
    }

    /// The writer is awake: nobody need wake it until it sleeps again. Returns the same.
    pub(crate) fn writer_wakes(&self) -> Option<u64> {
        self.wakes_at.store(0, Ordering::Relaxed);
        self.dirty_since()
    }

    /// When the first change was made that no save has begun to cover.
    pub(crate) fn dirty_since(&self) -> Option<u64> {
        let since = self.dirty_since.load(Ordering::Acquire);
        (since != NEVER).then_some(since)
    }

    /// When the last change was made.
    pub(crate) fn last_change(&self) -> u64 {
        self.last_change.load(Ordering::Relaxed)
    }

    /// A save begins that covers what `snapshot` takes, each thing under its lock.
    pub(crate) fn save_begins<T>(&self, snapshot: impl FnOnce() -> T) -> T {
        // Before the snapshot: who changes what it has looked at comes by that thing's lock, so
        // this is over for them, and they note the change anew.
        self.dirty_since.store(NEVER, Ordering::Relaxed);
        snapshot()
    }
}
