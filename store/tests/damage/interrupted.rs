//! Repairs that do not come to their end: they lose nothing and forget nothing, and can be begun again.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use cairnfs_store::SaveKind::{Checkpoint, OnTop};
use cairnfs_store::disk::{Disk, Open};
use cairnfs_store::sim::{Call, Fault, SimDisk};
use cairnfs_store::{Error, Opened, Options, Repaired, create, open, repair};

use super::{DIR, SECTOR, keys, noise, options, pack, store};

/// Where the records of a pack begin, by their lengths (FORMAT.md), and where the last one ends.
fn records(disk: &SimDisk, number: u32) -> Vec<u64> {
    let bytes = disk.content(&pack(number)).unwrap();
    let (mut begins, mut end) = (Vec::new(), 88);
    while let Some([b'c', b'r', b'n', b'1', len @ ..]) = bytes.get(end..end + 8) {
        begins.push(end as u64);
        end += 68 + u32::from_le_bytes(len.try_into().unwrap()) as usize + 16;
    }
    begins.push(end as u64);
    begins
}

fn zero(disk: &SimDisk, number: u32, from: u64, to: u64) {
    let zeros = vec![0; usize::try_from(to - from).unwrap()];
    let file = disk.open(&pack(number), Open::Existing).unwrap();
    file.write_at(&zeros, from).unwrap();
    file.barrier().unwrap();
}

fn reopen(disk: &SimDisk) -> Result<Opened, Error> {
    open(Arc::new(disk.clone()), Path::new(DIR), keys(), options())
}

fn repaired(disk: &SimDisk) -> Result<Repaired, Error> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    repair(&disk, Path::new(DIR), keys(), options())
}

/// A store that is damaged, and what a repair leaves of it.
struct Case {
    what: &'static str,
    disk: SimDisk,
    saves: usize,
    /// Of those with the numbers of the saves.
    blobs: u64,
    loses_end: bool,
}

fn cases() -> Vec<Case> {
    let saves = (8..20).find(|&n| store(n).content(&pack(2)).is_some()).unwrap();
    let no_header = store(saves);
    zero(&no_header, 2, 0, SECTOR);
    let in_last_batch = store(5);
    let end = *records(&in_last_batch, 1).last().unwrap();
    let sector = (end - 5_000) / SECTOR * SECTOR;
    zero(&in_last_batch, 1, sector, sector + SECTOR);
    let lost_end = store(5);
    zero(&lost_end, 1, end - 5_000, end);
    let nothing_left = store(25);
    let mut appender = reopen(&nothing_left).unwrap().appender;
    appender.save(b"checkpoint", Checkpoint).unwrap();
    appender.reclaim(&|_| false, &[1, 2, 3]).unwrap();
    appender.save(b"behind it", OnTop).unwrap();
    appender.reclaim_finish().unwrap();
    drop(appender);
    let len = nothing_left.content(&pack(4)).unwrap().len();
    zero(&nothing_left, 4, 0, len as u64);
    let no_save = store(5);
    no_save.flip_bit(&pack(1), (end - 30) * 8);
    let saved = usize::try_from(saves).unwrap();
    [
        ("one save behind zeros", no_header, saved, saves - 1, false),
        ("zeros in the last batch", in_last_batch, 5, 4, false),
        ("a bit of the last save", no_save, 4, 5, false),
        ("zeros for an end", lost_end, 4, 4, true),
        ("zeros for all there is", nothing_left, 0, 0, true),
    ]
    .map(|(what, disk, saves, blobs, loses_end)| Case { what, disk, saves, blobs, loses_end })
    .into()
}

