//! The disk fails in a merge, and goes on.

use std::io::ErrorKind;

use cairnfs_store::sim::{Call, Fault};

use super::{ME, Peer, WRITE, sync, two};
use crate::{Error, Health, Ino, random_load::save};

/// Three megabytes that do not get smaller.
fn write_much(peer: &Peer) {
    for n in 0..60 {
        let mut noise = blake3::Hasher::new().update(&[n]).finalize_xof();
        let mut half = [0; 50_000];
        noise.fill(&mut half);
        let text: String = half.iter().map(|byte| format!("{byte:02x}")).collect();
        peer.write(&format!("file-{n}"), &text);
    }
}

#[test]
fn a_read_that_fails_in_a_merge_undoes_nothing_of_what_it_brings() {
    let mut failed = 0;
    for nth in 1..60 {
        let (mut a, b) = two();
        a.restart_without_cache();
        a.write("mine", "made here");
        b.write("old", "changed there");
        b.mount().publish().unwrap();
        let (fetch, _) = a.fetch(&b, b.mount().head().unwrap()).unwrap();
        a.disk.inject(Fault::Fail { call: Call::Read, nth, kind: ErrorKind::Other });
        if a.mount().merge_from(fetch).is_ok() {
            // Another thread's, or a later one.
            continue;
        }
        failed += 1;
        // The very file that the other has changed is saved, from the tree as it is here; unless the
        // merge could not land, so that nothing is saved any more.
        let is_parted = matches!(a.mount().status().health, Health::Poisoned { .. });
        if !is_parted {
            a.write("old", "changed here");
        }
        a.restart(false);
        sync(&a, &b);
        let tree = b.tree();
        for end in ["=changed there", "=changed here", "=made here"] {
            let is_there = tree.iter().any(|line| line.ends_with(end));
            assert!(
                is_there || (is_parted && end == "=changed here"),
                "read {nth} failed: {tree:?}"
            );
        }
    }
    assert!(failed > 10, "{failed} merges failed");
}

/// Closed by then, and under a name that shows another content: it has to be made a file anew.
#[test]
fn a_read_that_fails_in_a_merge_takes_nothing_that_was_written_in_it() {
    let mut parted = 0;
    for nth in 1..60 {
        let (mut a, b) = two();
        a.restart_without_cache();
        let (ino, fh) = a.open("old", WRITE);
        a.write("mine", "published before the merge");
        b.write("old", "changed there");
        b.mount().publish().unwrap();
        let (fetch, _) = a.fetch(&b, b.mount().head().unwrap()).unwrap();
        let disk = a.disk.clone();
        a.once_published(move |mount| {
            mount.write(ino, fh, 0, b"in the merge", false, Box::new(|_| ()));
            mount.release(ino, fh, Box::new(|_| ()));
            disk.inject(Fault::Fail { call: Call::Read, nth, kind: ErrorKind::Other });
        });
        let merged = a.mount().merge_from(fetch);
        if matches!(a.mount().status().health, Health::Poisoned { .. }) {
            assert!(merged.is_err(), "read {nth} failed, and nobody is told");
            parted += 1;
        } else {
            // A save that lacks it would be the end of it.
            a.mount().mkdir(ME, Ino::ROOT, b"after", 0o755).ok();
            save(a.mount()).unwrap();
        }
        a.restart(false);
        sync(&a, &b);
        let tree = b.tree();
        for end in ["=in the merge", "=changed there"] {
            assert!(tree.iter().any(|line| line.ends_with(end)), "read {nth} failed: {tree:?}");
        }
    }
    assert!(parted > 0, "it could be put everywhere");
}

#[test]
fn a_disk_that_is_full_while_much_is_received_ends_the_fetch_and_the_next_one_brings_the_rest() {
    // Where what is written ahead of the log meets the fault the fetch does not.
    let is_ended = |nth| (0..10).any(|_| ends_a_fetch(nth));
    for nth in 1..3 {
        assert!(is_ended(nth), "no fetch has met it at write {nth}");
    }
}

/// Whether a fetch ends with a disk that is full at that write.
fn ends_a_fetch(nth: u64) -> bool {
    let (a, b) = two();
    write_much(&b);
    b.mount().publish().unwrap();
    let head = b.mount().head().unwrap();
    a.disk.inject(Fault::Fail { call: Call::Write, nth, kind: ErrorKind::StorageFull });
    let is_ended = match a.fetch(&b, head) {
        Err(Error::NoSpace) => true,
        Ok(_) => false,
        Err(err) => panic!("write {nth}: {err}"),
    };
    sync(&a, &b);
    assert_eq!(a.names("file-").len(), 60);
    is_ended
}

#[test]
fn what_was_fetched_takes_no_room_from_what_is_saved() {
    let (a, b) = two();
    write_much(&b);
    b.mount().publish().unwrap();
    let (fetch, _) = a.fetch(&b, b.mount().head().unwrap()).unwrap();
    a.disk.inject(Fault::Fail { call: Call::Write, nth: 1, kind: ErrorKind::StorageFull });
    a.mount().unlink(Ino::ROOT, b"old").unwrap();
    save(a.mount()).unwrap();
    // What was dropped for it is known to be missing.
    assert!(a.mount().merge_from(fetch).is_err());
    sync(&a, &b);
    assert_eq!(a.names("file-").len(), 60);
    assert!(a.names("old").is_empty());
}
