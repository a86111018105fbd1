//! Merges at any moment of a random load, and the power cut somewhere in it. What one device does to its own
//! files must not depend on what arrives meanwhile: all that was acknowledged is there, and each save is whole
//! or absent. Of the other's files there is one of its versions, and none before the last that was merged.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use cairnfs_store::sim;

use super::{Peer, sync, two};
use crate::random_load::{Model, Op, Possible, Rng, number, read_back, sizes, step};

/// The names that the one works with are in lower case, those of the other are these.
const THEIRS: [&str; 4] = ["A", "B", "C", "D"];

fn is_theirs(name: &[u8]) -> bool {
    name.first().is_some_and(u8::is_ascii_uppercase)
}

/// Makes a random change among [`THEIRS`].
fn change(peer: &Peer, rng: &mut Rng) {
    let mut pick = || THEIRS[usize::try_from(rng.below(4)).unwrap()];
    let (name, other) = (pick(), pick());
    let (is_there, is_same) = (peer.walk(name).is_ok(), name == other);
    match rng.below(4) {
        0 if is_there => peer.unlink(name),
        1 if is_there && !is_same => peer.rename(name, other),
        _ => {
            let long = usize::try_from(rng.below(3) * rng.below(20_000)).unwrap();
            peer.write(name, &format!("{} {:long$}", rng.below(1 << 40), ""));
        }
    }
}

/// Which merges have come to an end, and what they brought.
#[derive(Default)]
struct Merges {
    /// Of each version of the other's, its own files.
    versions: Vec<Model>,
    /// How many of these versions are merged.
    merged: usize,
}

impl Merges {
    /// Has `theirs` change something and `ours` merge it, until `is_over` or the power is off.
    fn go_on(&mut self, ours: &Peer, theirs: &Peer, rng: &mut Rng, is_over: &AtomicBool) {
        while !is_over.load(Ordering::SeqCst) {
            change(theirs, rng);
            theirs.mount().publish().unwrap();
            self.versions.push(files_of(theirs, is_theirs));
            let head = theirs.mount().head().unwrap();
            let Ok((fetch, _)) = ours.fetch(theirs, head) else { return };
            if ours.mount().merge_from(fetch).is_err() {
                return;
            }
            self.merged = self.versions.len();
        }
    }

    fn may_have_left(&self, found: &Model) -> bool {
        let first = self.merged.saturating_sub(1);
        let nothing_yet = self.merged == 0 && found.is_empty();
        nothing_yet || self.versions.iter().skip(first).any(|version| version == found)
    }
}

fn files_of(peer: &Peer, wanted: impl Fn(&[u8]) -> bool) -> Model {
    let mut files = read_back(peer.mount()).unwrap();
    files.retain(|name, _| wanted(name));
    files
}

/// What was acknowledged and merged in a run: that much was there afterwards.
#[derive(Default)]
struct Kept {
    saves: usize,
    merges: usize,
}

fn run(seed: u64) -> Result<Kept, String> {
    let (mut a, b) = two();
    for peer in [&a, &b] {
        peer.unlink("old");
    }
    sync(&a, &b);
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut theirs = Rng(rng.below(u64::MAX) | 1);
    let load = Op::load(&mut rng, 60);
    a.disk.inject(sim::Fault::PowerOff { after_calls: 1 + rng.below(600) });

    let mut states = Possible::empty();
    let mut merges = Merges::default();
    let mut saves = 0;
    let is_over = AtomicBool::default();
    thread::scope(|scope| {
        scope.spawn(|| merges.go_on(&a, &b, &mut theirs, &is_over));
        for op in &load {
            if step(a.mount(), &mut states, op).is_err() {
                break;
            }
            saves += usize::from(matches!(op, Op::Save));
        }
        is_over.store(true, Ordering::SeqCst);
    });

    let after = a.disk.crash(seed);
    a.mount().stop().ok();
    a.start_on(after);
    let ours = files_of(&a, |name| !is_theirs(name));
    if !states.must_be(&ours) {
        return Err(format!(
            "after {saves} saves and {} merges found {:?}, none of {} states, the last {:?}",
            merges.merged,
            sizes(&ours),
            states.all().len(),
            sizes(states.now()),
        ));
    }
    let found = files_of(&a, is_theirs);
    if !merges.may_have_left(&found) {
        return Err(format!("after {} merges found {:?}", merges.merged, sizes(&found)));
    }
    sync(&a, &b);
    assert_eq!(files_of(&b, |name| !is_theirs(name)), ours);
    Ok(Kept { saves, merges: merges.merged })
}

#[test]
fn what_was_acknowledged_among_merges_survives_every_cut() {
    let first = number("CAIRNFS_CRASH_FIRST", 1);
    let seeds = number("CAIRNFS_MERGE_SEEDS", 100);
    let mut all = Kept::default();
    for seed in first..first + seeds {
        let kept = sim::outcome(|| run(seed)).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        all.saves += kept.saves;
        all.merges += kept.merges;
    }
    assert!(seeds < 100 || all.saves > 500 && all.merges > 50, "{} {}", all.saves, all.merges);
}
