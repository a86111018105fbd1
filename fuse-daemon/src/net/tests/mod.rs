//! Whole networks in one process, over real sockets, with [`FakeBucket`]s.

mod asking;
mod elsewhere;
mod finding;
mod forged;
mod forger;
mod hostile;
mod in_step;
mod introducing;
mod inviting;
mod members;
mod mounts;
mod probing;
mod serving;
mod slow;
mod sync;
mod turns;
mod twins;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cairnfs_mount_core::{Error as CoreError, Role};
use cairnfs_store::DeviceKey;
use tempfile::TempDir;

use super::{
    Net, NetOptions, fake::FakeBucket, replica::Replica, sharing::Serving, timing::Timing,
    tls::PeerKey,
};
use crate::home::{BucketName, Home};

/// How long any one thing may take in a test, on a machine that does much else.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a test waits for all that it wants to see at one time: many barriers of a slow disk.
pub(super) const LIMIT: Duration = Duration::from_secs(180);

/// Everything comes soon, and nobody is given up: that would be for want of a processor.
const QUICK: Timing = Timing {
    connect: PATIENCE,
    handshake: PATIENCE,
    stall: PATIENCE,
    turn: Duration::from_millis(200),
    keep_alive: Duration::from_millis(500),
    silence: PATIENCE,
    retry_min: Duration::from_millis(20),
    retry_max: Duration::from_millis(200),
    trouble: Duration::from_millis(50),
    search: Duration::from_secs(2),
};

/// Who says nothing is given up soon.
const IMPATIENT: Timing = Timing {
    connect: Duration::from_secs(6),
    handshake: Duration::from_secs(6),
    stall: Duration::from_secs(6),
    silence: Duration::from_secs(6),
    ..QUICK
};

/// A device with its network.
struct Peer {
    net: Arc<Net>,
    device: Arc<DeviceKey>,
    dir: TempDir,
    timing: Timing,
}

impl Peer {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let device = Arc::new(DeviceKey::generate().unwrap());
        let net = start(&dir, &device, QUICK);
        Self { net, device, dir, timing: QUICK }
    }

    /// Another machine with a copy of its home.
    fn copied(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let device = Arc::clone(&self.device);
        Self { net: start(&dir, &device, self.timing), device, dir, timing: self.timing }
    }

    /// Goes on with another timing, and serves `bucket`.
    fn become_with(&mut self, timing: Timing, bucket: &FakeBucket) {
        self.timing = timing;
        self.restart();
        self.serve(bucket);
    }

    fn key(&self) -> PeerKey {
        self.device.public()
    }

    fn address(&self) -> SocketAddr {
        self.net.listening().unwrap()
    }

    /// Ends and begins anew, as a daemon that is started again.
    fn restart(&mut self) {
        self.net.stop();
        self.net = start(&self.dir, &self.device, self.timing);
    }

    /// The same, and listens at this port from then on.
    fn restart_at(&mut self, port: u16) {
        self.net.stop();
        self.net = start_at(&self.dir, &self.device, self.timing, port);
    }

    fn serve(&self, bucket: &FakeBucket) {
        serve(&self.net, bucket);
    }

    /// Knows from now on where the other one is.
    fn knows(&self, other: &Self) {
        self.net.addresses.add(&other.key(), &[other.address()]);
        self.net.roster.lock().hurry(&other.key());
        self.net.wake.notify_all();
    }

    fn is_connected(&self) -> bool {
        !self.net.roster.lock().sessions.is_empty()
    }

    fn is_connected_to(&self, other: &Self) -> bool {
        self.net.roster.lock().sessions.contains_key(&other.key())
    }

    /// Whether both have said that they have the bucket.
    fn shares_with(&self, other: &Self) -> bool {
        let sides = self.net.served(&name()).unwrap().sides();
        sides.iter().any(|side| side.session.key == other.key())
    }

    /// Where another one is, as those say with whom this one is connected.
    fn is_told_of(&self, other: &Self) -> bool {
        let roster = self.net.roster.lock();
        roster.sessions.values().any(|session| !session.said_of(&other.key()).is_empty())
    }

    fn sync(&self) -> crate::exit::Result<super::SyncOutcome> {
        self.net.sync(Some(&name()), Some(Instant::now() + LIMIT), &mut |_| true)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // A test that has failed may leave threads that never end: the process does without them.
        if !thread::panicking() {
            self.net.stop();
        }
    }
}

fn start(dir: &TempDir, device: &Arc<DeviceKey>, timing: Timing) -> Arc<Net> {
    start_at(dir, device, timing, 0)
}

fn start_at(dir: &TempDir, device: &Arc<DeviceKey>, timing: Timing, port: u16) -> Arc<Net> {
    let home = Home::locate(Some(dir.path())).unwrap();
    home.prepare().unwrap();
    let options = NetOptions {
        listen: Some((Ipv4Addr::LOCALHOST, port).into()),
        discovery: false,
        device_name: "a test".into(),
    };
    Net::start_with(&home, Arc::clone(device), options, timing).unwrap()
}

/// A port at which something can listen again: none that somebody is given who does not care which.
fn own_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Linux gives away those from 32768 on; some for each process that runs these tests.
    let first = 20_000 + std::process::id() % 1_250 * 8;
    let mut ports = std::iter::from_fn(|| Some(first + NEXT.fetch_add(1, Ordering::Relaxed)));
    let free = ports.find_map(|port| {
        let port = u16::try_from(port).unwrap();
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).ok().map(|_| port)
    });
    free.unwrap()
}

fn serve(net: &Net, bucket: &FakeBucket) {
    let replica: Arc<dyn Replica> = Arc::new(bucket.clone());
    net.serve_replica(&name(), &replica, Serving::Both);
}

fn name() -> BucketName {
    "shared".parse().unwrap()
}

/// So many devices that share a bucket, and their sides of it. Nobody knows yet where others are.
fn members(count: usize) -> (Vec<Peer>, Vec<FakeBucket>) {
    let peers: Vec<_> = (0..count).map(|_| Peer::new()).collect();
    let first = FakeBucket::create(peers[0].key(), 7);
    for peer in &peers[1..] {
        first.set_member(peer.key(), "member", Some(Role::Writer)).unwrap();
    }
    let mut buckets = vec![first.clone()];
    buckets.extend(peers[1..].iter().map(|peer| first.copy_for(peer.key())));
    for (peer, bucket) in peers.iter().zip(&buckets) {
        peer.serve(bucket);
    }
    (peers, buckets)
}

/// Waits until something is so.
#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < until, "not within {LIMIT:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
