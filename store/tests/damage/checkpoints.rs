//! Saves that need none before them: whether there is one that is whole, and what is kept if there is not.

use std::path::Path;
use std::sync::Arc;

use cairnfs_store::SaveKind::{Checkpoint, OnTop};
use cairnfs_store::disk::Disk;
use cairnfs_store::sim::SimDisk;
use cairnfs_store::{Error, Kind, check, create, open, repair};

use super::repair::{end_of, options};
use super::{DIR, keys, noise, pack};

/// Saves `first`, a checkpoint; `second`; a checkpoint so long that it begins in a part; `last`. Says where
/// the part begins, and where the record of that checkpoint ends.
fn with_a_long_checkpoint() -> (SimDisk, [u64; 2]) {
    let disk = SimDisk::new(1);
    let (mut appender, blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    appender.save(b"first", Checkpoint).unwrap();
    appender.save(b"second", OnTop).unwrap();
    let part = end_of(&disk, &pack(1));
    appender.save(&noise(3, (1 << 20) + 100), Checkpoint).unwrap();
    let end = end_of(&disk, &pack(1));
    appender.save(b"last", OnTop).unwrap();
    drop((appender, blobs));
    (disk, [part, end])
}

#[test]
fn a_checkpoint_that_is_damaged_anywhere_takes_no_older_save_with_it_in_a_repair() {
    let (whole, [part, end]) = with_a_long_checkpoint();
    for (place, damages) in [(part + 1000, 2), (end - 50, 1)] {
        let disk = whole.kill();
        disk.flip_bit(&pack(1), place * 8);
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let refused = open(Arc::clone(&disk), Path::new(DIR), keys(), options());
        assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
        let repaired = repair(&disk, Path::new(DIR), keys(), options()).unwrap();
        assert_eq!(repaired.damage.len(), damages, "{repaired:?}");
        let opened = open(disk, Path::new(DIR), keys(), options()).unwrap();
        assert_eq!(opened.saves, [&b"first"[..], b"second", b"last"]);
    }
}

#[test]
fn a_check_tells_whether_there_is_a_checkpoint_that_is_whole() {
    let (whole, [part, end]) = with_a_long_checkpoint();
    let checked = |disk: &SimDisk| {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        check(&disk, Path::new(DIR), Some(&keys()), &mut |_| ()).unwrap().has_checkpoint
    };
    let first = 88 + 70;
    for (places, has_one) in [
        (vec![], true),
        (vec![first], true),
        (vec![first, end - 50], false),
        (vec![first, part + 1000], false),
    ] {
        let disk = whole.kill();
        places.iter().for_each(|place| disk.flip_bit(&pack(1), place * 8));
        assert_eq!(checked(&disk), has_one, "{places:?}");
    }
}

#[test]
fn blobs_of_a_kind_are_found_around_damage() {
    let disk = SimDisk::new(1);
    let (mut appender, _) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    let mut manifests: Vec<_> =
        (0..3).map(|n| appender.put(Kind::Manifest, &noise(n, 100)).unwrap()).collect();
    appender.put(Kind::Chunk, &noise(3, 100)).unwrap();
    appender.save(b"", Checkpoint).unwrap();
    drop(appender);
    disk.flip_bit(&pack(1), (88 + 100) * 8);
    let disk: Arc<dyn Disk> = Arc::new(disk);
    repair(&disk, Path::new(DIR), keys(), options()).unwrap();
    manifests.remove(0);
    manifests.sort();
    let opened = open(disk, Path::new(DIR), keys(), options()).unwrap();
    assert_eq!(opened.blobs.all_of(Kind::Manifest).unwrap(), manifests);
}
