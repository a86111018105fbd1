//! The desk of a bucket that is served: what connections have left there, what each peer is known
//! to have, and what `bucket-sync` does next.
//!
//! Plain data under one lock, which [`Offered`](super::sharing::Offered) takes; nothing here waits.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use cairnfs_mount_core::{Error, FetchProgress, Member, VersionId};
use crossbeam_channel::Sender;

use super::{
    mending::{Mended, Mending},
    message::{Answer, Say, Unseen, Whereabouts},
    said::{Said, Standing},
    session::Session,
    tls::PeerKey,
    turns::Task,
};

/// Versions remembered of one peer that are not asked for again.
const REJECTED_MAX: usize = 64;

/// How often what a peer has refused is asked for less often each time.
const REFUSALS_MAX: u32 = 4;

/// How often it is logged at most that something of one peer was rejected.
const REJECTED_EVERY: Duration = Duration::from_secs(60);

/// Bytes of answers that wait while they are taken as they come; whoever has more waits too.
const ANSWERS_BYTES_MAX: usize = 4 << 20;
/// While they are not: of whoever has more, all are dropped. Twice what is asked for ahead of one peer
/// ([`Window`](super::window::Window)).
const UNTAKEN_BYTES_MAX: usize = 16 << 20;

/// What waits for `bucket-sync`, and what it knows of each peer.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pub(super) closed: bool,
    /// Nothing is fetched of what peers have.
    pub(super) gives_only: bool,
    pub(super) head_changed: bool,
    pub(super) sides: BTreeMap<PeerKey, Side>,
    /// How often the bucket was linked with a peer.
    pub(super) links: u64,
    /// What those have said last with whom the bucket is not shared now, and when they were last
    /// heard.
    pub(super) remembered: BTreeMap<PeerKey, (Said, SystemTime)>,
    /// The connections whose answers are waited for.
    pub(super) receiving: Vec<Arc<Session>>,
    pub(super) taking: Taking,
    /// Those of which an answer was dropped for want of room.
    pub(super) overrun: Vec<Arc<Session>>,
    pub(super) answers: VecDeque<Delivered>,
    pub(super) answers_bytes: usize,
    /// There was room on a connection to ask for more.
    pub(super) may_ask: bool,
    /// Who the members were when that was last looked at.
    pub(super) members: Vec<Member>,
    /// By peer, whatever the connection.
    pub(super) rejected: BTreeMap<PeerKey, VecDeque<VersionId>>,
    /// By peer: when it was last logged that something of it was rejected.
    pub(super) rejected_logged: BTreeMap<PeerKey, Instant>,
    pub(super) transfer: Option<(PeerKey, FetchProgress)>,
    /// Somebody waits for what is damaged here to be fetched.
    pub(super) mend: Vec<Sender<Mended>>,
    /// The mend that waits for its next turn.
    pub(super) mending: Option<Mending>,
    /// Somebody wants to know which of these blobs no peer has.
    pub(super) find: Vec<Inquiry>,
    /// By peer: what failed here with what it has, and when that is tried again. Others go first.
    pub(super) troubles: BTreeMap<PeerKey, (Error, Instant)>,
    /// Who had the last turn; the next in order has the next one.
    pub(super) last_turn: Option<Whose>,
}

/// Whose turn it is, in their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Whose {
    /// That of the mend.
    Mend,
    /// That of a peer with a version that is to be looked at.
    Peer(PeerKey),
}

/// One peer with which the bucket is shared.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) session: Arc<Session>,
    /// What this side calls the bucket on that connection.
    pub(super) number: u32,
    /// Another one once the peer has withdrawn the bucket and offered it again: then no answer comes
    /// any more to what was asked before.
    pub(super) link: u64,
    /// What it has said of what it has, and what is here of that.
    pub(super) said: Said,
    /// The version that was announced to it last.
    pub(super) told: Option<VersionId>,
    /// Whether it was told where the others are, and they where it is.
    pub(super) introduced: bool,
    /// When what it has refused, or was rejected, is asked for again, and how often in a row it was.
    pub(super) again: Option<Instant>,
    pub(super) refusals: u32,
}

/// When answers are taken from the desk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Taking {
    /// By a fetch, as they come.
    AtOnce,
    /// Once what goes on is done, which may be a long merge.
    #[default]
    Later,
}

/// An answer that came.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) session: Arc<Session>,
    pub(super) request: u32,
    pub(super) answer: Answer,
}

/// Blobs of which somebody wants to know which no peer has.
#[derive(Debug)]
pub(super) struct Inquiry {
    pub(super) blobs: Vec<[u8; 32]>,
    pub(super) lacking: Sender<Vec<[u8; 32]>>,
}

