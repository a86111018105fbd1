//! Getting space back on a disk that fills up.
//!
//! Every version is kept while the disk has room. When it runs low, what only older versions hold
//! is given up: packs that are mostly dead are emptied and removed. What the newest version and
//! everything saved since hold is never touched, nor what a version holds that somebody reads.
//!
//! A thread of its own finds the packs; the writer empties one in each round, so that whoever wants
//! something of it waits for no more than that. While something is fetched none is emptied, as what
//! a fetch finds here may be referred to by nothing else.
//!
//! Save records that a version has made redundant go without need, when it is quiet after it: packs
//! of which they are at least half, one at a time and each once, so that whoever comes is served before
//! the next. Which those are is known by counting what was written since the bucket was opened.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Select, Sender, TryRecvError};

use super::{
    Command, Writer,
    lookout::{Cause, Kept, Lookout},
    record::SaveRecord,
    search::{Search, Step},
};
use crate::Result;

/// A disk is low with less than this part of it free and less than [`LOW_BYTES_MAX`].
const LOW_PART: u64 = 50;
const LOW_BYTES_MAX: u64 = 2 << 30;
/// Who was refused space waits no longer than this after a search for some has begun.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// What the writer knows of the space on its disk.
#[derive(Default)]
pub(super) struct Reclaim {
    /// The look that is under way, and what was kept when it began.
    search: Option<(Search, Kept)>,
    lookout: Lookout,
    /// Those who were refused space: dropped when they need not wait any longer.
    refused: Vec<Sender<Infallible>>,
}

impl Reclaim {
    /// Somebody was refused space, and waits until `reply` is dropped.
    pub(super) fn refused(&mut self, reply: Sender<Infallible>) {
        self.refused.push(reply);
    }

    /// Whether anybody was refused space, and waits.
    pub(super) fn is_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// When there is something to do; `None` if that is when something else happens: the end of the
    /// fetch among that if emptying `is_held` up by one.
    pub(super) fn due(&self, is_held: bool) -> Option<Instant> {
        let (search, _) = self.search.as_ref()?;
        if search.awaited().is_none() && !is_held {
            return Some(Instant::now());
        }
        self.is_refused().then(|| search.begun + ROOM_WAIT)
    }

    /// A merge may refer to what nothing referred to before.
    pub(super) fn merged(&mut self) {
        if let Some((search, _)) = &mut self.search {
            search.merged();
        }
    }

    /// The next command; [`Command::Wake`] if the search has ended before one came.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_deadline`].
    pub(super) fn next_command(
        &self,
        inbox: &Receiver<Command>,
        deadline: Option<Instant>,
    ) -> Result<Command, RecvTimeoutError> {
        let Some(found) = self.search.as_ref().and_then(|(search, _)| search.awaited()) else {
            return match deadline {
                Some(deadline) => inbox.recv_deadline(deadline),
                None => inbox.recv().map_err(|_ended| RecvTimeoutError::Disconnected),
            };
        };
        let mut either = Select::new();
        either.recv(inbox);
        either.recv(found);
        match deadline {
            Some(deadline) => {
                either.ready_deadline(deadline).map_err(|_late| RecvTimeoutError::Timeout)?
            }
            None => either.ready(),
        };
        match inbox.try_recv() {
            Ok(command) => Ok(command),
            Err(TryRecvError::Empty) => Ok(Command::Wake),
            Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
        }
    }
}

impl Writer {
    /// Whether somebody was refused space, and a look for some may be of use.
    pub(super) fn wants_room(&self) -> bool {
        self.reclaim.is_refused() && self.may_look(Cause::Refused)
    }

    fn may_look(&self, cause: Cause) -> bool {
        if self.reclaim.search.is_some() || self.appender.poisoned() {
            return false;
        }
        // What is not published yet may be what frees something.
        let kept = (!self.shared.has_unpublished()).then(|| self.kept());
        self.reclaim.lookout.may_look(Instant::now(), cause, kept)
    }

    fn kept(&self) -> Kept {
        let core = self.shared.core.read();
        let nameless = self.shared.inodes.lock().orphans().len();
        Kept { head: core.head.manifest.id, nameless, let_go: self.shared.pins.ended() }
    }

