//! Packs whose header is not there: those that were only begun go, and nothing that was saved does.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use cairnfs_store::SaveKind::{Checkpoint, OnTop};
use cairnfs_store::disk::{Disk, Open};
use cairnfs_store::sim::{Call, Fault, SimDisk};
use cairnfs_store::{
    CheckReport, Error, KeyRing, Kind, Opened, Repaired, Secret, check, create, open, repair,
};

use super::{DIR, SECTOR, keys, noise, options, pack, store};

/// Where the last record of the first pack ends, by their lengths (FORMAT.md).
fn end_of(disk: &SimDisk) -> u64 {
    let bytes = disk.content(&pack(1)).unwrap();
    let mut end = 88;
    while let Some([b'c', b'r', b'n', b'1', len @ ..]) = bytes.get(end..end + 8) {
        end += 68 + u32::from_le_bytes(len.try_into().unwrap()) as usize + 16;
    }
    end as u64
}

fn zero(disk: &SimDisk, number: u32, from: u64, len: u64) {
    let zeros = vec![0; usize::try_from(len).unwrap()];
    disk.open(&pack(number), Open::Existing).unwrap().write_at(&zeros, from).unwrap();
}

fn lose_index(disk: &SimDisk) {
    disk.remove(&Path::new(DIR).join("index.redb")).unwrap();
}

fn reopen(disk: &SimDisk) -> Result<Opened, Error> {
    open(Arc::new(disk.clone()), Path::new(DIR), keys(), options())
}

fn checked(disk: &SimDisk) -> CheckReport {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    check(&disk, Path::new(DIR), Some(&keys()), &mut |_| ()).unwrap()
}

fn repaired(disk: &SimDisk) -> Repaired {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    repair(&disk, Path::new(DIR), keys(), options()).unwrap()
}

/// Every save is in `disk`, and every blob but so many that were damaged.
fn assert_whole(disk: &SimDisk, saves: u64, blobs_lost: usize) {
    let opened = reopen(disk).unwrap();
    let expected: Vec<Vec<u8>> = (0..saves).map(|n| n.to_le_bytes().to_vec()).collect();
    assert_eq!(opened.saves, expected);
    let names = (0..saves).map(|n| keys().name(&noise(n, 9_000)));
    assert_eq!(names.filter(|id| !opened.blobs.contains(id).unwrap()).count(), blobs_lost);
}

#[test]
fn a_pack_that_was_saved_in_is_not_removed_because_its_header_is_zeros() {
    // The only one, the first, one in the middle, the last; the header alone, and its sector.
    for (saves, number) in [(5, 1), (25, 1), (25, 3), (25, 4)] {
        for (len, has_index) in [(88, true), (88, false), (SECTOR, true), (SECTOR, false)] {
            let case = format!("pack {number} of {saves} saves, {len} bytes, index {has_index}");
            let disk = store(saves);
            assert!(disk.content(&pack(number)).is_some(), "{case}");
            if !has_index {
                lose_index(&disk);
            }
            zero(&disk, number, 0, len);
            // What the index has seen is not read again.
            if !has_index {
                let refused = reopen(&disk);
                assert!(matches!(refused, Err(Error::Damaged { .. })), "{case}: {refused:?}");
            }
            let report = checked(&disk);
            let places: Vec<_> =
                report.damage.iter().map(|it| (it.pack.clone(), it.offset)).collect();
            let expected = [(pack(number), 0), (pack(number), 88)];
            let damaged = 1 + usize::from(len == SECTOR);
            assert_eq!(places, expected[..damaged], "{case}");
            assert_eq!(repaired(&disk), Repaired { damage: report.damage, lost_end: None });
            assert_whole(&disk, saves, damaged - 1);
        }
    }
}

#[test]
fn a_pack_that_is_cut_within_its_header_costs_what_was_in_it_and_no_more() {
    for (len, has_index) in [(0, true), (0, false), (87, true), (87, false)] {
        let disk = store(25);
        if !has_index {
            lose_index(&disk);
        }
        disk.open(&pack(2), Open::Existing).unwrap().set_len(len).unwrap();
        let report = checked(&disk);
        assert_eq!(report.damage.len(), 1, "{report:?}");
        assert_eq!((&report.damage[0].pack, report.damage[0].offset), (&pack(2), 0));
        assert_eq!(repaired(&disk).damage, report.damage, "{len} bytes, index {has_index}");
        let saves = reopen(&disk).unwrap().saves;
        let left = (0..7).chain(14..25u64).map(|n| n.to_le_bytes().to_vec());
        assert_eq!(saves, left.collect::<Vec<_>>());
    }
}