/// What `bucket-sync` does next.
#[derive(Debug)]
pub(super) enum Job {
    Notice(Notice),
    /// See whether anything is lacking of what this peer has.
    Look(Side, VersionId),
    /// Fetch what is damaged here from this peer; if from none, all were asked.
    Mend(Mending, Option<Side>),
    /// See which of these blobs none of these peers has.
    Find(Vec<Side>, Inquiry),
    /// How many peers there are has changed between none and some.
    PeersWait(bool),
    Close,
}

/// What is done at once, also while something is fetched.
#[derive(Debug)]
pub(super) enum Notice {
    /// The version or the members may have changed.
    HeadChanged,
    /// Tell this peer where this device stands.
    Tell(Side, VersionId),
    /// Tell this peer where the others are, and them where it is.
    Introduce(Side),
}

/// What ends a wait for an answer.
#[derive(Debug)]
pub(super) enum Heard {
    Answer(Delivered),
    /// More may be asked.
    Room,
    /// Something is to be done before the wait goes on.
    Notice(Notice),
}

/// Why no answer comes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum NoAnswer {
    Closed,
    PeerGone,
    Late,
}

impl Side {
    /// The peer does not give what it says it has. That may be for a moment: it is asked again after
    /// `first`, and after twice as long each time.
    pub(super) fn refused(&mut self, first: Duration) {
        self.again = Some(Instant::now() + first * (1 << self.refusals.min(REFUSALS_MAX)));
        self.refusals += 1;
    }

    /// Tells the peer that everything in its version is here.
    pub(super) fn say_seen(&self, version: VersionId) {
        self.session.say(Say::Seen { bucket: self.number, version });
    }

    /// Tells the peer that its version is not taken.
    pub(super) fn say_unseen(&self, version: VersionId, why: Unseen) {
        self.session.say(Say::Unseen { bucket: self.number, version, why });
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
}

impl Desk {
    pub(super) fn side(&mut self, session: &Session) -> Option<&mut Side> {
        let side = self.sides.get_mut(&session.key);
        side.filter(|side| is(&side.session, session))
    }

    /// What is shared with a peer, if that is what it was then.
    pub(super) fn still(&mut self, side: &Side) -> Option<&mut Side> {
        self.side(&side.session).filter(|now| now.link == side.link)
    }

    /// This version of a peer is not asked for again.
    pub(super) fn reject(&mut self, peer: PeerKey, version: VersionId) {
        let list = self.rejected.entry(peer).or_default();
        list.push_back(version);
        if list.len() > REJECTED_MAX {
            list.pop_front();
        }
    }

    /// Whether it is logged for all to see that something of a peer is rejected now, which it may have
    /// happen as often as it likes.
    pub(super) fn logs_rejected(&mut self, peer: PeerKey, now: Instant) -> bool {
        let last = self.rejected_logged.get(&peer);
        let logs = last.is_none_or(|last| now.duration_since(*last) >= REJECTED_EVERY);
        if logs {
            self.rejected_logged.insert(peer, now);
        }
        logs
    }

    /// The connection, if its answers are waited for.
    pub(super) fn awaited(&mut self, session: &Session) -> Option<Arc<Session>> {
        let receiving = self.receiving.iter().find(|it| is(it, session)).cloned();
        receiving.filter(|_| !self.closed && self.side(session).is_some())
    }

    /// Whether an answer may be put here.
    pub(super) fn has_room(&self) -> bool {
        let max = match self.taking {
            Taking::AtOnce => ANSWERS_BYTES_MAX,
            Taking::Later => UNTAKEN_BYTES_MAX,
        };
        self.answers_bytes <= max
    }

    /// Answers on these connections are waited for, and no others kept.
    pub(super) fn receive_from(&mut self, sessions: Vec<Arc<Session>>) {
        self.receiving = sessions;
        self.answers.retain(|it| self.receiving.iter().any(|one| Arc::ptr_eq(one, &it.session)));
        self.answers_bytes = self.answers.iter().map(|it| it.answer.weight()).sum();
    }

    /// An answer on this connection is dropped, and with it all that it is of.
    pub(super) fn overrun(&mut self, session: Arc<Session>) {
        let mut others = mem::take(&mut self.receiving);
        others.retain(|it| !Arc::ptr_eq(it, &session));
        self.receive_from(others);
        self.overrun.push(session);
    }

