//! A commit of the index that fails: every blob that was saved can be read, and the next one succeeds.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use cairnfs_store::SaveKind::OnTop;
use cairnfs_store::sim::{Call, Fault, SimDisk};
use cairnfs_store::{Appender, BlobRef, Blobs, Error, Kind, Options, create};

use support::{DIR, keys, noise, small};

/// Saves at a time.
const BATCH: u64 = 500;
/// So many that the index is larger than what is kept of it in memory.
const SAVED: u64 = 4_000;

struct Store {
    disk: SimDisk,
    appender: Appender,
    blobs: Arc<Blobs>,
    saved: Vec<(BlobRef, Vec<u8>)>,
}

impl Store {
    /// One whose index has all but the last batch.
    fn new(seed: u64, reserve_bytes: u64) -> Self {
        let disk = SimDisk::new(seed);
        let options = Options { index_cache_bytes: 64 << 10, ..small(64 << 20, reserve_bytes) };
        let (appender, blobs) =
            create(Arc::new(disk.clone()), Path::new(DIR), keys(), options).unwrap();
        let mut store = Self { disk, appender, blobs, saved: Vec::new() };
        for _ in 0..SAVED / BATCH {
            store.save();
        }
        store.appender.flush_index().unwrap();
        store.save();
        store
    }

    fn save(&mut self) {
        for _ in 0..BATCH {
            let content = noise(self.saved.len() as u64, 40);
            self.saved.push((self.appender.put(Kind::Chunk, &content).unwrap(), content));
        }
        self.appender.save(b"a save", OnTop).unwrap();
    }

    /// The first error of reading all that was saved.
    fn read(&self) -> Result<(), Error> {
        self.saved.iter().try_for_each(|(blob, content)| {
            assert_eq!(self.blobs.get(blob)?[..], content[..]);
            Ok(())
        })
    }

    /// All that was saved can be read, and the index takes in what it lacks, and more.
    fn goes_on(&mut self) {
        self.read().unwrap();
        self.appender.flush_index().unwrap();
        self.save();
        self.appender.flush_index().unwrap();
        self.read().unwrap();
    }
}

#[test]
fn a_commit_of_the_index_that_fails_keeps_nobody_from_reading_and_from_the_next() {
    let mut failed = 0;
    for (call, nth) in [
        (Call::Write, 1),
        (Call::Write, 2),
        (Call::Write, 5),
        (Call::Write, 9),
        (Call::Barrier, 1),
        (Call::Barrier, 2),
    ] {
        let mut store = Store::new(nth, 0);
        store.disk.inject(Fault::Fail { call, nth, kind: ErrorKind::StorageFull });
        // It does without some of its writes.
        failed += u32::from(store.appender.flush_index().is_err());
        if nth % 2 == 0 {
            store.appender.flush_index().unwrap();
        }
        store.goes_on();
    }
    assert!(failed > 2, "{failed} commits failed");
}

/// On a file system that writes nothing in place, so that the index cannot even be opened.
#[test]
fn on_a_disk_that_stays_full_the_index_is_opened_with_the_reserve() {
    let mut store = Store::new(1, 1 << 20);
    store.disk.set_copies_on_write();
    store.disk.set_capacity_bytes(store.disk.used_bytes());
    let failed = store.appender.flush_index();
    assert!(matches!(failed, Err(Error::NoSpace { .. })), "{failed:?}");
    store.read().unwrap();
    store.disk.set_capacity_bytes(u64::MAX);
    store.goes_on();
}

#[test]
fn without_a_reserve_reading_fails_on_a_disk_that_stays_full_and_goes_on_when_it_is_not() {
    let mut store = Store::new(1, 0);
    store.disk.set_copies_on_write();
    store.disk.set_capacity_bytes(store.disk.used_bytes());
    for _ in 0..3 {
        let failed = store.appender.flush_index();
        assert!(matches!(failed, Err(Error::NoSpace { .. })), "{failed:?}");
        let failed = store.read();
        assert!(matches!(failed, Err(Error::NoSpace { .. })), "{failed:?}");
    }
    store.disk.set_capacity_bytes(u64::MAX);
    store.goes_on();
}
