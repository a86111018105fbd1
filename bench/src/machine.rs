//! Where and when something was measured.

use std::{fs, path::Path};

use anyhow::Result;
use serde::Serialize;

/// A machine at a time.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// When the run began, UTC.
    pub date: String,
    /// Of cairnfs.
    pub version: String,
    /// Of the kernel.
    pub kernel: String,
    /// As the processor calls itself.
    pub cpu: String,
    /// Processors.
    pub cores: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The file system measured on, and its device.
    pub disk: String,
    /// Processes that wanted to run in the last minute, when the run began.
    pub load: String,
}

impl Machine {
    /// This one; `dir` is where it is measured.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell.
    pub fn here(dir: &Path) -> Result<Self> {
        let field = |path: &str, name: &str| -> Result<String> {
            let text = fs::read_to_string(path)?;
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or("");
            Ok(line.split_once(':').map_or("", |(_, value)| value).trim().to_owned())
        };
        let memory = field("/proc/meminfo", "MemTotal")?;
        let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        Ok(Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            cpu: field("/proc/cpuinfo", "model name")?,
            cores: std::thread::available_parallelism()?.get(),
            memory_mib: kib >> 10,
            disk: disk(&dir.canonicalize()?)?,
            load: load()?,
        })
    }

    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { date, version, kernel, cpu, cores, memory_mib, disk, load } = self;
        format!(
            "{date}, cairnfs {version}, {cpu}, {cores} cores, {memory_mib} MiB, Linux {kernel}, \
             {disk}, load {load}"
        )
    }

    /// Whether a barrier on this file system means anything.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.disk.starts_with("tmpfs") || self.disk.starts_with("ramfs")
    }
}

/// The load average of the last minute.
///
/// # Errors
///
/// If the kernel does not tell.
pub fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or("").to_owned())
}

/// Type and device of the file system that `dir` is on.
fn disk(dir: &Path) -> Result<String> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mounts = table.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let point = Path::new(left.split(' ').nth(4)?);
        let mut right = right.split(' ');
        let (kind, device) = (right.next()?, right.next()?);
        dir.starts_with(point).then(|| (point.as_os_str().len(), format!("{kind} on {device}")))
    });
    Ok(mounts.max_by_key(|(len, _)| *len).map_or_else(|| "?".to_owned(), |(_, disk)| disk))
}