/// Of `disk`, which a repair was interrupted on.
fn assert_as_before(disk: &SimDisk, case: &Case, at: &str) {
    let at = format!("{}, {at}", case.what);
    let opened = reopen(disk);
    let is_refused = match &opened {
        Ok(opened) => {
            assert_eq!(opened.saves.len(), case.saves, "{at}");
            false
        }
        Err(Error::Damaged { .. }) => true,
        Err(err) => panic!("{at}: {err:?}"),
    };
    drop(opened);
    let again = repaired(disk).expect(&at);
    // An opening is not refused if the repair had all but told of its end.
    assert_eq!(again.lost_end.is_some(), is_refused && case.loses_end, "{at}");
    let opened = reopen(disk).expect(&at);
    assert_eq!(opened.saves.len(), case.saves, "{at}");
    let has = |n: &u64| opened.blobs.contains(&keys().name(&noise(*n, 9_000))).unwrap();
    assert_eq!((0..25).filter(has).count() as u64, case.blobs, "{at}");
}

#[test]
fn a_repair_that_the_power_fails_in_loses_nothing_and_forgets_nothing() {
    for case in cases() {
        for after_calls in 0.. {
            let disk = case.disk.kill();
            disk.inject(Fault::PowerOff { after_calls });
            let is_done = repaired(&disk).is_ok();
            for seed in 0..6 {
                assert_as_before(&disk.crash(seed), &case, &format!("{after_calls} calls, {seed}"));
            }
            if is_done {
                assert!(after_calls > 10);
                break;
            }
        }
    }
}

#[test]
fn a_repair_in_which_a_call_fails_loses_nothing_and_forgets_nothing() {
    use Call::{Barrier, Open, Read, Remove, Rename, SetLen, SyncDir, Write};
    for case in cases() {
        for call in [Open, Read, Write, SetLen, Barrier, Rename, Remove, SyncDir] {
            for nth in 1..50 {
                let disk = case.disk.kill();
                disk.inject(Fault::Fail { call, nth, kind: ErrorKind::Other });
                let outcome = repaired(&disk);
                let at = format!("{call:?} {nth}: {outcome:?}");
                if outcome.is_ok() {
                    let opened = reopen(&disk.kill()).expect(&at);
                    assert_eq!(opened.saves.len(), case.saves, "{}, {at}", case.what);
                } else {
                    assert_as_before(&disk.kill(), &case, &at);
                }
            }
        }
    }
}

#[test]
fn a_full_disk_ends_a_repair_and_leaves_nothing_behind() {
    for case in cases() {
        let disk = case.disk.kill();
        let before = disk.files();
        disk.set_capacity_bytes(disk.used_bytes() + 10_000);
        let full = repaired(&disk);
        assert!(matches!(full, Err(Error::NoSpace { .. })), "{}: {full:?}", case.what);
        assert_eq!(disk.files().len(), before.len(), "{}", case.what);
        disk.set_capacity_bytes(u64::MAX);
        assert_as_before(&disk, &case, "full");
    }
}

#[test]
fn on_a_full_disk_a_repair_takes_the_reserve() {
    let options = Options { reserve_bytes: 4 << 20, ..options() };
    let disk = SimDisk::new(1);
    let sim: Arc<dyn Disk> = Arc::new(disk.clone());
    let (mut appender, blobs) = create(Arc::clone(&sim), Path::new(DIR), keys(), options).unwrap();
    appender.save(b"a save", Checkpoint).unwrap();
    drop((appender, blobs));
    disk.set_capacity_bytes(disk.used_bytes());
    assert_eq!(repair(&sim, Path::new(DIR), keys(), options).unwrap(), Repaired::default());
    assert_eq!(open(sim, Path::new(DIR), keys(), options).unwrap().saves, [b"a save"]);
}

#[test]
fn what_an_interrupted_repair_leaves_goes_with_the_next_opening() {
    let disk = store(3);
    let left = Path::new(DIR).join("index.redb.new");
    disk.open(&left, Open::New).unwrap().write_at(&[7; 9000], 0).unwrap();
    assert_eq!(reopen(&disk).unwrap().saves.len(), 3);
    assert!(disk.content(&left).is_none());
}
