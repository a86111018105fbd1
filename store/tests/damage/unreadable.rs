//! A sector that cannot be read is damage like any other: what is beside it is found, and kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairnfs_store::disk::{Disk, Open};
use cairnfs_store::sim::SimDisk;
use cairnfs_store::{BlobRef, Blobs, Error, check, open, repair};

use super::{DIR, keys, noise, opened, options, pack};

/// So many saves fill four packs.
const SAVES: u64 = 25;
const LEN: usize = 9_000;
const SECTOR_BYTES: usize = 512;

/// A copy of the disk for each of some sectors that cannot be read, with the pack that has it and its place.
fn spoiled(disk: &SimDisk) -> impl Iterator<Item = (SimDisk, PathBuf, u64)> {
    [1, 3, 4].into_iter().flat_map(move |number| {
        let bytes = disk.content(&pack(number)).unwrap();
        // Behind the last one there are zeros.
        let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
        (0..end).step_by(5 * SECTOR_BYTES).map(move |at| {
            let disk = disk.kill();
            disk.spoil_sector(&pack(number), at);
            (disk, pack(number), at as u64)
        })
    })
}

/// So many blobs cannot be read.
fn lost(blobs: &Blobs) -> usize {
    let is_lost = |n: &u64| {
        let content = noise(*n, LEN);
        let blob = BlobRef { id: keys().name(&content), len: 9_000 };
        !blobs.get(&blob).is_ok_and(|found| *found == *content)
    };
    (0..SAVES).filter(is_lost).count()
}

#[test]
fn a_check_names_what_cannot_be_read_and_a_repair_keeps_the_rest() {
    let (disk, appender, blobs) = opened(SAVES, LEN, options());
    drop((appender, blobs));
    for (disk, pack, at) in spoiled(&disk) {
        for has_index in [true, false] {
            let case = format!("{} at {at}, index {has_index}", pack.display());
            let disk = disk.kill();
            if !has_index {
                disk.remove(&Path::new(DIR).join("index.redb")).unwrap();
            }
            let sim: Arc<dyn Disk> = Arc::new(disk.clone());
            let report = check(&sim, Path::new(DIR), Some(&keys()), &mut |_| ()).expect(&case);
            assert!((1..=3).contains(&report.damage.len()), "{case}: {report:?}");
            assert_eq!((report.lost_end, report.tail_bytes), (None, 0), "{case}");
            let is_near = |offset: u64| offset <= at + 511 && at <= offset + 9_200;
            assert!(
                report.damage.iter().all(|it| it.pack == pack && is_near(it.offset)),
                "{case}: {:?}",
                report.damage
            );
            let repaired = repair(&sim, Path::new(DIR), keys(), options()).expect(&case);
            assert_eq!(repaired.damage, report.damage, "{case}");
            let opened = open(sim, Path::new(DIR), keys(), options()).expect(&case);
            assert!(opened.saves.len() as u64 + 2 >= SAVES, "{case}");
            assert!(lost(&opened.blobs) <= 2, "{case}");
        }
    }
}

#[test]
fn a_check_of_a_store_in_use_names_what_cannot_be_read() {
    let (disk, ..) = opened(SAVES, LEN, options());
    let mut openings = 0;
    for (disk, pack, at) in spoiled(&disk) {
        // An opening has no need of most of it.
        let Ok(opened) = open(Arc::new(disk), Path::new(DIR), keys(), options()) else { continue };
        openings += 1;
        let damage = opened.blobs.scrub(&mut |_| true).unwrap().damage;
        assert!((1..=3).contains(&damage.len()), "{at}: {damage:?}");
        assert!(damage.iter().all(|it| it.pack == pack), "{at}: {damage:?}");
        assert!(lost(&opened.blobs) <= 2);
    }
    assert!(openings > 50, "{openings}");
}

#[test]
fn a_search_for_space_passes_over_a_pack_that_cannot_be_read() {
    let (disk, _appender, blobs) = opened(SAVES, LEN, options());
    disk.spoil_sector(&pack(2), 30_000);
    for number in [1, 2, 3] {
        let found = blobs.survey(number, &|_| Some(false)).unwrap();
        assert_eq!(found.is_some(), number != 2);
    }
}

/// What looks like a torn tail was saved, if only that could be read which tells.
#[test]
fn an_opening_cuts_nothing_off_before_a_place_that_cannot_be_read() {
    let (disk, appender, blobs) = opened(SAVES, LEN, options());
    drop((appender, blobs));
    disk.remove(&Path::new(DIR).join("index.redb")).unwrap();
    let before = disk.content(&pack(4)).unwrap().len();
    disk.open(&pack(4), Open::Existing).unwrap().write_at(&[0; SECTOR_BYTES], 1024).unwrap();
    for at in (9_000..before).step_by(SECTOR_BYTES) {
        disk.spoil_sector(&pack(4), at);
    }
    let refused = open(Arc::new(disk.clone()), Path::new(DIR), keys(), options());
    assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
    assert_eq!(disk.content(&pack(4)).unwrap().len(), before);
}
