//! A device: a home with a daemon of its own, which is reached on this machine only.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use cairnfs_mount_core::{Mount, Options, SavePolicy};
use serde::Deserialize;

use super::{
    connections::{Connections, Peer},
    poll,
};
use crate::{
    served::Home,
    systems::{Process, is_mounted},
    ui,
};

/// How long a daemon may take to end.
const PATIENCE: Duration = Duration::from_secs(120);
/// The bucket that is shared.
const BUCKET: &str = "b";

/// Ends with its daemon when dropped.
#[derive(Debug)]
pub(super) struct Device {
    home: Home,
    daemon: Process,
}

/// What `cairnfs peers --json` says.
#[derive(Deserialize)]
struct Peers {
    /// None while no daemon runs.
    listening: Option<String>,
    peers: Vec<Peer>,
}

impl Device {
    /// One with a new bucket that `fill` fills, mounted with `options`.
    pub(super) fn with_bucket(
        binary: &Path,
        dir: &Path,
        name: &str,
        options: &[&str],
        fill: impl FnOnce(&Mount) -> Result<()>,
    ) -> Result<Self> {
        let home = Home::new(binary, dir, name)?;
        // Without FUSE, and without a barrier for each file: this is not what is measured.
        let policy = SavePolicy::Interval(Duration::from_secs(1));
        let mount = home.core(Options { policy, ..Options::default() })?;
        let filled = fill(&mount).context("filling a bucket");
        mount.stop()?;
        drop(mount); // With it goes the lock of the bucket.
        filled?;
        let device = Self::start(home)?;
        device.mount(options)?;
        Ok(device)
    }

    /// One that has nothing yet.
    pub(super) fn new(binary: &Path, dir: &Path, name: &str) -> Result<Self> {
        Self::start(Home::bare(binary, dir, name)?)
    }

    fn start(home: Home) -> Result<Self> {
        let daemon = Process::start(&mut home.command(&[OsStr::new("daemon")]))?;
        let mut device = Self { home, daemon };
        poll::until("the daemon answers", || {
            ensure!(device.daemon.ended()?.is_none(), "the daemon ended: {}", device.home.said());
            Ok(device.peers()?.listening.is_some())
        })?;
        Ok(device)
    }

    /// Runs `cairnfs ARGS` and returns what it prints.
    pub(super) fn run(&self, args: &[&str]) -> Result<String> {
        let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        let output = self.home.command(&args).stdout(Stdio::piped()).output()?;
        let name = args.first().map(|verb| verb.to_string_lossy()).unwrap_or_default();
        ensure!(output.status.success(), "cairnfs {name} failed: {}", self.home.said());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Mounts the bucket.
    pub(super) fn mount(&self, options: &[&str]) -> Result<()> {
        let point = self.home.point().to_string_lossy();
        let mut args = vec!["mount", BUCKET, &point];
        args.extend(options);
        self.run(&args).map(drop)
    }

    /// Lets the other device in.
    pub(super) fn invite(&self) -> Result<String> {
        Ok(self.run(&["invite", BUCKET])?.trim().to_owned())
    }

    /// Becomes a member, and brings the bucket.
    pub(super) fn join(&self, ticket: &str) -> Result<()> {
        self.run(&["join", ticket, "--no-passphrase", "--name", BUCKET]).map(drop)
    }

    /// Waits until it has what the others have, and they what it has.
    pub(super) fn sync(&self) -> Result<()> {
        self.run(&["sync", BUCKET, "--timeout", "10m"]).map(drop)
    }

    /// The mount point.
    pub(super) fn point(&self) -> &Path {
        self.home.point()
    }

    /// What has gone over the present connections.
    pub(super) fn connections(&self) -> Result<Connections> {
        Ok(Connections::of(self.peers()?.peers))
    }

    fn peers(&self) -> Result<Peers> {
        Ok(serde_json::from_str(&self.run(&["peers", "--json"])?)?)
    }

    fn end(&mut self) -> Result<()> {
        if is_mounted(self.point())? {
            self.run(&["umount", &self.home.point().to_string_lossy()])?;
        }
        self.run(&["stop"])?;
        self.daemon.wait(PATIENCE)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let Err(err) = self.end() else { return };
        ui::progress(&format!("{err:#}; taking {} away", self.point().display()));
        let detach = Command::new("fusermount3").args(["-u", "-z"]).arg(self.point()).status();
        if let Err(err) = detach {
            ui::progress(&format!("left behind: {err}"));
        }
    }
}

/// Two devices that share a bucket, each with its mount.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) one: Device,
    pub(super) other: Device,
}

impl Pair {
    /// The one's bucket is filled by `fill` and mounted with `options`; the other joins.
    pub(super) fn new(
        binary: &Path,
        dir: &Path,
        name: &str,
        options: &[&str],
        fill: impl FnOnce(&Mount) -> Result<()>,
    ) -> Result<Arc<Self>> {
        let one = Device::with_bucket(binary, dir, &format!("{name}-one"), options, fill)?;
        let other = Device::new(binary, dir, &format!("{name}-other"))?;
        other.join(&one.invite()?)?;
        // `join` brought all there was. Whoever measures waits for what comes then: `sync` right
        // after a mount may find that nobody is connected yet.
        other.mount(&[])?;
        Ok(Arc::new(Self { one, other }))
    }
}
