//! Who really syncs: the barriers that a file system issues while files on it are fsynced.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use super::works::{SMALL, put};
use crate::{
    noise::Noise,
    systems::{Place, find_program},
};

/// Files fsynced.
const FILES: u32 = 20;
/// How long strace may take to attach or to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// All calls that make the disk wait.
const CALLS: &str = "trace=fsync,fdatasync,sync,syncfs,sync_file_range,msync";

/// What was counted.
#[derive(Clone, Debug, Serialize)]
pub struct Syncs {
    /// Whose.
    pub system: String,
    /// `fsync` calls of the program that works on it.
    pub asked: u32,
    /// Barriers meanwhile of the processes that serve it; none if it cannot be told.
    pub barriers: Option<u32>,
}

impl Syncs {
    /// In words.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match self.barriers {
            None => "-",
            Some(0) => "NO: fsync does not reach the disk",
            Some(count) if count < self.asked => "not each time",
            Some(_) => "yes",
        }
    }
}

/// Whether it can be told here at all.
pub(super) fn can_count() -> bool {
    find_program("strace").is_some()
}

/// Fsyncs files on `place` while strace looks at those who serve it.
pub(super) fn count(place: &Place) -> Result<Syncs> {
    let system = place.which().to_string();
    let Some(process) = place.process() else {
        return Ok(Syncs { system, asked: FILES, barriers: None });
    };
    let trace = place.base().join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", CALLS, "-o"]).arg(&trace);
    for pid in process.members()? {
        strace.args(["-p", &pid.to_string()]);
    }
    // Its own group, so that Ctrl-C leaves it to us to end it.
    let mut strace = strace.process_group(0).stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let counted = attached(process.pid()).and_then(|()| {
        let dir = place.root().join("counted");
        fs::create_dir(&dir)?;
        let data = Noise::new(6).bytes(SMALL);
        // Saves that were asked for before, and versions made of them, are not counted.
        thread::sleep(Duration::from_secs(2));
        let before = barriers(&trace)?;
        for n in 0..FILES {
            put(&dir.join(n.to_string()), &data, true)?;
        }
        Ok(barriers(&trace)?.saturating_sub(before))
    });
    let pid = i32::try_from(strace.id()).ok().and_then(Pid::from_raw).context("a process id")?;
    // It lets go of those it looks at.
    kill_process(pid, Signal::TERM)?;
    strace.wait()?;
    Ok(Syncs { system, asked: FILES, barriers: Some(counted?) })
}

/// Waits until all threads of a process are looked at.
fn attached(pid: u32) -> Result<()> {
    let start = Instant::now();
    loop {
        let mut all = true;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let status = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
            all &= !status.lines().any(|line| line == "TracerPid:\t0");
        }
        if all {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!("strace cannot look at process {pid}");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The calls in a trace. One that was interrupted in the trace is there a second time as resumed.
fn barriers(trace: &Path) -> Result<u32> {
    let text = fs::read_to_string(trace)?;
    let calls =
        text.lines().filter(|line| line.contains("sync(") || line.contains("sync_file_range("));
    Ok(u32::try_from(calls.filter(|line| !line.contains("resumed")).count())?)
}
