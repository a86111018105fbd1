//! Does the disk below keep what it says it keeps, and is there room?

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use cairnfs_store::disk::{Disk, Open, RealDisk};
use rustix::fs::{FsWord, StatVfs, statfs, statvfs};

use super::Finding;
use crate::{
    exit::{Code, plain},
    values::Size,
};

/// Barriers measured; the median counts.
const ROUNDS: u64 = 24;

/// Bytes written before each barrier.
const WRITE_BYTES: usize = 4096;

/// Less than a command takes to a disk and back, even to flash with a cache that needs no power.
const TOO_FAST: Duration = Duration::from_micros(8);

/// Slower ones make every close of a file noticeable.
const SLOW: Duration = Duration::from_millis(50);

/// Less room than this is soon gone.
const LITTLE_BYTES: u64 = 1 << 30;

/// File systems that forget everything when the power goes (statfs(2)).
const IN_MEMORY: [(FsWord, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];

/// The disk of the folder `data`, which need not exist yet.
pub(super) fn examine(data: &Path) -> Vec<Finding> {
    let Some(dir) = data.ancestors().find(|dir| dir.is_dir()) else { return Vec::new() };
    vec![barriers(dir), room(dir)]
}

fn barriers(dir: &Path) -> Finding {
    let kind = statfs(dir).map(|stat| stat.f_type).unwrap_or_default();
    if let Some((_, name)) = IN_MEMORY.iter().find(|(magic, _)| *magic == kind) {
        return Finding::doubtful(
            format_args!("fsync: {} is in memory ({name})", dir.display()),
            "nothing there survives a power cut: set CAIRNFS_HOME to a folder on a disk",
        );
    }
    let (write, barrier) = match measure(dir) {
        Ok(times) => times,
        Err(err) => {
            return Finding::bad(
                Code::Failed,
                format_args!("fsync: cannot write to {}: {}", dir.display(), plain(&err)),
                "the buckets lie there: give this user a folder it may write to",
            );
        }
    };
    let seen = format!(
        "fsync: {} to make {WRITE_BYTES} bytes durable, {} to write them (median of {ROUNDS})",
        about(barrier),
        about(write)
    );
    if barrier < TOO_FAST {
        Finding::doubtful(
            seen,
            "no disk is that fast: something below answers before it has the bytes; look for a \
             virtual disk with unsafe caching, or a mount option such as nobarrier",
        )
    } else if barrier > SLOW {
        Finding::doubtful(
            seen,
            "that makes every close of a file slow: try --save release or --save interval:10s",
        )
    } else {
        Finding::good(seen)
    }
}

/// The median times of a write and of the barrier after it.
fn measure(dir: &Path) -> io::Result<(Duration, Duration)> {
    let path = TempFile(dir.join(format!(".cairnfs-doctor-{}", std::process::id())));
    let file = RealDisk.open(&path.0, Open::OrCreate)?;
    let (mut writes, mut barriers) = (Vec::new(), Vec::new());
    let len = u64::try_from(WRITE_BYTES).unwrap_or_default();
    for round in 0..ROUNDS {
        let begun = Instant::now();
        file.write_at(&[0xa5; WRITE_BYTES], round * len)?;
        let written = Instant::now();
        file.barrier()?;
        writes.push(written.duration_since(begun));
        barriers.push(written.elapsed());
    }
    Ok((median(writes), median(barriers)))
}

struct TempFile(PathBuf);

impl Drop for TempFile {
    fn drop(&mut self) {
        // It may not have been made.
        std::fs::remove_file(&self.0).ok();
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn about(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..1_000 => format!("{micros} us"),
        micros => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
    }
}

fn room(dir: &Path) -> Finding {
    match statvfs(dir) {
        Ok(StatVfs { f_bavail, f_frsize, f_files, f_favail, .. }) => {
            let free = f_bavail.saturating_mul(f_frsize);
            let seen = format!("space: {} free at {}", Size(free).about(), dir.display());
            if free < LITTLE_BYTES {
                Finding::doubtful(seen, "free some, or move the folder and set CAIRNFS_HOME")
            } else if f_files > 0 && f_favail < 1_000 {
                Finding::doubtful(
                    format_args!("{seen}, but room for {f_favail} more files only"),
                    "remove files that nobody needs",
                )
            } else {
                Finding::good(seen)
            }
        }
        Err(err) => Finding::doubtful(
            format_args!("space: cannot be told: {}", plain(&err.into())),
            "see 'df'",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measuring_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        measure(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_median_is_not_moved_by_one_slow_round() {
        let times = [5, 4, 900, 6, 5].map(Duration::from_micros).to_vec();
        assert_eq!(median(times), Duration::from_micros(5));
    }
}
