//! One connection to a device that is a member of something served here.
//!
//! ```text
//!   socket --> peer-reads --+-- offers, heads --> reconcile, Offered's desk
//!                           +-- answers --------> Offered's desk (waits there if it is full)
//!                           +-- requests -------> Outbox (refused if there are too many)
//!   socket <-- peer-writes <---- Outbox <-------- anybody
//! ```
//!
//! The thread that reads never waits for the one that writes, so that two devices that give each
//! other much cannot lock each other up.
//!
//! # Invariants
//!
//! 1. A bucket is shared on a connection only if the peer's key is that of a member and the peer
//!    has shown that it has the bucket's secret.
//! 2. What a peer asks for is given only if it is a member at that moment.
//! 3. What a peer makes this device keep in memory is bounded, whatever it sends; of versions that
//!    were missed that is the names, of so many as there may be (`VERSIONS_MAX` in mount-core).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::SystemTime,
};

use cairnfs_mount_core::BucketId;

use super::{
    answering,
    asked::Asked,
    frame,
    link::{Incoming, Link, LinkError, Patience},
    message::{
        ANSWER_BYTES_MAX, Admission, Answer, Ask, Instance, OFFERS_MAX, SAY_BYTES_MAX, Say,
        WHERE_MAX, Whereabouts,
    },
    outbox::{Next, Outbox, Request},
    removal,
    sharing::Offered,
    timing::Timing,
    tls::PeerKey,
};
use crate::order::{self, Mutex};

/// What both sides of a connection derive from its keys, and nobody else can.
pub(super) type Challenge = [u8; 32];

/// See the module's doc.
pub(super) struct Session {
    pub(super) key: PeerKey,
    pub(super) address: SocketAddr,
    /// Whether this device made the connection.
    pub(super) dialled: bool,
    /// The process on the other side.
    pub(super) instance: Instance,
    pub(super) since: SystemTime,
    link: Link,
    outbox: Outbox,
    challenge: Challenge,
    table: Mutex<Table, order::Offers>,
    asked: Mutex<Asked<Offered>, order::Asked>,
    /// Where other devices are, as the peer says: some may become members here only later.
    whereabouts: Mutex<BTreeMap<PeerKey, Vec<SocketAddr>>, order::Whereabouts>,
    /// Why it ended.
    ended: Mutex<Option<Ended>, order::Ended>,
    heard: Mutex<SystemTime, order::Heard>,
}

/// Short: buckets and connections name each other.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({}, dialled: {})", self.key, self.dialled)
    }
}

/// How a connection ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    /// As somebody here wanted; no reason to worry.
    Here(&'static str),
    /// The other side has gone, as far as can be told in good order.
    Gone,
    /// Something went wrong: what, in plain words.
    Wrong(String),
}

/// Who wants to know what is heard on a connection.
pub(super) trait Ears {
    /// The other side offers something else.
    fn offers_changed(&self);
    /// A device may be at one of these addresses.
    fn hinted_at(&self, device: &PeerKey, addresses: &[SocketAddr]);
    /// The other side says that this device was removed from the bucket with this mark.
    fn removed(&self, mark: [u8; 32]);
    /// The other side has answered something.
    fn answered(&self);
}

/// Which buckets are offered on a connection.
#[derive(Debug, Default)]
struct Table {
    next: u32,
    /// What this side offers, by its numbers.
    ours: BTreeMap<u32, Arc<Offered>>,
    /// What the other side offers, by its numbers: the mark, and the bucket if it is shared.
    theirs: BTreeMap<u32, ([u8; 32], Option<Arc<Offered>>)>,
    /// From what the other side was removed, as it has been told.
    removed_from: BTreeSet<BucketId>,
}

/// What a connection was found to be before it became a session.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) key: PeerKey,
    pub(super) address: SocketAddr,
    pub(super) dialled: bool,
    pub(super) link: Link,
    pub(super) incoming: Incoming,
    pub(super) challenge: Challenge,
}

