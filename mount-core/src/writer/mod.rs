//! The writer thread: the only code that saves and publishes.
//!
//! ```text
//!   fuser-0 .. fuser-3 +
//!                      +-- Command --[bounded]--> writer --> Appender: append, one barrier
//!   control -----------+                            |
//!                                                   +--> Done, after the barrier
//! ```
//!
//! One thread, named `writer`. While one barrier runs the next commands queue up; whatever has
//! queued is one group commit. It ends with [`Command::Stop`], or when every handle of the mount is
//! dropped, after a last save and publish.
//!
//! | file, in reading order | has |
//! |---|---|
//! | `inbox`, `schedule` | the way in; when to save and publish |
//! | `save`, `record` | a save, and what it puts into the log |
//! | `publish`, `version` | a version of this device's own |
//! | `recover`, `doubt`, `salvage` | opening again; what is not known behind a save that is missing; a log that has lost all that begins a version |
//! | `merge`, `joining`, `landing` | the five steps of a merge |
//! | `difference`, `knowledge`, `standing`, `stale` | whether theirs can stand beside ours; what ours knows; the record of standing on it; what the kernel must hear |
//! | `anew` | a device that was put back to an older state |
//! | `peers` | what else peers, members and the owner of the key file ask |
//! | `reclaim`, `search`, `live`, `lookout` | getting space back: emptying, finding packs, what must stay, when to look |
//!
//! # Invariants
//!
//! 1. A caller that waits for a save is answered `Ok` only after a barrier that covers all that was
//!    changed before it asked.
//! 2. A save holds the whole tree at one moment, and every content at one moment not before it.
//! 3. No lock is held during a write to the log or a barrier.

mod anew;
mod difference;
mod doubt;
pub(crate) mod inbox;
mod joining;
mod knowledge;
mod landing;
mod live;
mod lookout;
mod merge;
mod peers;
mod publish;
mod reclaim;
pub(crate) mod record;
pub(crate) mod recover;
mod salvage;
pub(crate) mod save;
mod schedule;
mod search;
mod stale;
mod standing;
mod version;

#[cfg(test)]
mod journal_tests;
#[cfg(test)]
mod wake_tests;

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use cairnfs_merge::OpId;
use cairnfs_store::{Appender, BlobId, CheckedBlob, DeviceKey, Secret};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

pub use self::salvage::Salvaged;
use self::{reclaim::Reclaim, schedule::Schedule};
use crate::{
    Done, Error, Fetch, Health, MergeOutcome, Result,
    charter::Charter,
    key_file::{KeyFile, Rewrap},
    shared::Shared,
};

/// Commands taken into one group commit at the most.
const BATCH_COMMANDS_MAX: usize = 1024;

/// So long after the last command zeros are written ahead of the log, if more are wanted: who saves
/// again and again without a pause need not wait for them.
const AHEAD_AFTER: Duration = Duration::from_millis(1);
/// How long after a save that failed the next one begins, if nobody asks for it.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What the writer can be asked to do.
pub(crate) enum Command {
    /// Something has become dirty, and the writer sleeps for too long: the clock is running.
    Dirty,
    /// Make everything durable that was changed before this was sent.
    Save(Done),
    /// Too much is held in memory.
    Relieve,
    /// Somebody was refused space: dropped when some was looked for, or there is no point in it.
    MakeRoom(Sender<Infallible>),
    /// Seal what there is as a version; answers with its id.
    Publish(Sender<Result<[u8; 32]>>),
    /// Do something for a peer or a member, when its turn comes.
    Errand(Errand),
    /// Look at the clock again.
    Wake,
    /// Save, publish and end.
    Stop(Sender<Result<()>>),
}

