//! A device that carries what one device has to another one, while neither hears the other.
//!
//! It is a member that may only read. Such a one takes a version that has everything that it knows
//! as it is, and makes none itself, whatever it meets: so what arrives is what was sent. As it must
//! know nothing that the sender lacks, copies of its home travel, each with one load.

use std::{path::PathBuf, process::Command, time::Duration};

use rustix::process::Signal;

use crate::{Home, Peer, Running, peer::BUCKET, poll, process, run, sweeper};

/// How long a daemon may take to keep the bucket, or to end.
const SERVED: Duration = Duration::from_secs(60);

/// The device at home, where it learns what all have agreed on.
#[derive(Debug)]
pub(crate) struct Courier {
    home: Home,
    daemon: Option<Running>,
}

impl Courier {
    /// Lets it into the bucket of `owner`, and starts its daemon.
    #[track_caller]
    pub(crate) fn joining(home: Home, owner: &Peer) -> Self {
        let ticket = owner.invite(&["--role", "reader"]);
        home.cairnfs(&["join", &ticket, "--no-passphrase", "--name", BUCKET]).succeeds();
        let mut courier = Self { home, daemon: None };
        // The one that was started to join.
        courier.stop();
        courier.start();
        courier
    }

    #[track_caller]
    pub(crate) fn start(&mut self) {
        self.daemon = Some(serve(&|args| self.home.command(args)));
    }

    /// Ends its daemon, which may stand still.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.go_on();
        self.home.cairnfs(&["stop"]).succeeds();
        process::ended(self.home.path());
        self.daemon = None;
    }

    pub(crate) fn stand_still(&self) {
        self.daemon.iter().for_each(|daemon| process::stand_still(daemon.pid()));
    }

    pub(crate) fn go_on(&self) {
        self.daemon.iter().for_each(|daemon| daemon.signal(Signal::CONT));
    }

    /// Sends a copy of it off, while it is stopped itself.
    #[track_caller]
    pub(crate) fn send(&self) -> Trip<'_> {
        let root = tempfile::Builder::new().prefix("trip-").tempdir_in(sweeper::room()).unwrap();
        let copy = root.path().canonicalize().unwrap().join("home");
        run(Command::new("cp").arg("-a").arg(self.home.path()).arg(&copy), SERVED).succeeds();
        Trip { of: &self.home, _root: root, home: copy }
    }
}

/// A copy of a courier's home. It listens where the courier does: one of them at a time.
pub(crate) struct Trip<'c> {
    of: &'c Home,
    _root: tempfile::TempDir,
    home: PathBuf,
}

impl Trip<'_> {
    /// Meets `peer`, whose daemon runs, and leaves it again.
    #[track_caller]
    pub(crate) fn call_on(&self, peer: &Peer) {
        let daemon = serve(&|args| self.command(args));
        poll::eventually("a courier and a device have met", SERVED, || {
            let outcome = peer.home().cairnfs(&["sync", BUCKET, "--timeout", "60s"]);
            outcome.code == Some(0)
        });
        run(&mut self.command(&["stop"]), SERVED).succeeds();
        process::ended(&self.home);
        drop(daemon);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.of.command(args);
        command.env("CAIRNFS_HOME", &self.home);
        command
    }
}

impl Drop for Trip<'_> {
    fn drop(&mut self) {
        process::kill_home(&self.home);
    }
}

/// Starts a daemon that keeps the bucket for others without mounting it.
#[track_caller]
fn serve(command: &dyn Fn(&[&str]) -> Command) -> Running {
    let daemon = Running::start(&mut command(&["daemon"]));
    poll::eventually("a courier keeps the bucket", SERVED, || {
        let outcome = run(&mut command(&["status", BUCKET, "--json"]), SERVED);
        outcome.code == Some(0) && outcome.json()["buckets"][0]["kept"] == true
    });
    daemon
}