impl Session {
    pub(super) fn new(opened: Opened, instance: Instance) -> (Arc<Self>, Incoming) {
        let Opened { key, address, dialled, link, incoming, challenge } = opened;
        let session = Self {
            key,
            address,
            dialled,
            instance,
            since: SystemTime::now(),
            link,
            outbox: Outbox::default(),
            challenge,
            table: Mutex::default(),
            asked: Mutex::default(),
            whereabouts: Mutex::default(),
            ended: Mutex::new(None),
            heard: Mutex::new(SystemTime::now()),
        };
        (Arc::new(session), incoming)
    }

    /// Answers the knock: the first thing that is said, before there is a thread that writes.
    pub(super) fn greet_with(&self, admission: &Admission) {
        if let Err(err) = self.link.send(&frame::encode(admission)) {
            self.end(Ended::Wrong(crate::exit::plain(&err)));
        }
    }

    /// What both sides have agreed on, and nobody else knows.
    pub(super) fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// What shows the other side that a bucket's secret is known here.
    fn our_mark(&self, offered: &Offered) -> Option<[u8; 32]> {
        self.mark(offered, self.dialled)
    }

    /// What the other side has to show for it.
    fn their_mark(&self, offered: &Offered) -> Option<[u8; 32]> {
        self.mark(offered, !self.dialled)
    }

    /// Each direction has a mark of its own: what one side says, the other cannot repeat.
    fn mark(&self, offered: &Offered, by_dialler: bool) -> Option<[u8; 32]> {
        let mut challenge = self.challenge.to_vec();
        challenge.push(u8::from(by_dialler));
        offered.with(|replica| replica.recognise(&challenge))
    }

    /// Brings what is shared on this connection in line with what is served, who is a member and
    /// what the other side offers. Says whether anything is offered.
    pub(super) fn reconcile(self: &Arc<Self>, served: &dyn Fn() -> Vec<Arc<Offered>>) -> bool {
        let mut guard = self.table.lock();
        let table = &mut *guard;
        // Asked here: of two at once the later one knows what the other one did.
        let served = served();
        let allowed: Vec<_> = served.iter().filter(|one| one.trusts(&self.key)).collect();
        let is_allowed = |one: &Arc<Offered>| allowed.iter().any(|it| Arc::ptr_eq(it, one));
        table.ours.retain(|number, offered| {
            let keep = is_allowed(offered);
            if !keep {
                self.say(Say::Withdraw { bucket: *number });
            }
            keep
        });
        for (_, shared) in table.theirs.values_mut() {
            if let Some(offered) = shared.take_if(|offered| !is_allowed(offered)) {
                offered.unlink(self);
            }
        }
        for offered in &served {
            if !offered.has_removed(&self.key) {
                table.removed_from.remove(&offered.id);
            } else if let Some(mark) = removal::mark(offered, &self.challenge)
                && table.removed_from.insert(offered.id)
            {
                self.say(Say::Removed { mark });
            }
        }
        for offered in &allowed {
            if table.ours.values().any(|one| Arc::ptr_eq(one, offered)) {
                continue;
            }
            let Some(mark) = self.our_mark(offered) else { continue };
            let bucket = table.next;
            table.next = table.next.wrapping_add(1);
            table.ours.insert(bucket, Arc::clone(offered));
            self.say(Say::Offer { bucket, mark });
        }
        for (bucket, offered) in &table.ours {
            let linked = |(_, shared): &([u8; 32], Option<Arc<Offered>>)| {
                shared.as_ref().is_some_and(|it| Arc::ptr_eq(it, offered))
            };
            if table.theirs.values().any(linked) {
                continue;
            }
            let Some(expected) = self.their_mark(offered) else { continue };
            if let Some((_, shared)) = table.theirs.values_mut().find(|(mark, _)| *mark == expected)
            {
                *shared = Some(Arc::clone(offered));
                offered.link(self, *bucket);
            }
        }
        !table.ours.is_empty()
    }

    /// The bucket that the other side calls by this number, if it is shared.
    fn shared(&self, bucket: u32) -> Option<Arc<Offered>> {
        self.table.lock().theirs.get(&bucket).and_then(|(_, shared)| shared.clone())
    }

