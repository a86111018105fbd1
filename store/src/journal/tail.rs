//! What the index does not know yet: the records since its mark, and the bytes of the batch that
//! are not written yet.
//!
//! The appender is the only one that changes the bytes. Readers take the lock for as long as it
//! takes to look up or copy one record; the appender holds it shared while it writes, so that a
//! reader never finds a record neither here nor in the file.

use std::collections::HashMap;

use super::{Loc, Pos};
use crate::BlobId;
use crate::order::{self, ReadGuard, RwLock};

#[derive(Debug)]
pub(crate) struct Tail {
    state: RwLock<TailState, order::Tail>,
}

#[derive(Debug)]
pub(crate) struct TailState {
    /// Records that are not in the index: saved or not, written or not.
    map: HashMap<BlobId, Loc>,
    /// Where records of the open batch were before, of those that were put again.
    before: HashMap<BlobId, Loc>,
    /// Where the first of `pending` will be written.
    base: Pos,
    /// The end of the last save: nothing before it changes any more.
    saved: Pos,
    /// Records that are put and not written.
    pub(crate) pending: Vec<u8>,
}

impl TailState {
    fn batch_ended(&mut self) {
        self.before = HashMap::new();
        // A batch of a large file leaves a buffer that an idle daemon has no use for. Not before its
        // end: each time that some of it is written the memory would come anew from the kernel.
        self.pending.shrink_to(64 << 10);
    }
}

impl Tail {
    /// Of a log in which nothing is open, and which goes on at `base`.
    pub(crate) fn new(base: Pos) -> Self {
        let state = TailState {
            map: HashMap::new(),
            before: HashMap::new(),
            base,
            saved: base,
            pending: Vec::new(),
        };
        Self { state: RwLock::new(state) }
    }

    pub(crate) fn find(&self, id: &BlobId) -> Option<Loc> {
        self.state.read().map.get(id).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.state.read().map.len()
    }

    /// The bytes of a record that is not written yet; `None` if it is, or was dropped.
    pub(crate) fn unwritten(&self, loc: Loc) -> Option<Vec<u8>> {
        let state = self.state.read();
        if loc.at.pack != state.base.pack {
            return None;
        }
        let start = loc.at.offset.checked_sub(state.base.offset)? as usize;
        let bytes = state.pending.get(start..start.checked_add(loc.len as usize)?)?;
        Some(bytes.to_vec())
    }

    /// Takes in a record; `id` makes it findable.
    pub(crate) fn push(&self, id: Option<BlobId>, loc: Loc, record: &[u8]) {
        let mut state = self.state.write();
        debug_assert_eq!(
            u64::from(state.base.offset) + state.pending.len() as u64,
            u64::from(loc.at.offset),
            "records lie one after another"
        );
        state.pending.extend_from_slice(record);
        if let Some(id) = id
            && let Some(before) = state.map.insert(id, loc)
        {
            state.before.entry(id).or_insert(before);
        }
    }

    /// The open batch is written, and durable.
    pub(crate) fn batch_saved(&self) {
        let mut state = self.state.write();
        state.saved = state.base;
        state.batch_ended();
    }

    /// The open batch, which was `entries`, is dropped: what was put again is where it was before.
    pub(crate) fn batch_dropped(&self, entries: &[(BlobId, Loc)]) {
        let mut state = self.state.write();
        for (id, loc) in entries {
            if state.map.get(id) == Some(loc) {
                state.map.remove(id);
            }
        }
        let before = std::mem::take(&mut state.before);
        state.map.extend(before);
        state.pending.clear();
        state.batch_ended();
    }

    /// Makes records findable that are in the file already.
    pub(crate) fn extend(&self, entries: &[(BlobId, Loc)]) {
        self.state.write().map.extend(entries.iter().copied());
    }

    /// Up to where the log is saved.
    pub(crate) fn saved(&self) -> Pos {
        self.state.read().saved
    }

    /// The unwritten bytes, to be written; nobody changes them meanwhile.
    pub(crate) fn pending(&self) -> ReadGuard<'_, TailState, order::Tail> {
        self.state.read()
    }

    pub(crate) fn pending_len(&self) -> usize {
        self.state.read().pending.len()
    }

    /// The unwritten bytes are in the file now; what comes next begins at `base`.
    pub(crate) fn written(&self, base: Pos) {
        let mut state = self.state.write();
        state.base = base;
        state.pending.clear();
    }

    /// Drops unwritten bytes from the end.
    pub(crate) fn truncate_pending(&self, len: usize) {
        self.state.write().pending.truncate(len);
    }

    /// Forgets records that are in the index now, unless they were put again.
    pub(crate) fn forget(&self, entries: &[(BlobId, Loc)]) {
        let mut state = self.state.write();
        for (id, loc) in entries {
            if state.map.get(id) == Some(loc) {
                state.map.remove(id);
            }
            if state.before.get(id) == Some(loc) {
                state.before.remove(id);
            }
        }
        if state.map.is_empty() {
            state.map.shrink_to(1024);
        }
    }
}
