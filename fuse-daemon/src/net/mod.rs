//! Peers: finding them, talking to them, fetching what they have and giving what they lack.
//!
//! ```text
//!   discover --\                                   /--> peer-reads --\        /-- bucket-sync --> merge
//!   dial ------ +--> socket, TLS, greeting, knock +                    Offered
//!   accept ----/                                   \--> peer-writes <--/        \-- head_changed <-- writer
//! ```
//!
//! | file | has |
//! |---|---|
//! | `tls`, `link`, `frame`, `message` | what goes over a socket |
//! | `opening`, `listen`, `dial`, `discover` | from a socket or an address to a connection |
//! | `connection`, `session`, `asked`, `outbox`, `answering` | one connection |
//! | `sharing`, `desk`, `said`, `syncing`, `verdict`, `notices`, `fetching`, `mending`, `flight`, `turns`, `window`, `time_left`, `introducing`, `replica` | one bucket |
//! | `roster`, `addresses`, `twins` | who there is, and where |
//! | `ticket`, `invites`, `inviting`, `joining`, `arriving` | letting a device in, and being let in |
//! | `finding` | finding a member again by a ticket |
//! | `removal` | telling a device that it was removed, and hearing that |
//! | `meeting`, `probing`, `elsewhere`, `report` | what verbs ask |
//!
//! # Invariants
//!
//! 1. A device that neither is nor was a member of anything served, and has no ticket, learns only
//!    that a cairnfs listens and this device's public key, which TLS shows before it knows whose
//!    the other one is: not even whether there are buckets.
//! 2. Everything a stranger can make this device keep is bounded: connections, bytes, time.
//! 3. Nothing listens and nothing is announced as long as nothing is shared, unless asked for.
//! 4. When nothing changes nothing wakes up, but for a rare keep-alive and a rare try to reach who
//!    is away.

mod addresses;
mod answering;
mod arriving;
mod asked;
mod connection;
pub(crate) mod decoders;
mod desk;
mod dial;
mod discover;
mod elsewhere;
#[cfg(test)]
mod fake;
mod fetching;
mod finding;
mod flight;
mod frame;
mod introducing;
mod invites;
mod inviting;
mod joining;
mod link;
mod listen;
mod meeting;
mod mending;
mod message;
mod notices;
mod opening;
mod outbox;
mod probing;
mod removal;
mod replica;
mod report;
mod roster;
mod said;
mod session;
mod sharing;
mod syncing;
#[cfg(test)]
mod tests;
mod ticket;
mod time_left;
mod timing;
mod tls;
mod turns;
mod twins;
mod verdict;
mod window;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    thread,
    time::{Instant, SystemTime},
};

use cairnfs_mount_core::{BucketId, Mount};
use cairnfs_store::{DeviceKey, Secret};

use self::{
    addresses::Addresses,
    arriving::Arrivals,
    invites::Invites,
    message::Instance,
    replica::Replica,
    roster::{About, Roster},
    session::{Ended, Session},
    sharing::{Offered, Serving},
    timing::Timing,
    tls::{PeerKey, Tls},
};
pub(crate) use self::{
    joining::Joining,
    mending::Mended,
    removal::said as said_removed,
    report::{
        Invite, Inviter, JoinProgress, Known, PeerReport, Step, SyncOutcome, SyncProgress, Transfer,
    },
    ticket::examine as examine_ticket,
};
use crate::{
    exit::{Code, Failure, Result},
    home::{BucketName, Home},
    order::{self, Condvar, Mutex},
};

/// How this device is to be reached.
#[derive(Clone, Debug, Default)]
pub(crate) struct NetOptions {
    /// Where to listen; none for the port of last time, or any.
    pub(crate) listen: Option<SocketAddr>,
    /// Whether to look for peers on the local network, and to be found there.
    pub(crate) discovery: bool,
    /// What this device is called, as other members are told.
    pub(crate) device_name: String,
}

/// All that has to do with peers.
#[derive(Debug)]
pub(crate) struct Net {
    /// Itself, for its threads.
    this: Weak<Self>,
    home: Home,
    device: Arc<DeviceKey>,
    me: PeerKey,
    /// Of this process.
    instance: Instance,
    options: NetOptions,
    timing: Timing,
    tls: Tls,
    addresses: Addresses,
    invites: Invites,
    arrivals: Arc<Arrivals>,
    /// Held while those on the roster are brought in line with who is a member.
    contacts: Mutex<(), order::Contacts>,
    roster: Mutex<Roster, order::Roster>,
    /// For the thread `dial-peers`, and for whoever waits for threads to end.
    wake: Condvar,
    /// Counts what may interest who waits for peers.
    news: Mutex<u64, order::News>,
    news_bell: Condvar,
    listener: listen::Listening,
    discovery: discover::Discovery,
}