/// Nothing in it tells that: without the index it may be what a power cut has left.
#[test]
fn a_single_save_that_the_index_has_seen_stays_though_the_header_is_zeros() {
    let saves = (8..20).find(|&n| store(n).content(&pack(2)).is_some()).unwrap();
    let disk = store(saves);
    zero(&disk, 2, 0, SECTOR);
    assert_eq!(checked(&disk).damage.len(), 2);
    assert_eq!(repaired(&disk).damage.len(), 2);
    assert_whole(&disk, saves, 1);
}

/// Where the last record of a pack begins: a save.
fn last_of(disk: &SimDisk, number: u32) -> u64 {
    let bytes = disk.content(&pack(number)).unwrap();
    bytes.windows(4).rposition(|four| four == b"crn1").unwrap() as u64
}

#[test]
fn a_single_save_that_is_damaged_is_no_less_seen() {
    let saves = (8..20).find(|&n| store(n).content(&pack(2)).is_some()).unwrap();
    for byte in [20, 70] {
        let disk = store(saves);
        zero(&disk, 2, 0, 88);
        disk.flip_bit(&pack(2), (last_of(&disk, 2) + byte) * 8);
        for _ in 0..2 {
            let refused = reopen(&disk);
            assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
            assert_eq!(checked(&disk).damage.len(), 2);
        }
        assert_eq!(repaired(&disk).damage.len(), 2);
        let opened = reopen(&disk).unwrap();
        assert_eq!(opened.saves.len() as u64, saves - 1);
        assert!(opened.blobs.contains(&keys().name(&noise(saves - 1, 9_000))).unwrap());
    }
}

#[test]
fn damage_before_an_end_that_is_lost_does_not_hide_that() {
    let disk = store(5);
    disk.flip_bit(&pack(1), 200 * 8);
    assert_eq!(repaired(&disk).damage.len(), 1);
    assert_eq!(reopen(&disk).unwrap().saves.len(), 5);
    let (last, end) = (last_of(&disk, 1), end_of(&disk));
    zero(&disk, 1, last, end - last);
    for _ in 0..2 {
        let refused = reopen(&disk);
        assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
    }
    let report = checked(&disk);
    let lost = report.lost_end.unwrap();
    assert_eq!((&lost.pack, lost.len, lost.known_len), (&pack(1), last, end));
    assert_eq!(repaired(&disk), Repaired { damage: report.damage, lost_end: Some(lost) });
    assert_eq!(reopen(&disk).unwrap().saves.len(), 4);
}

