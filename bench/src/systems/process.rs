//! A process that serves a mount.

use std::{
    fs, io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// A process with all that it starts: a process group of its own, so that Ctrl-C in the terminal
/// ends the work and not what it is done on. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn start(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.process_group(0).spawn().with_context(|| format!("starting {program}"));
        Ok(Self { child: child? })
    }

    /// Its number, which is that of its group too.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The numbers of all processes of its group.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell.
    pub fn members(&self) -> Result<Vec<u32>> {
        let own = self.pid().to_string();
        let mut members = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // It may have ended since.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // proc_pid_stat(5): the name, in brackets, is the second field; the group the fifth.
            let group = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(2));
            if group == Some(&own) {
                members.push(pid);
            }
        }
        Ok(members)
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// If it does not come within `patience`.
    pub fn wait(&mut self, patience: Duration) -> Result<()> {
        let start = Instant::now();
        while self.ended()?.is_none() {
            if start.elapsed() > patience {
                bail!("process {} does not end", self.pid());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.ended() {
            return;
        }
        let group = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let killed = group.map(|group| kill_process_group(group, Signal::KILL));
        if let Some(Err(err)) = killed {
            crate::ui::progress(&format!("left behind: process {}: {err}", self.pid()));
        } else if let Err(err) = self.child.wait() {
            crate::ui::progress(&format!("process {}: {err}", self.pid()));
        }
    }
}

/// Whether something is mounted at `point`.
///
/// # Errors
///
/// If the kernel does not tell.
pub(crate) fn is_mounted(point: &Path) -> io::Result<bool> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let point = point.to_string_lossy();
    Ok(table.lines().any(|line| line.split(' ').nth(4) == Some(&point)))
}
