//! One bucket that is served, with the [desk](super::desk) on which connections leave what concerns
//! it for the thread `bucket-sync`.
//!
//! # Invariants
//!
//! 1. After [`Offered::close`] nothing here uses the bucket.
//! 2. Whoever puts something on the desk waits at most for room, and only with an answer that was
//!    asked for, and while answers are taken as they come.

mod members;
mod outcomes;

use std::{
    mem,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use cairnfs_mount_core::{BucketId, FetchProgress, Observer, VersionId};
use crossbeam_channel::{Receiver, bounded};

use super::{
    desk::{Delivered, Desk, Heard, Inquiry, Job, NoAnswer, Side, Taking},
    mending::{Mended, Mending},
    message::{Answer, Unseen},
    replica::Replica,
    report::Known,
    said::{Said, Standing},
    session::Session,
    tls::PeerKey,
    turns::Task,
};
use crate::{
    home::BucketName,
    order::{self, Condvar, Mutex, RwLock},
};

/// What this device does with a bucket that it serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Serving {
    /// Gives what is here, and fetches what is elsewhere.
    Both,
    /// Gives what is here, and changes nothing.
    GivesOnly,
}

/// See the module's doc.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) name: BucketName,
    pub(super) id: BucketId,
    me: PeerKey,
    /// Who invited this device, as long as the first version has not come.
    pub(super) inviters: Vec<PeerKey>,
    replica: RwLock<Option<Arc<dyn Replica>>, order::Offered>,
    /// Whether that is none: told without a lock that is held while the bucket is used.
    gone: AtomicBool,
    /// Whether that is about to be so: whoever is at it for long ends it.
    leaving: Arc<AtomicBool>,
    desk: Mutex<Desk, order::Desk>,
    /// For the thread `bucket-sync`: there is something on the desk.
    bell: Condvar,
    /// For those with an answer: there is room.
    room: Condvar,
}

impl Offered {
    pub(super) fn new(
        name: BucketName,
        me: PeerKey,
        inviters: Vec<PeerKey>,
        replica: &Arc<dyn Replica>,
        serving: Serving,
    ) -> Arc<Self> {
        let gives_only = serving == Serving::GivesOnly;
        let offered = Arc::new(Self {
            name,
            id: replica.bucket_id(),
            me,
            inviters,
            replica: RwLock::new(Some(Arc::clone(replica))),
            gone: AtomicBool::new(false),
            leaving: Arc::default(),
            desk: Mutex::new(Desk { head_changed: true, gives_only, ..Desk::default() }),
            bell: Condvar::new(),
            room: Condvar::new(),
        });
        replica.observe(Arc::new(Watch(Arc::downgrade(&offered))));
        offered
    }

    /// For the log.
    pub(super) fn short_id(&self) -> String {
        crate::values::hex(&self.id.0[..4])
    }

    /// Calls `use_it` with the bucket, unless it is served no longer.
    pub(super) fn with<T>(&self, use_it: impl FnOnce(&dyn Replica) -> T) -> Option<T> {
        self.replica.read().as_deref().map(use_it)
    }

    /// Ends the use of the bucket: invariant 1. The last act of `bucket-sync`.
    pub(super) fn close(&self) {
        *self.replica.write() = None;
        self.gone.store(true, Ordering::Release);
    }

    /// Whether nothing here uses the bucket any more.
    pub(super) fn is_closed(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Turns true with [`Offered::leave`].
    pub(super) fn leaving(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.leaving)
    }

    /// Lets `bucket-sync` end, and those go who wait.
    pub(super) fn leave(&self) {
        // Nothing else is ordered by it.
        self.leaving.store(true, Ordering::Relaxed);
        let mut desk = self.desk.lock();
        desk.closed = true;
        desk.mend.clear();
        desk.mending = None;
        desk.find.clear();
        desk.answers.clear();
        drop(desk);
        self.bell.notify_all();
        self.room.notify_all();
    }

