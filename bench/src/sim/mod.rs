//! A simulated disk under the real binary: the power can be cut at any moment, as often as wanted.
//!
//! ```text
//!   work --> kernel --> cairnfs, the binary --> kernel --> SimFs --> store::sim::SimDisk
//!                                                                        |
//!   what is left <-- mount-core <-- files in memory <-- Image <-- crash(seed), at any moment
//! ```
//!
//! The daemon keeps its bucket in a directory that this process serves through FUSE, from a
//! [`SimDisk`]: everything it writes and every barrier arrives there,
//! with the timing of the real thing. A cut takes the disk as it might be found after a power
//! failure at that moment, and disturbs nobody.

mod fs;
mod image;

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use cairnfs_store::sim::{Counters, SimDisk};
use fuser::{BackgroundSession, Config, MountOption};
use rustix::io::Errno;

pub use image::Image;

use self::fs::SimFs;
use crate::ui;

/// Threads that answer for the disk: the daemon has a writer, an index thread and readers.
const THREADS: usize = 4;
/// How long the kernel may hold on to the mount.
const PATIENCE: Duration = Duration::from_secs(10);

/// A directory that is a simulated disk; unmounted when dropped.
#[derive(Debug)]
pub struct Sim {
    disk: SimDisk,
    point: PathBuf,
    session: Option<Served>,
}

struct Served(BackgroundSession);

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Served(..)")
    }
}

impl Sim {
    /// Takes what is in the directory `point` to a new simulated disk, durably, and mounts that
    /// over it.
    ///
    /// # Errors
    ///
    /// If there is no FUSE.
    pub fn over(point: &Path, seed: u64) -> Result<Self> {
        let disk = SimDisk::new(seed);
        let dirs = image::load(&disk, point)?;
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("cairnfs-bench-sim".to_owned())];
        config.n_threads = Some(THREADS);
        let session = fuser::spawn_mount(SimFs::new(disk.clone(), dirs)?, point, &config)
            .with_context(|| format!("mounting a simulated disk at {}", point.display()))?;
        Ok(Self { disk, point: point.to_owned(), session: Some(Served(session)) })
    }

    /// What the disk might hold after a power failure now; shares memory with the image of a cut
    /// `before`.
    #[must_use]
    pub fn cut(&self, seed: u64, before: Option<&Image>) -> Image {
        Image::of(&self.disk.crash(seed), before)
    }

    /// What was asked of the disk so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.disk.counters()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        let Some(Served(session)) = self.session.take() else { return };
        // Before the unmount, after which the number of the connection may be another one's.
        let abort = abort_of(&self.point);
        let start = Instant::now();
        let unmount = || rustix::mount::unmount(&self.point, rustix::mount::UnmountFlags::empty());
        let mut unmounted = unmount();
        // A daemon that ended just now may still be in the kernel's books.
        while unmounted == Err(Errno::BUSY) && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
            unmounted = unmount();
        }
        // Where that was not allowed, fusermount3 is, through fuser.
        let ended = if unmounted.is_ok() { end(session, abort) } else { session.umount_and_join() };
        if let Err(err) = ended {
            ui::progress(&format!("the simulated disk at {}: {err}", self.point.display()));
        }
    }
}

/// What ends the connection to the kernel of what is mounted there when it is written to; only where
/// fusectl is mounted.
fn abort_of(point: &Path) -> io::Result<File> {
    let connection = rustix::fs::minor(std::fs::metadata(point)?.dev());
    File::options().write(true).open(format!("/sys/fs/fuse/connections/{connection}/abort"))
}

/// Ends what was unmounted. A mount namespace that somebody made meanwhile has a copy of the mount, and
/// the kernel goes on with it as long as that is there.
fn end(session: BackgroundSession, abort: io::Result<File>) -> io::Result<()> {
    let aborted = abort.and_then(|mut abort| abort.write_all(b"1"));
    let start = Instant::now();
    while !session.guard.is_finished() {
        if start.elapsed() > PATIENCE {
            let why = aborted.err().map_or_else(String::new, |err| format!(", and {err}"));
            return Err(io::Error::other(format!("another mount namespace has it still{why}")));
        }
        thread::sleep(Duration::from_millis(1));
    }
    session.join()
}

#[cfg(test)]
mod tests {
    use std::{fs, io::ErrorKind};

    use super::*;
    use crate::workplace;

    #[test]
    fn names_are_made_and_missed_as_on_any_disk() {
        let dir = workplace::in_memory().unwrap();
        let sim = Sim::over(dir.path(), 1).unwrap();
        let path = dir.path().join("00000002.pack");
        assert_eq!(fs::read(&path).unwrap_err().kind(), ErrorKind::NotFound);
        fs::write(&path, b"sealed").unwrap();
        assert_eq!(File::create_new(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"sealed");
        fs::remove_file(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap_err().kind(), ErrorKind::NotFound);
        drop(sim);
    }
}