    /// Whether something is to be done before this goes on, which is fetched from a peer: for somebody who
    /// waits, or a fetch from another peer. If it is not `slow`, it goes on before another peer brings the
    /// same.
    pub(super) fn is_waited_for(&self, peer: &PeerKey, task: Task, slow: bool) -> bool {
        let mut ready = self.ready(Instant::now());
        let is_next = match task {
            Task::Version(version) => {
                let waits = |(key, side): (&PeerKey, &Side)| {
                    key != peer && (slow || side.said.head != Some(version))
                };
                !self.mend.is_empty() || self.mending.is_some() || ready.any(waits)
            }
            Task::Mend => ready.next().is_some() || (slow && self.sides.len() > 1),
        };
        is_next || !self.find.is_empty()
    }

    pub(super) fn next_job(&mut self, waiting: bool, head: Option<VersionId>) -> Option<Job> {
        if self.closed {
            return Some(Job::Close);
        }
        if let Some(notice) = self.next_notice(head) {
            return Some(Job::Notice(notice));
        }
        if self.mending.is_none() && !self.mend.is_empty() {
            self.mending = Some(Mending::begin(mem::take(&mut self.mend)));
            return self.mend_next();
        }
        if let Some(search) = self.find.pop() {
            return Some(Job::Find(self.sides.values().cloned().collect(), search));
        }
        if self.sides.is_empty() == waiting {
            return Some(Job::PeersWait(!waiting));
        }
        match self.next_turn(Instant::now())? {
            Whose::Mend => self.mend_next(),
            whose @ Whose::Peer(key) => {
                self.last_turn = Some(whose);
                let side = self.sides.get_mut(&key)?;
                side.said.standing = Standing::Open;
                Some(Job::Look(side.clone(), side.said.head?))
            }
        }
    }

    fn mend_next(&mut self) -> Option<Job> {
        let mending = self.mending.take()?;
        self.last_turn = Some(Whose::Mend);
        let side = mending.next_side(&self.sides);
        Some(Job::Mend(mending, side))
    }

    /// What is due at once; `head` is what this device stands on.
    pub(super) fn next_notice(&mut self, head: Option<VersionId>) -> Option<Notice> {
        if mem::take(&mut self.head_changed) {
            return Some(Notice::HeadChanged);
        }
        if let Some(head) = head
            && let Some(side) = self.sides.values_mut().find(|side| side.told != Some(head))
        {
            side.told = Some(head);
            return Some(Notice::Tell(side.clone(), head));
        }
        let side = self.sides.values_mut().find(|side| !side.introduced)?;
        side.introduced = true;
        Some(Notice::Introduce(side.clone()))
    }

    /// Whose turn is the next: that of the mend that waits, or of a peer with a version that is to be
    /// looked at.
    fn next_turn(&self, now: Instant) -> Option<Whose> {
        let mend = self.mending.as_ref().map(|_| Whose::Mend);
        let peers = self.ready(now).map(|(key, _)| Whose::Peer(*key));
        mend.into_iter().chain(peers).min_by_key(|it| (Some(*it) <= self.last_turn, *it))
    }

    fn ready(&self, now: Instant) -> impl Iterator<Item = (&PeerKey, &Side)> {
        self.open().filter(move |it| self.tried_again_at(it).is_none_or(|at| at <= now))
    }

    /// When something is to be tried again that failed here or was refused.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.open().filter_map(|it| self.tried_again_at(&it)).min()
    }

    fn tried_again_at(&self, (key, side): &(&PeerKey, &Side)) -> Option<Instant> {
        match side.said.standing {
            Standing::Refused => side.again,
            _ => self.troubles.get(*key).map(|(_, again)| *again),
        }
    }

    /// What is to be looked at, now or again.
    fn open(&self) -> impl Iterator<Item = (&PeerKey, &Side)> {
        let fetches = !self.gives_only;
        let is_open = move |side: &Side| match side.said.standing {
            Standing::Open => fetches && side.said.head.is_some(),
            Standing::Refused => fetches && side.again.is_some(),
            Standing::Covered | Standing::Apart | Standing::Rejected => false,
        };
        self.sides.iter().filter(move |(_, side)| is_open(side))
    }
}

fn is(one: &Arc<Session>, session: &Session) -> bool {
    std::ptr::eq(&raw const **one, session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_has_rejected_over_and_over_is_logged_now_and_then() {
        let (mut desk, begun) = (Desk::default(), Instant::now());
        let mut logs = |peer, seconds| {
            desk.logs_rejected(PeerKey([peer; 32]), begun + Duration::from_secs(seconds))
        };
        assert_eq!((0..120).filter(|seconds| logs(1, *seconds)).collect::<Vec<_>>(), [0, 60]);
        assert!(logs(2, 119), "of another one it is news");
    }
}
