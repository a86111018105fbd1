//! Room for what is changed: memory until a version holds it, and space on the disk below.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
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
/// Memory beyond what cannot be freed that there is for others all the same, as a part of the limit.
const SPARE: (u64, u64) = (1, 8);
/// Space that a new estimate is made at, in bytes: below it, every write asks the disk.
const SPACE_LOW_BYTES: i64 = 64 << 20;
/// What saving some bytes may take besides them: records, map nodes, a manifest.
const SAVE_OVERHEAD_BYTES: i64 = 1 << 20;

/// How much there is, and who waits for more. Each number stands alone.
#[derive(Debug)]
pub(crate) struct Room {
    vault: Arc<Vault>,
    /// Memory that dirty pieces and changes of the tree may take, in bytes.
    limit_bytes: u64,
    /// Memory that dirty pieces take, in bytes.
    held: AtomicI64,
    /// Memory that changes of the tree take, in bytes.
    tree: AtomicU64,
    /// Memory that is held by what cannot be cut, in bytes: damage keeps it, whatever the writer does.
    stuck: AtomicU64,
    /// Written bytes that no barrier covers.
    unsaved: AtomicI64,
    /// A lower bound, in bytes, of the space that writes may still take.
    space: AtomicI64,
    /// Whether somebody was refused space since some was last looked for.
    starved: AtomicBool,
    /// Bytes of the write that was refused last, unless one since was not.
    refused: AtomicI64,
    throttled: Mutex<Throttled, order::Throttled>,
    /// Whether the writer was asked for memory and has not begun to free any.
    asked: AtomicBool,
}

/// Whether an answer was held back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waited {
    /// It is given at once.
    No,
    /// Until there was memory: what the call saw may have changed since.
    ForRoom,
}

/// Calls that wait for memory.
#[derive(Default)]
struct Throttled {
    answers: Vec<Done>,
    /// The writer has ended: nobody frees any more.
    closed: bool,
}

impl fmt::Debug for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Throttled({}, closed={})", self.answers.len(), self.closed)
    }
}

