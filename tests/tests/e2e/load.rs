//! A random load on a few files that notes what was acknowledged, to be judged after a crash.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use cairnfs_tests::{Peer, Rng, Save, peer::close};
use parking_lot::Mutex;

/// How many files a writer has.
const SLOTS: u64 = 5;

/// What a file holds; `None` is no file.
pub(crate) type State = Option<Arc<Vec<u8>>>;

/// What may be found when the change to a state was cut short, besides the state before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Between {
    /// Nothing: it happens at once or not at all.
    Nothing,
    /// A beginning of the new content, at least this long.
    Beginning(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Change {
    what: &'static str,
    state: State,
    between: Between,
    /// When it was acknowledged.
    pub(crate) done: Option<Instant>,
    pub(crate) durable: bool,
}

impl Change {
    /// A state that is known to be durable.
    pub(crate) const fn found(what: &'static str, state: State) -> Self {
        Self { what, state, between: Between::Nothing, done: None, durable: true }
    }

    /// The same when it is not known to be durable.
    pub(crate) fn not_yet_durable(self) -> Self {
        Self { durable: false, ..self }
    }

    fn allows(&self, found: &State) -> bool {
        if *found == self.state {
            return true;
        }
        match (self.between, found, &self.state) {
            (Between::Beginning(least), Some(found), Some(wanted)) => {
                found.len() >= least && wanted.starts_with(found)
            }
            _ => false,
        }
    }
}

/// One writer and its files, each with the states since the last one known to be durable.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) dir: PathBuf,
    pub(crate) files: Vec<Vec<Change>>,
    rng: Rng,
    record: File,
    /// The longest that a barrier of the record took since somebody took it from here.
    slowest_barrier: Duration,
}

impl Writer {
    /// One that writes in `dir`, which it makes, and notes in `record` what was acknowledged.
    pub(crate) fn new(dir: PathBuf, seed: u64, record: File) -> Self {
        fs::create_dir(&dir).unwrap();
        let files = (0..SLOTS).map(|_| vec![Change::found("start", None)]).collect();
        Self { dir, files, rng: Rng::new(seed), record, slowest_barrier: Duration::ZERO }
    }

    fn path(&self, slot: usize) -> PathBuf {
        self.dir.join(format!("s{slot}"))
    }

    fn begin(&mut self, slot: usize, what: &'static str, state: State, between: Between) {
        self.files[slot].push(Change { what, state, between, done: None, durable: false });
    }

    fn acknowledged(&mut self, slot: usize, durable: bool, all_before: bool) {
        let now = Instant::now();
        let change = self.files[slot].last_mut().expect("a change was begun");
        change.done = Some(now);
        change.durable = durable;
        let len = change.state.as_ref().map_or(-1, |bytes| i64::try_from(bytes.len()).unwrap());
        let line =
            format!("{} s{slot} {} len={len} durable={durable}\n", self.dir.display(), change.what);
        self.record.write_all(line.as_bytes()).unwrap();
        let begun = Instant::now();
        self.record.sync_data().unwrap();
        self.slowest_barrier = self.slowest_barrier.max(begun.elapsed());
        if all_before {
            self.everything_is_durable();
        }
    }

    /// The longest that a barrier on the disk below took since the last call.
    pub(crate) fn take_slowest_barrier(&mut self) -> Duration {
        std::mem::take(&mut self.slowest_barrier)
    }

    /// Keeps the newest durable state of each file and what came after it.
    pub(crate) fn forget_what_is_older(&mut self) {
        for history in &mut self.files {
            let since = history.iter().rposition(|change| change.durable).unwrap_or(0);
            history.drain(..since);
        }
    }

    pub(crate) fn everything_is_durable(&mut self) {
        for change in self.files.iter_mut().flatten() {
            change.durable |= change.done.is_some();
        }
    }
}

/// Writers with these numbers, in directories `w0` and so on of `peer`, which are there from now on
/// whatever happens. All note in one file beside the mount.
pub(crate) fn writers(peer: &Peer, rng: &mut Rng, numbers: Range<u64>) -> Vec<Mutex<Writer>> {
    let record = peer.scratch().join("acknowledged");
    let record = OpenOptions::new().append(true).create(true).open(record).unwrap();
    let writers = numbers
        .map(|n| {
            let dir = peer.path(format!("w{n}"));
            Mutex::new(Writer::new(dir, rng.next_u64(), record.try_clone().unwrap()))
        })
        .collect();
    File::open(peer.dir()).unwrap().sync_all().unwrap();
    writers
}

