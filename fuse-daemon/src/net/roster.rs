//! Who there is to talk to: what is served, who is connected, who is to be dialled and when.
//!
//! One lock, never held while a bucket, a socket or a disk is used.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use cairnfs_mount_core::BucketId;

use super::{session::Session, sharing::Offered, tls::PeerKey, twins::Twins};
use crate::home::BucketName;

/// How long two machines with one key are told of. Each is tried again every few minutes.
const TWINS: Duration = Duration::from_secs(3600);

/// Connections with members at once; more than anybody has devices.
pub(super) const SESSIONS_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Roster {
    pub(super) stopping: bool,
    pub(super) offered: BTreeMap<BucketName, Arc<Offered>>,
    pub(super) sessions: BTreeMap<PeerKey, Arc<Session>>,
    /// Every other member of what is served.
    pub(super) contacts: BTreeMap<PeerKey, Contact>,
    pub(super) listening: Option<SocketAddr>,
    /// When to try again to listen where this device was told to.
    pub(super) listen_again: Option<Instant>,
    /// Whether discovery was last told to look for others.
    pub(super) looks: bool,
    /// Threads that have not ended.
    pub(super) threads: usize,
}

/// A device that shares something with this one.
#[derive(Clone, Debug, Default)]
pub(super) struct Contact {
    pub(super) name: String,
    /// When to dial it next; none while there is nothing to dial.
    pub(super) next: Option<Instant>,
    /// Whether it is being dialled.
    pub(super) busy: bool,
    /// Tries that failed since the last one that did not.
    pub(super) failures: u32,
    /// Hints since the last connection, and when one of them may be tried at the earliest.
    pub(super) hints: u32,
    hint_after: Option<Instant>,
    /// Tries that have ended.
    pub(super) tries: u64,
    pub(super) last_error: Option<LastError>,
    pub(super) last_seen: Option<SystemTime>,
    pub(super) last_address: Option<SocketAddr>,
    pub(super) twins: Twins,
    /// Whether it was logged that two machines have its key, or that it says so of this device's.
    pub(super) twins_logged: bool,
}

/// What last went wrong with a peer, until that has gone well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LastError {
    /// In plain words.
    pub(super) why: String,
    pub(super) at: SystemTime,
    about: About,
}

/// What went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum About {
    /// Reaching it: until it is connected.
    Reaching,
    /// A connection: until what it has published is looked at on another one.
    Connection,
    /// What it has published in a bucket: until that is here, or is not wanted any more.
    Bucket(BucketId),
    /// Two machines have a key: until they have not met anybody by turns for [`TWINS`].
    Twins,
}

/// What becomes of a new connection.
#[derive(Debug)]
pub(super) enum Admitted {
    /// It is the connection with this peer; another one, if any, is to be ended.
    Yes(Option<Arc<Session>>),
    /// The one there is stays.
    Duplicate(Arc<Session>),
    /// This device does not talk to that one any more.
    No,
}

impl Roster {
    /// Takes a new connection in. Of two, both sides keep the one that the device with the smaller
    /// key made.
    pub(super) fn admit(&mut self, me: &PeerKey, session: &Arc<Session>) -> Admitted {
        let known = self.contacts.contains_key(&session.key);
        if self.stopping || !known || self.sessions.len() >= SESSIONS_MAX {
            return Admitted::No;
        }
        if let Some(old) = self.sessions.get(&session.key) {
            let preferred = |session: &Session| session.dialled == (*me < session.key);
            // A process that was started anew, or that dials again although it had a connection,
            // knows of no other; the old one is dead.
            let old_is_dead = old.instance != session.instance || old.dialled == session.dialled;
            if !old_is_dead && preferred(old) {
                return Admitted::Duplicate(Arc::clone(old));
            }
        }
        let old = self.sessions.insert(session.key, Arc::clone(session));
        if let Some(contact) = self.contacts.get_mut(&session.key) {
            contact.next = None;
            (contact.hints, contact.hint_after) = (0, None);
            contact.last_address = Some(session.address);
            contact.last_seen = Some(session.since);
            contact.twins.connected(session.instance, session.address);
            contact.last_error.take_if(|error| error.about == About::Reaching);
        }
        Admitted::Yes(old)
    }

    /// Whether discovery is to look for others from now on, if that is not what it was told last: it is
    /// while one is not connected.
    pub(super) fn looks_anew(&mut self) -> Option<bool> {
        let looks = self.contacts.keys().any(|key| !self.sessions.contains_key(key));
        let before = std::mem::replace(&mut self.looks, looks);
        (before != looks).then_some(looks)
    }

