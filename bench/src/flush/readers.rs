//! Whether readers wait for a save: what is cached is read while another thread writes a large file
//! and syncs it.
//!
//! A save takes no lock that a reader needs for longer than a moment. What is left is that there are
//! more threads than processors. How much that is shows beside readers who share no lock with who
//! saves: of plain files, and of a mount that another daemon serves.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{CHANGE_BYTES, Extent, Group};
use crate::{interrupt, noise::Noise, plain::barrier, sample::Samples, served::Home, ui};

/// Length of the file that is read: all of it fits every cache.
const CACHED_BYTES: usize = 4 << 20;
/// How long is read with nobody else there.
const ALONE: Duration = Duration::from_secs(1);
/// How long everything is left alone before that: what a save leaves to be done later is done then.
const QUIET: Duration = Duration::from_secs(3);
/// Between two reads, so that the reader does not keep a processor to itself.
const PAUSE: Duration = Duration::from_micros(100);
/// What is written at a time.
const WRITE_BYTES: usize = 1 << 20;
/// Round the page cache, so that the daemon is asked.
const O_DIRECT: i32 = 0o40_000;

/// One who reads, and where is written meanwhile.
struct Reader {
    name: &'static str,
    file: File,
    large: PathBuf,
    alone: Samples,
    beside: Samples,
}

pub(super) fn measure(binary: &Path, dir: &Path, extent: Extent) -> Result<Group> {
    ui::progress("readers: alone, and beside a save");
    let (rounds, bytes) = match extent {
        Extent::Quick => (3, 64 << 20),
        Extent::Usual | Extent::Full => (5, 1 << 30),
    };
    let (home, other) = (Home::new(binary, dir, "home")?, Home::new(binary, dir, "other")?);
    let (served, idle) = (home.mount(&["--save", "flush"])?, other.mount(&["--save", "flush"])?);
    let (point, elsewhere) = (served.point(), idle.point());
    let mut readers = [
        Reader::new("plain, page cache", dir, dir, 0)?,
        Reader::new("plain, the disk", dir, dir, O_DIRECT)?,
        Reader::new("mount, page cache", point, point, 0)?,
        Reader::new("mount, the daemon's cache", point, point, O_DIRECT)?,
        Reader::new("another daemon's mount, its cache", elsewhere, point, O_DIRECT)?,
    ];
    for seed in 0..rounds {
        for reader in &mut readers {
            reader.round(bytes, seed)?;
        }
    }
    let (mut names, mut samples) = (Vec::new(), Vec::new());
    for Reader { name, alone, beside, .. } in readers {
        names.extend([format!("{name}: alone"), format!("{name}: beside a save")]);
        samples.extend([alone, beside]);
    }
    drop((served, idle));
    let bases = |at: usize| if at % 2 == 1 { vec![at - 1] } else { Vec::new() };
    let title = format!("A cached 4 KiB, read while {} MiB are written and synced", bytes >> 20);
    let group = Group::new(title, &names, &samples, bases);
    group.print(&["x alone (spread)", "p99 x alone"]);
    Ok(group)
}

impl Reader {
    /// One who reads a new file in `dir`, while a large one is written in `beside`.
    fn new(name: &'static str, dir: &Path, beside: &Path, flags: i32) -> Result<Self> {
        let path = dir.join(format!("cached-{flags}"));
        let mut noise = Noise::new(1);
        let mut content = vec![0; CACHED_BYTES];
        noise.fill(&mut content);
        fs::write(&path, &content).with_context(|| path.display().to_string())?;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&path)?;
        let large = beside.join("large");
        Ok(Self { name, file, large, alone: Samples::default(), beside: Samples::default() })
    }

    fn round(&mut self, bytes: usize, seed: u64) -> Result<()> {
        thread::sleep(QUIET);
        let mut noise = Noise::new(seed + 1);
        let start = Instant::now();
        self.alone.begin_round();
        read_while(&self.file, &mut noise, &mut self.alone, || start.elapsed() < ALONE)?;
        self.beside.begin_round();
        let (file, beside, large) = (&self.file, &mut self.beside, &self.large);
        thread::scope(|scope| -> Result<()> {
            let writing = scope.spawn(|| write_large(large, bytes, seed));
            read_while(file, &mut noise, beside, || !writing.is_finished())?;
            let Ok(written) = writing.join() else { bail!("the writer panicked") };
            written.with_context(|| large.display().to_string())
        })?;
        fs::remove_file(&self.large)?;
        Ok(())
    }
}

fn read_while(
    file: &File,
    noise: &mut Noise,
    samples: &mut Samples,
    goes_on: impl Fn() -> bool,
) -> Result<()> {
    // A disk is read directly only into memory that is aligned as its blocks are.
    let mut room = vec![0; 2 * CHANGE_BYTES];
    let aligned = room.as_ptr().align_offset(CHANGE_BYTES);
    let bytes = &mut room[aligned..][..CHANGE_BYTES];
    while goes_on() {
        interrupt::check()?;
        let at = noise.below((CACHED_BYTES / CHANGE_BYTES) as u64) * CHANGE_BYTES as u64;
        let start = Instant::now();
        file.read_exact_at(bytes, at)?;
        samples.push(start.elapsed());
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn write_large(path: &Path, bytes: usize, seed: u64) -> Result<()> {
    let mut noise = Noise::new(seed + 1_000);
    let mut part = vec![0; WRITE_BYTES];
    let mut file = File::create(path)?;
    for _ in 0..bytes / WRITE_BYTES {
        noise.fill(&mut part);
        file.write_all(&part)?;
    }
    barrier(&file)?;
    Ok(())
}
