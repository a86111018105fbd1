//! Some devices that share a bucket, of which it is known who can hear whom.

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{Home, Peer, Running, Tree, peer::BUCKET, poll, process, run};

/// How long a fleet may take to agree, and one call of the tool.
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
}

impl Fleet {
    /// One device with a new bucket, mounted under the policy `flush`.
    #[must_use]
    #[track_caller]
    pub fn new() -> Self {
        let peer = Peer::on(Home::within(LIFE), &[]);
        let pids = vec![peer.pid()];
        Self { peers: vec![peer], pids }
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
        for (other, pid) in self.pids.iter().enumerate() {
            if other != index {
                process::stand_still(*pid);
            }
        }
        process::signal(self.pids[index], Signal::CONT);
        &mut self.peers[index]
    }

    /// Lets all run.
    pub fn together(&self) {
        self.pids.iter().for_each(|pid| process::signal(*pid, Signal::CONT));
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
            let trees: Vec<_> = self.peers.iter().map(|peer| Tree::of(&peer.dir())).collect();
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
    /// learns nothing. Copies of the homes serve, each under its own address, and are thrown away.
    #[track_caller]
    pub fn pull(&mut self, pulls: &[(usize, usize)]) {
        // Not even those that take no part stand still: nothing may wait for them meanwhile.
        for index in 0..self.peers.len() {
            self.only(index).stop();
        }
        let copies: Vec<_> =
            pulls.iter().map(|(_, from)| Copy::of(self.peers[*from].home())).collect();
        for ((to, from), copy) in pulls.iter().zip(&copies) {
            let daemon = copy.serve(self.peers[*from].home());
            self.start(*to);
            poll::eventually("the copy of a home is reached", AGREE, || {
                let outcome = self.peers[*to].home().cairnfs(&["sync", BUCKET, "--timeout", "60s"]);
                outcome.code == Some(0)
            });
            self.peers[*to].stop();
            drop(daemon);
            process::kill_home(&copy.home);
        }
        for index in 0..self.peers.len() {
            self.start(index);
            process::stand_still(self.pids[index]);
        }
    }
}

impl Default for Fleet {
    fn default() -> Self {
        Self::new()
    }
}

/// A copy of the home of a device that does not run now.
struct Copy {
    _root: tempfile::TempDir,
    home: PathBuf,
}

impl Copy {
    #[track_caller]
    fn of(home: &Home) -> Self {
        let root = tempfile::Builder::new().prefix("cairnfs-test-copy-").tempdir().unwrap();
        let copy = root.path().canonicalize().unwrap().join("home");
        run(Command::new("cp").arg("-a").arg(home.path()).arg(&copy), AGREE).ok();
        Self { _root: root, home: copy }
    }

    /// Starts its daemon, which keeps the bucket for others without mounting it, under the address
    /// of the device it is a copy of.
    #[track_caller]
    fn serve(&self, of: &Home) -> Running {
        let command = |args: &[&str]| {
            let mut command = of.command(args);
            command.env("CAIRNFS_HOME", &self.home);
            command
        };
        let daemon = Running::start(&mut command(&["daemon"]));
        poll::eventually("the copy of a home is served", AGREE, || {
            let outcome = run(&mut command(&["status", BUCKET, "--json"]), AGREE);
            outcome.code == Some(0) && outcome.json()["buckets"][0]["kept"] == true
        });
        daemon
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        process::kill_home(&self.home);
    }
}
