//! Versions that somebody reads: nothing of them is given up for space, as long as that lasts.
//!
//! A search for space takes each for something that must stay, beside the newest one. One that is
//! pinned while a search runs is added to it before anything more goes.

use std::collections::BTreeMap;

use cairnfs_store::BlobId;

use crate::{
    order::{self, Mutex},
    tree::BaseTree,
};

/// All of a bucket. Its lock is taken last.
#[derive(Debug, Default)]
pub(crate) struct Pins(Mutex<State, order::Pins>);

#[derive(Debug, Default)]
struct State {
    made: u64,
    pinned: BTreeMap<u64, Pinned>,
}

/// A version that is read.
#[derive(Clone, Debug)]
pub(crate) struct Pinned {
    pub(crate) id: BlobId,
    pub(crate) tree: BaseTree,
}

impl Pins {
    /// Pins a version, and says by which number it is let go.
    pub(crate) fn pin(&self, version: Pinned) -> u64 {
        let mut state = self.0.lock();
        state.made += 1;
        let number = state.made;
        state.pinned.insert(number, version);
        number
    }

    pub(crate) fn let_go(&self, number: u64) {
        // What it holds is dropped without the lock.
        let version = self.0.lock().pinned.remove(&number);
        drop(version);
    }

    /// Those that are pinned, and how many ever were.
    pub(crate) fn all(&self) -> (Vec<Pinned>, u64) {
        let state = self.0.lock();
        (state.pinned.values().cloned().collect(), state.made)
    }

    /// How many ever were pinned.
    pub(crate) fn made(&self) -> u64 {
        self.0.lock().made
    }

    /// How many were let go: with each of them something may have become needless.
    pub(crate) fn ended(&self) -> u64 {
        let state = self.0.lock();
        state.made - state.pinned.len() as u64
    }
}
