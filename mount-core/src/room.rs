//! Room for what is written: memory until it is saved, and space on the disk below.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use cairnfs_store::disk::Space;

use crate::{
    Done, Error, Result,
    file::{Content, Growth},
    order::{self, Mutex},
    vault::Vault,
};

/// Memory that may be held before the writer begins to free some, as a part of the limit.
const PRESSED: (u64, u64) = (1, 2);
/// Memory that may be held before those who write wait, as a part of the limit. The rest is for what
/// those bring who are to wait, and for what a save still holds though it was written over: fio's
/// small random writes to 20 files took a tenth of the limit and more beyond where they waited.
const FULL: (u64, u64) = (3, 4);
/// Space that a new estimate is made at, in bytes: below it, every write asks the disk.
const SPACE_LOW_BYTES: i64 = 64 << 20;
/// What saving some bytes may take besides them: records, map nodes, a manifest.
const SAVE_OVERHEAD_BYTES: i64 = 1 << 20;

/// How much there is, and who waits for more. Each number stands alone.
#[derive(Debug)]
pub(crate) struct Room {
    vault: Arc<Vault>,
    /// Memory that dirty pieces may take, in bytes.
    limit_bytes: u64,
    /// Memory that dirty pieces take, in bytes.
    held: AtomicI64,
    /// Written bytes that no barrier covers.
    unsaved: AtomicI64,
    /// A lower bound, in bytes, of the space that writes may still take.
    space: AtomicI64,
    /// Whether somebody was refused space since some was last looked for.
    starved: AtomicBool,
    /// Bytes of the write that was refused last, unless one since was not.
    refused: AtomicI64,
    throttled: Mutex<Throttled, order::Throttled>,
}

/// Writes of so many bytes that wait for memory.
#[derive(Default)]
struct Throttled(Vec<(u32, Done<u32>)>);

impl fmt::Debug for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Throttled({})", self.0.len())
    }
}

impl Room {
    /// With `held` bytes in memory already, all of them saved.
    pub(crate) fn new(vault: Arc<Vault>, limit_bytes: u64, held: u64) -> Self {
        Self {
            vault,
            limit_bytes,
            held: AtomicI64::new(held.cast_signed()),
            unsaved: AtomicI64::default(),
            space: AtomicI64::default(),
            starved: AtomicBool::default(),
            refused: AtomicI64::default(),
            throttled: Mutex::default(),
        }
    }

    pub(crate) fn account(&self, growth: Growth) {
        self.held.fetch_add(growth.held, Ordering::Relaxed);
        self.unsaved.fetch_add(growth.unsaved, Ordering::Relaxed);
        self.space.fetch_sub(growth.unsaved.max(0), Ordering::Relaxed);
    }

    /// A content is dropped from memory with what it holds.
    pub(crate) fn account_dropped(&self, content: &mut Content) {
        // A save under way may hold the content still, and must find nothing more to account for.
        self.account(content.clear());
    }

    fn held_bytes(&self) -> u64 {
        self.held.load(Ordering::Relaxed).max(0).cast_unsigned()
    }

    pub(crate) fn unsaved_bytes(&self) -> u64 {
        self.unsaved.load(Ordering::Relaxed).max(0).cast_unsigned()
    }

    /// Whether the writer should free memory.
    pub(crate) fn is_pressed(&self) -> bool {
        self.held_bytes() > self.limit_bytes * PRESSED.0 / PRESSED.1
    }

    /// Whether those who write must wait.
    fn is_full(&self) -> bool {
        self.held_bytes() > self.limit_bytes * FULL.0 / FULL.1
    }

    /// Answers a write of `len` bytes now, or when there is room for more.
    pub(crate) fn answer_write(&self, len: u32, done: Done<u32>) {
        if self.is_full() {
            self.throttled.lock().0.push((len, done));
        } else {
            done(Ok(len));
        }
    }

    /// Lets the writers go on that wait for room, once all has been made that can be: what is still
    /// held then was written meanwhile, or cannot be cut as a part of its file is damaged. If none
    /// could be made, they hear why, although what they wrote is kept.
    pub(crate) fn release_throttled(&self, relieved: &Result<()>) {
        let throttled = std::mem::take(&mut self.throttled.lock().0);
        for (len, done) in throttled {
            done(relieved.clone().map(|()| len));
        }
    }

    /// Makes sure that `bytes` more can be saved.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`].
    pub(crate) fn reserve(&self, bytes: u64) -> Result<()> {
        let bytes = i64::try_from(bytes).map_err(|_beyond| Error::NoSpace)?;
        if self.space.load(Ordering::Relaxed) - bytes > SPACE_LOW_BYTES {
            return Ok(());
        }
        let space = self.left_of(self.vault.space()?);
        self.space.store(space, Ordering::Relaxed);
        let is_short = space < bytes;
        self.refused.store(if is_short { bytes.max(1) } else { 0 }, Ordering::Relaxed);
        if is_short {
            self.starved.store(true, Ordering::Relaxed);
            return Err(Error::NoSpace);
        }
        Ok(())
    }

    /// What of the space on a disk writes may still take; below zero if not even what waits can be
    /// saved.
    pub(crate) fn left_of(&self, disk: Space) -> i64 {
        let free = disk.free_bytes.min(i64::MAX.cast_unsigned()).cast_signed();
        let waiting = self.unsaved.load(Ordering::Relaxed).max(0);
        free - waiting - SAVE_OVERHEAD_BYTES
    }

    /// Whether writes are refused for want of space.
    pub(crate) fn is_refused(&self) -> bool {
        let refused = self.refused.load(Ordering::Relaxed);
        // Space may have come back since.
        refused > 0 && self.vault.space().is_ok_and(|disk| self.left_of(disk) < refused)
    }

    /// Whether somebody was refused space since [`Room::fed`].
    pub(crate) fn is_starved(&self) -> bool {
        self.starved.load(Ordering::Relaxed)
    }

    /// Space was looked for.
    pub(crate) fn fed(&self) {
        self.starved.store(false, Ordering::Relaxed);
        self.space.store(0, Ordering::Relaxed);
    }
}
