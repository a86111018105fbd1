//! What readers found damaged.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use crate::BlobId;
use crate::order::{self, Mutex};

/// More damaged blobs than these are not kept in mind.
const ROTTEN_MAX: usize = 1 << 16;

/// Blobs that cannot be read, as far as somebody has tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rot {
    /// So many; 65,536 stands for more.
    pub blobs: u64,
    /// When the first of them was met.
    pub since: SystemTime,
}

/// Blobs whose record a reader found damaged: one of them that is put is stored anew.
#[derive(Debug, Default)]
pub(crate) struct Rotten {
    /// Whether there are any, so that readers spare the lock. Changed under it only, which orders all else.
    any: AtomicBool,
    known: Mutex<Known, order::Rotten>,
}

#[derive(Debug, Default)]
struct Known {
    ids: HashSet<BlobId>,
    /// When the first of them was met; `None` if there are none.
    since: Option<SystemTime>,
}

impl Rotten {
    pub(crate) fn note(&self, id: BlobId) {
        let mut known = self.known.lock();
        known.since.get_or_insert_with(SystemTime::now);
        if known.ids.len() < ROTTEN_MAX {
            known.ids.insert(id);
        }
        self.any.store(true, Ordering::Release);
    }

    /// It can be read again where it is saved, was stored anew, or is not here any more.
    pub(crate) fn forget(&self, id: &BlobId) {
        if self.any.load(Ordering::Acquire) {
            let mut known = self.known.lock();
            known.ids.remove(id);
            if known.ids.is_empty() {
                known.since = None;
                self.any.store(false, Ordering::Release);
            }
        }
    }

    pub(crate) fn has(&self, id: &BlobId) -> bool {
        self.any.load(Ordering::Acquire) && self.known.lock().ids.contains(id)
    }

    pub(crate) fn ids(&self) -> Vec<BlobId> {
        self.known.lock().ids.iter().copied().collect()
    }

    pub(crate) fn rot(&self) -> Option<Rot> {
        let known = self.known.lock();
        known.since.map(|since| Rot { blobs: known.ids.len() as u64, since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_take_no_lock_once_nothing_is_damaged_any_more() {
        let rotten = Rotten::default();
        let [one, other] = [1, 2].map(|n| BlobId([n; 32]));
        for id in [one, other] {
            rotten.note(id);
        }
        for (id, left) in [(one, true), (one, true), (other, false)] {
            rotten.forget(&id);
            assert_eq!(rotten.any.load(Ordering::Relaxed), left);
        }
        rotten.note(one);
        assert!(rotten.has(&one));
    }
}
