//! The desk of a bucket that is served: what connections have left there, what each peer is known
//! to have, and what `bucket-sync` does next.
//!
//! Plain data under one lock, which [`Offered`](super::sharing::Offered) takes; nothing here waits.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::Arc,
    time::{Instant, SystemTime},
};

use cairnfs_mount_core::{Error, FetchProgress, VersionId};
use crossbeam_channel::Sender;

use super::{
    message::{Answer, Say, Unseen, Whereabouts},
    said::{Said, Standing},
    session::Session,
    tls::PeerKey,
};

/// Versions remembered of one peer that are not asked for again.
const REJECTED_MAX: usize = 64;

/// What waits for `bucket-sync`, and what it knows of each peer.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pub(super) closed: bool,
    /// Nothing is fetched of what peers have.
    pub(super) gives_only: bool,
    pub(super) head_changed: bool,
    pub(super) sides: BTreeMap<PeerKey, Side>,
    /// What those have said last with whom the bucket is not shared now, and when they were last
    /// heard.
    pub(super) remembered: BTreeMap<PeerKey, (Said, SystemTime)>,
    /// The connection whose answers are waited for.
    pub(super) receiving: Option<Arc<Session>>,
    pub(super) answers: VecDeque<Delivered>,
    pub(super) answers_bytes: usize,
    /// By peer, whatever the connection.
    pub(super) rejected: BTreeMap<PeerKey, VecDeque<VersionId>>,
    pub(super) transfer: Option<(PeerKey, FetchProgress)>,
    /// Somebody waits for what is damaged here to be fetched.
    pub(super) mend: Vec<Sender<Mended>>,
    /// Somebody wants to know which of these blobs no peer has.
    pub(super) find: Vec<Inquiry>,
    /// By peer: what failed here with what it has, and when that is tried again. Others go first.
    pub(super) troubles: BTreeMap<PeerKey, (Error, Instant)>,
    /// Whose version was looked at last; the next in order has its turn.
    pub(super) looked_at: Option<PeerKey>,
}

/// One peer with which the bucket is shared.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) session: Arc<Session>,
    /// What this side calls the bucket on that connection.
    pub(super) number: u32,
    /// What it has said of what it has, and what is here of that.
    pub(super) said: Said,
    /// The version that was announced to it last.
    pub(super) told: Option<VersionId>,
    /// Whether it was told where the others are, and they where it is.
    pub(super) introduced: bool,
}

/// An answer that came.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) request: u32,
    pub(super) answer: Answer,
}

/// Blobs of which somebody wants to know which no peer has.
#[derive(Debug)]
pub(super) struct Inquiry {
    pub(super) blobs: Vec<[u8; 32]>,
    pub(super) lacking: Sender<Vec<[u8; 32]>>,
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
    /// See which of these blobs none of these peers has.
    Find(Vec<Side>, Inquiry),
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

impl Side {
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

    /// This version of a peer is not asked for again.
    pub(super) fn reject(&mut self, peer: PeerKey, version: VersionId) {
        let list = self.rejected.entry(peer).or_default();
        list.push_back(version);
        if list.len() > REJECTED_MAX {
            list.pop_front();
        }
    }

    pub(super) fn awaits(&mut self, session: &Session) -> bool {
        let receiving = self.receiving.as_ref().is_some_and(|it| is(it, session));
        receiving && !self.closed && self.side(session).is_some()
    }

    pub(super) fn next_job(&mut self, waiting: bool, head: Option<VersionId>) -> Option<Job> {
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
        if let Some(search) = self.find.pop() {
            return Some(Job::Find(self.sides.values().cloned().collect(), search));
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
        let (side, version) = self.next_open(Instant::now())?;
        self.looked_at = Some(side.session.key);
        Some(Job::Look(side, version))
    }

    /// The next peer with a version that is to be looked at, in turn.
    fn next_open(&self, now: Instant) -> Option<(Side, VersionId)> {
        let mut ready: Vec<_> = self
            .open()
            .filter(|(key, _)| self.tried_again_at(key).is_none_or(|at| at <= now))
            .collect();
        ready.sort_by_key(|(key, _)| (Some(**key) <= self.looked_at, **key));
        let (_, side) = ready.first()?;
        Some(((*side).clone(), side.said.head?))
    }

    /// When something is to be tried again that failed here.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.open().filter_map(|(key, _)| self.tried_again_at(key)).min()
    }

    fn tried_again_at(&self, key: &PeerKey) -> Option<Instant> {
        self.troubles.get(key).map(|(_, again)| *again)
    }

    fn open(&self) -> impl Iterator<Item = (&PeerKey, &Side)> {
        let fetches = !self.gives_only;
        let is_open =
            move |said: &Said| fetches && said.standing == Standing::Open && said.head.is_some();
        self.sides.iter().filter(move |(_, side)| is_open(&side.said))
    }
}

fn is(one: &Arc<Session>, session: &Session) -> bool {
    std::ptr::eq(&raw const **one, session)
}
