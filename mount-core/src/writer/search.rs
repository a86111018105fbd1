//! The search for packs that are mostly dead, on a thread of its own: it reads the whole tree and
//! every pack, which may take hours, while the writer saves and publishes.
//!
//! ```text
//!   writer --> Search::begin --> thread `search` --> Found: [1] --> writer, which empties the packs
//! ```
//!
//! The thread ends when it has looked at all, or soon after the [`Search`] is dropped.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use crossbeam_channel::{Receiver, TryRecvError, bounded};

use super::live::{Live, Roots};
use crate::{Error, Result, vault::Vault};

/// A search that is under way, or has found what is being emptied.
pub(super) struct Search {
    pub(super) begun: Instant,
    found: Option<Found>,
    result: Receiver<Result<Found>>,
    cancelled: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Packs that are worth emptying, those first that cost least.
pub(super) struct Found {
    live: Arc<Live>,
    packs: VecDeque<u32>,
}

/// How far a search has got.
pub(super) enum Step {
    /// Nothing is known yet.
    Searching,
    /// This pack is worth emptying of all but what is alive.
    Empty(u32, Arc<Live>),
    /// That was all.
    Done,
    Failed(Error),
}

impl Search {
    /// Looks through `packs` for those of which little can be reached from `roots`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if there is no thread to be had.
    pub(super) fn begin(
        begun: Instant,
        vault: Arc<Vault>,
        roots: Roots,
        packs: Vec<u32>,
    ) -> Result<Self> {
        let (tell, result) = bounded(1);
        let cancelled = Arc::new(AtomicBool::new(false));
        let heed = Arc::clone(&cancelled);
        let thread = thread::Builder::new()
            .name("search".into())
            .spawn(move || {
                // Whoever dropped the search does not want to know.
                let _unwanted = tell.send(search(&vault, &roots, packs, &heed)).is_err();
            })
            .map_err(|err| Error::Io(format!("cannot start a thread: {err}")))?;
        Ok(Self { begun, found: None, result, cancelled, thread: Some(thread) })
    }

    /// What there is to do now.
    pub(super) fn step(&mut self) -> Step {
        if self.found.is_none() {
            self.found = match self.result.try_recv() {
                Ok(Ok(found)) => Some(found),
                Ok(Err(err)) => return Step::Failed(err),
                Err(TryRecvError::Empty) => return Step::Searching,
                Err(TryRecvError::Disconnected) => {
                    return Step::Failed(Error::Io("the search has panicked".into()));
                }
            };
        }
        let pack = self
            .found
            .as_mut()
            .and_then(|found| Some(Step::Empty(found.packs.pop_front()?, Arc::clone(&found.live))));
        pack.unwrap_or(Step::Done)
    }

    /// What becomes ready with the result; `None` if that is here.
    pub(super) fn awaited(&self) -> Option<&Receiver<Result<Found>>> {
        self.found.is_none().then_some(&self.result)
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread `search` has panicked");
        }
    }
}

fn search(vault: &Vault, roots: &Roots, packs: Vec<u32>, cancelled: &AtomicBool) -> Result<Found> {
    let mut live = Live::default();
    live.add(vault, roots, cancelled)?;
    let mut worth = Vec::new();
    for pack in packs {
        if cancelled.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let is_live = |id: &_| (!cancelled.load(Ordering::Relaxed)).then(|| live.contains(id));
        let found = vault.blobs().survey(pack, &is_live)?;
        worth.extend(found.filter(|found| found.is_mostly_dead()).map(|it| (it.live_bytes, pack)));
    }
    worth.sort_unstable();
    Ok(Found { live: Arc::new(live), packs: worth.into_iter().map(|(_, pack)| pack).collect() })
}