    /// The bucket is shared with a peer from now on, unless the connection has ended.
    pub(super) fn link(&self, session: &Arc<Session>, number: u32) {
        let mut side = Side {
            session: Arc::clone(session),
            number,
            link: 0,
            said: Said::default(),
            told: None,
            introduced: false,
            again: None,
            refusals: 0,
        };
        let mut desk = self.desk.lock();
        // Of an ended one `unlink` may have been called; a newer one may have taken its place.
        if session.ended().is_some() {
            return;
        }
        desk.links += 1;
        side.link = desk.links;
        desk.sides.insert(session.key, side);
        drop(desk);
        self.bell.notify_all();
    }

    /// The bucket is no longer shared on this connection.
    pub(super) fn unlink(&self, session: &Session) {
        let mut guard = self.desk.lock();
        let desk = &mut *guard;
        if desk.side(session).is_some()
            && let Some(side) = desk.sides.remove(&session.key)
        {
            desk.troubles.remove(&session.key);
            // What was known before is not refuted by a connection on which nothing was said.
            if side.said.is_something() {
                desk.remembered.insert(session.key, (side.said, session.last_heard()));
            }
        }
        drop(guard);
        self.bell.notify_all();
        self.room.notify_all();
    }

    /// A peer stands on this version.
    pub(super) fn announced(&self, session: &Session, version: VersionId) {
        let mut desk = self.desk.lock();
        let rejected = desk.rejected.get(&session.key).is_some_and(|list| list.contains(&version));
        let mut side = desk.side(session);
        if let Some(side) = &mut side {
            side.said.head = Some(version);
            side.said.standing = if rejected { Standing::Rejected } else { Standing::Open };
        }
        let side = side.filter(|_| rejected).cloned();
        drop(desk);
        if let Some(side) = side {
            // It is not looked at again, and the peer may not remember.
            side.say_unseen(version, Unseen::Rejected);
        }
        self.bell.notify_all();
    }

    /// A peer has everything that is in this version.
    pub(super) fn seen(&self, session: &Session, version: VersionId) {
        if let Some(side) = self.desk.lock().side(session) {
            side.said.seen = Some(version);
            side.said.unseen = None;
        }
        self.bell.notify_all();
    }

    /// A peer does not take this version.
    pub(super) fn unseen(&self, session: &Session, version: VersionId, why: Unseen) {
        if let Some(side) = self.desk.lock().side(session) {
            side.said.unseen = Some((version, why));
        }
    }

    /// An answer came. Waits for room if answers are taken as they come. If not, one for which there is
    /// none is dropped: what is behind it on its connection may be of other buckets.
    pub(super) fn deliver(&self, session: &Session, request: u32, answer: Answer) {
        let weight = answer.weight();
        let mut desk = self.desk.lock();
        let session = loop {
            let Some(session) = desk.awaited(session) else { return };
            if desk.has_room() {
                break session;
            }
            if desk.taking == Taking::Later {
                return desk.overrun(session);
            }
            self.room.wait(&mut desk);
        };
        desk.answers_bytes += weight;
        desk.answers.push_back(Delivered { session, request, answer });
        drop(desk);
        self.bell.notify_all();
    }

    /// There is room on a connection to ask for more.
    pub(super) fn may_ask(&self) {
        self.desk.lock().may_ask = true;
        self.bell.notify_all();
    }

    /// Waits for the next answer, or for something that is due at once, as long as the bucket is shared
    /// with this peer. Answers that came before that ended are had too.
    pub(super) fn next_answer(&self, side: &Side, until: Instant) -> Result<Heard, NoAnswer> {
        loop {
            let head = self.head();
            let mut desk = self.desk.lock();
            if desk.closed {
                return Err(NoAnswer::Closed);
            }
            if let Some(notice) = desk.next_notice(head) {
                return Ok(Heard::Notice(notice));
            }
            if mem::take(&mut desk.may_ask) {
                return Ok(Heard::Room);
            }
            if let Some(delivered) = desk.answers.pop_front() {
                desk.answers_bytes -= delivered.answer.weight().min(desk.answers_bytes);
                self.room.notify_all();
                return Ok(Heard::Answer(delivered));
            }
            if desk.still(side).is_none() {
                return Err(NoAnswer::PeerGone);
            }
            if self.bell.wait_until(&mut desk, until).timed_out() {
                return Err(NoAnswer::Late);
            }
        }
    }

