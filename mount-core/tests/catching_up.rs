//! What a device that catches up holds in memory: measured, so in a process of its own.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::Path, sync::Arc, time::Duration};

use cairnfs_mount_core::{
    Bucket, Caller, Ino, MergeStep, Mount, Options, Protection, Role, Unlock, VersionId,
};
use cairnfs_store::{DeviceKey, DevicePublicKey};
use tempfile::TempDir;

const ME: Caller = Caller { uid: 0, gid: 0 };
/// So many members with long names make a version take some 60 KB.
const MEMBERS: u8 = 200;
const VERSIONS: usize = 1500;
/// What catching up may take: the caches, and buffers that do not grow with what is missed. With all
/// that was missed in memory it was 71 MiB.
const HELD_BYTES_MAX: u64 = 24 << 20;

/// A new directory, in memory where there is a place for that: thousands of barriers are not the matter.
fn place() -> TempDir {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() }.unwrap()
}

fn start(dir: &Path, key: &Arc<DeviceKey>) -> Mount {
    let bucket = Bucket::open(dir, Arc::clone(key), Unlock::KeyFile).unwrap();
    // Versions are made when the test says so.
    let hour = Duration::from_secs(3600);
    let options = Options { publish_quiet: hour, publish_max: hour, ..Options::default() };
    Mount::start(bucket, options).unwrap()
}

/// The memory that this process holds. Pages of files, which the kernel has read, are not among it.
fn held_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// Merges what `from` stands on. Says how much more memory was held meanwhile at the most, and how
/// many blobs came; if told to, gives up after so many.
fn catch_up(to: &Mount, from: &Mount, cut_after: Option<u64>) -> (u64, u64) {
    let head = from.head().unwrap();
    let before = held_bytes();
    let mut most = before;
    let mut fetch = to.fetch(head).unwrap();
    let have: Vec<VersionId> = to.head().into_iter().collect();
    fetch.expect_ancestors(&from.ancestry(&head, &have, 1000).unwrap());
    while !fetch.is_complete() {
        let wanted = fetch.wanted(16).unwrap();
        let blobs: Vec<_> =
            wanted.iter().map(|id| from.sealed(id).unwrap().expect("it is all there")).collect();
        fetch.supply(blobs).unwrap();
        most = most.max(held_bytes());
        if cut_after.is_some_and(|blobs| fetch.progress().blobs >= blobs) {
            return (most - before, fetch.progress().blobs);
        }
    }
    let blobs = fetch.progress().blobs;
    assert_eq!(to.merge_from(fetch).unwrap().step, MergeStep::FastForward);
    (most.max(held_bytes()) - before, blobs)
}

#[test]
fn what_catching_up_holds_does_not_grow_with_what_was_missed() {
    let dir = place();
    let [one, other] = ["one", "other"].map(|name| dir.path().join(name));
    let keys = [(); 2].map(|()| Arc::new(DeviceKey::generate().unwrap()));
    let id = Bucket::create(&one, &keys[0], Protection::KeyFile).unwrap();
    let ahead = start(&one, &keys[0]);
    Bucket::join(&other, &keys[1], Protection::KeyFile, id, &ahead.secrets(&[]), 0).unwrap();
    let behind = start(&other, &keys[1]);
    for n in 0..MEMBERS {
        ahead.set_member(DevicePublicKey([n; 32]), &"x".repeat(255), Some(Role::Reader)).unwrap();
    }
    ahead.set_member(keys[1].public(), "behind", Some(Role::Writer)).unwrap();
    catch_up(&behind, &ahead, None);

    for n in 0..VERSIONS {
        ahead.mkdir(ME, Ino::ROOT, format!("d{n}").as_bytes(), 0o755).unwrap();
        ahead.publish().unwrap();
    }
    let (held_first, came_first) = catch_up(&behind, &ahead, Some(VERSIONS as u64 / 2));
    let (held_then, came_then) = catch_up(&behind, &ahead, None);
    let held = held_first.max(held_then);
    assert!(held <= HELD_BYTES_MAX, "{} MiB", held >> 20);

    let came = usize::try_from(came_first + came_then).unwrap();
    assert!((VERSIONS..VERSIONS + 200).contains(&came), "{came} blobs: some came twice");
    assert_eq!(behind.head(), ahead.head());
    assert_eq!(behind.log(None, 2 * VERSIONS, 1).unwrap().len(), VERSIONS + 1);
}
