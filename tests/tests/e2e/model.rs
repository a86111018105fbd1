//! Random calls have the same results here and on an ordinary directory beside it.
//!
//! The names are few, so that they meet: hard links of one file, files that are open and
//! unlinked, renamed while open. After every step the results are compared, every now and then
//! both trees, with the daemon killed and mounted again in between. A difference is reported with
//! the seed and the steps that led to it; `CAIRNFS_TEST_SEED` replays one seed,
//! `CAIRNFS_TEST_STEPS` makes it longer.

use std::{
    collections::VecDeque,
    env,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use cairnfs_tests::{Peer, Rng, Tree, data};
use rustix::fs::{CWD, FallocateFlags, RenameFlags, fallocate, renameat_with};

const NAMES: [&str; 12] =
    ["a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "e", "e/a", "e/d", "e/d/a"];

#[derive(Clone, Debug)]
enum Call {
    Create(&'static str),
    Write { name: &'static str, offset: u64, len: usize, seed: u64 },
    Append { name: &'static str, len: usize, seed: u64 },
    Truncate { name: &'static str, len: u64 },
    Punch { name: &'static str, offset: u64, len: u64 },
    Mkdir(&'static str),
    Rmdir(&'static str),
    Unlink(&'static str),
    Rename { from: &'static str, to: &'static str, flags: RenameFlags },
    Link { from: &'static str, to: &'static str },
    Symlink { target: &'static str, name: &'static str },
    Chmod { name: &'static str, mode: u32 },
    Stat(&'static str),
    List(&'static str),
    Read(&'static str),
    Hold(&'static str),
    HeldWrite { which: usize, offset: u64, len: usize, seed: u64 },
    HeldRead { which: usize },
    HeldDrop { which: usize },
    Fsync(&'static str),
}

fn pick(rng: &mut Rng) -> Call {
    let name = NAMES[rng.index(NAMES.len())];
    let to = NAMES[rng.index(NAMES.len())];
    let (seed, which) = (rng.next_u64(), rng.index(4));
    let reach = if rng.below(4) == 0 { 400_000 } else { 5_000 };
    let most = if rng.below(5) == 0 { 200_000 } else { 6_000 };
    let (offset, len) = (rng.below(reach), 1 + rng.index(most));
    match rng.below(26) {
        0..=2 => Call::Create(name),
        3..=5 => Call::Write { name, offset, len, seed },
        6 => Call::Append { name, len, seed },
        7 => Call::Truncate { name, len: offset },
        8 => Call::Punch { name, offset, len: u64::try_from(len).unwrap() },
        9..=10 => Call::Mkdir(name),
        11 => Call::Rmdir(name),
        12 => Call::Unlink(name),
        13..=14 => Call::Rename { from: name, to, flags: RenameFlags::empty() },
        15 => Call::Rename { from: name, to, flags: RenameFlags::NOREPLACE },
        16 => Call::Rename { from: name, to, flags: RenameFlags::EXCHANGE },
        17 => Call::Link { from: name, to },
        18 => Call::Symlink { target: to, name },
        19 => Call::Chmod { name, mode: 0o400 | u32::try_from(rng.below(0o400)).unwrap() },
        20 => Call::Stat(name),
        21 => Call::List(name),
        22 => Call::Read(name),
        23 => match rng.below(3) {
            0 => Call::Hold(name),
            1 => Call::HeldWrite { which, offset, len, seed },
            _ => Call::HeldDrop { which },
        },
        24 => Call::HeldRead { which },
        _ => Call::Fsync(name),
    }
}

/// A directory that calls are made in, and what is held open there.
struct Place {
    dir: PathBuf,
    held: VecDeque<File>,
}

impl Place {
    /// Makes the call; what it answers, in words that can be compared.
    fn answer(&mut self, call: &Call) -> String {
        match self.make(call) {
            Ok(answer) => answer,
            Err(err) => format!("error {:?}", err.raw_os_error()),
        }
    }

    fn make(&mut self, call: &Call) -> io::Result<String> {
        let at = |name: &str| self.dir.join(name);
        let edit = |name: &str| OpenOptions::new().read(true).write(true).open(at(name));
        match *call {
            Call::Create(name) => drop(File::create(at(name))?),
            Call::Write { name, offset, len, seed } => {
                let file = edit(name)?;
                file.write_all_at(&data::bytes(seed, len), offset)?;
                return seen(&file.metadata()?);
            }
            Call::Append { name, len, seed } => {
                let mut file = OpenOptions::new().append(true).open(at(name))?;
                io::Write::write_all(&mut file, &data::bytes(seed, len))?;
                return seen(&file.metadata()?);
            }
            Call::Truncate { name, len } => edit(name)?.set_len(len)?,
            Call::Punch { name, offset, len } => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(edit(name)?, flags, offset, len)?;
            }
            Call::Mkdir(name) => fs::create_dir(at(name))?,
            Call::Rmdir(name) => fs::remove_dir(at(name))?,
            Call::Unlink(name) => fs::remove_file(at(name))?,
            Call::Rename { from, to, flags } => renameat_with(CWD, at(from), CWD, at(to), flags)?,
            Call::Link { from, to } => fs::hard_link(at(from), at(to))?,
            Call::Symlink { target, name } => symlink(target, at(name))?,
            Call::Chmod { name, mode } => {
                fs::set_permissions(at(name), fs::Permissions::from_mode(mode))?;
            }
            Call::Stat(name) => return seen(&fs::symlink_metadata(at(name))?),
            Call::List(name) => {
                let mut names = Vec::new();
                for entry in fs::read_dir(at(name))? {
                    let entry = entry?;
                    names.push((entry.file_name(), entry.file_type()?.is_dir()));
                }
                names.sort();
                return Ok(format!("{names:?}"));
            }
            Call::Read(name) => return Ok(hash(&fs::read(at(name))?)),
            Call::Hold(name) => {
                let file = edit(name)?;
                self.held.push_back(file);
                if self.held.len() > 4 {
                    self.held.pop_front();
                }
            }
            Call::HeldWrite { which, offset, len, seed } => {
                if let Some(file) = self.held.get(which) {
                    file.write_all_at(&data::bytes(seed, len), offset)?;
                    return seen(&file.metadata()?);
                }
            }
            Call::HeldRead { which } => {
                if let Some(file) = self.held.get(which) {
                    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap()];
                    file.read_exact_at(&mut bytes, 0)?;
                    return Ok(hash(&bytes));
                }
            }
            Call::HeldDrop { which } => drop(self.held.remove(which)),
            Call::Fsync(name) => File::open(at(name))?.sync_all()?,
        }
        Ok("done".into())
    }
}

fn hash(bytes: &[u8]) -> String {
    format!("{} bytes, {}", bytes.len(), blake3::hash(bytes).to_hex())
}

fn seen(meta: &fs::Metadata) -> io::Result<String> {
    // How large a directory is, and how its links are counted, is the file system's choice.
    let len = if meta.is_dir() { 0 } else { meta.len() };
    let nlink = if meta.is_dir() { 0 } else { meta.nlink() };
    Ok(format!("mode={:o} len={len} nlink={nlink}", meta.mode()))
}

/// Everything but times, which two places cannot share.
fn compare(model: &Path, mount: &Path, what: &str) {
    let (wanted, found) = (Tree::of(model).without_times(), Tree::of(mount).without_times());
    eprintln!("{what}: {} entries", wanted.len());
    wanted.same_as(&found);
}

fn run(seed: u64, steps: u64, save: &str) {
    let peer = Peer::with(&["--save", save]);
    let model = peer.scratch().join("model");
    fs::create_dir(&model).unwrap();
    let mut here = Place { dir: model.clone(), held: VecDeque::new() };
    let mut there = Place { dir: peer.dir(), held: VecDeque::new() };
    let mut rng = Rng::new(seed);
    let mut trail = VecDeque::new();
    for step in 0..steps {
        let call = pick(&mut rng);
        let wanted = here.answer(&call);
        let found = there.answer(&call);
        trail.push_back(format!("{call:?} -> {wanted}"));
        if trail.len() > 25 {
            trail.pop_front();
        }
        if wanted != found {
            let steps: Vec<_> = trail.into_iter().collect();
            panic!(
                "step {step} of CAIRNFS_TEST_SEED={seed} ({save}): {call:?}\nwanted {wanted}\nfound  {found}\nthe last steps:\n{}",
                steps.join("\n")
            );
        }
        if step % 400 == 399 {
            let what = format!("seed {seed}, step {step}");
            compare(&model, &peer.dir(), &what);
            // What is unlinked and open dies with the daemon, so it is let go on both sides.
            here.held.clear();
            there.held.clear();
            match rng.below(3) {
                0 => peer.remount(),
                1 => {
                    peer.wait_safe();
                    peer.kill_and_remount();
                }
                _ => (),
            }
            compare(&model, &peer.dir(), &what);
        }
    }
    drop((here, there));
    peer.remount();
    compare(&model, &peer.dir(), "at the end");
}

fn seeds(first: u64, save: &str) {
    let steps = data::number_from_env("CAIRNFS_TEST_STEPS").unwrap_or(3_000);
    if env::var_os("CAIRNFS_TEST_SEED").is_some() {
        run(Rng::seed_from_env(), steps, save);
    } else {
        // The same every time, so that a failure is one of the change under test; and a new one.
        for seed in [first, first + 1, Rng::seed_from_env()] {
            run(seed, steps, save);
        }
    }
}

#[test]
fn random_calls_agree_with_an_ordinary_directory_under_release() {
    seeds(1, "release");
}

#[test]
fn random_calls_agree_with_an_ordinary_directory_under_flush() {
    seeds(201, "flush");
}

#[test]
fn random_calls_agree_with_an_ordinary_directory_under_interval() {
    seeds(101, "interval:50ms");
}