    /// Waits until there is something to do. `waiting` is what the bucket was told of peers.
    pub(super) fn next_job(&self, waiting: bool) -> Job {
        loop {
            let head = self.head();
            let mut desk = self.desk.lock();
            if let Some(job) = desk.next_job(waiting, head) {
                return job;
            }
            match desk.next_try() {
                Some(at) => {
                    self.bell.wait_until(&mut desk, at);
                }
                None => self.bell.wait(&mut desk),
            }
        }
    }

    /// What this device stands on, to be asked without the desk's lock. If it changes before that
    /// lock is taken, that is on the desk too.
    fn head(&self) -> Option<VersionId> {
        self.with(|replica| replica.head()).flatten()
    }

    /// Answers on these connections are waited for from now on, and taken then. Those on others are
    /// dropped, also if they have come. Says of which connections some were dropped since this was
    /// last called.
    pub(super) fn receive_from(
        &self,
        sessions: Vec<Arc<Session>>,
        taking: Taking,
    ) -> Vec<Arc<Session>> {
        let mut desk = self.desk.lock();
        desk.taking = taking;
        desk.receive_from(sessions);
        let overrun = mem::take(&mut desk.overrun);
        drop(desk);
        self.room.notify_all();
        overrun
    }

    /// Whether this is still to be fetched from the peer, and asked for as it was then.
    pub(super) fn is_open(&self, side: &Side, task: Task) -> bool {
        let mut desk = self.desk.lock();
        let side = desk.still(side);
        side.is_some_and(|it| task == Task::Mend || it.said.standing == Standing::Open)
    }

    /// Whether a fetch from a peer should stand back after its turn; `slow` if it brings little.
    pub(super) fn is_waited_for(&self, peer: &PeerKey, task: Task, slow: bool) -> bool {
        self.desk.lock().is_waited_for(peer, task, slow)
    }

    /// A mend has another turn.
    pub(super) fn mend_on(&self, mending: Mending) {
        let mut desk = self.desk.lock();
        if !desk.closed {
            desk.mending = Some(mending);
        }
    }

    /// Has what is damaged here fetched; hears what came of it, or nothing if the bucket is served
    /// no longer.
    pub(super) fn mend(&self) -> Receiver<Mended> {
        let (tell, told) = bounded(1);
        let mut desk = self.desk.lock();
        if !desk.closed {
            desk.mend.push(tell);
        }
        drop(desk);
        self.bell.notify_all();
        told
    }

    /// Has peers asked which of these blobs they have; hears which none has, or nothing if the
    /// bucket is served no longer.
    pub(super) fn find(&self, blobs: Vec<[u8; 32]>) -> Receiver<Vec<[u8; 32]>> {
        let (lacking, told) = bounded(1);
        let mut desk = self.desk.lock();
        if !desk.closed {
            desk.find.push(Inquiry { blobs, lacking });
        }
        drop(desk);
        self.bell.notify_all();
        told
    }

    /// What is being fetched.
    pub(super) fn set_transfer(&self, transfer: Option<(PeerKey, FetchProgress)>) {
        self.desk.lock().transfer = transfer;
    }

    /// The version or the members have changed, or may have.
    pub(super) fn head_changed(&self) {
        self.desk.lock().head_changed = true;
        self.bell.notify_all();
    }

    /// What is known of the peers now.
    pub(super) fn sides(&self) -> Vec<Side> {
        self.desk.lock().sides.values().cloned().collect()
    }

    /// What a device has said last of the bucket, and when.
    pub(super) fn last_said(&self, peer: &PeerKey) -> (Known, Said) {
        let desk = self.desk.lock();
        match (desk.sides.get(peer), desk.remembered.get(peer)) {
            (Some(side), _) => (Known::Now, side.said.clone()),
            (None, Some((said, at))) => (Known::Then((*at).into()), said.clone()),
            (None, None) => (Known::Never, Said::default()),
        }
    }

    pub(super) fn transfer(&self) -> Option<(PeerKey, FetchProgress)> {
        self.desk.lock().transfer
    }
}

/// Rings when the bucket has a new version. Called by its writer, which must not wait: the desk's
/// lock is never held for long, and never while the bucket is called.
struct Watch(Weak<Offered>);

impl Observer for Watch {
    fn head_changed(&self, _head: VersionId) {
        if let Some(offered) = self.0.upgrade() {
            offered.head_changed();
        }
    }
}