impl Net {
    /// Starts what is needed.
    ///
    /// # Errors
    ///
    /// [`Code::InUse`] if the address that was asked for is taken.
    pub(crate) fn start(
        home: &Home,
        device: Arc<DeviceKey>,
        options: NetOptions,
    ) -> Result<Arc<Self>> {
        Self::start_with(home, device, options, Timing::default())
    }

    fn start_with(
        home: &Home,
        device: Arc<DeviceKey>,
        options: NetOptions,
        timing: Timing,
    ) -> Result<Arc<Self>> {
        let failed = |err: &dyn std::fmt::Display| {
            Failure::new(Code::Failed, format_args!("cannot prepare for peers: {err}"))
        };
        let mut instance = Instance::default();
        instance.copy_from_slice(&random().map_err(|err| failed(&err))?[..16]);
        let tls = Tls::new(&device).map_err(|err| failed(&err))?;
        let net = Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            home: home.clone(),
            me: device.public(),
            device,
            instance,
            options,
            timing,
            tls,
            addresses: Addresses::load(home.peers_file()),
            invites: Invites::new(home.invites_file()),
            arrivals: Arc::default(),
            contacts: Mutex::default(),
            roster: Mutex::default(),
            wake: Condvar::new(),
            news: Mutex::new(0),
            news_bell: Condvar::new(),
            listener: listen::Listening::default(),
            discovery: discover::Discovery::default(),
        });
        let dialling = Arc::clone(&net);
        net.spawn("dial-peers", move || dialling.dial_until_stopped())
            .map_err(|err| Failure::io("cannot start a thread", &err))?;
        let invited = net.invites.are_open(SystemTime::now());
        if let Some(address) = net.options.listen {
            if let Err(failure) = net.listen_at(address) {
                net.stop();
                return Err(failure);
            }
        } else if invited {
            // Who was invited may come after a restart.
            net.be_reachable();
        }
        Ok(net)
    }

    /// Ends all threads and connections.
    pub(crate) fn stop(&self) {
        let (offered, sessions) = {
            let mut roster = self.roster.lock();
            roster.stopping = true;
            let names: Vec<_> = roster.offered.keys().cloned().collect();
            (names, roster.sessions.values().cloned().collect::<Vec<_>>())
        };
        self.wake.notify_all();
        // The clock may be behind at the next start.
        self.invites.are_open(SystemTime::now());
        self.discovery.stop();
        self.listener.stop();
        for bucket in offered {
            self.withdraw(&bucket);
        }
        for session in sessions {
            session.end(Ended::Here("this daemon ends"));
        }
        let mut roster = self.roster.lock();
        while roster.threads > 0 {
            self.wake.wait(&mut roster);
        }
    }

    /// Where it listens, if it does.
    pub(crate) fn listening(&self) -> Option<SocketAddr> {
        self.roster.lock().listening
    }

    /// Offers `bucket` to its members from now on, and fetches what they have.
    pub(crate) fn serve(&self, bucket: &BucketName, mount: &Mount) {
        let replica: Arc<dyn Replica> = Arc::new(mount.clone());
        self.serve_replica(bucket, &replica, Serving::Both);
    }

    /// As [`Net::serve`], but fetches nothing: the bucket stays as it is.
    pub(crate) fn serve_unchanged(&self, bucket: &BucketName, mount: &Mount) {
        let replica: Arc<dyn Replica> = Arc::new(mount.clone());
        self.serve_replica(bucket, &replica, Serving::GivesOnly);
    }

    fn serve_replica(&self, bucket: &BucketName, replica: &Arc<dyn Replica>, serving: Serving) {
        self.withdraw(bucket);
        let inviters = self.addresses.inviters(replica.bucket_id());
        let offered = Offered::new(bucket.clone(), self.me, inviters, replica, serving);
        let mut roster = self.roster.lock();
        if roster.stopping {
            return;
        }
        roster.offered.insert(bucket.clone(), Arc::clone(&offered));
        drop(roster);
        let net = self.arc();
        let it = Arc::clone(&offered);
        let run = move || {
            let _using = Using { net: &net, offered: &it };
            syncing::run(&net, &it);
        };
        if let Err(err) = self.spawn("bucket-sync", run) {
            log::error!("sync bucket={} reason={err}", offered.short_id());
            self.roster.lock().offered.remove(bucket);
            offered.leave();
            offered.close();
        }
        // Before this returns: a member that comes at once is not to be sent away.
        self.members_may_have_changed();
    }

    /// Undoes [`Net::serve`]; to be called before `Mount::stop`. When this returns, nothing here
    /// uses the mount any more.
    pub(crate) fn withdraw(&self, bucket: &BucketName) {
        let Some(offered) = self.roster.lock().offered.remove(bucket) else { return };
        offered.leave();
        // A merge that is under way is waited for; it ends by itself.
        let mut roster = self.roster.lock();
        while !offered.is_closed() {
            self.wake.wait(&mut roster);
        }
        drop(roster);
        self.members_may_have_changed();
    }

    /// Brings contacts and connections in line with who is a member of what is served.
    fn members_may_have_changed(&self) {
        // To ask the buckets may take a while, and to listen too: whoever served one meanwhile would have
        // its members taken off the roster by who began before.
        let _alone = self.contacts.lock();
        let offered = self.all_served();
        let mut others = BTreeMap::<PeerKey, String>::new();
        for (key, name) in offered.iter().flat_map(|offered| offered.others()) {
            let known = others.entry(key).or_default();
            if known.is_empty() {
                *known = name;
            }
        }
        if !others.is_empty() {
            self.be_reachable();
        }
        let (new, sessions) = {
            let mut roster = self.roster.lock();
            let new = roster.set_contacts(&others);
            (new, roster.sessions.values().cloned().collect::<Vec<_>>())
        };
        for key in new {
            self.hinted_at(&key, &self.discovery.heard_of(&key));
            for session in &sessions {
                self.hinted_at(&key, &session.said_of(&key));
            }
        }
        self.wake.notify_all();
        for session in sessions {
            self.reconcile(&session);
        }
    }

    /// Somebody says that a device may be at one of these addresses: tries them soon, if it shares
    /// something.
    fn hinted_at(&self, key: &PeerKey, addresses: &[SocketAddr]) {
        let hints = self.roster.lock().contacts.get(key).map(|contact| contact.hints);
        let Some(hints) = hints.filter(|_| !addresses.is_empty()) else { return };
        self.addresses.hint(key, addresses);
        self.roster.lock().hinted(key, Instant::now(), self.jitter(hints));
        self.wake.notify_all();
    }

    fn reconcile(&self, session: &Arc<Session>) {
        if !session.reconcile(&|| self.all_served()) {
            session.end(Ended::Here("nothing is shared any more"));
        }
    }

    /// Something went wrong with what a peer has published in a bucket.
    fn note_error(&self, key: &PeerKey, bucket: BucketId, why: String) {
        self.roster.lock().note_error(key, About::Bucket(bucket), why);
    }

    fn went_well(&self, key: &PeerKey, bucket: BucketId) {
        self.roster.lock().went_well(key, bucket);
    }

    /// Tells whoever waits that something has changed.
    fn bump(&self) {
        *self.news.lock() += 1;
        self.news_bell.notify_all();
    }

    fn jitter(&self, failures: u32) -> std::time::Duration {
        let chance = random().map_or(0, |bytes| {
            bytes[..8].iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte))
        });
        roster::backoff(failures, self.timing.retry_min, self.timing.retry_max, chance)
    }

    fn arc(&self) -> Arc<Self> {
        self.this.upgrade().expect("because it is called through an Arc")
    }

    /// Starts a thread that [`Net::stop`] waits for.
    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let hand = Hand::new(self.arc());
        let run = move || {
            run();
            drop(hand);
        };
        thread::Builder::new().name(name.into()).spawn(run).map(drop)
    }
}

/// A thread that has not ended.
struct Hand(Arc<Net>);

impl Hand {
    fn new(net: Arc<Net>) -> Self {
        net.roster.lock().threads += 1;
        Self(net)
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.0.roster.lock().threads -= 1;
        self.0.wake.notify_all();
    }
}

/// The use that `bucket-sync` makes of a bucket; it ends also if that thread panics, as whoever
/// withdraws the bucket waits for it.
struct Using<'a> {
    net: &'a Net,
    offered: &'a Offered,
}

impl Drop for Using<'_> {
    fn drop(&mut self) {
        // After a panic nobody has said so: those go who wait with an answer.
        self.offered.leave();
        self.offered.close();
        if thread::panicking() {
            log::error!("sync bucket={} reason=\"it panicked\"", self.offered.short_id());
            // Nothing of it is shared any more.
            self.net.members_may_have_changed();
        }
        // Under the lock, so that whoever has just looked is waiting by now.
        let _roster = self.net.roster.lock();
        self.net.wake.notify_all();
    }
}

/// Random bytes of the system.
fn random() -> Result<[u8; 32], cairnfs_store::Error> {
    Secret::random().map(|secret| *secret.expose())
}