    /// After a version, which was `begun` then: looks for what only older ones hold, if the disk is
    /// low and it is time to.
    pub(super) fn search_if_low(&mut self, begun: Instant) {
        let cause = if self.shared.room.is_starved() { Cause::Refused } else { Cause::Low };
        if (cause == Cause::Low && !self.is_low()) || !self.may_look(cause) {
            return;
        }
        let kept = self.kept();
        let search = self.appender.survey().map_err(Into::into).and_then(|packs| {
            // After the appender has begun to remember what is put: nothing falls between.
            let roots = self.shared.roots();
            Search::begin(begun.elapsed(), Arc::clone(&self.shared.vault), roots, packs)
        });
        match search {
            Ok(search) => self.reclaim.search = Some((search, kept)),
            Err(err) => {
                log::warn!("search failed reason={err}");
                self.appender.survey_ends();
                self.reclaim.lookout.looked(begun.elapsed(), Instant::now(), None);
            }
        }
    }

    /// Goes on with the search: empties the next pack, if it has found any and none is held.
    pub(super) fn search_on(&mut self) {
        if self.appender.poisoned() {
            self.end_search(false);
        }
        let is_held = self.shared.is_fetching();
        if let Some((search, _)) = &mut self.reclaim.search {
            let pins = self.shared.pins.made();
            match search.step(is_held, pins, || self.shared.roots()) {
                Ok(Step::Wait) => (),
                Ok(Step::Empty(pack)) => self.empty(pack),
                Ok(Step::Done) => self.end_search(true),
                Err(err) => {
                    log::warn!("search failed reason={err}");
                    self.end_search(false);
                }
            }
        }
        let wait =
            self.reclaim.search.as_ref().is_some_and(|(it, _)| it.begun.elapsed() < ROOM_WAIT);
        if !wait {
            // They look for space again once their channel is closed.
            self.reclaim.refused.clear();
        }
    }

    /// Ends the search, if there is one; unless it is `whole`, before it has seen everything.
    fn end_search(&mut self, whole: bool) {
        let Some((search, kept)) = self.reclaim.search.take() else { return };
        self.appender.survey_ends();
        self.reclaim.lookout.looked(search.spent(), Instant::now(), whole.then_some(kept));
        if whole {
            self.shared.room.fed();
        }
    }

    /// Empties a pack and lets it go.
    fn empty(&mut self, pack: u32) {
        let Some((search, _)) = &self.reclaim.search else { return };
        let live = search.live();
        let plan = self.appender.reclaim(&|id| live.contains(id), &[pack]).map_err(Into::into);
        let emptied = plan.and_then(|plan| {
            if plan.packs == 0 {
                return Ok(());
            }
            let finished = self.finish_reclaim(true);
            // A fetch that began just now may have found here what is gone: also where the index
            // has forgotten it, and a pack could not be removed.
            self.shared.blobs_dropped();
            finished
        });
        if let Err(err) = emptied {
            let err: crate::Error = err;
            self.note_poison(&err);
            self.drop_batch();
            log::warn!("reclaim failed reason={err}");
            self.end_search(false);
        }
    }

    /// When there is time to give redundant save records up; `None` if there are none.
    pub(super) fn tidy_at(&self) -> Option<Instant> {
        let quiet = self.shared.options.publish_quiet;
        // The search must find the packs that it was told of.
        let may = self.tidying && self.reclaim.search.is_none() && !self.appender.poisoned();
        may.then(|| self.shared.last_change() + quiet)
    }

    /// Empties a pack of which at least half is save records that a version has made redundant.
    /// `false` if there was none. No blob goes, so that every version stays.
    pub(super) fn reclaim_spent(&mut self) -> bool {
        let result = self.appender.reclaim_spent().map_err(Into::into).and_then(|plan| {
            if plan.packs > 0 {
                self.finish_reclaim(false)?;
            }
            Ok(plan.packs > 0)
        });
        result.unwrap_or_else(|err: crate::Error| {
            self.note_poison(&err);
            self.drop_batch();
            log::warn!("reclaim failed reason={err}");
            false
        })
    }

    /// Makes the copies durable and lets the packs go.
    fn finish_reclaim(&mut self, urgent: bool) -> Result<()> {
        let op = self.shared.core.read().op;
        let record = SaveRecord { head: None, op, nodes: Vec::new(), files: Vec::new() };
        if urgent {
            self.appender.save_urgent(&record.encode(), record.kind())?;
        } else {
            self.appender.save(&record.encode(), record.kind())?;
        }
        self.appender.reclaim_finish()?;
        Ok(())
    }

    fn is_low(&self) -> bool {
        self.shared
            .vault
            .space()
            .is_ok_and(|space| space.free_bytes < (space.total_bytes / LOW_PART).min(LOW_BYTES_MAX))
    }
}
