//! Readers, the writer and the index thread at once, on a real disk.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use cairnfs_store::SaveKind;
use cairnfs_store::disk::RealDisk;
use cairnfs_store::{BlobRef, KeyRing, Kind, Options, Result, check, create, open};

fn content(n: usize) -> Vec<u8> {
    let mut out = vec![0; 40 + n % 300];
    blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

const COUNT: usize = 30_000;

#[test]
fn readers_find_every_blob_while_it_moves_from_the_buffer_to_the_log_and_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk);
    let keys = KeyRing::generate().unwrap();
    let options = Options { pack_bytes: 1 << 20, reserve_bytes: 0, ..Options::default() };
    let (mut appender, blobs) = create(disk.clone(), dir.path(), keys.clone(), options).unwrap();
    let refs: Vec<OnceLock<BlobRef>> = (0..COUNT).map(|_| OnceLock::new()).collect();
    let put = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for reader in 0..2 {
            let (refs, put, done, blobs) = (&refs, &put, &done, &blobs);
            scope.spawn(move || {
                let mut step = reader;
                while !done.load(Ordering::Acquire) {
                    let known = put.load(Ordering::Acquire);
                    if known == 0 {
                        continue;
                    }
                    step += 1;
                    // The newest ones above all: it is they that move.
                    let back = (step * 7919) % known.min(if step % 2 == 0 { 50 } else { COUNT });
                    let n = known - 1 - back;
                    assert_eq!(blobs.get(refs[n].get().unwrap()).unwrap()[..], content(n));
                }
            });
        }
        let mut write = |n, slot: &OnceLock<_>| -> Result<()> {
            slot.set(appender.put(Kind::Chunk, &content(n))?).unwrap();
            put.store(n + 1, Ordering::Release);
            if n % 500 == 499 {
                appender.save(b"", SaveKind::checkpoint_if(n % 5000 == 4999))?;
            }
            Ok(())
        };
        let written = refs.iter().enumerate().try_for_each(|(n, slot)| write(n, slot));
        // The readers end also if it has failed.
        done.store(true, Ordering::Release);
        written.unwrap();
    });
    drop((appender, blobs));
    let opened = open(disk.clone(), dir.path(), keys.clone(), options).unwrap();
    assert_eq!(opened.report.replayed_records, 0);
    for (n, blob) in refs.iter().enumerate() {
        assert_eq!(opened.blobs.get(blob.get().unwrap()).unwrap()[..], content(n));
    }
    assert_eq!(opened.blobs.stats().unwrap().blobs, COUNT as u64);
    drop(opened);
    let disk: Arc<dyn cairnfs_store::disk::Disk> = disk;
    assert!(check(&disk, dir.path(), Some(&keys), &mut |_| ()).unwrap().is_clean());
}
