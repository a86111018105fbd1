//! The harness itself: what hangs ends, what is started is cleaned up.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
    time::{Duration, Instant},
};

use cairnfs_tests::{
    Home, Image, Rng, Running, Tree, eventually, mounts, peer::BUCKET, process, run,
};
use rustix::process::Signal;

#[test]
fn a_daemon_that_hangs_fails_the_test_and_blocks_nobody() {
    let mut home = Home::new();
    home.create(BUCKET);
    let dir = home.dir("mnt");
    home.mount(BUCKET, &dir, &[]);
    let start = Instant::now();
    home.expires_within(Duration::from_secs(6));
    process::stand_still(home.pid());
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
    let open = File::open(dir.join("f")).unwrap();
    let ended = catch_unwind(AssertUnwindSafe(move || {
        let _home = home;
        std::panic::resume_unwind(Box::new("as a test would"));
    }));
    assert!(ended.is_err());
    assert!(process::of_home(&path).is_empty() && !mounts::is_mounted(&dir) && !path.exists());
    drop(open);
}

/// As by Ctrl-C, a deadline of the machine, or want of memory: nothing of its own runs any more.
#[test]
fn tests_that_are_killed_leave_no_process_no_mount_and_no_file() {
    let room = tempfile::tempdir().unwrap();
    let mut tests = Command::new(env!("CARGO_BIN_EXE_scenarios"));
    tests.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../merge/tests/cases/merge-cases.txt"));
    let tests = Running::start(tests.env("TMPDIR", room.path()));
    let mounted = || mounts::below(room.path());
    eventually("the tests have mounted something", Duration::from_secs(60), || {
        !mounted().is_empty()
    });
    assert!(!process::of_home(room.path()).is_empty(), "who serves it?");
    tests.signal(Signal::KILL);
    tests.wait(Duration::from_secs(10));
    eventually("somebody cleans up after them", Duration::from_secs(60), || {
        mounted().is_empty() && fs::read_dir(room.path()).unwrap().next().is_none()
    });
    assert!(process::of_home(room.path()).is_empty());
}

#[test]
fn a_child_is_killed_at_its_deadline() {
    let outcome = run(Command::new("sleep").arg("1000"), Duration::from_millis(100));
    assert!(outcome.timed_out && outcome.took < Duration::from_secs(10), "{outcome}");
}

/// What a disk keeps in a cut depends on barriers, and they come from `fsync` alone.
#[test]
fn a_power_cut_keeps_what_was_fsynced_and_loses_what_was_not() {
    let image = Image::ext4_with_power(64);
    // Not by itself meanwhile.
    image.remount("remount,commit=600");
    let path = |image: &Image, name| image.path().join(name);
    for n in 0..10 {
        fs::write(path(&image, "synced"), format!("as of {n}")).unwrap();
        File::open(path(&image, "synced")).unwrap().sync_all().unwrap();
        File::open(image.path()).unwrap().sync_all().unwrap();
        fs::write(path(&image, "not"), format!("as of {n}")).unwrap();
        let cut = Image::after_cut(image.power().cut(&mut Rng::new(n))).unwrap();
        assert_eq!(fs::read(path(&cut, "synced")).unwrap(), format!("as of {n}").as_bytes());
        // ext4 has it in memory.
        let not = fs::read(path(&cut, "not")).unwrap_or_default();
        assert_ne!(not, format!("as of {n}").as_bytes());
    }
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
    differs(|path| fs::set_permissions(path, fs::Permissions::from_mode(0o604)).unwrap());
    differs(|path| {
        let file = File::options().write(true).open(path).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.set_modified(modified + Duration::from_nanos(1)).unwrap();
    });
    differs(|path| fs::remove_file(path).unwrap());
    differs(|path| std::os::unix::fs::symlink("f", path.with_extension("l")).unwrap());
}