    /// Says something, or ends the connection if too much waits to be said already.
    pub(super) fn say(&self, say: Say) {
        if self.outbox.say(say).is_err() {
            self.end(Ended::Wrong("it takes too little of what is said to it".into()));
        }
    }

    /// Asks for something of a bucket that this side calls `bucket`; the answer goes to the
    /// bucket's desk under the number that is returned. Asks nothing if as much as may be was asked
    /// already: that there is room again is told at that desk, unless nothing
    /// [is wanted](Session::want_no_more) any more by then.
    pub(super) fn ask(&self, offered: &Arc<Offered>, bucket: u32, ask: Ask) -> Option<u32> {
        let request = self.asked.lock().begin(offered)?;
        self.say(Say::Ask { request, bucket, ask });
        Some(request)
    }

    /// Of a bucket nothing is to be asked for now.
    pub(super) fn want_no_more(&self, offered: &Arc<Offered>) {
        self.asked.lock().leave(offered);
        self.tell_of_room();
    }

    fn tell_of_room(&self) {
        let may_ask = self.asked.lock().may_ask();
        may_ask.iter().for_each(|offered| offered.may_ask());
    }

    /// Ends the connection, for the reason that is given first.
    pub(super) fn end(&self, why: Ended) {
        let mut ended = self.ended.lock();
        if ended.is_some() {
            return;
        }
        let polite = matches!(why, Ended::Here(_));
        *ended = Some(why);
        drop(ended);
        self.outbox.close();
        if polite {
            self.link.close_politely();
        }
        self.link.close();
    }

    /// Why it ended, if it has.
    pub(super) fn ended(&self) -> Option<Ended> {
        self.ended.lock().clone()
    }

    /// Asks for something that costs nothing, of a bucket that this side calls `bucket`, if nothing else
    /// is under way: then the other side says something soon, or is not there. Says whether it did.
    pub(super) fn ask_for_a_word(&self, offered: &Arc<Offered>, bucket: u32) -> bool {
        let is_quiet = self.outbox.is_idle() && self.asked.lock().is_empty();
        is_quiet && self.ask(offered, bucket, Ask::Blobs(Vec::new())).is_some()
    }

    /// Makes the other side show whether it is still there.
    pub(super) fn probe(&self) {
        self.say(Say::Ping);
    }

    /// When something last came.
    pub(super) fn last_heard(&self) -> SystemTime {
        *self.heard.lock()
    }

    pub(super) fn sent_bytes(&self) -> u64 {
        self.link.sent_bytes()
    }

    pub(super) fn received_bytes(&self) -> u64 {
        self.link.received_bytes()
    }

    /// Leaves all that is shared on this connection.
    pub(super) fn unlink_all(&self) {
        let theirs = std::mem::take(&mut self.table.lock().theirs);
        for (_, shared) in theirs.into_values() {
            if let Some(offered) = shared {
                offered.unlink(self);
            }
        }
        self.table.lock().ours.clear();
        self.asked.lock().clear();
    }

    /// Where a device is, as the peer has said.
    pub(super) fn said_of(&self, key: &PeerKey) -> Vec<SocketAddr> {
        self.whereabouts.lock().get(key).cloned().unwrap_or_default()
    }

    /// The thread that reads: returns when the connection has ended.
    pub(super) fn read_until_end(&self, mut incoming: Incoming, timing: &Timing, ears: &dyn Ears) {
        let patience = Patience { between: timing.silence, within: timing.stall, until: None };
        let max = || match self.asked.lock().is_empty() {
            true => SAY_BYTES_MAX,
            false => ANSWER_BYTES_MAX,
        };
        loop {
            let heard = incoming.next(&self.link, &max, patience).and_then(|body| {
                *self.heard.lock() = SystemTime::now();
                Ok(frame::decode::<Say>(&body)?)
            });
            let wrong = match heard {
                Ok(say) => self.hear(say, ears).err().map(str::to_owned),
                Err(LinkError::Closed) => return self.end(Ended::Gone),
                Err(err) => Some(err.to_string()),
            };
            if let Some(wrong) = wrong {
                return self.end(Ended::Wrong(wrong));
            }
            if self.ended.lock().is_some() {
                return;
            }
        }
    }

