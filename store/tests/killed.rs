//! A process that ended between a write and its barrier, and a barrier that failed: what the next
//! opening finds is on the disk, and not in the system's memory only.

#![allow(clippy::unwrap_used, reason = "tests")]

mod load;
mod support;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use cairnfs_store::sim::{Call, Fault, SimDisk};
use cairnfs_store::{Appender, Error, Opened, Options, create, open};

use load::Model;
use support::{DIR, keys, small};

fn options() -> Options {
    small(64 << 10, 4096)
}

fn reopen(disk: &SimDisk) -> Result<Opened, Error> {
    open(Arc::new(disk.clone()), Path::new(DIR), keys(), options())
}

/// Makes calls until one fails because of what `arm` does, and opens what the killed process leaves; then
/// the power goes, while it is open or after. True if none failed.
fn run(seed: u64, arm: impl Fn(&SimDisk)) -> bool {
    let disk = SimDisk::new(seed);
    let (mut appender, blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    let mut model = Model::default();
    arm(&disk);
    let done = model.run(&mut appender, &load::random(seed << 32, 40)).is_ok();
    let killed = disk.kill();
    drop((appender, blobs));
    let opened = reopen(&killed).unwrap_or_else(|err| panic!("not opened: {err:?}"));
    model.check(&opened).unwrap();
    let mut cuts = vec![killed.crash(seed)];
    drop(opened);
    cuts.extend((0..4).map(|luck| killed.crash(seed + luck)));
    for cut in cuts {
        let opened = reopen(&cut).unwrap_or_else(|err| panic!("not opened again: {err:?}"));
        model.check(&opened).unwrap();
    }
    done
}

#[test]
fn what_an_opening_finds_after_a_kill_at_any_call_is_there_after_a_power_cut() {
    let mut kills = 0;
    for seed in 0..4 {
        // The calls after it are those of a process that is no more.
        let is_done = |after_calls| run(seed, |disk| disk.inject(Fault::PowerOff { after_calls }));
        kills += (1..).find(|&calls| is_done(calls)).unwrap();
    }
    assert!(kills > 160, "{kills} kills");
}

#[test]
fn what_an_opening_finds_after_a_barrier_that_failed_is_there_after_a_power_cut() {
    let mut failures = 0;
    for seed in 0..8 {
        let fault = |nth| Fault::Fail { call: Call::Barrier, nth, kind: ErrorKind::Other };
        failures += (1..30).filter(|&nth| !run(seed, |disk| disk.inject(fault(nth)))).count();
    }
    assert!(failures > 80, "{failures} barriers failed");
}

#[test]
fn what_cannot_be_made_durable_is_not_opened() {
    // A pack, and three directories: a process may also have ended as it made the store.
    let calls = [(Call::Barrier, 1), (Call::SyncDir, 1), (Call::SyncDir, 2), (Call::SyncDir, 3)];
    for (call, nth) in calls {
        let disk = SimDisk::new(1);
        let (mut appender, blobs) =
            create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
        disk.inject(Fault::Fail { call: Call::Barrier, nth: 1, kind: ErrorKind::Other });
        fn save(appender: &mut Appender) -> Result<(), Error> {
            appender.save(b"", cairnfs_store::SaveKind::OnTop).map(|_seq| ())
        }
        assert!(save(&mut appender).is_err());
        drop((appender, blobs));
        let killed = disk.kill();
        killed.inject(Fault::Fail { call, nth, kind: ErrorKind::Other });
        let opened = reopen(&killed);
        assert!(matches!(opened, Err(Error::Io { what: "sync", .. })), "{call:?} {nth}");
        reopen(&killed).unwrap();
    }
}
