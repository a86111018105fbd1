//! What readers met damaged is kept in mind as long as it is so, and no longer.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use crate::SaveKind::{Checkpoint, OnTop};
use crate::disk::{Disk, Open};
use crate::journal::record::{HEADER_BYTES, reseal_checksums};
use crate::sim::{Call, Fault, SimDisk};
use crate::{Appender, BlobRef, Blobs, Error, KeyRing, Kind, Options, Rot, Secret, create};

const CONTENT: &[u8] = &[7; 100];

struct One {
    disk: SimDisk,
    appender: Appender,
    blobs: Arc<Blobs>,
    blob: BlobRef,
}

/// A store with one blob.
fn one() -> One {
    let keys = KeyRing::new([(0, Secret::new([7; 32]))]).unwrap();
    let options = Options { reserve_bytes: 0, index_thread: false, ..Options::default() };
    let disk = SimDisk::new(1);
    let (mut appender, blobs) =
        create(Arc::new(disk.clone()), Path::new("/store"), keys, options).unwrap();
    let blob = appender.put(Kind::Chunk, CONTENT).unwrap();
    appender.save(b"a save", Checkpoint).unwrap();
    One { disk, appender, blobs, blob }
}

/// Changes a byte of the blob, with checksums that fit.
fn tamper(One { disk, blobs, blob, .. }: &One) {
    let loc = blobs.find(&blob.id).unwrap().unwrap();
    let mut record = blobs.read(loc).unwrap();
    record[HEADER_BYTES] ^= 1;
    reseal_checksums(&mut record);
    let file = disk.open(&blobs.packs.path(loc.at.pack), Open::Existing).unwrap();
    file.write_at(&record, u64::from(loc.at.offset)).unwrap();
}

fn rotten(blobs: &Blobs) -> Option<u64> {
    blobs.rot().map(|Rot { blobs, .. }| blobs)
}

#[test]
fn a_damaged_blob_that_is_put_twice_is_stored_once() {
    let mut one = one();
    tamper(&one);
    assert!(matches!(one.blobs.get(&one.blob), Err(Error::Corrupt { .. })));
    let damaged = one.blobs.find(&one.blob.id).unwrap();
    one.appender.put(Kind::Chunk, CONTENT).unwrap();
    one.appender.discard_batch().unwrap();
    assert_eq!(one.blobs.find(&one.blob.id).unwrap(), damaged);
    let before = one.appender.batch_bytes();
    one.appender.put(Kind::Chunk, CONTENT).unwrap();
    let record = one.appender.batch_bytes() - before;
    one.appender.put(Kind::Chunk, CONTENT).unwrap();
    one.appender.put_all(Kind::Chunk, &[CONTENT, CONTENT]).unwrap();
    assert_eq!(one.appender.batch_bytes(), record, "once in a batch too");
    one.appender.save(b"", OnTop).unwrap();
    let mended = one.blobs.find(&one.blob.id).unwrap();
    assert_ne!(mended, damaged, "what was dropped was not stored");
    assert_eq!(rotten(&one.blobs), None);
    one.appender.put(Kind::Chunk, CONTENT).unwrap();
    one.appender.save(b"", OnTop).unwrap();
    assert_eq!(one.blobs.find(&one.blob.id).unwrap(), mended);
}

#[test]
fn a_check_does_not_forget_a_blob_that_is_damaged_under_a_checksum_that_fits() {
    let one = one();
    tamper(&one);
    assert!(matches!(one.blobs.get(&one.blob), Err(Error::Corrupt { .. })));
    assert_eq!(one.blobs.scrub(&mut |_| true).unwrap().damage.len(), 1);
    assert_eq!(rotten(&one.blobs), Some(1));
}

#[test]
fn only_a_place_that_cannot_be_read_is_damage_and_no_call_that_fails() {
    let one = one();
    one.disk.inject(Fault::Fail { call: Call::Read, nth: 1, kind: ErrorKind::OutOfMemory });
    assert!(matches!(one.blobs.get(&one.blob), Err(Error::Io { .. })));
    assert_eq!(rotten(&one.blobs), None);
    let loc = one.blobs.find(&one.blob.id).unwrap().unwrap();
    one.disk.spoil_sector(&one.blobs.packs.path(loc.at.pack), loc.at.offset as usize);
    assert!(matches!(one.blobs.get(&one.blob), Err(Error::Io { .. })));
    assert_eq!(rotten(&one.blobs), Some(1));
}

/// As long as the content is authentic.
#[test]
fn what_a_blob_is_sealed_under_is_told_though_its_checksum_is_damaged() {
    let one = one();
    let loc = one.blobs.find(&one.blob.id).unwrap().unwrap();
    let mut record = one.blobs.read(loc).unwrap();
    *record.last_mut().unwrap() ^= 1;
    let file = one.disk.open(&one.blobs.packs.path(loc.at.pack), Open::Existing).unwrap();
    file.write_at(&record, u64::from(loc.at.offset)).unwrap();
    assert!(matches!(one.blobs.get_sealed(&one.blob.id), Err(Error::Corrupt { .. })));
    assert_eq!(&one.blobs.get(&one.blob).unwrap()[..], CONTENT);
    assert_eq!(one.blobs.sealed_under(&one.blob.id).unwrap().0, 0);
}

/// The batch comes to nothing, as where a save finds no room, and what was read with it.
#[test]
fn what_was_read_from_a_batch_that_is_dropped_is_damaged_still() {
    let mut one = one();
    tamper(&one);
    assert!(matches!(one.blobs.get(&one.blob), Err(Error::Corrupt { .. })));
    let damaged = one.blobs.find(&one.blob.id).unwrap();
    one.appender.put(Kind::Chunk, CONTENT).unwrap();
    assert_eq!(&one.blobs.get(&one.blob).unwrap()[..], CONTENT);
    one.appender.discard_batch().unwrap();
    one.appender.put(Kind::Chunk, CONTENT).unwrap();
    one.appender.save(b"", OnTop).unwrap();
    assert_ne!(one.blobs.find(&one.blob.id).unwrap(), damaged, "saved, and not stored");
    assert_eq!(&one.blobs.get(&one.blob).unwrap()[..], CONTENT);
    assert_eq!(rotten(&one.blobs), None);
}
