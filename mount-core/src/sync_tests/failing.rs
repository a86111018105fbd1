//! The disk fails in a merge, and goes on.

use std::io::ErrorKind;

use cairnfs_store::sim::{Call, Fault, SimDisk};

use super::{
    ME, Peer, WRITE,
    open_files::{has, later_by},
    sync, two,
};
use crate::{Error, Health, Ino, Keep, random_load::save};

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

/// From the `nth` read on so many fail.
const READS_FAILING: u64 = 30;

fn fail_reads(disk: &SimDisk, nth: u64) {
    for nth in nth..nth + READS_FAILING {
        disk.inject(Fault::Fail { call: Call::Read, nth, kind: ErrorKind::Other });
    }
}

/// Whether something that was written is shown as no file, and so in no save.
fn has_unclaimed(peer: &Peer) -> bool {
    !peer.mount().shared().core.read().unclaimed.is_empty()
}

/// Saves as soon as the disk can be read again.
fn save_at_last(peer: &Peer) {
    assert!((0..=READS_FAILING).any(|_| save(peer.mount()).is_ok()), "it reads again");
}

/// Closed by then, and under a name that shows another content: it has to be made a file anew.
#[test]
fn reads_that_fail_in_a_merge_take_nothing_that_was_written_in_it() {
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
            fail_reads(&disk, nth);
        });
        let merged = a.mount().merge_from(fetch);
        if matches!(a.mount().status().health, Health::Poisoned { .. }) {
            assert!(merged.is_err(), "read {nth} failed, and nobody is told");
        } else {
            parted += u32::from(has_unclaimed(&a));
            // A save that lacks it would be the end of it.
            a.mount().mkdir(ME, Ino::ROOT, b"after", 0o755).ok();
            save_at_last(&a);
        }
        a.restart(false);
        sync(&a, &b);
        for text in ["=in the merge", "=changed there"] {
            has(&b, text);
        }
    }
    assert!(parted > 0, "it could be put everywhere");
}

/// Written to just before the version it was opened on is dropped from the conflict: it has to be made a
/// file anew.
#[test]
fn reads_that_fail_as_a_conflict_is_settled_take_nothing_that_a_close_has_saved() {
    let mut parted = 0;
    for nth in 1..60 {
        let (mut a, b) = two();
        later_by(&a, 3);
        a.write("x", "shown");
        b.write("x", "copy");
        sync(&a, &b);
        a.restart_without_cache();
        let (ino, fh) = a.open("x", WRITE);
        let (other, fh_other) = a.open("old", WRITE);
        let seen = a.seen(b"x");
        a.write_to(other, fh_other, 0, "published before it is settled").unwrap();
        let disk = a.disk.clone();
        a.once_published(move |mount| {
            mount.write(ino, fh, 0, b"written", false, Box::new(|_| ()));
            fail_reads(&disk, nth);
        });
        let _is_settled = a.mount().resolve(b"x", &Keep::Theirs, &seen).is_ok();
        parted += u32::from(has_unclaimed(&a));
        let closed = (0..=READS_FAILING).find(|_| a.flush(ino, fh).is_ok());
        assert!(closed.is_some(), "it reads again");
        assert!(!has_unclaimed(&a), "it is in no save");
        a.mount().release(ino, fh, Box::new(|_| ()));
        a.restart(false);
        sync(&a, &b);
        has(&b, "=written");
        has(&b, "=copy");
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
