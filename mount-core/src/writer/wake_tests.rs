//! What nobody asks to be saved is saved all the same, however deep the writer sleeps.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use cairnfs_store::DeviceKey;

use crate::{Bucket, Caller, Ino, Mount, OpenFlags, Options, Protection, SavePolicy, Unlock};

const HOUR: Duration = Duration::from_secs(3600);
const WRITE: OpenFlags = OpenFlags { sync: false, truncate: false, write: true, exclusive: false };

/// Writes again and again, and waits each time until it is saved. Which pauses the writer makes
/// between, `publish` says.
fn every_change_is_saved(publish: Duration) {
    // In memory where there is a place for that: how fast a disk is, is not the matter.
    let shared = Path::new("/dev/shm");
    let place =
        if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() }.unwrap();
    let path = place.path().join("bucket");
    let device = Arc::new(DeviceKey::generate().unwrap());
    Bucket::create(&path, &device, Protection::KeyFile).unwrap();
    let bucket = Bucket::open(&path, device, Unlock::KeyFile).unwrap();
    let policy = SavePolicy::Interval(Duration::from_millis(1));
    let options =
        Options { policy, publish_quiet: publish, publish_max: publish, ..Options::default() };
    let mount = Mount::start(bucket, options).unwrap();
    let me = Caller { uid: 0, gid: 0 };
    let (attr, fh) = mount.create(me, Ino::ROOT, b"file", 0o644, WRITE).unwrap();
    for n in 0..200_u64 {
        // Into every moment of the writer's falling asleep.
        let until = Instant::now() + Duration::from_micros(n % 50 * 10);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        mount.write(attr.ino, fh, n, b"x", false, Box::new(|result| assert!(result.is_ok())));
        let begun = Instant::now();
        while mount.status().unsaved_bytes > 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "change {n} is not saved");
            std::thread::yield_now();
        }
    }
    mount.stop().unwrap();
}

#[test]
fn a_change_wakes_a_writer_that_sleeps_for_long() {
    every_change_is_saved(HOUR);
}

#[test]
fn a_change_is_seen_by_a_writer_that_wakes_up_by_itself() {
    every_change_is_saved(Duration::from_micros(700));
}
