//! The harness itself: what hangs ends, what is started is cleaned up.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
    time::{Duration, Instant},
};

use cairnfs_tests::{Home, Tree, mounts, peer::BUCKET, process, run};
use rustix::process::Signal;

#[test]
fn a_daemon_that_hangs_fails_the_test_and_blocks_nobody() {
    let home = Home::within(Duration::from_secs(6));
    home.create(BUCKET);
    let dir = home.dir("mnt");
    home.mount(BUCKET, &dir, &[]);
    let start = Instant::now();
    process::signal(home.pid(), Signal::STOP);
    // Waits in the kernel for an answer that never comes, until the watchdog ends it.
    assert!(fs::write(dir.join("f"), "x").is_err());
    assert!(start.elapsed() < Duration::from_secs(60));
    let ended = catch_unwind(AssertUnwindSafe(move || drop(home)));
    assert!(ended.is_err(), "a test that hung was let pass");
    assert!(!mounts::is_mounted(&dir));
}

#[test]
fn a_test_that_panics_leaves_no_process_no_mount_and_no_file() {
    let home = Home::new();
    home.create(BUCKET);
    let dir = home.dir("mnt");
    home.mount(BUCKET, &dir, &[]);
    fs::write(dir.join("f"), "x").unwrap();
    let path = home.path().to_owned();
    let open = fs::File::open(dir.join("f")).unwrap();
    let ended = catch_unwind(AssertUnwindSafe(move || {
        let _home = home;
        std::panic::resume_unwind(Box::new("as a test would"));
    }));
    assert!(ended.is_err());
    assert!(process::of_home(&path).is_empty() && !mounts::is_mounted(&dir) && !path.exists());
    drop(open);
}

#[test]
fn a_child_is_killed_at_its_deadline() {
    let outcome = run(Command::new("sleep").arg("1000"), Duration::from_millis(100));
    assert!(outcome.timed_out && outcome.took < Duration::from_secs(10), "{outcome}");
}

#[test]
fn trees_differ_in_content_mode_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let differs = |change: fn(&std::path::Path)| {
        fs::write(dir.path().join("f"), "x").unwrap();
        let before = Tree::of(dir.path());
        before.same_as(&Tree::of(dir.path()));
        change(&dir.path().join("f"));
        let after = Tree::of(dir.path());
        assert!(catch_unwind(|| before.same_as(&after)).is_err());
    };
    differs(|path| fs::write(path, "y").unwrap());
    differs(|path| fs::remove_file(path).unwrap());
    differs(|path| std::os::unix::fs::symlink("f", path.with_extension("l")).unwrap());
}