/// A save, and another one with so many blobs.
fn two_saves(blobs: u64) -> SimDisk {
    let disk = SimDisk::new(1);
    let (mut appender, _blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    appender.save(b"first", Checkpoint).unwrap();
    for n in 0..blobs {
        appender.put(Kind::Chunk, &noise(n, 9_000)).unwrap();
    }
    appender.save(b"second", OnTop).unwrap();
    disk
}

/// In a batch over several packs, as no save in them tells.
#[test]
fn a_lost_end_behind_a_header_behind_damage_is_named_by_a_check_and_a_repair() {
    for has_index in [true, false] {
        let disk = two_saves(30);
        disk.flip_bit(&pack(1), 1_000 * 8);
        let last = last_of(&disk, 2);
        disk.open(&pack(2), Open::Existing).unwrap().set_len(last).unwrap();
        if !has_index {
            lose_index(&disk);
        }
        let report = checked(&disk);
        let places: Vec<_> = report.damage.iter().map(|it| it.pack.clone()).collect();
        assert_eq!(places, [pack(1), pack(2)]);
        assert_eq!(repaired(&disk).damage, report.damage);
        assert_eq!(reopen(&disk).unwrap().saves.len(), 2);
    }
}

#[test]
fn a_header_is_not_written_anew_over_what_is_missing_before_it() {
    let disk = two_saves(10);
    let last = last_of(&disk, 1);
    disk.open(&pack(1), Open::Existing).unwrap().set_len(last).unwrap();
    zero(&disk, 2, 0, 88);
    disk.flip_bit(&pack(2), 1_000 * 8);
    let report = checked(&disk);
    assert_eq!(repaired(&disk).damage, report.damage);
    assert_eq!(disk.content(&pack(2)).unwrap()[..88], [0; 88]);
    assert_eq!(checked(&disk).damage, report.damage);
    assert_eq!(reopen(&disk).unwrap().saves.len(), 2);
}

#[test]
fn a_repair_with_the_keys_of_another_bucket_writes_no_header() {
    let disk = store(5);
    zero(&disk, 1, 0, 88);
    let other = KeyRing::new([(0, Secret::new([6; 32]))]).unwrap();
    let as_other: Arc<dyn Disk> = Arc::new(disk.clone());
    let by_other = repair(&as_other, Path::new(DIR), other, options()).unwrap();
    assert_eq!(by_other.damage.len(), 1 + 5, "no save is one of that bucket");
    assert_eq!(repaired(&disk).damage.len(), 1);
    assert_whole(&disk, 5, 0);
}

/// Four packs, less those that are `gone` because a checkpoint in the last one needs nothing of them.
fn reclaimed(gone: &[u32]) -> SimDisk {
    let disk = store(25);
    let mut appender = reopen(&disk).unwrap().appender;
    appender.save(b"checkpoint", Checkpoint).unwrap();
    assert_eq!(appender.reclaim(&|_| false, gone).unwrap().packs, gone.len() as u64);
    appender.save(b"behind it", OnTop).unwrap();
    appender.reclaim_finish().unwrap();
    disk
}

#[test]
fn after_a_repair_a_store_opens_whose_last_or_first_pack_has_no_header_nor_one_before_it() {
    for (gone, number) in [(&[1][..], 2), (&[1, 2, 3], 4), (&[3], 4), (&[1, 3], 2)] {
        for (is_zeros, has_index) in [(true, true), (true, false), (false, true), (false, false)] {
            let case = format!("{gone:?} gone, pack {number}, {is_zeros}, index {has_index}");
            let disk = reclaimed(gone);
            if is_zeros {
                zero(&disk, number, 0, 88);
            } else {
                disk.flip_bit(&pack(number), 100);
            }
            if !has_index {
                lose_index(&disk);
            }
            let report = checked(&disk);
            assert_eq!(report.damage.len(), 1, "{case}: {report:?}");
            assert_eq!(repaired(&disk).damage, report.damage, "{case}");
            for n in 0..3 {
                let mut opened = reopen(&disk).expect(&case);
                assert_eq!(opened.saves[..2], [&b"checkpoint"[..], b"behind it"], "{case}");
                assert_eq!(opened.saves.len(), 2 + n, "{case}");
                opened.appender.save(b"it goes on", OnTop).unwrap();
            }
        }
    }
}

#[test]
fn a_last_batch_that_the_index_has_seen_is_no_torn_tail_to_a_check_and_a_repair() {
    let disk = store(5);
    zero(&disk, 1, (end_of(&disk) - 5_000) / SECTOR * SECTOR, SECTOR);
    let report = checked(&disk);
    assert_eq!((report.damage.len(), report.tail_bytes), (1, 0), "{report:?}");
    assert_eq!(repaired(&disk).damage, report.damage);
    assert_whole(&disk, 5, 1);
}

#[test]
fn a_pack_that_was_begun_and_came_back_makes_no_damage_of_the_torn_tail_before_it() {
    let disk = store(5);
    let end = end_of(&disk);
    let torn = disk.open(&pack(1), Open::Existing).unwrap();
    torn.set_len(end).unwrap();
    torn.write_at(b"crn1", end).unwrap();
    for begun in [0, 40, 88, 3_000] {
        let disk = disk.kill();
        disk.open(&pack(2), Open::New).unwrap().set_len(begun).unwrap();
        let report = checked(&disk);
        assert!(report.is_clean(), "{begun} bytes: {report:?}");
        assert_eq!(report.tail_bytes, begun + 4);
        assert_whole(&disk, 5, 0);
        assert!(disk.content(&pack(2)).is_none());
    }
}

#[test]
fn an_end_of_the_log_that_is_lost_is_missed_though_a_begun_pack_came_back_behind_it() {
    let disk = store(5);
    let end = end_of(&disk);
    zero(&disk, 1, end - 5_000, 5_000);
    disk.open(&pack(2), Open::New).unwrap();
    let refused = reopen(&disk);
    assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
    let lost = checked(&disk).lost_end.unwrap();
    assert_eq!((&lost.pack, lost.known_len), (&pack(1), end));
    assert_eq!(repaired(&disk).lost_end, Some(lost));
    assert_eq!(reopen(&disk).unwrap().saves.len(), 4);
}

/// A disk or a process that is short of something for a moment.
#[test]
fn a_call_that_fails_makes_nobody_miss_a_lost_end_before_a_begun_pack() {
    let whole = store(5);
    let end = end_of(&whole);
    zero(&whole, 1, end - 5_000, 5_000);
    whole.open(&pack(2), Open::New).unwrap();
    for call in [Call::Open, Call::Read] {
        for nth in 1..60 {
            let case = format!("{call:?} {nth}");
            let disk = whole.kill();
            let fault = Fault::Fail { call, nth, kind: ErrorKind::Other };
            disk.inject(fault);
            assert!(reopen(&disk).is_err(), "{case}");
            let disk = whole.kill();
            disk.inject(fault);
            let failing: Arc<dyn Disk> = Arc::new(disk.clone());
            if let Ok(repaired) = repair(&failing, Path::new(DIR), keys(), options()) {
                assert!(repaired.lost_end.is_some(), "{case}");
            }
        }
    }
}

#[test]
fn a_repair_keeps_a_pack_whose_first_save_is_lost_where_the_one_before_was_reclaimed() {
    for (gone, has_index) in
        [(&[1, 2, 3][..], true), (&[1, 2, 3], false), (&[3], true), (&[3], false)]
    {
        let case = format!("{gone:?} gone, index {has_index}");
        let disk = reclaimed(gone);
        // Behind the first blob all is zeros.
        let len = disk.content(&pack(4)).unwrap().len() as u64;
        zero(&disk, 4, 9_188, len - 9_188);
        if !has_index {
            lose_index(&disk);
        }
        let refused = reopen(&disk);
        assert!(matches!(refused, Err(Error::Damaged { .. })), "{case}: {refused:?}");
        assert_eq!(repaired(&disk).lost_end.is_some(), has_index, "{case}");
        for n in 0..3 {
            let mut opened = reopen(&disk).expect(&case);
            // Those of packs 1 and 2.
            let saves = if gone.len() == 1 { 14 } else { 0 };
            assert_eq!(opened.saves.len(), saves + n, "{case}");
            opened.appender.save(b"it goes on", OnTop).unwrap();
            assert!(disk.content(&pack(4)).unwrap().len() >= 9_188, "{case}");
        }
        lose_index(&disk);
        assert!(repaired(&disk).lost_end.is_none());
        assert_eq!(reopen(&disk).unwrap().saves.last().unwrap(), b"it goes on", "{case}");
    }
}

/// What a header tells of where the batch began need not be there any longer.
#[test]
fn a_store_opens_after_a_repair_of_a_batch_that_has_lost_its_beginning_and_its_end() {
    for has_index in [true, false] {
        for (saves, is_zeros) in [(25, true), (25, false), (1, true), (1, false)] {
            let case = format!("{saves} saves, {is_zeros}, index {has_index}");
            let disk = if saves == 1 { two_saves(25) } else { store(saves) };
            let (first, last) = if saves == 1 { (1, 4) } else { (3, 4) };
            if is_zeros {
                zero(&disk, first, 0, disk.content(&pack(first)).unwrap().len() as u64);
            } else {
                disk.open(&pack(first), Open::Existing).unwrap().set_len(120).unwrap();
            }
            disk.open(&pack(last), Open::Existing).unwrap().set_len(4_804).unwrap();
            if !has_index {
                lose_index(&disk);
            }
            assert!(!repaired(&disk).damage.is_empty(), "{case}");
            for n in 0..2 {
                let mut opened = reopen(&disk).expect(&case);
                assert_eq!(opened.saves.len(), if saves == 1 { 0 } else { 14 } + n, "{case}");
                opened.appender.save(b"it goes on", OnTop).unwrap();
            }
        }
    }
}
