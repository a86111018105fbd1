//! A check of a store that is in use finds what one of a closed store does, and nothing that is not there.

use std::path::Path;
use std::sync::Arc;

use cairnfs_store::SaveKind::OnTop;
use cairnfs_store::disk::{Disk, Open};
use cairnfs_store::sim::SimDisk;
use cairnfs_store::{Appender, Blobs, CheckReport, Error, Kind, Options, check};

use super::{DIR, keys, noise, opened, options, pack};

const RECORD: u64 = 100_000;
const LEN: usize = 100_000;

/// A store of so many saves, each with a blob: about ten in a pack.
fn store(saves: u64) -> (SimDisk, Appender, Arc<Blobs>) {
    let pack_bytes = 10 * RECORD + 50_000;
    opened(saves, LEN, Options { pack_bytes, ..options() })
}

fn checked(disk: &SimDisk) -> CheckReport {
    let disk: Arc<dyn Disk> = Arc::new(disk.kill());
    check(&disk, Path::new(DIR), Some(&keys()), &mut |_| ()).unwrap()
}

#[test]
fn a_check_of_a_store_in_use_notices_a_pack_that_has_lost_its_end() {
    for number in [1, 2, 3] {
        for are_zeros in [false, true] {
            let (disk, _appender, blobs) = store(25);
            assert!(disk.content(&pack(3)).is_some() && disk.content(&pack(4)).is_none());
            assert!(blobs.scrub(&mut |_| true).unwrap().is_clean());
            let bytes = disk.content(&pack(number)).unwrap();
            let end = bytes.windows(4).rposition(|four| four == b"crn1").unwrap() as u64;
            let file = disk.open(&pack(number), Open::Existing).unwrap();
            file.set_len(end).unwrap();
            if are_zeros {
                file.set_len(bytes.len() as u64).unwrap();
            }
            let damage = blobs.scrub(&mut |_| true).unwrap().damage;
            let places: Vec<_> = damage.iter().map(|it| (it.pack.clone(), it.offset)).collect();
            assert_eq!(places, [(pack(number), end)], "zeros {are_zeros}");
            if number < 3 {
                assert_eq!(damage, checked(&disk).damage, "zeros {are_zeros}");
            }
        }
    }
}

#[test]
fn a_check_of_a_store_in_use_takes_no_batch_for_damage_that_is_dropped_meanwhile() {
    for is_written_anew in [false, true] {
        let (_disk, mut appender, blobs) = store(5);
        for n in 5..9 {
            appender.put(Kind::Chunk, &noise(n, LEN)).unwrap();
        }
        appender.spill().unwrap();
        let mut is_first = true;
        let report = blobs.scrub(&mut |_| {
            if std::mem::take(&mut is_first) {
                appender.discard_batch().unwrap();
                if is_written_anew {
                    for n in 10..14 {
                        appender.put(Kind::Chunk, &noise(n, LEN)[1..]).unwrap();
                    }
                    appender.save(b"", OnTop).unwrap();
                }
            }
            true
        });
        assert!(report.as_ref().is_ok_and(CheckReport::is_clean), "{report:?}");
    }
}

/// Zeros that were written ahead of the log are cut off when the next pack is begun.
#[test]
fn a_check_of_a_store_in_use_does_not_mind_a_pack_that_ends_meanwhile() {
    let (disk, mut appender, blobs) = store(6);
    for n in 0..500u64 {
        appender.save(&n.to_le_bytes(), OnTop).unwrap();
    }
    appender.write_ahead().unwrap();
    let len = disk.content(&pack(1)).unwrap().len();
    let mut is_first = true;
    let report = blobs.scrub(&mut |_| {
        if std::mem::take(&mut is_first) {
            appender
                .put(
                    Kind::Chunk,
                    &[noise(20, LEN), noise(21, LEN), noise(22, LEN), noise(23, LEN)].concat(),
                )
                .unwrap();
            appender.save(b"", OnTop).unwrap();
            assert!(disk.content(&pack(2)).is_some());
            assert!(disk.content(&pack(1)).unwrap().len() < len);
        }
        true
    });
    assert!(report.as_ref().is_ok_and(CheckReport::is_clean), "{report:?}");
}

#[test]
fn a_scrub_ends_when_nobody_wants_it_any_more() {
    let (_disk, _appender, blobs) = store(5);
    let mut read = 0;
    let result = blobs.scrub(&mut |_| {
        read += 1;
        read < 3
    });
    assert!(matches!(result, Err(Error::Stopped)), "{result:?}");
    assert_eq!(read, 3);
}
