//! kill -9 at random moments, under each policy, with that policy's promise checked.
//!
//! Writers change files and note, in a file of their own on an ordinary disk and with an fsync
//! of its own, what was acknowledged. At a random moment the daemon is killed and mounted again.
//! Each file must then be in a state that its policy allows: not older than the newest state that
//! was durable, and no state that it never had.
//!
//! `CAIRNFS_TEST_SEED` replays the choices of a run (what is done and when the kill comes, though
//! not how the threads interleave), `CAIRNFS_TEST_KILLS` sets the number of kills in all.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cairnfs_tests::{Peer, Rng, Save, peer::close, poll::let_pass};
use parking_lot::{Mutex, RwLock};

const WRITERS: u64 = 4;
const SLOTS: u64 = 5;
/// Room for a loaded machine on top of a promised time.
const SLACK: Duration = Duration::from_secs(1);

#[test]
fn nothing_closed_is_lost_under_flush() {
    kill_again_and_again(Save::Flush);
}

#[test]
fn nothing_reported_saved_is_lost_under_release() {
    kill_again_and_again(Save::Release);
}

#[test]
fn nothing_older_than_the_interval_is_lost_under_interval() {
    kill_again_and_again(Save::Interval(Duration::from_millis(200)));
}

/// What a file holds; `None` is no file.
type State = Option<Arc<Vec<u8>>>;

/// What may be found when the change to a state was cut short, besides the state before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Between {
    /// Nothing: it happens at once or not at all.
    Nothing,
    /// A beginning of the new content, at least this long.
    Beginning(usize),
}

#[derive(Clone, Debug)]
struct Change {
    what: &'static str,
    state: State,
    between: Between,
    /// When it was acknowledged.
    done: Option<Instant>,
    durable: bool,
}

impl Change {
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
struct Writer {
    dir: PathBuf,
    files: Vec<Vec<Change>>,
    rng: Rng,
    record: File,
}

impl Writer {
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
        self.record.sync_data().unwrap();
        if all_before {
            self.everything_is_durable();
        }
    }

    fn everything_is_durable(&mut self) {
        for change in self.files.iter_mut().flatten() {
            change.durable |= change.done.is_some();
        }
    }
}

/// One change of one file, picked at random.
fn step(writer: &Mutex<Writer>, save: Save) -> io::Result<()> {
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

fn kill_again_and_again(save: Save) {
    let kills: u64 = match env::var("CAIRNFS_TEST_KILLS") {
        Ok(text) => text.parse().expect("CAIRNFS_TEST_KILLS is a number"),
        Err(_) => 210,
    };
    let seed = Rng::seed_from_env();
    eprintln!("{save:?}: {} kills, CAIRNFS_TEST_SEED={seed}", kills.div_ceil(3));
    let mut rng = Rng::new(seed);
    let limit = Duration::from_secs(120 + kills * 5);
    let peer = Peer::within(limit, &["--save", &save.text()]);
    let record = peer.scratch().join("acknowledged");
    let record = OpenOptions::new().append(true).create(true).open(record).unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| {
            let dir = peer.path(format!("w{n}"));
            fs::create_dir(&dir).unwrap();
            let nothing = Change {
                what: "start",
                state: None,
                between: Between::Nothing,
                done: None,
                durable: true,
            };
            let files = (0..SLOTS).map(|_| vec![nothing.clone()]).collect();
            let rng = Rng::new(rng.next_u64());
            Mutex::new(Writer { dir, files, rng, record: record.try_clone().unwrap() })
        })
        .collect();
    // The directories themselves are there from the first kill on.
    File::open(peer.dir()).unwrap().sync_all().unwrap();
    let mut changes = 0;
    for round in 0..kills.div_ceil(3) {
        changes +=
            one_kill(&peer, save, &writers, &mut rng, &format!("round {round}, seed {seed}"));
    }
    eprintln!("{save:?}: {changes} acknowledged changes survived as promised");
    assert!(
        u64::try_from(changes).unwrap() > kills,
        "too little was written between the kills: {changes}"
    );
    if !peer.is_plain() {
        peer.check().ok();
    }
}