/// One change of one file, picked at random.
pub(crate) fn step(writer: &Mutex<Writer>, save: Save) -> io::Result<()> {
    let mut lock = writer.lock();
    let slot = lock.rng.index(usize::try_from(SLOTS).unwrap());
    let path = lock.path(slot);
    let tmp = path.with_extension("tmp");
    let old = lock.files[slot].last().expect("a state is always known").state.clone();
    let sync = lock.rng.below(if save == Save::Flush { 6 } else { 3 }) == 0;
    let kind = if old.is_some() { lock.rng.below(7) } else { lock.rng.below(2) };
    let len = match lock.rng.below(6) {
        0 => lock.rng.index(300_000),
        1 => lock.rng.index(2_000),
        _ => lock.rng.index(20_000),
    };
    let bytes = lock.rng.bytes(len.max(1));
    let by_close = save == Save::Flush;
    let (mut durable, mut all) = (sync || by_close, by_close);
    match kind {
        0 => {
            // As editors do: at once or not at all.
            let state = Arc::new(bytes);
            lock.begin(slot, "replace", Some(Arc::clone(&state)), Between::Nothing);
            drop(lock);
            let mut file = File::create(&tmp)?;
            file.write_all(&state)?;
            if sync {
                file.sync_all()?;
            }
            close(file)?;
            fs::rename(&tmp, &path)?;
            // The renaming is a change of metadata: only asking for it makes it durable now.
            if sync {
                File::open(path.parent().expect("in a directory"))?.sync_all()?;
            }
            (durable, all) = (sync, sync && by_close);
        }
        1 | 2 => {
            let state = Arc::new(bytes);
            lock.begin(slot, "rewrite", Some(Arc::clone(&state)), Between::Beginning(0));
            drop(lock);
            let mut file = File::create(&path)?;
            for piece in state.chunks(30_000) {
                file.write_all(piece)?;
            }
            finish(file, sync)?;
        }
        3 => {
            let old = old.expect("there is a file");
            let state: Vec<u8> = [old.as_slice(), &bytes].concat();
            lock.begin(slot, "append", Some(Arc::new(state)), Between::Beginning(old.len()));
            drop(lock);
            let mut file = OpenOptions::new().append(true).open(&path)?;
            for piece in bytes.chunks(10_000) {
                file.write_all(piece)?;
            }
            finish(file, sync)?;
        }
        4 => {
            let mut state = old.expect("there is a file").to_vec();
            let place = lock.rng.index(state.len().max(1));
            // Within one page: the kernel may hand over a write in parts, cut between pages, and
            // then a crash may keep the first of them.
            let in_page = 4_096 - place % 4_096;
            let piece = &bytes[..bytes.len().min(in_page).min(state.len() - place)];
            state[place..place + piece.len()].copy_from_slice(piece);
            lock.begin(slot, "overwrite", Some(Arc::new(state)), Between::Nothing);
            drop(lock);
            let file = OpenOptions::new().write(true).open(&path)?;
            file.write_all_at(piece, u64::try_from(place).unwrap())?;
            finish(file, sync)?;
        }
        5 => {
            let mut state = old.expect("there is a file").to_vec();
            state.truncate(lock.rng.index(state.len() + 1));
            let len = u64::try_from(state.len()).unwrap();
            lock.begin(slot, "truncate", Some(Arc::new(state)), Between::Nothing);
            drop(lock);
            let file = OpenOptions::new().write(true).open(&path)?;
            file.set_len(len)?;
            finish(file, sync)?;
        }
        _ => {
            lock.begin(slot, "remove", None, Between::Nothing);
            drop(lock);
            fs::remove_file(&path)?;
            if sync {
                File::open(path.parent().expect("in a directory"))?.sync_all()?;
            }
            (durable, all) = (sync, sync && by_close);
        }
    }
    writer.lock().acknowledged(slot, durable, all);
    Ok(())
}

fn finish(file: File, sync: bool) -> io::Result<()> {
    if sync {
        file.sync_all()?;
    }
    close(file)
}

/// Fails unless each file in `dir` is in a state that its history allows: the newest that was
/// durable, or one after it, which may have been cut short. Says what each holds.
pub(crate) fn judge(dir: &Path, files: &[Vec<Change>], cut: Instant, round: &str) -> Vec<State> {
    for entry in fs::read_dir(dir).unwrap_or_else(|err| panic!("{round}: {err}")) {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let slot = name.strip_suffix(".tmp").unwrap_or(&name).strip_prefix('s');
        let known = slot.and_then(|slot| slot.parse().ok());
        assert!(known.is_some_and(|slot: u64| slot < SLOTS), "{round}: who made {name}?");
    }
    files
        .iter()
        .enumerate()
        .map(|(slot, history)| {
            let path = dir.join(format!("s{slot}"));
            let found = match fs::read(&path) {
                Ok(bytes) => Some(Arc::new(bytes)),
                Err(err) if err.kind() == io::ErrorKind::NotFound => None,
                Err(err) => panic!("{round}: {}: {err}", path.display()),
            };
            let since = history.iter().rposition(|change| change.durable).unwrap_or(0);
            let allowed = &history[since..];
            // The durable one exactly; the later ones also when they were cut short.
            let fits = found == allowed[0].state
                || allowed[1..].iter().any(|change| change.allows(&found));
            assert!(
                fits,
                "{round}: {} is in a state that is not allowed: len={:?}\nits states:\n{}",
                path.display(),
                found.as_ref().map(|bytes| bytes.len()),
                shown(history, &found, cut)
            );
            found
        })
        .collect()
}

fn shown(history: &[Change], found: &State, cut: Instant) -> String {
    let lines: Vec<_> = history
        .iter()
        .map(|change| {
            let len = change.state.as_ref().map(|bytes| bytes.len());
            let ago = change.done.map(|done| cut.saturating_duration_since(done));
            let same = change.allows(found);
            format!(
                "  {} len={len:?} acknowledged {ago:?} before, durable={}, found={same}",
                change.what, change.durable
            )
        })
        .collect();
    lines.join("\n")
}

/// Calls a function when dropped, by a panic too.
pub(crate) struct OnDrop<F: Fn()>(pub(crate) F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
