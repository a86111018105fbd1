//! What verbs ask: who is there, and whether all have met.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use cairnfs_mount_core::{FetchProgress, Published, VersionId};
use crossbeam_channel::RecvTimeoutError;

use super::{
    Net,
    desk::Side,
    joining::{interrupted, not_served, not_shared},
    mending::Mended,
    probing::Probes,
    removal,
    report::{PeerReport, Step, SyncOutcome, SyncProgress, Transfer},
    said::Standing,
    sharing::Offered,
    timing::Timing,
    tls::PeerKey,
};
use crate::{
    exit::{Code, Failure, Result},
    home::BucketName,
};

/// How often who waits hears how far it is.
pub(super) const TICK: Duration = Duration::from_millis(200);

/// Said when all were tried.
pub(super) const UNREACHABLE: &str = "no peer can be reached";

impl Transfer {
    pub(super) fn new(bucket: &BucketName, progress: FetchProgress) -> Self {
        let FetchProgress { blobs, bytes, lacking, .. } = progress;
        Self { bucket: bucket.clone(), blobs, bytes, lacking }
    }
}

impl Net {
    pub(super) fn served(&self, bucket: &BucketName) -> Result<Arc<Offered>> {
        let found = self.roster.lock().offered.get(bucket).cloned();
        found.ok_or_else(|| not_served(bucket))
    }

    pub(super) fn all_served(&self) -> Vec<Arc<Offered>> {
        self.roster.lock().offered.values().cloned().collect()
    }

    /// Waits until something has changed that may matter, or for so long.
    pub(super) fn await_news(&self, at_most: Duration) {
        let mut news = self.news.lock();
        let before = *news;
        let changed = |news: &mut u64| *news == before;
        self.news_bell.wait_while_for(&mut news, changed, at_most);
    }

    /// All devices that share a served bucket, connected or not.
    pub(crate) fn peers(&self) -> Vec<PeerReport> {
        let shared: Vec<_> = self
            .all_served()
            .into_iter()
            .map(|offered| {
                let removed_by = self.addresses.removed_by(offered.id);
                (offered.name.clone(), steps(&offered), offered.transfer(), removed_by)
            })
            .collect();
        let roster = self.roster.lock();
        let now = Instant::now();
        let peers = roster.contacts.iter().map(|(key, contact)| {
            let session = roster.sessions.get(key);
            let buckets = shared.iter().filter_map(|(_, steps, ..)| steps.get(key));
            let removed = shared.iter().filter(|(.., removed_by)| removed_by.contains(key));
            let transfer = shared.iter().find_map(|(name, _, transfer, _)| {
                let (_, progress) = transfer.filter(|(from, _)| from == key)?;
                Some(Transfer::new(name, progress))
            });
            PeerReport {
                key: *key,
                name: contact.name.clone(),
                address: session.map(|session| session.address).or(contact.last_address),
                connected: session.map(|session| session.since.into()),
                dialled: session.is_some_and(|session| session.dialled),
                buckets: buckets.cloned().collect(),
                removed_from: removed.map(|(name, ..)| name.clone()).collect(),
                transfer,
                sent_bytes: session.map_or(0, |session| session.sent_bytes()),
                received_bytes: session.map_or(0, |session| session.received_bytes()),
                last_error: contact.last_error.clone().map(|it| (it.why, it.at.into())),
                last_seen: session
                    .map(|session| session.last_heard())
                    .or(contact.last_seen)
                    .map(Into::into),
                next_try: contact
                    .next
                    .filter(|_| session.is_none())
                    .map(|at| at.saturating_duration_since(now)),
            }
        });
        peers.collect()
    }

    /// What went wrong with peers that are not connected, a line each.
    pub(super) fn last_errors(&self) -> Vec<String> {
        let roster = self.roster.lock();
        let away = roster.contacts.iter().filter(|(key, _)| !roster.sessions.contains_key(*key));
        away.filter_map(|(_, contact)| contact.last_error.clone().map(|error| error.why)).collect()
    }

