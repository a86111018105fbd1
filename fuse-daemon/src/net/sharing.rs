//! One bucket that is served, and the desk on which connections leave what concerns it for the
//! thread `bucket-sync`.
//!
//! # Invariants
//!
//! 1. After [`Offered::close`] nothing here uses the bucket.
//! 2. Whoever puts something on the desk waits at most for room, and only with an answer that was
//!    asked for.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use cairnfs_mount_core::{BucketId, FetchProgress, Observer, VersionId};
use crossbeam_channel::{Receiver, Sender, bounded};

use super::{
    message::{Answer, Say, Whereabouts},
    replica::Replica,
    session::Session,
    tls::PeerKey,
};
use crate::{
    home::BucketName,
    order::{self, Condvar, Mutex, RwLock},
};

/// Bytes of answers that wait; whoever has more waits too.
const ANSWERS_BYTES_MAX: usize = 4 << 20;
/// Versions remembered of one peer that are not asked for again.
const REJECTED_MAX: usize = 64;

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
    desk: Mutex<Desk, order::Desk>,
    /// For the thread `bucket-sync`: there is something on the desk.
    bell: Condvar,
    /// For those with an answer: there is room.
    room: Condvar,
}

/// What waits for `bucket-sync`, and what it knows of each peer.
#[derive(Debug, Default)]
struct Desk {
    closed: bool,
    head_changed: bool,
    sides: BTreeMap<PeerKey, Side>,
    /// The connection whose answers are waited for.
    receiving: Option<Arc<Session>>,
    answers: VecDeque<Delivered>,
    answers_bytes: usize,
    /// By peer, whatever the connection.
    rejected: BTreeMap<PeerKey, VecDeque<VersionId>>,
    transfer: Option<(PeerKey, FetchProgress)>,
    /// Somebody waits for what is damaged here to be fetched.
    mend: Vec<Sender<Mended>>,
    /// What failed here, and when it is tried again.
    trouble: Option<(cairnfs_mount_core::Error, Instant)>,
}

/// One peer with which the bucket is shared.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) session: Arc<Session>,
    /// What this side calls the bucket on that connection.
    pub(super) number: u32,
    /// The version it stands on, as it says.
    pub(super) head: Option<VersionId>,
    /// How that compares with what is here.
    pub(super) standing: Standing,
    /// The newest version of ours of which it has everything.
    pub(super) seen: Option<VersionId>,
    /// The version that was announced to it last.
    told: Option<VersionId>,
    /// Whether it was told where the others are, and they where it is.
    introduced: bool,
}

/// A peer's version, seen from here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// To be looked at, or being fetched.
    Open,
    /// Everything in it is here.
    Covered,
    /// It is not believed.
    Rejected,
    /// It cannot be had: the peer does not give it, or nothing can be stored here.
    Refused,
}

/// An answer that came.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) request: u32,
    pub(super) answer: Answer,
}

/// What came of fetching what is damaged here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Mended {
    /// Blobs that came.
    pub(crate) blobs: u64,
    /// Blobs that nobody who was asked has.
    pub(crate) lacking: u64,
    /// Devices that were asked to the end.
    pub(crate) peers: u32,
}

/// What `bucket-sync` does next.
#[derive(Debug)]
pub(super) enum Job {
    /// The version or the members may have changed.
    HeadChanged,
    /// Tell this peer where this device stands.
    Tell(Side, VersionId),
    /// See whether anything is lacking of what this peer has.
    Look(Side, VersionId),
    /// Tell this peer where the others are, and them where it is.
    Introduce(Side),
    /// Fetch what is damaged here.
    Mend(Vec<Side>, Vec<Sender<Mended>>),
    /// How many peers there are has changed between none and some.
    PeersWait(bool),
    Close,
}

/// Why no answer comes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum NoAnswer {
    Closed,
    PeerGone,
    Late,
}

