//! Devices that edit at random while they are cut off, ended and killed agree at the end, and what
//! a `close` has saved is found on all of them.
//!
//! Every content is written once. It is *owed* from the moment when `close` has returned 0 under
//! the policy `flush` until a device that shows it writes over it or removes it. A device that
//! removes has been started while nobody else ran, so that what it removes is what it has seen. At
//! the end all show the same, and every content that is owed stands there: under its name, as a
//! conflict copy, or wherever a rename took it.
//!
//! The seed is printed; `CAIRNFS_TEST_SEED` replays it, `CAIRNFS_TEST_PEER_STEPS` makes it longer.
//! What devices do at the same time is not the same in each replay; what each of them does is.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    env,
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use cairnfs_tests::{Fleet, Rng, data, peer, poll};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

const NAMES: [&str; 12] =
    ["a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "e", "e/a", "e/d", "e/d/a"];
/// The last steps, which a failure tells.
const TRAIL: usize = 60;

struct Run {
    fleet: Fleet,
    rng: Rng,
    seed: u64,
    written: u64,
    /// Of these, how many have come to be owed.
    closed: u64,
    /// By hash, where and when it was written.
    owed: BTreeMap<[u8; 32], String>,
    trail: VecDeque<String>,
}

#[test]
fn what_was_saved_is_found_on_every_device_after_cuts_and_kills() {
    if env::var_os("CAIRNFS_TEST_SEED").is_some() {
        run(Rng::seed_from_env());
    } else {
        // The same every time, so that a failure is one of the change under test; and a new one.
        let (closed, owed) = run(1);
        // Or every call failed, or nothing was left to look for.
        assert!(closed >= 8 && owed >= 3, "{closed} contents closed, {owed} owed at the end");
        run(Rng::seed_from_env());
    }
}

/// Answers with how many contents were closed, and how many of them were owed at the end.
fn run(seed: u64) -> (u64, usize) {
    let steps = data::number_from_env("CAIRNFS_TEST_PEER_STEPS").unwrap_or(20);
    let mut rng = Rng::new(seed);
    let mut fleet = Fleet::new();
    for _ in 0..=rng.below(3) {
        fleet.admit();
    }
    eprintln!("CAIRNFS_TEST_SEED={seed}: {} devices, {steps} steps", fleet.count());
    let (owed, trail) = (BTreeMap::new(), VecDeque::new());
    let mut run = Run { fleet, rng, seed, written: 0, closed: 0, owed, trail };
    for step in 0..steps {
        run.step(step);
    }
    run.check();
    eprintln!("{} contents closed, {} owed at the end", run.closed, run.owed.len());
    (run.closed, run.owed.len())
}

impl Run {
    fn step(&mut self, step: u64) {
        let who = self.rng.index(self.fleet.count());
        let what = self.rng.below(10);
        self.note(format!("step {step}: {what} on {who}"));
        match what {
            0..=4 => {
                // Nobody else runs from before the daemon starts: nothing can arrive meanwhile.
                self.fleet.only(who);
                if self.rng.below(2) == 0 {
                    self.fleet.restart(who);
                } else {
                    self.fleet.kill(who);
                }
                for _ in 0..=self.rng.below(6) {
                    self.act(who, true);
                }
            }
            5..=7 => {
                self.fleet.together();
                for _ in 0..=self.rng.below(8) {
                    let who = self.rng.index(self.fleet.count());
                    self.act(who, false);
                }
                if what == 7 {
                    // While versions are on their way.
                    poll::let_pass(Duration::from_millis(self.rng.below(1500)));
                    self.fleet.kill(who);
                }
            }
            8 => {
                self.fleet.together();
                poll::let_pass(Duration::from_millis(self.rng.below(1500)));
                self.fleet.only(who);
            }
            _ => {
                if let Err(why) = self.fleet.settle() {
                    self.fail(&why);
                }
            }
        }
    }

    /// One action on the device `who`; if it is `alone`, what it removes is what it shows.
    fn act(&mut self, who: usize, alone: bool) {
        let dir = self.fleet.peer(who).dir();
        let shown = files_below(&dir);
        let any = |rng: &mut Rng| {
            let known = (!shown.is_empty() && rng.below(3) > 0).then(|| rng.index(shown.len()));
            known.map_or_else(|| dir.join(NAMES[rng.index(NAMES.len())]), |at| shown[at].clone())
        };
        let (path, to) = (any(&mut self.rng), any(&mut self.rng));
        let name = NAMES[self.rng.index(NAMES.len())];
        let new = dir.join(format!("{name}{}", self.rng.below(3)));
        let kind = self.rng.below(if alone { 20 } else { 12 });
        let (result, what) = match kind {
            0..=4 => (self.create(who, &new), "create"),
            5..=7 => (self.write(who, &path), "write"),
            8 => (fs::create_dir(&path), "mkdir"),
            9..=10 => (
                renameat_with(CWD, &path, CWD, &to, RenameFlags::NOREPLACE).map_err(Into::into),
                "move",
            ),
            11 => (fs::set_permissions(&path, fs::Permissions::from_mode(0o640)), "chmod"),
            12..=13 => (self.remove(&path), "remove"),
            14 => (self.remove_all(&path), "remove all"),
            15..=16 => (self.rename_over(&path, &to), "rename"),
            _ => (self.save_as_editors_do(who, &path), "save"),
        };
        let said = result.as_ref().map_or_else(ToString::to_string, |()| "done".into());
        let named = |path: &Path| path.strip_prefix(&dir).unwrap().display().to_string();
        self.note(format!("  {who}: {what} {} {}: {said}", named(&path), named(&to)));
        let bad = [Errno::IO, Errno::ROFS, Errno::NOTCONN].map(|errno| Some(errno.raw_os_error()));
        if let Err(err) = result
            && bad.contains(&err.raw_os_error())
        {
            self.fail(&format!("{what} {}: {err}", path.display()));
        }
    }

    /// Bytes that nobody has written before.
    fn fresh(&mut self) -> Vec<u8> {
        self.written += 1;
        let len = if self.rng.below(8) == 0 { 300_000 } else { 3_000 };
        let mut bytes = format!("{} of {}\n", self.written, self.seed).into_bytes();
        let len = self.rng.index(len);
        bytes.extend(self.rng.bytes(len));
        bytes
    }

    fn owe(&mut self, who: usize, path: &Path, bytes: &[u8]) {
        let what = format!("content {} in {} on {who}", self.written, path.display());
        self.owed.insert(*blake3::hash(bytes).as_bytes(), what);
        self.closed += 1;
    }

    /// Whoever shows it is about to replace or remove it.
    fn forgive(&mut self, bytes: &[u8]) {
        self.owed.remove(blake3::hash(bytes).as_bytes());
    }

    fn create(&mut self, who: usize, path: &Path) -> io::Result<()> {
        let bytes = self.fresh();
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(&bytes)?;
        peer::close(file)?;
        self.owe(who, path, &bytes);
        Ok(())
    }

    /// Writes over what it has read, through one handle.
    fn write(&mut self, who: usize, path: &Path) -> io::Result<()> {
        let bytes = self.fresh();
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut seen = Vec::new();
        file.read_to_end(&mut seen)?;
        self.forgive(&seen);
        file.set_len(0)?;
        io::Seek::rewind(&mut file)?;
        file.write_all(&bytes)?;
        peer::close(file)?;
        self.owe(who, path, &bytes);
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let seen = fs::read(path)?;
        self.forgive(&seen);
        fs::remove_file(path)
    }

    fn remove_all(&mut self, path: &Path) -> io::Result<()> {
        for file in files_below(path) {
            self.remove(&file)?;
        }
        fs::remove_dir_all(path)
    }

    fn rename_over(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::symlink_metadata(from)?;
        if from != to && fs::symlink_metadata(to).is_ok_and(|meta| meta.is_file()) {
            let seen = fs::read(to)?;
            self.forgive(&seen);
        }
        fs::rename(from, to)
    }

    /// A temporary file, renamed over the old one.
    fn save_as_editors_do(&mut self, who: usize, path: &Path) -> io::Result<()> {
        let temp = path.with_extension("tmp~");
        self.create(who, &temp)?;
        self.rename_over(&temp, path)
    }

    fn check(&mut self) {
        if let Err(why) = self.fleet.settle() {
            self.fail(&why);
        }
        for index in 0..self.fleet.count() {
            let peer = self.fleet.peer(index);
            let read = |path: PathBuf| *blake3::hash(&fs::read(path).unwrap()).as_bytes();
            let found: BTreeSet<_> = files_below(&peer.dir()).into_iter().map(read).collect();
            let lost = self.owed.iter().find(|(hash, _)| !found.contains(*hash));
            if let Some((_, what)) = lost {
                self.fail(&format!("{what} is not on device {index}"));
            }
            peer.check().succeeds();
        }
    }

    fn note(&mut self, what: String) {
        self.trail.push_back(what);
        if self.trail.len() > TRAIL {
            self.trail.pop_front();
        }
    }

    #[track_caller]
    fn fail(&self, why: &str) -> ! {
        let trail: Vec<_> = self.trail.iter().map(String::as_str).collect();
        panic!("CAIRNFS_TEST_SEED={}: {why}\nthe last steps:\n{}", self.seed, trail.join("\n"));
    }
}

/// Every file at or below `path`, sorted.
fn files_below(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![path.to_owned()];
    while let Some(path) = todo.pop() {
        // What a merge takes away meanwhile is not there.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            todo.extend(entries.map(|entry| entry.path()));
        } else if meta.is_file() {
            found.push(path);
        }
    }
    found.sort();
    found
}