impl Command {
    /// Says to the caller that waits for it that the writer has ended.
    pub(crate) fn refuse(self) {
        match self {
            // Who waits for room finds that the sender is gone.
            Self::Dirty | Self::Wake | Self::Relieve | Self::MakeRoom(_) => (),
            Self::Save(done) => done(Err(Error::Stopped)),
            Self::Publish(reply) => answer(&reply, Err(Error::Stopped)),
            Self::Errand(errand) => errand.refuse(),
            Self::Stop(reply) => answer(&reply, Ok(())),
        }
    }
}

/// What a charter is to become, under an operation of this device.
pub(crate) type CharterEdit = Box<dyn Fn(&mut Charter, OpId) -> Result<()> + Send>;

/// What peers and members ask for; done one after the other, each after a save.
pub(crate) enum Errand {
    /// Keep what a peer sent.
    Keep(Vec<CheckedBlob>, Sender<Result<()>>),
    /// Keep what a peer sent in the place of what is damaged here.
    Heal(Vec<CheckedBlob>, Sender<Result<()>>),
    /// Merge a version that was fetched.
    Merge(Box<Fetch>, Sender<Result<MergeOutcome>>),
    /// Publish a version with other members or settings.
    Charter(CharterEdit, Sender<Result<()>>),
    /// Keep a secret that another member gave; answers whether it was taken.
    Learn(u16, Secret, Sender<Result<bool>>),
    /// Write the key file under another passphrase.
    Rewrap(Box<Rewrap>, Sender<Result<()>>),
}

impl Errand {
    /// Says to the caller that the writer has ended.
    fn refuse(self) {
        match self {
            Self::Keep(_, reply)
            | Self::Heal(_, reply)
            | Self::Charter(_, reply)
            | Self::Rewrap(_, reply) => answer(&reply, Err(Error::Stopped)),
            Self::Learn(_, _, reply) => answer(&reply, Err(Error::Stopped)),
            Self::Merge(_, reply) => answer(&reply, Err(Error::Stopped)),
        }
    }
}

/// Gives an answer to whoever asked for it, and may have gone.
pub(crate) fn answer<T>(reply: &Sender<T>, answer: T) {
    drop(reply.send(answer));
}