impl Room {
    /// With `held` bytes in memory already, all of them saved.
    pub(crate) fn new(vault: Arc<Vault>, limit_bytes: u64, held: u64) -> Self {
        Self {
            vault,
            limit_bytes,
            held: AtomicI64::new(held.cast_signed()),
            tree: AtomicU64::default(),
            stuck: AtomicU64::default(),
            unsaved: AtomicI64::default(),
            space: AtomicI64::default(),
            starved: AtomicBool::default(),
            refused: AtomicI64::default(),
            throttled: Mutex::default(),
            asked: AtomicBool::default(),
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

    /// The changes of the tree take so many bytes of memory now.
    pub(crate) fn account_tree(&self, held_bytes: u64) {
        self.tree.store(held_bytes, Ordering::Relaxed);
    }

    /// So many bytes of what is held cannot be freed.
    pub(crate) fn note_stuck(&self, stuck_bytes: u64) {
        self.stuck.store(stuck_bytes, Ordering::Relaxed);
    }

    /// Whether something is held that cannot be freed.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn held_bytes(&self) -> u64 {
        let pieces = self.held.load(Ordering::Relaxed).max(0).cast_unsigned();
        pieces + self.tree.load(Ordering::Relaxed)
    }

    pub(crate) fn unsaved_bytes(&self) -> u64 {
        self.unsaved.load(Ordering::Relaxed).max(0).cast_unsigned()
    }

    /// Whether the writer should free memory.
    pub(crate) fn is_pressed(&self) -> bool {
        self.is_beyond(PRESSED)
    }

    /// Whether those who write must wait.
    fn is_full(&self) -> bool {
        self.is_beyond(FULL)
    }

    fn is_beyond(&self, part: (u64, u64)) -> bool {
        let bytes = |part: (u64, u64)| self.limit_bytes * part.0 / part.1;
        let stuck = self.stuck.load(Ordering::Relaxed);
        let least = if stuck > 0 { stuck + bytes(SPARE) } else { 0 };
        self.held_bytes() > bytes(part).max(least)
    }

    /// Answers who has changed something: now, or when there is room for more, which `answer` is told.
    /// Afterwards the writer is to be asked for memory if this is so.
    #[must_use = "who waits is let go on by the writer alone"]
    pub(crate) fn answer(&self, answer: impl FnOnce(Result<()>, Waited) + Send + 'static) -> bool {
        let mut throttled = self.throttled.lock();
        if throttled.closed {
            drop(throttled);
            answer(Err(Error::Stopped), Waited::No);
            return false;
        }
        // Under the lock: the writer frees memory before it lets go on who waits.
        if self.is_full() {
            throttled.answers.push(Box::new(|relieved| answer(relieved, Waited::ForRoom)));
            drop(throttled);
            return !self.asked.swap(true, Ordering::AcqRel);
        }
        drop(throttled);
        answer(Ok(()), Waited::No);
        self.wants_relief()
    }

    /// Whether the writer is to be asked for memory: it should free some, and has not been asked
    /// since it last began to.
    pub(crate) fn wants_relief(&self) -> bool {
        self.is_pressed() && !self.asked.swap(true, Ordering::AcqRel)
    }

    /// The writer begins to free memory: who waits from here on asks again.
    pub(crate) fn relief_begins(&self) {
        self.asked.swap(false, Ordering::AcqRel);
    }

    /// Lets those go on that wait for room, once all has been made that can be: what is still held then
    /// was changed meanwhile, or cannot be cut as a part of its file is damaged. If none could be
    /// made, they hear why, although what they changed is kept.
    pub(crate) fn release_throttled(&self, relieved: &Result<()>) {
        let throttled = std::mem::take(&mut self.throttled.lock().answers);
        for answer in throttled {
            answer(relieved.clone());
        }
    }

    /// The writer has ended.
    pub(crate) fn close(&self) {
        self.throttled.lock().closed = true;
        self.release_throttled(&Err(Error::Stopped));
    }

    /// Makes sure that `bytes` more can be saved.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`].
    pub(crate) fn reserve(&self, bytes: u64) -> Result<()> {
        let bytes = i64::try_from(bytes).map_err(|_beyond| Error::NoSpace)?;
        if self.space.load(Ordering::Relaxed) - bytes > SPACE_LOW_BYTES {
            if self.refused.load(Ordering::Relaxed) > 0 {
                self.refused.store(0, Ordering::Relaxed);
            }
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

    /// Whether `bytes` more could be saved if all older versions were given up.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(crate) fn could_take(&self, bytes: u64) -> Result<bool> {
        let free = self.left_of(self.vault.space()?).max(0).cast_unsigned();
        Ok(bytes <= free || bytes - free <= self.vault.blobs().stats()?.pack_bytes)
    }

    /// What of the space on a disk writes may still take; below zero if not even what waits can be
    /// saved.
    pub(crate) fn left_of(&self, disk: Space) -> i64 {
        let free = disk.free_bytes.min(i64::MAX.cast_unsigned()).cast_signed();
        let waiting = self.unsaved.load(Ordering::Relaxed).max(0);
        // What deletes are to have: new data must not take it, once it is anybody's.
        let kept = self.vault.blobs().reserve_lacks_bytes().min(i64::MAX.cast_unsigned());
        (free - waiting - SAVE_OVERHEAD_BYTES).saturating_sub(kept.cast_signed())
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
        self.look_again();
    }

    /// What was known of the space is no longer so: the next write asks the disk.
    pub(crate) fn look_again(&self) {
        self.space.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::{TryRecvError, bounded};

    use super::*;
    use crate::random_load::{fresh, mount_publishing};

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_writer_is_asked_for_memory_once_until_it_begins_and_forgets_nobody() {
        let (disk, device, _) = fresh(1);
        let mounted = mount_publishing(&disk, &device, HOUR, HOUR).unwrap();
        let room = Room::new(Arc::clone(&mounted.shared().vault), 100, 0);
        let (tell, told) = bounded(8);
        let write = |len| {
            let tell = tell.clone();
            room.answer(move |result, _| tell.send(result.ok().map(|()| len)).unwrap())
        };
        assert!(!write(1), "there is room");
        assert_eq!(told.try_recv(), Ok(Some(1)));
        room.account(Growth { held: 60, unsaved: 0 });
        assert!(write(2), "the writer is to begin");
        assert!(!write(3), "it was asked");
        assert_eq!((told.try_recv(), told.try_recv()), (Ok(Some(2)), Ok(Some(3))));
        room.account(Growth { held: 30, unsaved: 0 });
        assert!(!write(4), "it will free some, and let this one go on");
        room.relief_begins();
        assert!(write(5), "it may have looked already");
        assert_eq!(told.try_recv(), Err(TryRecvError::Empty), "both wait");
        room.release_throttled(&Ok(()));
        assert_eq!((told.try_recv(), told.try_recv()), (Ok(Some(4)), Ok(Some(5))));
        room.close();
        assert!(!write(6), "nobody would hear it");
        assert_eq!(told.try_recv(), Ok(None));
        mounted.stop().unwrap();
    }
}
