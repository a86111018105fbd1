//! The kinds of work, each with the calls that a program would make.

use std::{
    fmt,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::{
    noise::Noise,
    plain::barrier,
    served::{close, write_noise},
    tree::Tree,
};

/// Bytes of a small file, and of a read or write at a random place.
pub(super) const SMALL: usize = 4096;
/// Bytes of a read or write of a large file.
const PIECE: usize = 1 << 20;

/// How much is done in each round.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Amount {
    /// Rounds.
    pub rounds: usize,
    /// Files made, looked at, renamed, removed.
    pub files: u64,
    /// Files that are synced each.
    pub synced: u64,
    /// Bytes of a large file.
    pub large_bytes: u64,
    /// Reads and writes at random places.
    pub places: u64,
}

/// A kind of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Work {
    /// New files of 4 KiB.
    SmallFiles,
    /// New files of 4 KiB, each synced.
    SyncedFiles,
    /// A large new file, synced at the end.
    LargeWrite,
    /// It once more, from memory.
    WarmRead,
    /// 4 KiB at random places of it, synced at the end.
    Overwrite,
    /// Empty files.
    Create,
    /// New names for them.
    Rename,
    /// `tar -x` of a source tree.
    Untar,
    /// A look at each small file, first after mounting.
    Stat,
    /// The names in a directory, first after mounting.
    Readdir,
    /// `grep -r` through the source tree, first after mounting.
    Grep,
    /// A large file, first after mounting.
    ColdRead,
    /// 4 KiB at random places of another one, first after mounting.
    RandomRead,
    /// The empty files removed.
    Unlink,
}

/// What is done while everything may be in memory.
pub(super) const WARM: [Work; 8] = [
    Work::SmallFiles,
    Work::SyncedFiles,
    Work::LargeWrite,
    Work::WarmRead,
    Work::Overwrite,
    Work::Create,
    Work::Rename,
    Work::Untar,
];

/// What is done after everything was mounted anew.
pub(super) const COLD: [Work; 6] =
    [Work::Stat, Work::Readdir, Work::Grep, Work::ColdRead, Work::RandomRead, Work::Unlink];

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SmallFiles => "small files",
            Self::SyncedFiles => "small files, each fsynced",
            Self::LargeWrite => "large write, fsync",
            Self::WarmRead => "large read, warm",
            Self::Overwrite => "random overwrites, fsync",
            Self::Create => "create",
            Self::Rename => "rename",
            Self::Untar => "untar",
            Self::Stat => "stat, cold",
            Self::Readdir => "readdir, cold",
            Self::Grep => "grep -r, cold",
            Self::ColdRead => "large read, cold",
            Self::RandomRead => "random reads, cold",
            Self::Unlink => "unlink",
        })
    }
}

impl Work {
    /// Bytes that it writes, or reads, in all.
    pub(super) const fn bytes(self, amount: &Amount, tree_bytes: u64) -> u64 {
        match self {
            Self::SmallFiles => amount.files * SMALL as u64,
            Self::SyncedFiles => amount.synced * SMALL as u64,
            Self::LargeWrite | Self::WarmRead | Self::ColdRead => amount.large_bytes,
            Self::Overwrite | Self::RandomRead => amount.places * SMALL as u64,
            Self::Untar | Self::Grep => tree_bytes,
            Self::Create | Self::Rename | Self::Stat | Self::Readdir | Self::Unlink => 0,
        }
    }

    /// Whether it writes contents.
    pub(super) const fn writes(self) -> bool {
        matches!(
            self,
            Self::SmallFiles | Self::SyncedFiles | Self::LargeWrite | Self::Overwrite | Self::Untar
        )
    }

    /// How often it waits for the disk, if it asks for that.
    pub(super) const fn syncs(self, amount: &Amount) -> u64 {
        if let Self::SyncedFiles = self { amount.synced } else { 1 }
    }