    /// Publishes what was changed here, then waits until everything that was published here and
    /// there has met, for the peers that can be reached.
    ///
    /// # Errors
    ///
    /// [`Code::NoPeer`] if none can be reached, or none was before `deadline`; [`Code::NotFound`] if
    /// the bucket is not served; [`Code::Failed`] if not all has met by then, or something published
    /// is rejected, or a peer says that it cannot store it.
    pub(crate) fn sync(
        &self,
        bucket: Option<&BucketName>,
        deadline: Option<Instant>,
        say: &mut dyn FnMut(SyncProgress) -> bool,
    ) -> Result<SyncOutcome> {
        let buckets = match bucket {
            Some(bucket) => vec![self.served(bucket)?],
            None => self.all_served(),
        };
        if buckets.is_empty() {
            return Err(Failure::new(Code::NotFound, "no bucket is mounted: mount one first"));
        }
        for offered in &buckets {
            let published = offered.with(|replica| replica.publish());
            let published = published.ok_or_else(|| not_shared(&offered.name))?;
            published.map_err(|err| Failure::bucket(&offered.name, &err))?;
            offered.retry_now();
        }
        let others: BTreeMap<PeerKey, String> =
            buckets.iter().flat_map(|offered| offered.others()).collect();
        let mut probes = Probes::begin(&buckets, self.timing.handshake);
        let mut search = Search::begin(self, &others);
        loop {
            if probes.pursue(self) {
                search = Search::begin(self, &others);
            }
            let meetings: Vec<_> = buckets.iter().map(|offered| Meeting::of(offered)).collect();
            let behind: usize = meetings.iter().map(|meeting| meeting.behind.len()).sum();
            let connected = meetings.iter().any(|meeting| !meeting.sides.is_empty());
            let linked: Vec<_> = meetings
                .iter()
                .flat_map(|meeting| &meeting.sides)
                .map(|side| side.session.key)
                .collect();
            let searching = search.goes_on(self, &linked) || !probes.are_over();
            if let Some(failure) = meetings.iter().find_map(|meeting| meeting.failure(self)) {
                return Err(failure);
            }
            if behind == 0 && !searching {
                return if connected {
                    Ok(self.met(&meetings, &others))
                } else {
                    Err(self.nobody_of(&buckets, UNREACHABLE))
                };
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(if connected {
                    too_late(behind)
                } else {
                    self.nobody_of(&buckets, "no peer was reached in time")
                });
            }
            if !say(self.progress(&meetings, behind)) {
                return Err(interrupted());
            }
            self.await_news(TICK);
        }
    }

    /// How far it is, if so many peers are `behind`.
    fn progress(&self, meetings: &[Meeting], behind: usize) -> SyncProgress {
        if let Some(transfer) = meetings.iter().find_map(|meeting| meeting.transfer.clone()) {
            return SyncProgress::Fetching(transfer);
        }
        if behind == 0 {
            return SyncProgress::Connecting;
        }
        let why = meetings.iter().flat_map(|meeting| meeting.hopeless(self)).flatten();
        SyncProgress::Waiting {
            behind: u32::try_from(behind).unwrap_or(u32::MAX),
            why: why.map(|failure| failure.message).next(),
        }
    }