    fn hear(&self, say: Say, ears: &dyn Ears) -> Result<(), &'static str> {
        match say {
            Say::Ping => (),
            Say::Offer { bucket, mark } => {
                let mut table = self.table.lock();
                if table.theirs.len() >= OFFERS_MAX {
                    return Err("the peer offers too many buckets");
                }
                if table.theirs.insert(bucket, (mark, None)).is_some() {
                    return Err("the peer offers two buckets under one number");
                }
                drop(table);
                ears.offers_changed();
            }
            Say::Withdraw { bucket } => {
                let withdrawn = self.table.lock().theirs.remove(&bucket);
                if let Some((_, Some(offered))) = withdrawn {
                    offered.unlink(self);
                }
            }
            Say::Head { bucket, version } => {
                if let Some(offered) = self.shared(bucket) {
                    offered.announced(self, version);
                }
            }
            Say::Seen { bucket, version } => {
                if let Some(offered) = self.shared(bucket) {
                    offered.seen(self, version);
                }
            }
            Say::Unseen { bucket, version, why } => {
                if let Some(offered) = self.shared(bucket) {
                    offered.unseen(self, version, why);
                }
            }
            Say::Where { bucket, others } => {
                if self.shared(bucket).is_some() {
                    for Whereabouts { device, addresses } in others {
                        self.note_where(device, &addresses);
                        ears.hinted_at(&device, &addresses);
                    }
                }
            }
            Say::Removed { mark } => ears.removed(mark),
            Say::Ask { request, bucket, ask } => {
                let request = Request { request, bucket, ask };
                if self.outbox.request(request).is_err() && self.ended().is_none() {
                    return Err("the peer asks for too much at once");
                }
            }
            Say::Answer { request, answer } => {
                let is_last = answer.is_last();
                let offered = self.asked.lock().answered(request, is_last);
                let offered = offered.ok_or("the peer answers what was not asked")?;
                if is_last {
                    self.tell_of_room();
                }
                offered.deliver(self, request, answer);
                ears.answered();
            }
        }
        Ok(())
    }

    fn note_where(&self, device: PeerKey, addresses: &[SocketAddr]) {
        let mut whereabouts = self.whereabouts.lock();
        if whereabouts.len() >= WHERE_MAX && !whereabouts.contains_key(&device) {
            whereabouts.pop_first();
        }
        whereabouts.insert(device, addresses.to_vec());
    }

    /// The thread that writes: returns when the connection has ended.
    pub(super) fn write_until_end(&self, timing: &Timing) {
        loop {
            let sent = match self.outbox.next(timing.keep_alive) {
                Next::Send(say) => self.send(&say),
                Next::Answer(request) => self.answer(request),
                Next::Idle => self.send(&Say::Ping),
                Next::Closed => return,
            };
            if let Err(err) = sent {
                let why = match err.kind() {
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
                        Ended::Wrong("the peer takes nothing any more".into())
                    }
                    std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset => {
                        Ended::Gone
                    }
                    _ => Ended::Wrong(crate::exit::plain(&err)),
                };
                return self.end(why);
            }
        }
    }

    fn send(&self, say: &Say) -> std::io::Result<()> {
        self.link.send(&frame::encode(say))
    }

    fn answer(&self, wanted: Request) -> std::io::Result<()> {
        let Request { request, bucket, ask } = wanted;
        // Invariant 2.
        let offered = self.shared(bucket).filter(|offered| offered.trusts(&self.key));
        let Some(offered) = offered else {
            return self.send(&Say::Answer { request, answer: Answer::Refused });
        };
        answering::answer(&offered, &self.key, ask, &mut |answer| {
            // Announcements do not wait for a long answer.
            while let Some(say) = self.outbox.urgent() {
                self.send(&say)?;
            }
            self.send(&Say::Answer { request, answer })
        })
    }
}
