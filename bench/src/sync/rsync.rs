//! rsync with a daemon on this machine.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::poll;
use crate::systems::Process;

/// A daemon that gives one directory; ends when dropped.
#[derive(Debug)]
pub(super) struct Daemon {
    port: u16,
    _process: Process,
}

/// Whether there is one.
pub(super) fn is_installed() -> bool {
    let version = Command::new("rsync").arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

impl Daemon {
    /// Gives `tree` to whoever asks on this machine; its own files are in `dir`.
    pub(super) fn start(dir: &Path, tree: &Path) -> Result<Self> {
        // Free again when it is dropped here: rsync takes no socket and tells no port.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
        let config = dir.join("rsyncd.conf");
        let text = format!(
            "address = 127.0.0.1\nport = {port}\nuse chroot = no\nreverse lookup = no\n\
             [tree]\npath = {}\nread only = yes\nuid = {}\ngid = {}\n",
            tree.display(),
            user.as_raw(),
            group.as_raw(),
        );
        fs::write(&config, text)?;
        let mut command = Command::new("rsync");
        command.args(["--daemon", "--no-detach"]);
        command.arg(format!("--config={}", config.display()));
        command.arg(format!("--log-file={}", dir.join("rsyncd.log").display()));
        let mut process = Process::start(command.stdin(Stdio::null()))?;
        poll::until("rsync's daemon listens", || {
            ensure!(process.ended()?.is_none(), "rsync's daemon ended");
            Ok(TcpStream::connect(("127.0.0.1", port)).is_ok())
        })?;
        Ok(Self { port, _process: process })
    }

    /// Brings `to` up to date and says how many bytes were sent, both ways.
    pub(super) fn fetch(&self, to: &Path) -> Result<u64> {
        let mut command = Command::new("rsync");
        // Times to the nanosecond: what was changed within one second is to be seen.
        command.args(["-a", "--modify-window=-1", "--stats", "--no-human-readable"]);
        command.arg(format!("rsync://127.0.0.1:{}/tree/", self.port)).arg(to);
        let output = command.stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "rsync failed: {}", output.status);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let of = |what: &str| -> Result<u64> {
            let line = said.lines().find_map(|line| line.strip_prefix(what));
            let digits: String = line
                .context("rsync gives no account")?
                .chars()
                .filter(char::is_ascii_digit)
                .collect();
            Ok(digits.parse()?)
        };
        Ok(of("Total bytes sent:")? + of("Total bytes received:")?)
    }
}