    /// Fetches what is damaged of `bucket`, from the peers that are connected.
    ///
    /// # Errors
    ///
    /// [`Code::NotFound`] if the bucket is not served; [`Code::Failed`] if it is unmounted meanwhile;
    /// [`Code::Interrupted`] if `say` wants no more, and it goes on then.
    pub(crate) fn mend(
        &self,
        bucket: &BucketName,
        say: &mut dyn FnMut(SyncProgress) -> bool,
    ) -> Result<Mended> {
        let offered = self.served(bucket)?;
        let told = offered.mend();
        loop {
            match told.recv_timeout(TICK) {
                Ok(mended) => return Ok(mended),
                Err(RecvTimeoutError::Disconnected) if self.served(bucket).is_err() => {
                    let message = format!(
                        "bucket '{bucket}' was unmounted meanwhile: what was damaged may still be"
                    );
                    return Err(Failure::new(Code::Failed, message));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(not_shared(bucket)),
                Err(RecvTimeoutError::Timeout) => (),
            }
            let fetching = |(_, progress)| SyncProgress::Fetching(Transfer::new(bucket, progress));
            if !say(offered.transfer().map_or(SyncProgress::Connecting, fetching)) {
                return Err(interrupted());
            }
        }
    }

    fn met(&self, meetings: &[Meeting], others: &BTreeMap<PeerKey, String>) -> SyncOutcome {
        let mut reached: Vec<_> = meetings
            .iter()
            .flat_map(|meeting| &meeting.sides)
            .map(|side| side.session.key)
            .collect();
        reached.sort_unstable();
        reached.dedup();
        let unreached = others.iter().filter(|(key, _)| !reached.contains(*key));
        let called = |(key, name): (&PeerKey, &String)| {
            if name.is_empty() { key.to_string() } else { name.clone() }
        };
        SyncOutcome {
            peers: u32::try_from(reached.len()).unwrap_or(u32::MAX),
            unreached: unreached.map(called).collect(),
        }
    }

    /// Why nobody is there for these buckets. That this device was removed may have been told on a
    /// connection for others: then it is no error of any.
    fn nobody_of(&self, buckets: &[Arc<Offered>], why: &str) -> Failure {
        let removed = buckets.iter().filter(|offered| self.is_removed_from(offered.id));
        let removed: Vec<_> = removed.map(|offered| removal::said(&offered.name)).collect();
        if removed.is_empty() {
            return self.nobody(why);
        }
        Failure::new(Code::NoPeer, format!("{why}: {}", removed.join("; ")))
    }

    /// Why nobody is there; `why`, if there are peers.
    pub(super) fn nobody(&self, why: &str) -> Failure {
        let errors = self.last_errors();
        let message = match (self.roster.lock().contacts.is_empty(), errors.is_empty()) {
            (true, _) => "no other device has the bucket ('cairnfs invite' lets one in)".to_owned(),
            (false, true) => why.to_owned(),
            (false, false) => format!("{why}: {}", errors.join("; ")),
        };
        Failure::new(Code::NoPeer, message)
    }
}

/// Not all had met by the deadline.
fn too_late(behind: usize) -> Failure {
    let message = match behind {
        0 => "still looking for peers".to_owned(),
        1 => "1 peer has not met this device yet".to_owned(),
        more => format!("{more} peers have not met this device yet"),
    };
    Failure::new(Code::Failed, message)
}

/// How far one bucket has met its connected peers.
struct Meeting {
    bucket: BucketName,
    /// What this device stands on.
    head: Option<VersionId>,
    sides: Vec<Side>,
    /// Those of them that have not met.
    behind: Vec<Side>,
    transfer: Option<Transfer>,
    troubles: BTreeMap<PeerKey, cairnfs_mount_core::Error>,
}

impl Meeting {
    fn of(offered: &Offered) -> Self {
        let sides = offered.sides();
        let head = offered.with(|replica| replica.head()).flatten();
        Self {
            bucket: offered.name.clone(),
            head,
            behind: sides.iter().filter(|side| !side.said.has_met(head)).cloned().collect(),
            sides,
            transfer: offered
                .transfer()
                .map(|(_, progress)| Transfer::new(&offered.name, progress)),
            troubles: offered.troubles(),
        }
    }

    /// Why waiting longer is of no use: no peer that is behind can be met now.
    fn failure(&self, net: &Net) -> Option<Failure> {
        let failures: Option<Vec<_>> = self.hopeless(net).collect();
        failures?.into_iter().next()
    }

    /// Of each peer that is behind why it cannot be met now, if that is so.
    fn hopeless(&self, net: &Net) -> impl Iterator<Item = Option<Failure>> {
        self.behind.iter().map(|side| self.obstacle(side, net))
    }

