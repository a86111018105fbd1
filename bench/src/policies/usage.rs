//! What a process has used, by the kernel's account.

use std::fs;

use anyhow::{Context, Result};

/// CPU time of all threads of a process so far, in nanoseconds.
///
/// # Errors
///
/// If the kernel does not tell.
pub(super) fn cpu_ns(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // One that has just ended is gone, with its account.
        let account = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        // Documentation/scheduler/sched-stats.rst: time on the CPU comes first.
        sum += account.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}

/// The most memory that a process had at once since it was asked to forget, in KiB.
pub(super) fn peak_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Has the kernel forget the most that a process had (`proc_pid_clear_refs(5)`).
pub(super) fn forget_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("clear_refs")
}
