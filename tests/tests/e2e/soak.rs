//! What a daemon holds while it goes on: memory, open files and threads do not grow with what was done.
//!
//! `CAIRNFS_TEST_SOAK_SECONDS` makes it longer; `make soak` has it go on for an hour.

use std::{
    fs,
    time::{Duration, Instant},
};

use cairnfs_tests::{Pair, Peer, data, eventually, process};

const MIB: u64 = 1 << 20;
/// What caches, and the allocator behind them, may still take once the first quarter has passed.
const GROWTH_MAX: u64 = 24 * MIB;
const FILES: u64 = 40;

/// What a process holds.
#[derive(Debug)]
struct Held {
    files: usize,
    threads: usize,
}

impl Held {
    fn by(peer: &Peer) -> Self {
        let count =
            |what: &str| fs::read_dir(format!("/proc/{}/{what}", peer.pid())).unwrap().count();
        Self { files: count("fd"), threads: count("task") }
    }

    fn is_within(&self, other: &Self) -> bool {
        self.files <= other.files && self.threads <= other.threads
    }
}

/// Makes, saves in two ways, moves and removes files, in directories that come and go, and leaves one
/// name to be contested.
fn work(peer: &Peer, device: &str, round: u64) {
    let dir = peer.path(format!("{device}{round}"));
    fs::create_dir(&dir).unwrap();
    for n in 0..FILES {
        let bytes = data::bytes(round * FILES + n, 2_000 + usize::try_from(n).unwrap() * 500);
        let (temp, name) = (dir.join("temp"), dir.join(format!("f{}", n / 2)));
        fs::write(&temp, &bytes).unwrap();
        fs::rename(&temp, &name).unwrap();
        assert!(fs::read(&name).unwrap() == bytes, "{name:?}");
    }
    fs::rename(dir.join("f0"), dir.join("moved")).unwrap();
    if let Some(old) = round.checked_sub(2) {
        fs::remove_dir_all(peer.path(format!("{device}{old}"))).unwrap();
    }
    peer.write("contested", format!("{device} {round}"));
}

/// Both devices rest, and nothing is contested.
fn rest(pair: &Pair) {
    pair.meet();
    for name in pair.one.names("").iter().filter(|name| name.starts_with("contested@")) {
        fs::remove_file(pair.one.path(name)).unwrap();
    }
    pair.meet();
}

#[test]
fn two_devices_that_are_worked_on_hold_no_more_in_the_end_than_before() {
    let seconds = data::number_from_env("CAIRNFS_TEST_SOAK_SECONDS").unwrap_or(16);
    let small = ["--cache", "8MiB"];
    let pair = Pair::with(&small, &small);
    let begun = Instant::now();
    let quarter = Duration::from_secs(seconds / 4);
    let mut round = 0;
    let mut work_until = |end: Duration| {
        while begun.elapsed() < end {
            work(&pair.one, "a", round);
            work(&pair.other, "b", round);
            round += 1;
            if round % 4 == 0 {
                rest(&pair);
            }
        }
        rest(&pair);
        round
    };
    let warm_rounds = work_until(quarter);
    let memory = || pair.both().map(|peer| process::rss_bytes(peer.pid()));
    let held = || pair.both().map(Held::by);
    let (warm, warm_held) = (memory(), held());
    let rounds = work_until(4 * quarter);
    let end = memory();
    eprintln!("{warm_rounds} of {rounds} rounds: {warm:?} bytes, then {end:?}; {warm_held:?}");
    assert!(rounds > warm_rounds, "nothing was done in the rest of the time");
    // A request that has just been answered may still be put away, at either time.
    eventually("no more files and threads than before", Duration::from_secs(60), || {
        held().iter().zip(&warm_held).all(|(now, before)| now.is_within(before))
    });
    for (warm, end) in warm.into_iter().zip(end) {
        assert!(end <= warm + GROWTH_MAX, "{} MiB, and {} in the end", warm / MIB, end / MIB);
    }
}