    fn obstacle(&self, side: &Side, net: &Net) -> Option<Failure> {
        if let Some(trouble) = self.troubles.get(&side.session.key) {
            return Some(Failure::bucket(&self.bucket, trouble));
        }
        let peer = side.session.key;
        let said = &side.said;
        if said.standing == Standing::Open && said.head.is_some() {
            // What comes of it may be a version that the peer takes.
            return None;
        }
        if matches!(said.standing, Standing::Open | Standing::Covered | Standing::Apart) {
            let why = said.refuses(self.head)?;
            let message = format!("bucket '{}', device {peer}: {why}", self.bucket);
            return Some(Failure::new(Code::Failed, message));
        }
        let contact = net.roster.lock().contacts.get(&side.session.key).cloned();
        let noted = contact.and_then(|contact| contact.last_error);
        let why =
            noted.map_or_else(|| "what it published is not here".to_owned(), |error| error.why);
        let message = format!("bucket '{}', device {peer}: {why}", self.bucket);
        Some(Failure::new(Code::Failed, message))
    }
}

/// How far each other device that has the bucket has met this one there.
fn steps(offered: &Offered) -> BTreeMap<PeerKey, Step> {
    let others = offered.others().into_iter();
    let said = others.map(|(key, _)| (key, offered.last_said(&key))).collect::<Vec<_>>();
    // After what they have said: nobody can have said anything of a newer one.
    let published = offered.with(|replica| replica.published());
    let Some(Published { head, holds_all }) = published else { return BTreeMap::new() };
    let steps = said.into_iter().map(|(key, (known, said))| {
        let all_there = said.all_there(head);
        let up_to = said.has_up_to().filter(|_| all_there == Some(false)).map(|version| {
            // A version that was given up has no time any more.
            let time = offered.with(|replica| replica.time_of(&version).ok().flatten());
            (version, time.flatten().map(Into::into))
        });
        let step = Step {
            bucket: offered.name.clone(),
            known,
            all_there,
            up_to,
            why: said.refuses(head).map(|why| why.to_string()),
            all_here: said.all_here(head),
            unpublished: !holds_all,
        };
        (key, step)
    });
    steps.collect()
}

/// A try to reach everybody who is away.
pub(super) struct Search {
    began: Instant,
    /// All, with how many tries to reach each had ended before, if it was away.
    others: Vec<(PeerKey, Option<u64>)>,
}

impl Search {
    pub(super) fn begin(net: &Net, others: &BTreeMap<PeerKey, String>) -> Self {
        let mut roster = net.roster.lock();
        let mut all = Vec::new();
        for key in others.keys() {
            let away = !roster.sessions.contains_key(key);
            let tries = roster.contacts.get(key).map_or(0, |contact| contact.tries);
            all.push((*key, away.then_some(tries)));
            if away {
                roster.hurry(key);
            }
        }
        drop(roster);
        net.wake.notify_all();
        Self { began: Instant::now(), others: all }
    }

    /// Whether somebody may still be found: not everybody has been tried, or there was no time to
    /// be discovered, to come by itself, or to tell each other what is shared.
    pub(super) fn goes_on(&self, net: &Net, linked: &[PeerKey]) -> bool {
        let elapsed = self.began.elapsed();
        let roster = net.roster.lock();
        self.others.iter().filter(|(key, _)| !linked.contains(key)).any(|(key, tries)| {
            let Some(contact) = roster.contacts.get(key) else { return false };
            let untried = tries.is_some_and(|tries| contact.tries <= tries);
            let connected = roster.sessions.get(key);
            let connected = connected.map(|session| session.since.elapsed().unwrap_or_default());
            may_be_found(&net.timing, elapsed, connected, contact.busy || untried)
        })
    }
}

/// Whether a peer with which nothing is shared may still be found, so long after the search began: if
/// it has been `connected` for so long, or else if it is being tried.
fn may_be_found(
    timing: &Timing,
    elapsed: Duration,
    connected: Option<Duration>,
    is_being_tried: bool,
) -> bool {
    // Who refused a moment ago may be starting, and about to come by itself.
    let early = elapsed < timing.search;
    let late = elapsed > timing.search + timing.connect * 4;
    // Who has just come has not said yet what it shares.
    let is_open = connected.map_or(is_being_tried, |since| since < timing.search);
    early || (is_open && !late)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_connected_only_at_the_end_of_a_search_has_time_to_say_what_it_shares() {
        let timing = Timing::default();
        let moment = Duration::from_millis(1);
        let ends = timing.search;
        for is_being_tried in [false, true] {
            let found = |elapsed, connected| {
                may_be_found(&timing, elapsed, Some(connected), is_being_tried)
            };
            assert!(found(ends, moment) && found(ends + timing.search, timing.search - moment));
            assert!(!found(ends, ends + moment), "it shares nothing");
            let late = ends + timing.connect * 4 + moment;
            assert!(!found(late, moment), "it comes again and again");
        }
    }

    #[test]
    fn who_is_away_is_looked_for_for_a_while_and_then_as_long_as_it_is_being_tried() {
        let timing = Timing::default();
        let moment = Duration::from_millis(1);
        let found = |elapsed, is_being_tried| may_be_found(&timing, elapsed, None, is_being_tried);
        assert!(found(timing.search - moment, false));
        assert!(!found(timing.search, false) && found(timing.search, true));
        assert!(!found(timing.search + timing.connect * 4 + moment, true));
    }
}