impl Offered {
    pub(super) fn new(
        name: BucketName,
        me: PeerKey,
        inviters: Vec<PeerKey>,
        replica: &Arc<dyn Replica>,
    ) -> Arc<Self> {
        let offered = Arc::new(Self {
            name,
            id: replica.bucket_id(),
            me,
            inviters,
            replica: RwLock::new(Some(Arc::clone(replica))),
            gone: AtomicBool::new(false),
            desk: Mutex::new(Desk { head_changed: true, ..Desk::default() }),
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

    /// Whether a device may have what is in the bucket.
    pub(super) fn trusts(&self, key: &PeerKey) -> bool {
        let member = |replica: &dyn Replica| {
            replica.members().iter().any(|member| member.key == *key)
                || (replica.awaits_first_version() && self.inviters.contains(key))
        };
        *key != self.me && self.with(member).unwrap_or(false)
    }

    /// The devices that may have the bucket, without this one, by key and name.
    pub(super) fn others(&self) -> Vec<(PeerKey, String)> {
        let others = self.with(|replica| {
            let members = replica.members();
            let mut others: Vec<_> =
                members.into_iter().map(|member| (member.key, member.name)).collect();
            if replica.awaits_first_version() {
                others.extend(self.inviters.iter().map(|key| (*key, String::new())));
            }
            others
        });
        let mut others = others.unwrap_or_default();
        others.retain(|(key, _)| *key != self.me);
        others
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

    /// Lets `bucket-sync` end, and those go who wait.
    pub(super) fn leave(&self) {
        let mut desk = self.desk.lock();
        desk.closed = true;
        desk.mend.clear();
        desk.answers.clear();
        drop(desk);
        self.bell.notify_all();
        self.room.notify_all();
    }

    /// The bucket is shared with a peer from now on, unless the connection has ended.
    pub(super) fn link(&self, session: &Arc<Session>, number: u32) {
        let side = Side {
            session: Arc::clone(session),
            number,
            head: None,
            standing: Standing::Open,
            seen: None,
            told: None,
            introduced: false,
        };
        let mut desk = self.desk.lock();
        // Of an ended one `unlink` may have been called; a newer one may have taken its place.
        if session.ended().is_some() {
            return;
        }
        desk.sides.insert(session.key, side);
        drop(desk);
        self.bell.notify_all();
    }

    /// The bucket is no longer shared on this connection.
    pub(super) fn unlink(&self, session: &Session) {
        let mut desk = self.desk.lock();
        if desk.side(session).is_some() {
            desk.sides.remove(&session.key);
        }
        drop(desk);
        self.bell.notify_all();
        self.room.notify_all();
    }

    /// A peer stands on this version.
    pub(super) fn announced(&self, session: &Session, version: VersionId) {
        let mut desk = self.desk.lock();
        let rejected = desk.rejected.get(&session.key).is_some_and(|list| list.contains(&version));
        if let Some(side) = desk.side(session) {
            side.head = Some(version);
            side.standing = if rejected { Standing::Rejected } else { Standing::Open };
        }
        drop(desk);
        self.bell.notify_all();
    }

    /// A peer has everything that is in this version.
    pub(super) fn seen(&self, session: &Session, version: VersionId) {
        if let Some(side) = self.desk.lock().side(session) {
            side.seen = Some(version);
        }
        self.bell.notify_all();
    }

    /// An answer came. Waits for room, unless nobody is there to make it.
    pub(super) fn deliver(&self, session: &Session, request: u32, answer: Answer) {
        let weight = answer.weight();
        let mut desk = self.desk.lock();
        while desk.awaits(session) && desk.answers_bytes > ANSWERS_BYTES_MAX {
            self.room.wait(&mut desk);
        }
        if !desk.awaits(session) {
            return;
        }
        desk.answers_bytes += weight;
        desk.answers.push_back(Delivered { request, answer });
        drop(desk);
        self.bell.notify_all();
    }

    /// Waits for the next answer on this connection.
    pub(super) fn next_answer(
        &self,
        session: &Arc<Session>,
        until: Instant,
    ) -> Result<Delivered, NoAnswer> {
        let mut desk = self.desk.lock();
        loop {
            if desk.closed {
                return Err(NoAnswer::Closed);
            }
            if desk.side(session).is_none() {
                return Err(NoAnswer::PeerGone);
            }
            if let Some(delivered) = desk.answers.pop_front() {
                desk.answers_bytes -= delivered.answer.weight().min(desk.answers_bytes);
                self.room.notify_all();
                return Ok(delivered);
            }
            if self.bell.wait_until(&mut desk, until).timed_out() {
                return Err(NoAnswer::Late);
            }
        }
    }

    /// Waits until there is something to do. `waiting` is what the bucket was told of peers.
    pub(super) fn next_job(&self, waiting: bool) -> Job {
        loop {
            // Asked without the desk's lock. If it changes before the lock is taken, that is on the
            // desk too.
            let head = self.with(|replica| replica.head()).flatten();
            let mut desk = self.desk.lock();
            if let Some(job) = desk.next_job(waiting, head) {
                return job;
            }
            let again = desk.trouble.as_ref().map(|(_, at)| *at);
            match again.filter(|_| desk.open_side().is_some()) {
                Some(at) => {
                    self.bell.wait_until(&mut desk, at);
                }
                None => self.bell.wait(&mut desk),
            }
        }
    }

    /// Answers on this connection are waited for from now on.
    pub(super) fn receive_from(&self, session: &Arc<Session>) {
        self.desk.lock().receiving = Some(Arc::clone(session));
    }

    /// Answers are waited for no longer; those that still come are dropped.
    pub(super) fn stop_receiving(&self) {
        let mut desk = self.desk.lock();
        desk.receiving = None;
        desk.transfer = None;
        desk.answers.clear();
        desk.answers_bytes = 0;
        drop(desk);
        self.room.notify_all();
    }

    /// What came of looking at a peer's version.
    pub(super) fn settle(&self, side: &Side, version: VersionId, standing: Standing) {
        let mut desk = self.desk.lock();
        desk.trouble = None;
        if standing == Standing::Rejected {
            let list = desk.rejected.entry(side.session.key).or_default();
            list.push_back(version);
            if list.len() > REJECTED_MAX {
                list.pop_front();
            }
        }
        if let Some(it) = desk.side(&side.session)
            && it.head == Some(version)
        {
            it.standing = standing;
        }
    }

    /// Something failed here, and is tried again then.
    pub(super) fn set_trouble(&self, trouble: cairnfs_mount_core::Error, again: Instant) {
        self.desk.lock().trouble = Some((trouble, again));
    }

    /// Tries at once what failed here, or could not be had.
    pub(super) fn retry_now(&self) {
        let mut desk = self.desk.lock();
        desk.trouble = None;
        for side in desk.sides.values_mut().filter(|side| side.standing == Standing::Refused) {
            side.standing = Standing::Open;
        }
        drop(desk);
        self.bell.notify_all();
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

    pub(super) fn transfer(&self) -> Option<(PeerKey, FetchProgress)> {
        self.desk.lock().transfer
    }

    pub(super) fn trouble(&self) -> Option<cairnfs_mount_core::Error> {
        self.desk.lock().trouble.as_ref().map(|(trouble, _)| trouble.clone())
    }
}

impl Side {
    /// Tells the peer that everything in its version is here.
    pub(super) fn say_seen(&self, version: VersionId) {
        self.session.say(Say::Seen { bucket: self.number, version });
    }

    /// Tells the peer what this device stands on.
    pub(super) fn say_head(&self, version: VersionId) {
        self.session.say(Say::Head { bucket: self.number, version });
    }

    /// Tells the peer where other members may be found.
    pub(super) fn say_where(&self, others: Vec<Whereabouts>) {
        if !others.is_empty() {
            self.session.say(Say::Where { bucket: self.number, others });
        }
    }

    /// Whether each has what the other one published.
    pub(super) fn has_met(&self, head: Option<VersionId>) -> bool {
        self.standing == Standing::Covered && (head.is_none() || self.seen == head)
    }
}

impl Desk {
    fn side(&mut self, session: &Session) -> Option<&mut Side> {
        let side = self.sides.get_mut(&session.key);
        side.filter(|side| is(&side.session, session))
    }

    fn awaits(&mut self, session: &Session) -> bool {
        let receiving = self.receiving.as_ref().is_some_and(|it| is(it, session));
        receiving && !self.closed && self.side(session).is_some()
    }

    fn next_job(&mut self, waiting: bool, head: Option<VersionId>) -> Option<Job> {
        if self.closed {
            return Some(Job::Close);
        }
        if mem::take(&mut self.head_changed) {
            return Some(Job::HeadChanged);
        }
        if !self.mend.is_empty() {
            let sides = self.sides.values().cloned().collect();
            return Some(Job::Mend(sides, mem::take(&mut self.mend)));
        }
        if self.sides.is_empty() == waiting {
            return Some(Job::PeersWait(!waiting));
        }
        if let Some(head) = head
            && let Some(side) = self.sides.values_mut().find(|side| side.told != Some(head))
        {
            side.told = Some(head);
            return Some(Job::Tell(side.clone(), head));
        }
        if let Some(side) = self.sides.values_mut().find(|side| !side.introduced) {
            side.introduced = true;
            return Some(Job::Introduce(side.clone()));
        }
        let in_trouble = self.trouble.as_ref().is_some_and(|(_, again)| *again > Instant::now());
        let (side, version) = self.open_side().filter(|_| !in_trouble)?;
        Some(Job::Look(side, version))
    }

    fn open_side(&self) -> Option<(Side, VersionId)> {
        let open = self.sides.values().filter(|side| side.standing == Standing::Open);
        open.filter_map(|side| Some((side.clone(), side.head?))).next()
    }
}

fn is(one: &Arc<Session>, session: &Session) -> bool {
    std::ptr::eq(&raw const **one, session)
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
