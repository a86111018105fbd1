//! Some devices that share a bucket, of which it is known who can hear whom.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{
    Home, Peer, Tree,
    courier::{Courier, Trip},
    peer::BUCKET,
    process,
};

/// How long a fleet may take to agree.
const AGREE: Duration = Duration::from_secs(90);
/// How long a home of a fleet may be used.
pub const LIFE: Duration = Duration::from_secs(1_800);

/// Devices with real daemons, homes and mounts, numbered from 0. The first one made the bucket.
///
/// Devices are kept apart by stopping their daemons (SIGSTOP): whoever acts is the only one that
/// runs.
#[derive(Debug)]
pub struct Fleet {
    peers: Vec<Peer>,
    /// The daemons' processes.
    pids: Vec<u32>,
    courier: Option<Courier>,
}

impl Fleet {
    /// One device with a new bucket, mounted under the policy `flush`.
    #[must_use]
    #[track_caller]
    pub fn new() -> Self {
        let peer = Peer::on(Home::within(LIFE), &[]);
        let pids = vec![peer.pid()];
        Self { peers: vec![peer], pids, courier: None }
    }

    /// As [`Fleet::new`], and able to [pull](Self::pull): one more device takes what one has to
    /// another one.
    #[must_use]
    #[track_caller]
    pub fn with_courier() -> Self {
        let mut fleet = Self::new();
        // Before anybody else: what it knows all others know.
        fleet.courier = Some(Courier::joining(Home::within(LIFE), &fleet.peers[0]));
        fleet
    }

    /// Adds a device that gets the bucket from the first one.
    #[track_caller]
    pub fn admit(&mut self) {
        self.together();
        let peer = Peer::joining(Home::within(LIFE), &self.peers[0], &[]);
        self.pids.push(peer.pid());
        self.peers.push(peer);
    }

    /// How many devices there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.peers.len()
    }

    /// The device `index`, running or not: calls in the mount of one that stands still hang.
    #[must_use]
    pub fn peer(&self, index: usize) -> &Peer {
        &self.peers[index]
    }

    /// Lets the device `index` run, and nobody else.
    pub fn only(&mut self, index: usize) -> &mut Peer {
        let others = self.pids.iter().enumerate().filter(|(other, _)| *other != index);
        others.for_each(|(_, pid)| process::stand_still(*pid));
        self.courier.iter().for_each(Courier::stand_still);
        process::signal(self.pids[index], Signal::CONT);
        &mut self.peers[index]
    }

    /// Lets all run.
    pub fn together(&self) {
        self.pids.iter().for_each(|pid| process::signal(*pid, Signal::CONT));
        self.courier.iter().for_each(Courier::go_on);
    }

    /// Unmounts the device `index`, ends its daemon, and starts it again.
    #[track_caller]
    pub fn restart(&mut self, index: usize) {
        self.only(index).stop();
        self.start(index);
    }

    /// Kills the daemon of the device `index` with -9, and starts it again.
    #[track_caller]
    pub fn kill(&mut self, index: usize) {
        self.only(index).kill_and_remount();
        self.pids[index] = self.peers[index].pid();
    }

    #[track_caller]
    fn start(&mut self, index: usize) {
        self.peers[index].mount();
        self.pids[index] = self.peers[index].pid();
    }

    /// Waits until all show the same; fails if that takes too long.
    ///
    /// # Errors
    ///
    /// What the first two that differ show.
    #[track_caller]
    pub fn settle(&self) -> Result<Tree, String> {
        self.together();
        let start = Instant::now();
        loop {
            let mut said = Vec::new();
            for peer in &self.peers {
                let outcome = peer.home().cairnfs(&["sync", BUCKET, "--timeout", "30s"]);
                if outcome.code != Some(0) {
                    said.push(outcome.to_string());
                }
            }
            // What a merge takes away while it is being read will be found gone.
            let trees = self.peers.iter().map(|peer| Tree::try_of(&peer.dir()));
            let trees: Vec<_> = match trees.collect() {
                Ok(trees) => trees,
                Err(_) if start.elapsed() < AGREE => continue,
                Err(err) => return Err(err.to_string()),
            };
            let differs = trees.iter().position(|tree| *tree != trees[0]);
            match differs {
                None if said.is_empty() => return Ok(trees.into_iter().next().expect("the first")),
                _ if start.elapsed() < AGREE => (),
                None => return Err(format!("`sync` does not end well: {}", said.join("\n"))),
                Some(other) => {
                    return Err(format!(
                        "no agreement within {AGREE:?}: {:?} and {:?}; {}",
                        trees[0],
                        trees[other],
                        said.join("\n")
                    ));
                }
            }
        }
    }

    /// The first of each pair merges what the second one had when this began; the second one
    /// learns nothing.
    ///
    /// # Panics
    ///
    /// If there is no courier.
    #[track_caller]
    pub fn pull(&mut self, pulls: &[(usize, usize)]) {
        // Not even those that take no part stand still: nothing may wait for them meanwhile.
        for index in 0..self.peers.len() {
            self.only(index).stop();
        }
        let courier = self.courier.as_mut().expect("because the fleet was made with one");
        courier.stop();
        let trips: Vec<_> = pulls.iter().map(|_| courier.send()).collect();
        // All are told of what there is now before anybody hears of it.
        for (trip, (_, from)) in trips.iter().zip(pulls) {
            call(&self.peers[*from], trip);
        }
        for (trip, (to, _)) in trips.iter().zip(pulls) {
            call(&self.peers[*to], trip);
        }
        drop(trips);
        courier.start();
        courier.stand_still();
        for index in 0..self.peers.len() {
            self.start(index);
            process::stand_still(self.pids[index]);
        }
    }
}

/// Has `peer`, which does not run, meet a courier.
#[track_caller]
fn call(peer: &Peer, trip: &Trip<'_>) {
    peer.mount();
    trip.call_on(peer);
    peer.stop();
}

impl Default for Fleet {
    fn default() -> Self {
        Self::new()
    }
}