/// The state that belongs to the writer thread alone.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) appender: Appender,
    pub(crate) device: Arc<DeviceKey>,
    key_file: Option<KeyFile>,
    pub(crate) schedule: Schedule,
    waiting: Vec<Done>,
    publishers: Vec<Sender<Result<[u8; 32]>>>,
    errands: VecDeque<Errand>,
    relieve: bool,
    reclaim: Reclaim,
    /// Whether save records may have become redundant that were not looked at since.
    tidying: bool,
    /// The version for the merge of which a secret was begun last, and that secret.
    begun_for: Option<(BlobId, (u16, Secret))>,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        appender: Appender,
        device: Arc<DeviceKey>,
        key_file: Option<KeyFile>,
        journaled: Option<u64>,
    ) -> Self {
        let schedule = Schedule::new(&shared.options, journaled, Instant::now());
        let (waiting, publishers) = (Vec::new(), Vec::new());
        Self {
            shared,
            appender,
            device,
            key_file,
            schedule,
            waiting,
            publishers,
            errands: VecDeque::new(),
            relieve: false,
            reclaim: Reclaim::default(),
            tidying: false,
            begun_for: None,
        }
    }

    /// The thread's life.
    pub(crate) fn run(mut self, inbox: &Receiver<Command>) {
        loop {
            self.schedule.hurry(self.shared.is_awaited());
            let deadline = self.sleeps_until();
            let first = self.reclaim.next_command(inbox, deadline);
            self.heed_changes(self.shared.writer_wakes());
            let mut stop = None;
            match first {
                Ok(first) => {
                    // Whatever queued up behind it while the last barrier ran joins this save.
                    let queued = inbox.try_iter().take(BATCH_COMMANDS_MAX);
                    for command in std::iter::once(first).chain(queued) {
                        stop = self.take(command).or(stop);
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.write_ahead(),
                // Every handle of the mount is gone: nobody can be told, but nothing may be lost.
                Err(RecvTimeoutError::Disconnected) => {
                    if let Err(err) = self.finish() {
                        log::error!("last-save failed reason={err}");
                    }
                    return;
                }
            }
            if let Some(reply) = stop {
                self.run_errands(|| false);
                let result = self.finish();
                self.refuse_rest(inbox);
                answer(&reply, result);
                return;
            }
            self.work(inbox);
            // One pack at a time: whoever comes meanwhile is served before the next.
            if inbox.is_empty() && self.tidy_at().is_some_and(|at| at <= Instant::now()) {
                self.tidying = self.reclaim_spent();
            }
        }
    }

    /// When to wake up though nobody asks for anything. A change that comes later wakes the writer
    /// only if it cannot wait for that.
    fn sleeps_until(&mut self) -> Option<Instant> {
        let deadline = |this: &Self| {
            let ahead = this.appender.wants_ahead().then(|| Instant::now() + AHEAD_AFTER);
            let due = this.schedule.deadline(this.shared.last_change());
            let room = this.reclaim.due(this.shared.is_fetching());
            due.into_iter().chain(ahead).chain(this.tidy_at()).chain(room).min()
        };
        self.heed_changes(self.shared.writer_sleeps(deadline(self)));
        deadline(self)
    }

    /// Starts the clock if something has become dirty.
    fn heed_changes(&mut self, dirty_since: Option<Instant>) {
        if let Some(since) = dirty_since {
            self.schedule.dirty(since);
        }
    }

    /// Sorts a command into what is to be done; a request to stop comes back.
    fn take(&mut self, command: Command) -> Option<Sender<Result<()>>> {
        match command {
            // It has been heeded by now.
            Command::Dirty => (),
            Command::Save(done) => self.waiting.push(done),
            Command::Relieve => self.relieve = true,
            Command::MakeRoom(reply) => self.reclaim.refused(reply),
            Command::Publish(reply) => self.publishers.push(reply),
            Command::Errand(errand) => self.errands.push_back(errand),
            Command::Wake => (),
            Command::Stop(reply) => return Some(reply),
        }
        None
    }

    /// Does what is due.
    fn work(&mut self, inbox: &Receiver<Command>) {
        let now = Instant::now();
        let last_change = self.shared.last_change();
        // What older versions alone hold can go only once a version without it is the newest.
        let wants_publish = !self.publishers.is_empty() || self.wants_room();
        // What is unsaved may take less than it could: much of it may be here already.
        let wants_save = !self.waiting.is_empty() || self.reclaim.is_refused() || wants_publish;
        if wants_save || self.schedule.save_due(now) {
            let result = self.save();
            for done in self.waiting.drain(..) {
                done(result.clone());
            }
        }
        if std::mem::take(&mut self.relieve) || self.shared.room.is_pressed() {
            self.relieve();
        }
        self.run_errands(|| !inbox.is_empty());
        if wants_publish || self.schedule.publish_due(now, last_change) {
            let result = self.publish();
            self.tidying = result.is_ok();
            for reply in self.publishers.drain(..) {
                answer(&reply, result.clone());
            }
            self.search_if_low(now);
        }
        self.search_on();
    }

    /// Prepares the log for the saves to come, as nobody waits for anything.
    fn write_ahead(&mut self) {
        if let Err(err) = self.appender.write_ahead() {
            self.note_failure(&err.into());
        }
    }

    /// Frees memory until writers may go on, and lets them.
    fn relieve(&mut self) {
        self.shared.room.relief_begins();
        // A save folds what is large; what is small is freed only by a version that holds it.
        let mut result = Ok(());
        if self.shared.room.is_pressed() {
            result = self.save();
        }
        if self.shared.room.is_pressed() && result.is_ok() {
            result = self.publish().map(drop);
        }
        self.note_stuck();
        self.shared.room.release_throttled(&result);
    }

    /// Takes note of what cannot be freed, so that it is not tried again for every command.
    fn note_stuck(&self) {
        let room = &self.shared.room;
        if room.is_stuck() || room.is_pressed() {
            let core = self.shared.core.read();
            room.note_stuck(core.files.values().map(|file| file.lock().stuck_bytes()).sum());
        }
    }

    /// The last save and version. Fails if something is in no save: without the version nothing is lost, and
    /// the next mount makes it.
    fn finish(&mut self) -> Result<()> {
        let saved = self.save();
        for done in self.waiting.drain(..) {
            done(saved.clone());
        }
        saved?;
        let published = self.publish();
        for reply in self.publishers.drain(..) {
            answer(&reply, published.clone());
        }
        match published {
            Err(err) if self.shared.core.read().unsaved_changes() == 0 => {
                log::warn!("stop version=no reason={err}");
                Ok(())
            }
            published => published.map(drop),
        }
    }

    /// Does what peers and members asked for: one thing at least, and the rest when nobody else waits.
    /// Of what is fetched there may be many MiB, and a save that is waited for goes between.
    fn run_errands(&mut self, others_wait: impl Fn() -> bool) {
        while let Some(errand) = self.errands.pop_front() {
            match errand {
                Errand::Keep(blobs, reply) => {
                    let result = self.keep(&blobs);
                    answer(&reply, self.heed(result));
                }
                Errand::Heal(blobs, reply) => {
                    let result = self.heal(&blobs);
                    answer(&reply, self.heed(result));
                }
                Errand::Merge(fetch, reply) => {
                    let result = self.merge(&fetch);
                    self.reclaim.merged();
                    self.shared.note_rights(&self.shared.core.read());
                    answer(&reply, self.heed(result));
                }
                Errand::Charter(change, reply) => {
                    let result = self.change_charter(&change);
                    answer(&reply, self.heed(result));
                }
                Errand::Learn(epoch, secret, reply) => answer(&reply, self.learn(epoch, secret)),
                Errand::Rewrap(rewrap, reply) => answer(&reply, self.rewrap(*rewrap)),
            }
            if others_wait() {
                return;
            }
        }
    }

    /// Takes note if an errand failed for the disk's sake, and not for its own.
    fn heed<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(err) = &result
            && (self.appender.poisoned() || matches!(err, Error::NoSpace))
        {
            self.note_failure(err);
        }
        result
    }

    /// Answers what was sent while the last save ran, and whatever may still come.
    fn refuse_rest(&self, inbox: &Receiver<Command>) {
        self.shared.stopped();
        inbox.try_iter().for_each(Command::refuse);
    }

    /// Takes note of how an attempt to write ended.
    fn note<T>(&mut self, result: &Result<T>) {
        match result {
            Ok(_) => self.note_written(),
            Err(err) => self.note_failure(err),
        }
    }

    fn note_written(&self) {
        self.shared.set_health(Health::Good);
    }

    /// Takes note if the log is poisoned, by `err` unless that is known already. Whoever meets that
    /// must: nothing that is changed from then on can be saved.
    fn note_poison(&mut self, err: &Error) {
        if self.appender.poisoned() {
            if !matches!(self.shared.health(), Health::Poisoned { .. }) {
                log::error!("poisoned reason={err}");
                self.shared.set_health(Health::Poisoned { reason: err.to_string() });
            }
            self.schedule.give_up();
        }
    }

    fn note_failure(&mut self, err: &Error) {
        if self.appender.poisoned() {
            self.note_poison(err);
        } else if matches!(err, Error::NoSpace) {
            self.shared.set_health(Health::NoSpace);
            self.shared.room.look_again();
            self.schedule.retry(Instant::now() + RETRY_AFTER);
        } else {
            log::error!("save failed reason={err}");
            self.schedule.retry(Instant::now() + RETRY_AFTER);
        }
    }
}

impl Drop for Writer {
    /// However it ends, nobody waits for memory that nobody frees any more.
    fn drop(&mut self) {
        self.shared.room.close();
    }
}