    /// A connection has ended; says whether it was the one with its peer.
    pub(super) fn leave(&mut self, session: &Arc<Session>) -> bool {
        let current = self.sessions.get(&session.key).is_some_and(|it| Arc::ptr_eq(it, session));
        if current {
            self.sessions.remove(&session.key);
        }
        current
    }

    /// Who there is to talk to, by key and name. Those who are new are returned, and dialled at
    /// once.
    pub(super) fn set_contacts(&mut self, others: &BTreeMap<PeerKey, String>) -> Vec<PeerKey> {
        self.contacts.retain(|key, _| others.contains_key(key));
        let mut new = Vec::new();
        for (key, name) in others {
            let contact = self.contacts.entry(*key).or_insert_with(|| {
                new.push(*key);
                Contact { next: Some(Instant::now()), ..Contact::default() }
            });
            if !name.is_empty() {
                contact.name.clone_from(name);
            }
        }
        new
    }

    /// Those that are to be dialled now, marked as busy; else when the next one is.
    pub(super) fn due(&mut self, now: Instant) -> Result<Vec<PeerKey>, Option<Instant>> {
        let sessions = &self.sessions;
        let idle = self
            .contacts
            .iter_mut()
            .filter(|(key, contact)| !contact.busy && !sessions.contains_key(*key));
        let (mut due, mut earliest) = (Vec::new(), None::<Instant>);
        for (key, contact) in idle {
            match contact.next {
                Some(at) if at <= now => {
                    contact.busy = true;
                    contact.next = None;
                    due.push(*key);
                }
                Some(at) => earliest = Some(earliest.map_or(at, |it| it.min(at))),
                None => (),
            }
        }
        if due.is_empty() { Err(earliest) } else { Ok(due) }
    }

    /// Begins a try to reach a peer, if none is under way.
    pub(super) fn begin_try(&mut self, key: &PeerKey) -> bool {
        let idle = self.contacts.get_mut(key).filter(|contact| !contact.busy);
        idle.is_some_and(|contact| {
            contact.next = None;
            contact.busy = true;
            true
        })
    }

    /// A try to reach a peer has ended.
    pub(super) fn tried(&mut self, key: &PeerKey, again: Option<Duration>) {
        let connected = self.sessions.contains_key(key);
        if let Some(contact) = self.contacts.get_mut(key) {
            contact.busy = false;
            contact.tries += 1;
            contact.next = again.filter(|_| !connected).map(|after| Instant::now() + after);
        }
    }

    /// Something went wrong with a peer.
    pub(super) fn note_error(&mut self, key: &PeerKey, about: About, why: String) {
        // It may have come by itself while it was being dialled.
        let is_over = about == About::Reaching && self.sessions.contains_key(key);
        if let Some(contact) = self.contacts.get_mut(key).filter(|_| !is_over) {
            contact.last_error = Some(LastError { why, at: SystemTime::now(), about });
        }
    }

    /// What a peer has published in a bucket was looked at, and is here if it is wanted.
    pub(super) fn went_well(&mut self, key: &PeerKey, bucket: BucketId) {
        let Some(contact) = self.contacts.get_mut(key) else { return };
        contact.last_error.take_if(|error| match error.about {
            About::Reaching | About::Connection => true,
            About::Bucket(other) => other == bucket,
            About::Twins => error.at.elapsed().is_ok_and(|age| age > TWINS),
        });
    }

    /// It turns out that a key is in use on two machines; that is logged once.
    pub(super) fn note_twins(&mut self, key: &PeerKey, said: String) {
        let Some(contact) = self.contacts.get_mut(key) else { return };
        if !std::mem::replace(&mut contact.twins_logged, true) {
            log::warn!("copied-home peer={key} reason={said:?}");
        }
        self.note_error(key, About::Twins, said);
    }

    /// Where this device's peer is, and where another machine is with the same key, if there is one.
    pub(super) fn twins(&self, key: &PeerKey) -> Option<[SocketAddr; 2]> {
        self.contacts.get(key).and_then(|contact| contact.twins.both())
    }

    /// Dials a peer at once, if it is not connected.
    pub(super) fn hurry(&mut self, key: &PeerKey) {
        let connected = self.sessions.contains_key(key);
        if let Some(contact) = self.contacts.get_mut(key).filter(|_| !connected) {
            contact.next = Some(Instant::now());
        }
    }

    /// Somebody says where a peer is: dials it at once, or as soon as `pause` after the hint before
    /// is over. Whoever says so again and again is not to decide how often this device dials.
    pub(super) fn hinted(&mut self, key: &PeerKey, now: Instant, pause: Duration) {
        let connected = self.sessions.contains_key(key);
        if let Some(contact) = self.contacts.get_mut(key).filter(|_| !connected) {
            let at = contact.hint_after.map_or(now, |after| after.max(now));
            contact.next = Some(contact.next.map_or(at, |next| next.min(at)));
            contact.hint_after = Some(at + pause);
            contact.hints = contact.hints.saturating_add(1);
        }
    }
}

