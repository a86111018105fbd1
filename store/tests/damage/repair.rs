//! What a check finds in a closed store, an opening refuses, and a repair leaves.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use cairnfs_store::SaveKind::{self, Checkpoint, OnTop};
use cairnfs_store::disk::{Disk, DiskFile, Open};
use cairnfs_store::sim::{Call, Fault, SimDisk};
use cairnfs_store::{Error, Kind, LostEnd, Options, Repaired, check, create, open, repair};

use super::{DIR, keys, noise, pack};

pub(super) fn options() -> Options {
    Options { reserve_bytes: 64 << 10, index_thread: false, ..Options::default() }
}

/// Where the last record of a pack ends, by their lengths (FORMAT.md): it may end in zeros, as what is
/// written ahead of it does.
pub(super) fn end_of(disk: &SimDisk, pack: &Path) -> u64 {
    let bytes = disk.content(pack).unwrap();
    let mut end = 88;
    while let Some([b'c', b'r', b'n', b'1', len @ ..]) = bytes.get(end..end + 8) {
        end += 68 + u32::from_le_bytes(len.try_into().unwrap()) as usize + 16;
    }
    end as u64
}

#[test]
fn a_last_batch_that_is_all_garbage_is_left_out_by_a_repair() {
    let disk = SimDisk::new(1);
    let (mut appender, blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    let kept = appender.put(Kind::Chunk, &noise(1, 20_000)).unwrap();
    appender.save(b"kept", Checkpoint).unwrap();
    let pack = Path::new(DIR).join("packs/00000001.pack");
    let end = end_of(&disk, &pack);
    appender.put(Kind::Chunk, &noise(2, 50_000)).unwrap();
    appender.save(b"lost", OnTop).unwrap();
    drop((appender, blobs));
    let file = disk.open(&pack, Open::Existing).unwrap();
    file.write_at(&noise(3, 51_000), end).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let refused = open(Arc::clone(&disk), Path::new(DIR), keys(), options());
    assert!(matches!(refused, Err(Error::Damaged { .. })));
    let repaired = repair(&disk, Path::new(DIR), keys(), options()).unwrap();
    assert_eq!(repaired.damage.len(), 1);
    assert_eq!(repaired.lost_end, None);
    let opened = open(disk, Path::new(DIR), keys(), options()).unwrap();
    assert_eq!(opened.saves, [b"kept"]);
    assert_eq!(opened.blobs.get(&kept).unwrap()[..], noise(1, 20_000));
}

#[test]
fn an_end_of_the_log_that_is_lost_is_no_torn_tail_to_a_check_and_a_repair() {
    lose_the_end(|pack, _| {
        pack.set_len(40_000).unwrap();
        40_000
    });
}

/// Such as a file system makes that has lost the last blocks of a file, but not its length.
#[test]
fn an_end_of_the_log_that_is_zeros_is_no_torn_tail_either() {
    // From amid the record of 50,000 bytes on, and all of the second save.
    for from in [Some(40_448), None] {
        lose_the_end(|pack, [first, end]| {
            let from = from.unwrap_or(first);
            let zeros = vec![0; usize::try_from(end - from).unwrap()];
            pack.write_at(&zeros, from).unwrap();
            first
        });
    }
}

/// `lose` damages a pack of two saves, the second of which begins and ends there, and says where it ends
/// then.
fn lose_the_end(lose: impl FnOnce(&dyn DiskFile, [u64; 2]) -> u64) {
    let disk = SimDisk::new(1);
    let (mut appender, blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    let pack = Path::new(DIR).join("packs/00000001.pack");
    appender.put(Kind::Chunk, &noise(1, 20_000)).unwrap();
    appender.save(b"kept", Checkpoint).unwrap();
    let first = end_of(&disk, &pack);
    appender.put(Kind::Chunk, &noise(2, 50_000)).unwrap();
    appender.save(b"lost", OnTop).unwrap();
    drop((appender, blobs));
    let end = end_of(&disk, &pack);
    let len = lose(&*disk.open(&pack, Open::Existing).unwrap(), [first, end]);
    let disk: Arc<dyn Disk> = Arc::new(disk);
    // Also when it is tried more than once.
    for _ in 0..2 {
        let refused = open(Arc::clone(&disk), Path::new(DIR), keys(), options());
        assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
    }
    let lost = Some(LostEnd { pack, len, known_len: end });
    let report = check(&disk, Path::new(DIR), Some(&keys()), &mut |_| ()).unwrap();
    assert_eq!(report.lost_end, lost);
    assert!(!report.is_clean());
    let repaired = repair(&disk, Path::new(DIR), keys(), options()).unwrap();
    assert_eq!(repaired, Repaired { damage: Vec::new(), lost_end: lost });
    // What is gone is told once; what is left is whole.
    assert!(check(&disk, Path::new(DIR), Some(&keys()), &mut |_| ()).unwrap().is_clean());
    assert_eq!(open(disk, Path::new(DIR), keys(), options()).unwrap().saves, [b"kept"]);
}

#[test]
fn a_repair_that_leaves_a_save_out_makes_the_store_open() {
    let disk = SimDisk::new(1);
    let (mut appender, blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    let pack = Path::new(DIR).join("packs/00000001.pack");
    let mut third = 0;
    for n in 0..6u8 {
        if n == 3 {
            third = end_of(&disk, &pack);
        }
        appender.save(&[n], SaveKind::checkpoint_if(n == 0)).unwrap();
    }
    drop((appender, blobs));
    disk.flip_bit(&pack, (third + 70) * 8);
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let refused = open(Arc::clone(&disk), Path::new(DIR), keys(), options());
    assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
    assert_eq!(repair(&disk, Path::new(DIR), keys(), options()).unwrap().damage.len(), 1);
    let reopen = || open(Arc::clone(&disk), Path::new(DIR), keys(), options()).unwrap();
    for n in 6..9u8 {
        let mut opened = reopen();
        assert_eq!(
            opened.saves.concat(),
            [&[0, 1, 2, 4, 5], &[6, 7, 8][..usize::from(n) - 6]].concat()
        );
        opened.appender.save(&[n], OnTop).unwrap();
    }
    reopen().appender.save(b"next", Checkpoint).unwrap();
    assert_eq!(reopen().saves, [b"next"]);
}

/// Eight packs or so: a checkpoint in the first, then saves.
fn many_packs() -> (SimDisk, Options) {
    let disk = SimDisk::new(1);
    let small = Options { pack_bytes: 64 << 10, ..options() };
    let (mut appender, blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), small).unwrap();
    appender.save(b"checkpoint", Checkpoint).unwrap();
    for n in 0..50 {
        appender.put(Kind::Chunk, &noise(n, 9_000)).unwrap();
        appender.save(&n.to_le_bytes(), OnTop).unwrap();
    }
    assert!(blobs.stats().unwrap().packs >= 7);
    drop((appender, blobs));
    (disk, small)
}

#[test]
fn a_pack_that_is_lost_behind_the_last_checkpoint_is_not_taken_for_reclaimed() {
    for (lost, has_index) in [(1, false), (4, false), (4, true), (5, true)] {
        let (disk, options) = many_packs();
        if !has_index {
            disk.remove(&Path::new(DIR).join("index.redb")).unwrap();
        }
        disk.remove(&pack(lost)).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(disk);
        for _ in 0..2 {
            let refused = open(Arc::clone(&disk), Path::new(DIR), keys(), options);
            assert!(
                matches!(&refused, Err(Error::Damaged { pack: it, .. }) if *it == pack(lost)),
                "pack {lost}, index {has_index}: {refused:?}"
            );
        }
        let report = check(&disk, Path::new(DIR), Some(&keys()), &mut |_| ()).unwrap();
        assert_eq!(report.damage.len(), 1, "{report:?}");
        assert_eq!(report.damage[0].pack, pack(lost));
        let repaired = repair(&disk, Path::new(DIR), keys(), options).unwrap();
        assert_eq!(repaired.damage, report.damage);
        // What is left is there, and it goes on.
        let mut opened = open(Arc::clone(&disk), Path::new(DIR), keys(), options).unwrap();
        assert_eq!(opened.saves.last().unwrap(), &49u64.to_le_bytes());
        assert!((30..51).contains(&opened.saves.len()), "{}", opened.saves.len());
        opened.appender.save(b"next checkpoint", Checkpoint).unwrap();
        drop(opened);
        // Nothing that is read again begins before it.
        assert!(check(&disk, Path::new(DIR), Some(&keys()), &mut |_| ()).unwrap().is_clean());
        disk.remove(&Path::new(DIR).join("index.redb")).unwrap();
        let opened = open(disk, Path::new(DIR), keys(), options).unwrap();
        assert_eq!(opened.saves, [b"next checkpoint"]);
    }
}

/// A disk may write to another place than it was told.
#[test]
fn a_save_that_stands_in_the_place_of_another_is_noticed() {
    for (from, to) in [(1, 4), (3, 4), (4, 2), (6, 5)] {
        for has_index in [true, false] {
            let disk = SimDisk::new(1);
            let (mut appender, blobs) =
                create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
            let mut saves = vec![88];
            for n in 0..6u8 {
                appender.save(&[n], SaveKind::checkpoint_if(n == 0)).unwrap();
                saves.push(end_of(&disk, &pack(1)));
            }
            drop((appender, blobs));
            let [from, to] = [from, to].map(|save| &saves[save - 1..=save]);
            let range =
                |of: &[u64]| usize::try_from(of[0]).unwrap()..usize::try_from(of[1]).unwrap();
            assert_eq!(range(from).len(), range(to).len());
            let copied = disk.content(&pack(1)).unwrap()[range(from)].to_vec();
            disk.open(&pack(1), Open::Existing).unwrap().write_at(&copied, to[0]).unwrap();
            if !has_index {
                disk.remove(&Path::new(DIR).join("index.redb")).unwrap();
            }
            let disk: Arc<dyn Disk> = Arc::new(disk);
            let refused = open(Arc::clone(&disk), Path::new(DIR), keys(), options());
            assert!(
                matches!(refused, Err(Error::Damaged { .. })),
                "{from:?} to {to:?}: {refused:?}"
            );
            let report = check(&disk, Path::new(DIR), Some(&keys()), &mut |_| ()).unwrap();
            assert_eq!(report.damage.len(), 1, "{report:?}");
            assert_eq!(report.damage[0].offset, to[0]);
            let repaired = repair(&disk, Path::new(DIR), keys(), options()).unwrap();
            assert_eq!(repaired.damage, report.damage);
            let opened = open(disk, Path::new(DIR), keys(), options()).unwrap();
            let left: Vec<u8> = opened.saves.concat();
            let lost = saves.iter().position(|at| *at == to[0]).unwrap();
            assert_eq!(
                left,
                [0, 1, 2, 3, 4, 5]
                    .iter()
                    .copied()
                    .filter(|n| usize::from(*n) != lost)
                    .collect::<Vec<u8>>()
            );
        }
    }
}

#[test]
fn a_pack_that_has_lost_its_end_is_noticed_and_a_repair_goes_on_behind_it() {
    // Its last record, and that and the one before: a save, and a blob.
    for (records, are_zeros) in [(1, false), (2, false), (1, true), (2, true)] {
        let (disk, options) = many_packs();
        let bytes = disk.content(&pack(3)).unwrap();
        let begins = bytes.windows(4).enumerate().filter(|(_, four)| *four == b"crn1");
        let at = begins.map(|(at, _)| at).rev().nth(records - 1).unwrap();
        let file = disk.open(&pack(3), Open::Existing).unwrap();
        file.set_len(at as u64).unwrap();
        if are_zeros {
            file.set_len(bytes.len() as u64).unwrap();
        }
        disk.remove(&Path::new(DIR).join("index.redb")).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let refused = open(Arc::clone(&disk), Path::new(DIR), keys(), options);
        assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
        let report = check(&disk, Path::new(DIR), None, &mut |_| ()).unwrap();
        assert_eq!(report.damage.len(), 1, "{report:?}");
        let found = (&report.damage[0].pack, report.damage[0].offset);
        assert_eq!(found, (&pack(3), at as u64));
        let repaired = repair(&disk, Path::new(DIR), keys(), options).unwrap();
        assert_eq!(repaired.damage, report.damage);
        let opened = open(disk, Path::new(DIR), keys(), options).unwrap();
        assert_eq!(opened.saves.len(), 50, "one is lost");
    }
}

#[test]
fn a_lost_end_is_noticed_also_where_the_next_pack_was_reclaimed() {
    let (disk, options) = many_packs();
    let mut appender =
        open(Arc::new(disk.clone()), Path::new(DIR), keys(), options).unwrap().appender;
    appender.save(b"next checkpoint", Checkpoint).unwrap();
    assert_eq!(appender.reclaim(&|_| false, &[4]).unwrap().packs, 1);
    appender.save(b"", OnTop).unwrap();
    appender.reclaim_finish().unwrap();
    drop(appender);
    let bytes = disk.content(&pack(3)).unwrap();
    let end = bytes.windows(4).rposition(|four| four == b"crn1").unwrap();
    let zeros = vec![0; bytes.len() - end];
    disk.open(&pack(3), Open::Existing).unwrap().write_at(&zeros, end as u64).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let report = check(&disk, Path::new(DIR), None, &mut |_| ()).unwrap();
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert_eq!((&report.damage[0].pack, report.damage[0].offset), (&pack(3), end as u64));
    let repaired = repair(&disk, Path::new(DIR), keys(), options).unwrap();
    assert_eq!(repaired.damage, report.damage);
    assert_eq!(open(disk, Path::new(DIR), keys(), options).unwrap().saves.len(), 2);
}

#[test]
fn many_damaged_records_are_read_in_no_more_than_a_few_passes() {
    let disk = SimDisk::new(1);
    let (mut appender, blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    for n in 0..4_000 {
        appender.put(Kind::Chunk, &noise(n, 100)).unwrap();
    }
    appender.save(b"", Checkpoint).unwrap();
    drop((appender, blobs));
    // Not where it is zeros: that would be a torn tail.
    let (mut at, save) = (88, last_of(&disk, 1));
    while at < save {
        disk.flip_bit(&pack(1), (at + 100) * 8);
        at += 68 + 100 + 16 + 16;
    }
    lose_index(&disk);
    let reads = disk.counters().reads;
    let disk_too: Arc<dyn Disk> = Arc::new(disk.clone());
    let report = check(&disk_too, Path::new(DIR), Some(&keys()), &mut |_| ()).unwrap();
    assert_eq!(report.damage.len(), 4_000);
    let passes = (disk.counters().reads - reads) / (1 + at / (256 << 10));
    assert!(passes < 20, "{passes} passes");
}

/// Where the last record of a pack begins.
fn last_of(disk: &SimDisk, number: u32) -> u64 {
    let bytes = disk.content(&pack(number)).unwrap();
    bytes.windows(4).rposition(|four| four == b"crn1").unwrap() as u64
}

fn lose_index(disk: &dyn Disk) {
    disk.remove(&Path::new(DIR).join("index.redb")).unwrap();
}

/// It is in five packs or so.
#[test]
fn of_a_last_batch_whose_save_is_damaged_a_repair_keeps_all_that_is_intact() {
    let small = Options { pack_bytes: 64 << 10, ..options() };
    // In the save's header, and in its content; of a blob besides, or not; torn behind it, or not.
    let cases =
        [20, 70].map(|byte| [false, true].map(|rots| [false, true].map(|torn| (byte, rots, torn))));
    for (byte, blob_rots, is_torn) in cases.into_iter().flatten().flatten() {
        for has_index in [true, false] {
            let case = format!("byte {byte}, blob {blob_rots}, torn {is_torn}, index {has_index}");
            let disk = SimDisk::new(1);
            let (mut appender, blobs) =
                create(Arc::new(disk.clone()), Path::new(DIR), keys(), small).unwrap();
            appender.save(b"first", Checkpoint).unwrap();
            let ids: Vec<_> =
                (0..30).map(|n| appender.put(Kind::Chunk, &noise(n, 9_000)).unwrap()).collect();
            appender.save(b"big", OnTop).unwrap();
            let last = u32::try_from(blobs.stats().unwrap().packs).unwrap();
            assert!(last >= 4);
            drop((appender, blobs));
            let save = last_of(&disk, last);
            let end = end_of(&disk, &pack(last));
            disk.flip_bit(&pack(last), (save + byte) * 8);
            if blob_rots {
                disk.flip_bit(&pack(last), 100 * 8);
            }
            let file = disk.open(&pack(last), Open::Existing).unwrap();
            if is_torn {
                file.set_len(end).unwrap();
                file.write_at(b"crn1", end).unwrap();
            }
            if !has_index {
                lose_index(&disk);
            }
            let disk: Arc<dyn Disk> = Arc::new(disk);
            let damage = repair(&disk, Path::new(DIR), keys(), small).unwrap().damage;
            assert!((1..=3).contains(&damage.len()), "{case}: {damage:?}");
            let mut saves = vec![b"first".to_vec()];
            for n in 0..4u8 {
                let mut opened =
                    open(Arc::clone(&disk), Path::new(DIR), keys(), small).expect(&case);
                assert_eq!(opened.saves, saves, "{case}, {n}");
                let lost = ids.iter().filter(|blob| opened.blobs.get(blob).is_err());
                assert_eq!(lost.count(), usize::from(blob_rots), "{case}, {n}");
                opened.appender.save(&[n], OnTop).unwrap();
                saves.push(vec![n]);
                drop(opened);
                let report = check(&disk, Path::new(DIR), Some(&keys()), &mut |_| ()).unwrap();
                assert!(!report.damage.is_empty() && report.damage.len() <= damage.len(), "{case}");
                // Whoever has no index finds the same.
                lose_index(&*disk);
                let again = repair(&disk, Path::new(DIR), keys(), small).unwrap();
                assert_eq!(again.damage, report.damage, "{case}, {n}");
            }
        }
    }
}

/// A disk or a process that is short of something for a moment is no damage, and no index that is not there.
#[test]
fn a_call_that_fails_during_a_repair_ends_it_and_nothing_is_taken_for_lost() {
    let (whole, options) = many_packs();
    let cut = whole.kill();
    cut.open(&pack(8), Open::Existing).unwrap().set_len(end_of(&whole, &pack(8)) - 1000).unwrap();
    let cases = [(whole, 51), (cut, 50)]
        .into_iter()
        .flat_map(|(disk, saves)| [Call::Open, Call::Read].map(|call| (disk.clone(), saves, call)));
    for (disk, saves, call) in cases {
        for nth in 1..200 {
            let disk = disk.kill();
            disk.inject(Fault::Fail { call, nth, kind: ErrorKind::OutOfMemory });
            let failing: Arc<dyn Disk> = Arc::new(disk.clone());
            let case = format!("{call:?} {nth}, {saves} saves");
            match repair(&failing, Path::new(DIR), keys(), options) {
                Ok(repaired) => {
                    assert_eq!(repaired.lost_end.is_some(), saves == 50, "{case}");
                    assert_eq!(repaired.damage, [], "{case}");
                }
                Err(err) => assert!(
                    matches!(err, Error::Io { .. } | Error::Index { .. }),
                    "{case}: {err:?}"
                ),
            }
            let disk: Arc<dyn Disk> = Arc::new(disk.kill());
            let repaired = repair(&disk, Path::new(DIR), keys(), options).unwrap();
            assert_eq!(repaired.damage, [], "{case}");
            assert_eq!(open(disk, Path::new(DIR), keys(), options).unwrap().saves.len(), saves);
        }
    }
}
