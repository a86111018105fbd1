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
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use cairnfs_tests::{Peer, Rng, Save, data, poll::let_pass};
use parking_lot::{Mutex, RwLock};

use crate::load::{self, Change, Writer, step};

const WRITERS: u64 = 4;
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

fn kill_again_and_again(save: Save) {
    let kills = data::number_from_env("CAIRNFS_TEST_KILLS").unwrap_or(210);
    let seed = Rng::seed_from_env();
    eprintln!("{save:?}: {} kills, CAIRNFS_TEST_SEED={seed}", kills.div_ceil(3));
    let mut rng = Rng::new(seed);
    let limit = Duration::from_secs(120 + kills * 5);
    let peer = Peer::within(limit, &["--save", &save.text()]);
    let writers = load::writers(&peer, &mut rng, 0..WRITERS);
    let mut changes = 0;
    let mut round = 0;
    // More of them where so little is written between two that they try nothing, but not for ever.
    while round < kills.div_ceil(3) || changes <= usize::try_from(kills).unwrap() && round < kills {
        changes +=
            one_kill(&peer, save, &writers, &mut rng, &format!("round {round}, seed {seed}"));
        round += 1;
    }
    eprintln!("{save:?}: {changes} acknowledged changes survived as promised");
    assert!(
        u64::try_from(changes).unwrap() > kills,
        "too little was written between the kills: {changes}"
    );
    if !peer.is_plain() {
        peer.check().succeeds();
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
        let _end = load::OnDrop(|| ending.store(true, Ordering::SeqCst));
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
    let slowest = writers.iter().map(|writer| writer.lock().take_slowest_barrier()).max().unwrap();
    // The daemon may have had to wait for a version's two before it began with the save's.
    let old = killed.checked_sub(save.max_age() + SLACK + 3 * slowest).unwrap();
    writers.iter().map(|writer| compare(&mut writer.lock(), save, (old, killed), round)).sum()
}

/// Compares what is there with what may be; from then on that is what was. What was acknowledged before
/// `old` is durable by its age.
fn compare(
    writer: &mut Writer,
    save: Save,
    (old, killed): (Instant, Instant),
    round: &str,
) -> usize {
    let mut acknowledged = 0;
    for change in writer.files.iter_mut().flatten() {
        acknowledged += usize::from(change.done.is_some());
        change.durable |= change.done.is_some_and(|done| done < old);
    }
    let found = load::judge(&writer.dir, &writer.files, killed, &format!("{round}, {save:?}"));
    writer.files = found.into_iter().map(|state| vec![Change::found("found", state)]).collect();
    for entry in fs::read_dir(&writer.dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some() {
            fs::remove_file(path).unwrap();
        }
    }
    acknowledged
}

#[test]
fn kill_in_the_middle_of_a_large_copy_keeps_what_was_closed() {
    let peer = Peer::within(Duration::from_secs(300), &[]);
    let source = peer.scratch().join("source");
    fs::create_dir(&source).unwrap();
    for n in 0..24 {
        fs::write(source.join(format!("f{n:02}")), data::bytes(n, 3_000_000)).unwrap();
    }
    let mut done = 0;
    for round in 0..6 {
        thread::scope(|scope| {
            let (source, peer) = (&source, &peer);
            let copy = thread::Builder::new()
                .name("copy".into())
                .spawn_scoped(scope, move || {
                    let mut copied = 0;
                    for n in 0..24 {
                        let bytes = fs::read(source.join(format!("f{n:02}"))).unwrap();
                        let name = format!("copy-{round}-{n:02}");
                        if cairnfs_tests::peer::write(&peer.path(&name), &bytes).is_err() {
                            break;
                        }
                        copied = n + 1;
                    }
                    copied
                })
                .unwrap();
            let_pass(Duration::from_millis(50 + 90 * round));
            peer.kill();
            done = copy.join().unwrap();
        });
        peer.mount_again();
        for n in 0..done {
            let found = peer.read(format!("copy-{round}-{n:02}"));
            assert!(found == data::bytes(n, 3_000_000), "copy-{round}-{n:02} of {done}");
        }
        for name in peer.names("") {
            let n: u64 = name.rsplit('-').next().unwrap().parse().unwrap();
            let found = peer.read(&name);
            // The one being written may be there in part: what there is of it is right.
            assert!(
                found.len() <= 3_000_000 && data::bytes(n, 3_000_000).starts_with(&found),
                "{name}"
            );
        }
    }
    peer.check().succeeds();
}