/// How long until the next try after so many failures in a row: doubled each time, and moved by up
/// to half of it, so that devices that lost each other do not all come back at once. `chance` is
/// any number.
pub(super) fn backoff(failures: u32, min: Duration, max: Duration, chance: u64) -> Duration {
    let doubled = min.saturating_mul(1_u32.checked_shl(failures.min(20)).unwrap_or(u32::MAX));
    let whole = doubled.min(max);
    let millis = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(millis / 2 + chance % millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_become_rarer_up_to_a_bound() {
        let [min, max] = [Duration::from_secs(1), Duration::from_secs(240)];
        for (failures, chance) in [(0, 0), (3, 7_999), (31, 12), (u32::MAX, u64::MAX)] {
            let wait = backoff(failures, min, max, chance);
            assert!(wait >= min / 2 && wait <= max + max / 2, "{failures}: {wait:?}");
        }
        assert!(backoff(5, min, max, 0) > backoff(2, min, max, 3_999));
    }

    #[test]
    fn others_are_looked_for_while_one_is_missing() {
        let mut roster = Roster::default();
        assert_eq!(roster.looks_anew(), None, "it shares nothing");
        roster.set_contacts(&[(PeerKey([1; 32]), String::new())].into());
        assert_eq!([roster.looks_anew(), roster.looks_anew()], [Some(true), None]);
        // Discovery began again, and was told nothing yet.
        roster.looks = false;
        assert_eq!(roster.looks_anew(), Some(true));
        roster.set_contacts(&[].into());
        assert_eq!([roster.looks_anew(), roster.looks_anew()], [Some(false), None]);
    }

    #[test]
    fn hints_do_not_decide_how_often_is_dialled() {
        let mut roster = Roster::default();
        let key = PeerKey([1; 32]);
        roster.set_contacts(&[(key, String::new())].into());
        roster.due(Instant::now()).unwrap();
        roster.tried(&key, Some(Duration::from_secs(1000)));
        let (now, pause) = (Instant::now(), Duration::from_secs(60));
        roster.hinted(&key, now, pause);
        assert_eq!(roster.due(now), Ok(vec![key]), "the first one is tried at once");
        roster.tried(&key, Some(Duration::from_secs(1000)));
        for _ in 0..10 {
            roster.hinted(&key, now, pause);
        }
        assert_eq!(roster.due(now), Err(Some(now + pause)));
        assert_eq!(roster.contacts[&key].hints, 11);
    }

    #[test]
    fn what_went_wrong_is_said_until_just_that_has_gone_well() {
        let mut roster = Roster::default();
        let (key, [one, other]) = (PeerKey([1; 32]), [BucketId([1; 16]), BucketId([2; 16])]);
        roster.set_contacts(&[(key, String::new())].into());
        let mut is_said_after = |about, bucket| {
            roster.note_error(&key, about, "why".into());
            roster.went_well(&key, bucket);
            roster.contacts[&key].last_error.is_some()
        };
        assert!(is_said_after(About::Bucket(one), other));
        assert!(!is_said_after(About::Bucket(one), one));
        assert!(!is_said_after(About::Connection, one));
        assert!(is_said_after(About::Twins, one), "it is about no bucket");
        let error = &mut roster.contacts.get_mut(&key).unwrap().last_error;
        error.as_mut().unwrap().at -= TWINS * 2;
        roster.went_well(&key, one);
        assert_eq!(roster.contacts[&key].last_error, None, "of that only long ago");
    }

    #[test]
    fn only_those_who_share_something_are_dialled_and_once_at_a_time() {
        let mut roster = Roster::default();
        let others = [(PeerKey([1; 32]), "laptop".to_owned())].into();
        assert_eq!(roster.set_contacts(&others), [PeerKey([1; 32])]);
        assert!(roster.set_contacts(&others).is_empty());
        let now = Instant::now();
        assert_eq!(roster.due(now), Ok(vec![PeerKey([1; 32])]));
        assert_eq!(roster.due(now), Err(None));
        roster.tried(&PeerKey([1; 32]), Some(Duration::from_secs(60)));
        let next = roster.due(now).unwrap_err().unwrap();
        assert!(next > now + Duration::from_secs(50));
        roster.hurry(&PeerKey([1; 32]));
        assert_eq!(roster.due(Instant::now()), Ok(vec![PeerKey([1; 32])]));
        roster.set_contacts(&BTreeMap::new());
        assert!(roster.contacts.is_empty());
    }
}
