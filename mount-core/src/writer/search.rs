//! The search for packs that are mostly dead. A thread of its own reads the whole tree and every
//! pack, which may take hours, while the writer saves and publishes.
//!
//! ```text
//!   writer -- Roots --> thread `search` --[1]--> Found --> writer, which empties the packs
//! ```
//!
//! What is alive is known as of the moment when the [`Roots`] were taken. What was put since the
//! appender remembers. What a merge refers to it may have found here without putting it, and an
//! older version that somebody begins to read is all there: so after either nothing is emptied before
//! what is referred to by then was added by another such thread, which reads only what is new.
//!
//! A thread ends when it has told what it found. Whoever drops the [`Search`] waits for it: for no
//! more than the reading of one blob.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, TryRecvError, bounded};

use super::{
    answer,
    live::{Live, Roots},
};
use crate::{Error, Result, vault::Vault};

/// A search that is under way, or has found what is being emptied.
pub(super) struct Search {
    /// After the version before it.
    pub(super) begun: Instant,
    vault: Arc<Vault>,
    /// Who reads; `None` once it has told what it found.
    reader: Option<Reader>,
    found: Found,
    /// Whether a merge may refer to what `found` takes for dead.
    is_outdated: bool,
    /// How many versions ever had been pinned when the roots were taken.
    pins: u64,
    /// Time spent on it, but for that of the present reader.
    spent: Duration,
}

/// What is alive, and packs that are worth emptying of the rest, those first that cost least.
#[derive(Default)]
pub(super) struct Found {
    live: Live,
    packs: VecDeque<u32>,
}

/// What there is to do.
pub(super) enum Step {
    /// Nothing yet.
    Wait,
    /// This pack is worth emptying of all but what is alive.
    Empty(u32),
    /// That was all.
    Done,
}

impl Search {
    /// Looks through `packs` for those of which little can be reached from `roots`. `spent` is what
    /// the version before it took.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if there is no thread to be had.
    pub(super) fn begin(
        spent: Duration,
        vault: Arc<Vault>,
        roots: Roots,
        packs: Vec<u32>,
    ) -> Result<Self> {
        let (reads, pins) = (Arc::clone(&vault), roots.pins);
        let reader = Reader::start(move |cancelled| {
            let mut live = Live::default();
            live.add(&reads, &roots, cancelled)?;
            let packs = mostly_dead(&reads, &live, packs, cancelled)?;
            Ok(Found { live, packs })
        })?;
        let (reader, found) = (Some(reader), Found::default());
        Ok(Self { begun: Instant::now(), vault, reader, found, is_outdated: false, pins, spent })
    }

    /// A merge may have made alive what was dead.
    pub(super) fn merged(&mut self) {
        self.is_outdated = true;
    }

    /// What there is to do now; nothing is to be emptied while `is_held`. So many `pins` were ever
    /// made. `roots` says what is referred to.
    ///
    /// # Errors
    ///
    /// What the search failed with.
    pub(super) fn step(
        &mut self,
        is_held: bool,
        pins: u64,
        roots: impl FnOnce() -> Roots,
    ) -> Result<Step> {
        if let Some(reader) = &self.reader {
            let (took, found) = match reader.result.try_recv() {
                Ok(told) => told,
                Err(TryRecvError::Empty) => return Ok(Step::Wait),
                Err(TryRecvError::Disconnected) => {
                    return Err(Error::Io("the search has panicked".into()));
                }
            };
            self.spent += took;
            self.reader = None;
            self.found = found?;
        }
        if is_held {
            return Ok(Step::Wait);
        }
        let is_outdated = self.is_outdated || self.pins != pins;
        if is_outdated && !self.found.packs.is_empty() {
            self.read_again(roots())?;
            return Ok(Step::Wait);
        }
        let pack = self.found.packs.pop_front();
        Ok(pack.map_or(Step::Done, Step::Empty))
    }

    /// What is alive.
    pub(super) fn live(&self) -> &Live {
        &self.found.live
    }

    /// Adds to what is alive all that `roots` lead to.
    fn read_again(&mut self, roots: Roots) -> Result<()> {
        let mut found = std::mem::take(&mut self.found);
        let vault = Arc::clone(&self.vault);
        self.pins = roots.pins;
        self.reader = Some(Reader::start(move |cancelled| {
            found.live.add(&vault, &roots, cancelled)?;
            Ok(found)
        })?);
        self.is_outdated = false;
        Ok(())
    }

    /// What becomes ready when there may be more to do; `None` if there is now.
    pub(super) fn awaited(&self) -> Option<&Receiver<(Duration, Result<Found>)>> {
        self.reader.as_ref().map(|reader| &reader.result)
    }

    /// Time spent on it, but for emptying.
    pub(super) fn spent(&self) -> Duration {
        self.spent + self.reader.as_ref().map_or(Duration::ZERO, |reader| reader.begun.elapsed())
    }
}

/// The thread `search`.
struct Reader {
    begun: Instant,
    cancelled: Arc<AtomicBool>,
    /// What it found, and how long that took.
    result: Receiver<(Duration, Result<Found>)>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    fn start(read: impl FnOnce(&AtomicBool) -> Result<Found> + Send + 'static) -> Result<Self> {
        let (tell, result) = bounded(1);
        let cancelled = Arc::new(AtomicBool::new(false));
        let heed = Arc::clone(&cancelled);
        let begun = Instant::now();
        let thread = thread::Builder::new()
            .name("search".into())
            .spawn(move || {
                let found = read(&heed);
                // Whoever dropped the search does not want to know.
                answer(&tell, (begun.elapsed(), found));
            })
            .map_err(|err| Error::Io(format!("cannot start a thread: {err}")))?;
        Ok(Self { begun, cancelled, result, thread: Some(thread) })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("panicked thread=search");
        }
    }
}

/// Those of `packs` that are worth emptying.
fn mostly_dead(
    vault: &Vault,
    live: &Live,
    packs: Vec<u32>,
    cancelled: &AtomicBool,
) -> Result<VecDeque<u32>> {
    let is_live = |id: &_| (!cancelled.load(Ordering::Relaxed)).then(|| live.contains(id));
    let mut worth = Vec::new();
    for pack in packs {
        let found = vault.blobs().survey(pack, &is_live)?;
        if cancelled.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        worth.extend(found.filter(|found| found.is_mostly_dead()).map(|it| (it.live_bytes, pack)));
    }
    worth.sort_unstable();
    Ok(worth.into_iter().map(|(_, pack)| pack).collect())
}
