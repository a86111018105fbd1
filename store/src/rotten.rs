//! What readers found damaged.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::BlobId;
use crate::order::{self, Mutex};

/// More damaged blobs than these are not kept in mind.
const ROTTEN_MAX: usize = 1 << 16;

/// Blobs whose record a reader found damaged: one of them that is put is stored anew.
#[derive(Debug, Default)]
pub(crate) struct Rotten {
    any: AtomicBool,
    ids: Mutex<HashSet<BlobId>, order::Rotten>,
}

impl Rotten {
    pub(crate) fn note(&self, id: BlobId) {
        let mut ids = self.ids.lock();
        if ids.len() < ROTTEN_MAX {
            ids.insert(id);
        }
        self.any.store(true, Ordering::Release);
    }

    /// Another record of it could be read.
    pub(crate) fn forget(&self, id: &BlobId) {
        if self.any.load(Ordering::Acquire) {
            self.ids.lock().remove(id);
        }
    }

    pub(crate) fn has(&self, id: &BlobId) -> bool {
        self.any.load(Ordering::Acquire) && self.ids.lock().contains(id)
    }
}