    /// Does it in the directory `dir`, which the work before it has left as it needs it. What it
    /// writes was written by no other work and in no other round, so that nobody is the quicker for
    /// knowing it already; it is made before anything is timed.
    pub(super) fn run(
        self,
        dir: &Path,
        amount: &Amount,
        tree: &Tree,
        round: usize,
    ) -> Result<Duration> {
        let mut noise = Noise::new((self as u64) << 32 | round as u64);
        let (small, empty, large) = (dir.join("small"), dir.join("empty"), dir.join("large"));
        match self {
            Self::SmallFiles => {
                fs::create_dir(&small)?;
                let data = contents(&mut noise, amount.files);
                timed(|| put_each(&small, &data, false))
            }
            Self::SyncedFiles => {
                let synced = dir.join("synced");
                fs::create_dir(&synced)?;
                let data = contents(&mut noise, amount.synced);
                timed(|| put_each(&synced, &data, true))
            }
            Self::LargeWrite => {
                let data = noise.bytes(usize::try_from(amount.large_bytes)?);
                let time = timed(|| {
                    let file = File::create(&large)?;
                    for (piece, at) in data.chunks(PIECE).zip((0..).step_by(PIECE)) {
                        file.write_all_at(piece, at)?;
                    }
                    barrier(&file)?;
                    close(file)
                })?;
                // For reading from the disk later: this one is warm by then.
                write_noise(&dir.join("cold"), amount.large_bytes, &mut noise)?;
                Ok(time)
            }
            Self::WarmRead => {
                read(&large)?;
                timed(|| read(&large))
            }
            Self::ColdRead => timed(|| read(&dir.join("cold"))),
            Self::Overwrite => {
                let data = contents(&mut noise, amount.places);
                timed(|| {
                    let file = File::options().write(true).open(&large)?;
                    for piece in &data {
                        let at = noise.below(amount.large_bytes / SMALL as u64) * SMALL as u64;
                        file.write_all_at(piece, at)?;
                    }
                    barrier(&file)?;
                    close(file)
                })
            }
            Self::RandomRead => timed(|| {
                let file = File::open(&large)?;
                let mut data = [0; SMALL];
                for _ in 0..amount.places {
                    let at = noise.below(amount.large_bytes / SMALL as u64) * SMALL as u64;
                    file.read_exact_at(&mut data, at)?;
                }
                Ok(())
            }),
            Self::Create => {
                fs::create_dir(&empty)?;
                timed(|| each(&empty, amount.files, |path| close(File::create(path)?)))
            }
            Self::Rename => timed(|| {
                each(&empty, amount.files, |path| {
                    let to = path.with_extension("renamed");
                    fs::rename(path, to).context("rename")
                })
            }),
            Self::Untar => {
                let to = dir.join("tree");
                fs::create_dir(&to)?;
                let mut tar = Command::new("tar");
                tar.arg("-xf").arg(tree.archive()).arg("-C").arg(to);
                timed(|| succeed(&mut tar, &[0]))
            }
            Self::Grep => {
                let mut grep = Command::new("grep");
                grep.args(["-r", "no such words"]).arg(dir.join("tree"));
                // It exits with 1 as there is none.
                timed(|| succeed(&mut grep, &[1]))
            }
            Self::Stat => timed(|| {
                each(&small, amount.files, |path| fs::metadata(path).map(drop).context("stat"))
            }),
            Self::Readdir => timed(|| {
                let count = fs::read_dir(&empty)?.count() as u64;
                ensure!(count == amount.files, "{count} files instead of {}", amount.files);
                Ok(())
            }),
            Self::Unlink => timed(|| {
                each(&empty, amount.files, |path| {
                    fs::remove_file(path.with_extension("renamed")).context("unlink")
                })
            }),
        }
    }
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn each(dir: &Path, count: u64, mut act: impl FnMut(PathBuf) -> Result<()>) -> Result<()> {
    (0..count).try_for_each(|n| act(name(dir, n)))
}

fn name(dir: &Path, n: u64) -> PathBuf {
    dir.join(format!("file-{n}"))
}

/// `count` contents of small files, no two of them equal.
fn contents(noise: &mut Noise, count: u64) -> Vec<Vec<u8>> {
    (0..count).map(|_| noise.bytes(SMALL)).collect()
}

fn put_each(dir: &Path, contents: &[Vec<u8>], sync: bool) -> Result<()> {
    (0..).zip(contents).try_for_each(|(n, data)| put(&name(dir, n), data, sync))
}

pub(super) fn put(path: &Path, data: &[u8], sync: bool) -> Result<()> {
    let file = File::create(path)?;
    file.write_all_at(data, 0)?;
    if sync {
        barrier(&file)?;
    }
    close(file)
}

fn read(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut data = vec![0; PIECE];
    for at in (0..len).step_by(PIECE) {
        file.read_exact_at(&mut data, at)?;
    }
    Ok(())
}

/// Runs a program, which must exit with one of `codes`.
fn succeed(command: &mut Command, codes: &[i32]) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.with_context(|| format!("starting {program}"))?;
    ensure!(status.code().is_some_and(|code| codes.contains(&code)), "{program}: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::workplace;

    fn files(dir: &Path) -> Vec<PathBuf> {
        let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn nothing_is_written_twice_in_a_run() {
        let dir = workplace::in_memory().unwrap();
        let large_bytes = 3 * PIECE as u64;
        let amount = Amount { rounds: 2, files: 12, synced: 5, large_bytes, places: 40 };
        let (mut pieces, mut seen) = (0, HashSet::new());
        for round in 0..amount.rounds {
            let own = dir.path().join(format!("round-{round}"));
            let source = dir.path().join(format!("source-{round}"));
            let tree = Tree::new(&source, 12, round as u64).unwrap();
            fs::create_dir(&own).unwrap();
            for work in WARM {
                work.run(&own, &amount, &tree, round).unwrap();
            }
            for file in files(&own) {
                for piece in fs::read(&file).unwrap().chunks(SMALL) {
                    pieces += 1;
                    assert!(seen.insert(blake3::hash(piece)), "again in {}", file.display());
                }
            }
        }
        assert!(pieces > 2 * 6 * PIECE / SMALL, "both large files of both rounds, and more");
    }
}
