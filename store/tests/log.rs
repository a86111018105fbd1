//! The log through its public interface: what is saved is there when it is opened again.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use cairnfs_store::SaveKind::{self, Checkpoint, OnTop};
use cairnfs_store::disk::{Disk, Open, RealDisk};
use cairnfs_store::sim::{Call, Fault, SimDisk};
use cairnfs_store::{BlobRef, Error, KeyRing, Kind, Options, Secret, Seq, create, open};

use support::{DIR, keys, noise, small};

fn options() -> Options {
    small(Options::default().pack_bytes, 64 << 10)
}

#[test]
fn what_was_saved_is_there_when_opened_again() {
    let disk = SimDisk::new(1);
    let (mut appender, blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    let a = appender.put(Kind::Chunk, b"hello").unwrap();
    assert_eq!(&blobs.get(&a).unwrap()[..], b"hello", "readable before it is saved");
    assert_eq!(appender.save(b"first", OnTop).unwrap(), Seq(1));
    let long = noise(1, 3_500_000);
    let b = appender.put(Kind::Node, &long).unwrap();
    assert_eq!(appender.save(&long, OnTop).unwrap(), Seq(2));
    drop((appender, blobs));
    let opened = open(Arc::new(disk), Path::new(DIR), keys(), options()).unwrap();
    assert_eq!(opened.saves, [b"first".to_vec(), long.clone()]);
    assert_eq!(&opened.blobs.get(&a).unwrap()[..], b"hello");
    assert_eq!(opened.blobs.get(&b).unwrap()[..], long);
    assert_eq!(opened.appender.seq(), Seq(2));
    assert_eq!(opened.report.replayed_records, 0, "the index had been told everything");
}

#[test]
fn a_kill_before_the_index_knows_is_replayed() {
    let disk = SimDisk::new(1);
    let (mut appender, _blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    let refs: Vec<BlobRef> = (0..100)
        .map(|n| {
            let blob = appender.put(Kind::Chunk, &noise(n, 500)).unwrap();
            appender.save(&n.to_le_bytes(), SaveKind::checkpoint_if(n == 40)).unwrap();
            blob
        })
        .collect();
    appender.put(Kind::Chunk, b"never saved").unwrap();
    appender.spill().unwrap();
    let opened = open(Arc::new(disk.kill()), Path::new(DIR), keys(), options()).unwrap();
    assert_eq!(opened.saves.len(), 60, "from the checkpoint on");
    assert_eq!(opened.saves[0], 40u64.to_le_bytes());
    for (blob, n) in refs.iter().zip(0..) {
        assert_eq!(opened.blobs.get(blob).unwrap()[..], noise(n, 500));
    }
    assert!(opened.report.cut_bytes > 0);
}

#[test]
fn a_pack_that_was_begun_and_given_up_may_come_back() {
    let disk = SimDisk::new(1);
    let (mut appender, blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    for n in 0..20 {
        appender.put(Kind::Chunk, &noise(n, 500)).unwrap();
        appender.save(&n.to_le_bytes(), OnTop).unwrap();
    }
    appender.write_ahead().unwrap();
    // Its creation failed and its removal was not durable when the power went off.
    let begun = Path::new(DIR).join("packs/00000002.pack");
    drop(disk.open(&begun, Open::New).unwrap());
    drop((appender, blobs));
    let opened = open(Arc::new(disk.kill()), Path::new(DIR), keys(), options()).unwrap();
    assert_eq!(opened.saves.len(), 20);
    assert!(disk.kill().content(&begun).is_some());
}

#[test]
fn a_lost_index_is_made_from_the_packs() {
    let disk = SimDisk::new(1);
    let small = Options { pack_bytes: 64 << 10, ..options() };
    let (mut appender, blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), small).unwrap();
    let refs = appender
        .put_all(Kind::Chunk, &(0..300).map(|n| noise(n, 1000)).collect::<Vec<_>>())
        .unwrap();
    appender.save(b"all", Checkpoint).unwrap();
    assert!(blobs.stats().unwrap().packs > 4);
    drop((appender, blobs));
    disk.remove(&Path::new(DIR).join("index.redb")).unwrap();
    let opened = open(Arc::new(disk), Path::new(DIR), keys(), small).unwrap();
    assert!(opened.report.index_rebuilt);
    assert_eq!(opened.saves, [b"all"]);
    for (blob, n) in refs.iter().zip(0..) {
        assert_eq!(opened.blobs.get(blob).unwrap()[..], noise(n, 1000));
    }
}

#[test]
fn equal_content_is_stored_once() {
    let disk = SimDisk::new(1);
    let (mut appender, _blobs) = create(Arc::new(disk), Path::new(DIR), keys(), options()).unwrap();
    let a = appender.put(Kind::Chunk, &noise(1, 9000)).unwrap();
    let bytes = appender.batch_bytes();
    assert_eq!(appender.put(Kind::Chunk, &noise(1, 9000)).unwrap(), a);
    assert_eq!(appender.put_all(Kind::Chunk, &[noise(1, 9000), noise(1, 9000)]).unwrap(), [a, a]);
    assert_eq!(appender.batch_bytes(), bytes);
    appender.save(b"", OnTop).unwrap();
    appender.flush_index().unwrap();
    appender.put(Kind::Chunk, &noise(1, 9000)).unwrap();
    assert_eq!(appender.batch_bytes(), 0);
}

#[test]
fn one_save_is_one_write_and_one_barrier_and_few_bytes() {
    let disk = SimDisk::new(1);
    let (mut appender, _blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    let before = disk.counters();
    for n in 0..200 {
        let start = disk.counters();
        appender.put(Kind::Chunk, &noise(n, 4096)).unwrap();
        appender.save(&noise(n, 60), OnTop).unwrap();
        let end = disk.counters();
        assert_eq!(end.barriers - start.barriers, 1);
        assert_eq!(end.writes - start.writes, 1);
    }
    let extra = (disk.counters().written_bytes - before.written_bytes) / 200 - 4096;
    assert!(extra <= 8192, "{extra} bytes a save besides its 4 KiB, on average");
}

#[test]
fn zeros_written_ahead_spare_the_saves_behind_them_from_lengthening_the_file() {
    let disk = SimDisk::new(1);
    let (mut appender, _blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    let pack = Path::new(DIR).join("packs/00000001.pack");
    let len = || disk.content(&pack).unwrap().len();
    assert!(!appender.wants_ahead(), "a bucket that is not used pays nothing");
    let mut grown = 0;
    for n in 0..1000 {
        appender.put(Kind::Chunk, &noise(n, 4096)).unwrap();
        assert!(!appender.wants_ahead(), "a batch is open");
        let before = len();
        appender.save(&noise(n, 60), OnTop).unwrap();
        grown += usize::from(len() != before);
        if appender.wants_ahead() {
            let start = disk.counters();
            appender.write_ahead().unwrap();
            assert_eq!(disk.counters().barriers - start.barriers, 1);
            assert!(!appender.wants_ahead(), "once is enough");
        }
        assert!(len() < 2 * 4500 * (usize::try_from(n).unwrap() + 3), "twice the log at the most");
    }
    assert!(grown <= 2, "{grown} saves made the file longer");
    let opened = open(Arc::new(disk.crash(1)), Path::new(DIR), keys(), options()).unwrap();
    assert_eq!(opened.appender.seq(), Seq(1000));
}

#[test]
fn zeros_that_find_no_room_hurt_nobody_and_a_failed_barrier_of_theirs_poisons() {
    let disk = SimDisk::new(1);
    let (mut appender, _blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    let mut seq = 0;
    for (fault, ok) in [(ErrorKind::StorageFull, true), (ErrorKind::Other, false)] {
        while !appender.wants_ahead() {
            seq += 1;
            appender.put(Kind::Chunk, &noise(seq, 4096)).unwrap();
            appender.save(b"", OnTop).unwrap();
        }
        let call = if ok { Call::Write } else { Call::Barrier };
        disk.inject(Fault::Fail { call, nth: 1, kind: fault });
        assert_eq!(appender.write_ahead().is_ok(), ok);
        assert_eq!(appender.poisoned(), !ok);
    }
    for seed in 0..20 {
        let opened = open(Arc::new(disk.crash(seed)), Path::new(DIR), keys(), options()).unwrap();
        assert_eq!(opened.appender.seq(), Seq(seq), "what was saved is durable all the same");
    }
}

#[test]
fn after_a_failed_barrier_nothing_is_written_any_more() {
    for call in [Call::Barrier, Call::Write] {
        let disk = SimDisk::new(1);
        let (mut appender, blobs) =
            create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
        let a = appender.put(Kind::Chunk, b"saved").unwrap();
        appender.save(b"1", OnTop).unwrap();
        appender.put(Kind::Chunk, b"lost").unwrap();
        disk.inject(Fault::Fail { call, nth: 1, kind: ErrorKind::Other });
        assert!(matches!(appender.save(b"2", OnTop), Err(Error::Io { .. })));
        assert!(appender.poisoned());
        let before = disk.counters();
        assert!(matches!(appender.save(b"3", OnTop), Err(Error::Poisoned)));
        assert!(matches!(appender.save_urgent(b"3", OnTop), Err(Error::Poisoned)));
        assert!(matches!(appender.put(Kind::Chunk, b"x"), Err(Error::Poisoned)));
        assert!(matches!(appender.spill(), Err(Error::Poisoned)));
        assert!(matches!(appender.discard_batch(), Err(Error::Poisoned)));
        assert_eq!(disk.counters().writes, before.writes);
        assert_eq!(&blobs.get(&a).unwrap()[..], b"saved", "reading goes on");
    }
}

#[test]
fn a_second_opening_is_refused_and_says_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let (_appender, blobs) = create(Arc::clone(&disk), dir.path(), keys(), options()).unwrap();
    let refused = open(Arc::clone(&disk), dir.path(), keys(), options());
    let me = std::process::id();
    assert!(matches!(refused, Err(Error::Locked { pid: Some(pid) }) if pid == me));
    drop((_appender, blobs));
    open(disk, dir.path(), keys(), options()).unwrap();
}

#[test]
fn other_keys_and_empty_places_are_told_apart() {
    let disk = SimDisk::new(1);
    let missing = open(Arc::new(disk.clone()), Path::new(DIR), keys(), options());
    assert!(matches!(missing, Err(Error::NotAStore { .. })));
    drop(create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap());
    let other = KeyRing::new([(0, Secret::new([6; 32]))]).unwrap();
    let refused = open(Arc::new(disk.clone()), Path::new(DIR), other, options());
    assert!(matches!(refused, Err(Error::WrongBucket { .. })));
    let again = create(Arc::new(disk), Path::new(DIR), keys(), options());
    assert!(matches!(again, Err(Error::Exists { .. })));
}
