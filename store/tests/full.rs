//! A full disk: what was saved stays, deleting works, and writing goes on when there is room.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use cairnfs_store::SaveKind::{self, OnTop};
use cairnfs_store::disk::{Disk, Open};
use cairnfs_store::sim::{Call, Fault, SimDisk};
use cairnfs_store::{BlobRef, Error, Kind, Options, create, open};

use support::{DIR, keys, noise, small};

fn options() -> Options {
    small(256 << 10, 128 << 10)
}

#[test]
fn a_full_disk_refuses_writers_lets_deleting_save_and_goes_on_afterwards() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let (mut appender, blobs) =
            create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
        let room = 700_000 + seed * 1_237;
        disk.set_capacity_bytes(disk.used_bytes() + room);
        let mut saved: Vec<(BlobRef, Vec<u8>)> = Vec::new();
        let mut n = 0;
        // Until the disk is full.
        let err = loop {
            n += 1;
            let content = noise(n, 9_000);
            let put = appender.put(Kind::Chunk, &content);
            match put.and_then(|blob| appender.save(&n.to_le_bytes(), OnTop).map(|_| blob)) {
                Ok(blob) => saved.push((blob, content)),
                Err(err) => break err,
            }
        };
        assert!(matches!(err, Error::NoSpace { .. }), "{err:?}");
        assert!(saved.len() > 40, "{}", saved.len());
        assert!(!appender.poisoned());
        // The same again: still no room, still no harm.
        assert!(matches!(appender.save(&noise(0, 40_000), OnTop), Err(Error::NoSpace { .. })));
        appender.discard_batch().unwrap();
        appender.save_urgent(b"delete something", OnTop).unwrap();
        for n in 0..5u8 {
            appender.save_urgent(&[n; 1000], OnTop).unwrap();
        }
        for (blob, content) in &saved {
            assert_eq!(blobs.get(blob).unwrap()[..], content[..]);
        }
        // The process is killed and started again, on the disk that is as full as before.
        let killed = disk.kill();
        killed.set_capacity_bytes(killed.used_bytes());
        let mut reopened = open(Arc::new(killed), Path::new(DIR), keys(), options()).unwrap();
        assert_eq!(reopened.saves.len(), saved.len() + 6);
        let more = reopened.appender.save(&noise(0, 100_000), OnTop);
        assert!(matches!(more, Err(Error::NoSpace { .. })), "{more:?}");
        let crashed = open(Arc::new(disk.crash(seed)), Path::new(DIR), keys(), options()).unwrap();
        assert_eq!(crashed.saves.len(), saved.len() + 6);
        drop(crashed);
        // Somebody frees space: it goes on without being opened again.
        disk.set_capacity_bytes(u64::MAX);
        let late = appender.put(Kind::Chunk, b"after").unwrap();
        appender.save(b"after", OnTop).unwrap();
        drop((appender, blobs));
        let opened = open(Arc::new(disk.kill()), Path::new(DIR), keys(), options()).unwrap();
        assert_eq!(opened.saves.len(), saved.len() + 7);
        assert_eq!(opened.saves.last().unwrap(), b"after");
        assert_eq!(&opened.blobs.get(&late).unwrap()[..], b"after");
        for (blob, content) in &saved {
            assert_eq!(opened.blobs.get(blob).unwrap()[..], content[..]);
        }
    }
}

#[test]
fn a_reserve_for_which_there_is_less_room_than_the_disk_says_takes_none_of_it() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let without = Options { reserve_bytes: 0, ..options() };
        drop(create(Arc::new(disk.clone()), Path::new(DIR), keys(), without).unwrap());
        disk.set_quota_bytes(disk.used_bytes() + options().reserve_bytes * 3 / 4);
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let mut opened = open(disk, Path::new(DIR), keys(), options()).unwrap();
        opened.appender.save(&noise(seed, 60_000), OnTop).unwrap();
    }
}

#[test]
fn part_of_a_reserve_is_space_to_give_too() {
    let disk = SimDisk::new(1);
    drop(create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap());
    // As it was being made when the power went.
    let reserve = disk.open(&Path::new(DIR).join("reserve"), Open::Existing).unwrap();
    reserve.set_len(options().reserve_bytes / 2).unwrap();
    disk.set_capacity_bytes(disk.used_bytes());
    let mut opened = open(Arc::new(disk), Path::new(DIR), keys(), options()).unwrap();
    let refused = opened.appender.save(&[1; 5000], OnTop);
    assert!(matches!(refused, Err(Error::NoSpace { .. })), "{refused:?}");
    opened.appender.save_urgent(b"delete something", OnTop).unwrap();
}

#[test]
fn a_batch_that_found_no_room_can_be_saved_when_there_is_some() {
    for nth in 1..40 {
        let disk = SimDisk::new(nth);
        let (mut appender, blobs) =
            create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
        disk.inject(Fault::Fail { call: Call::Write, nth, kind: ErrorKind::StorageFull });
        let mut saved = Vec::new();
        let mut refusals = 0;
        for n in 0..30 {
            let content = noise(n, 20_000);
            let blob = loop {
                match appender.put(Kind::Chunk, &content) {
                    Ok(blob) => break blob,
                    Err(Error::NoSpace { .. }) => refusals += 1,
                    Err(err) => panic!("{err:?}"),
                }
            };
            while let Err(err) = appender.save(&n.to_le_bytes(), SaveKind::checkpoint_if(n == 3)) {
                assert!(matches!(err, Error::NoSpace { .. }), "{err:?}");
                refusals += 1;
            }
            saved.push((blob, content));
        }
        assert!(refusals <= 1);
        drop((appender, blobs));
        let opened = open(Arc::new(disk.kill()), Path::new(DIR), keys(), options()).unwrap();
        assert_eq!(opened.appender.seq().0, 30);
        for (blob, content) in &saved {
            assert_eq!(opened.blobs.get(blob).unwrap()[..], content[..]);
        }
    }
}

#[test]
fn a_pack_that_found_no_room_as_its_name_was_made_durable_is_no_part_of_the_log() {
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        let (mut appender, blobs) =
            create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
        for n in 0..25 {
            appender.put(Kind::Chunk, &noise(n, 9_000)).unwrap();
            appender.save(&n.to_le_bytes(), OnTop).unwrap();
        }
        disk.inject(Fault::Fail { call: Call::SyncDir, nth: 1, kind: ErrorKind::StorageFull });
        let refused = (0..10).find_map(|n| appender.put(Kind::Chunk, &noise(n + 100, 9_000)).err());
        assert!(matches!(refused, Some(Error::NoSpace { .. })), "{refused:?}");
        appender.discard_batch().unwrap();
        for n in 0..3u8 {
            appender.save(&[n], OnTop).unwrap();
        }
        let after = disk.crash(seed);
        drop((appender, blobs));
        let opened = open(Arc::new(after), Path::new(DIR), keys(), options())
            .unwrap_or_else(|err| panic!("seed {seed}: {err:?}"));
        assert_eq!(opened.saves.len(), 28);
    }
}