/// Lets the writers write, kills, mounts, compares; says how many changes were acknowledged.
fn one_kill(
    peer: &Peer,
    save: Save,
    writers: &[Mutex<Writer>],
    rng: &mut Rng,
    round: &str,
) -> usize {
    let ending = AtomicBool::new(false);
    let gate = RwLock::new(());
    let run_for = match rng.below(6) {
        0 => 2_000 + rng.below(700),
        1 => rng.below(30),
        _ => 20 + rng.below(500),
    };
    let ask_when_safe = save == Save::Release && rng.below(2) == 0;
    let killed = thread::scope(|scope| {
        // A step below that fails must not leave the writers writing.
        let _end = OnDrop(|| ending.store(true, Ordering::SeqCst));
        for (n, writer) in writers.iter().enumerate() {
            let (ending, gate) = (&ending, &gate);
            thread::Builder::new()
                .name(format!("writer-{n}"))
                .spawn_scoped(scope, move || {
                    // SeqCst: set before the kill, so an error before that is a real one.
                    while !ending.load(Ordering::SeqCst) {
                        let _turn = gate.read();
                        if let Err(err) = step(writer, save) {
                            let expected = ending.load(Ordering::SeqCst);
                            assert!(expected, "{round}: an error without a kill: {err}");
                            return;
                        }
                    }
                })
                .unwrap();
        }
        let_pass(Duration::from_millis(run_for / 2));
        if ask_when_safe {
            let _all_wait = gate.write();
            peer.wait_safe();
            for writer in writers {
                writer.lock().everything_is_durable();
            }
        }
        let_pass(Duration::from_millis(run_for - run_for / 2));
        ending.store(true, Ordering::SeqCst);
        let killed = Instant::now();
        peer.kill();
        killed
    });
    peer.mount_again();
    writers.iter().map(|writer| compare(&mut writer.lock(), save, killed, round)).sum()
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn compare(writer: &mut Writer, save: Save, killed: Instant, round: &str) -> usize {
    let mut acknowledged = 0;
    for slot in 0..writer.files.len() {
        let path = writer.path(slot);
        let found = match fs::read(&path) {
            Ok(bytes) => Some(Arc::new(bytes)),
            Err(err) if err.kind() == io::ErrorKind::NotFound => None,
            Err(err) => panic!("{round}: {}: {err}", path.display()),
        };
        let history = &mut writer.files[slot];
        acknowledged += history.iter().filter(|change| change.done.is_some()).count();
        for change in history.iter_mut() {
            change.durable |=
                change.done.is_some_and(|done| done + save.max_age() + SLACK < killed);
        }
        let since = history.iter().rposition(|change| change.durable).unwrap_or(0);
        let allowed = &history[since..];
        // The durable one exactly; the later ones also when they were cut short.
        let fits =
            found == allowed[0].state || allowed[1..].iter().any(|change| change.allows(&found));
        if !fits {
            let shown: Vec<_> = history
                .iter()
                .map(|change| {
                    let len = change.state.as_ref().map(|bytes| bytes.len());
                    let ago = change.done.map(|done| killed.saturating_duration_since(done));
                    let same = change.allows(&found);
                    format!(
                        "  {} len={len:?} acknowledged {ago:?} before the kill, durable={}, found={same}",
                        change.what, change.durable
                    )
                })
                .collect();
            panic!(
                "{round}: {} is in a state that {save:?} does not allow: len={:?}\nits states:\n{}",
                path.display(),
                found.map(|bytes| bytes.len()),
                shown.join("\n")
            );
        }
        *history = vec![Change {
            what: "found",
            state: found,
            between: Between::Nothing,
            done: None,
            durable: true,
        }];
    }
    for entry in fs::read_dir(&writer.dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".tmp") {
            fs::remove_file(path).unwrap();
        } else {
            let known = name.strip_prefix('s').and_then(|slot| slot.parse().ok());
            assert!(known.is_some_and(|slot: u64| slot < SLOTS), "{round}: who made {name}?");
        }
    }
    acknowledged
}
