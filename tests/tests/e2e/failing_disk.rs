//! When the disk below fails or is slow: the caller hears of it, and nobody else waits.
//!
//! strace makes the daemon's own calls fail or take long.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    thread,
    time::{Duration, Instant},
};

use cairnfs_tests::{
    Peer, Save, Strace, data, eventually,
    peer::{BUCKET, UNPUBLISHED, close, write},
    process,
};
use rustix::io::Errno;

fn errno(result: std::io::Result<()>) -> Option<Errno> {
    result.err().and_then(|err| Errno::from_io_error(&err))
}

/// Has each barrier take [`BARRIER`].
const SLOW_BARRIERS: &str = "fdatasync,fsync:delay_enter=200ms";
const BARRIER: Duration = Duration::from_millis(200);

/// Fails unless `change` takes as long as a barrier that begins after it does, and the writer makes
/// one meanwhile. Sooner or later there is one without anybody's waiting.
#[track_caller]
fn waits_for_a_barrier(strace: &Strace, what: &str, change: impl FnOnce()) {
    let (before, start) = (strace.succeeded_in("writer"), Instant::now());
    change();
    let took = start.elapsed();
    assert!(took >= BARRIER, "{what} returned after {took:?}, without a barrier");
    assert!(strace.succeeded_in("writer") > before, "{what} waited for something else");
}

#[test]
fn every_fsync_of_changed_bytes_waits_for_a_barrier() {
    for save in [Save::Flush, Save::Release, Save::Interval(Duration::from_secs(3_600))] {
        let peer = Peer::saving(save);
        let file = File::create(peer.path("f")).unwrap();
        let strace = Strace::attach(&peer, Strace::BARRIERS, &[SLOW_BARRIERS]);
        for round in 0..20_u64 {
            waits_for_a_barrier(&strace, &format!("fsync {round} under {save:?}"), || {
                file.write_all_at(&round.to_le_bytes(), round * 8).unwrap();
                file.sync_data().unwrap();
            });
        }
        strace.detach();
        close(file).unwrap();
    }
}

#[test]
fn every_close_of_a_changed_file_waits_for_a_barrier_under_flush() {
    let peer = Peer::saving(Save::Flush);
    let strace = Strace::attach(&peer, Strace::BARRIERS, &[SLOW_BARRIERS]);
    for round in 0..20 {
        waits_for_a_barrier(&strace, &format!("close {round}"), || {
            peer.write(format!("f{}", round % 3), data::bytes(round, 100));
        });
    }
    // Reading costs none.
    peer.wait_safe();
    eventually("the disk is at rest", Duration::from_secs(30), || {
        let before = strace.succeeded();
        for _ in 0..20 {
            assert_eq!(peer.read("f0").len(), 100);
        }
        cairnfs_tests::poll::let_pass(Duration::from_secs(1));
        strace.succeeded() == before
    });
    strace.detach();
}

#[test]
fn a_failed_barrier_is_eio_to_the_caller_and_nothing_is_written_after_it() {
    // No version may meet it first.
    let peer = Peer::with(&UNPUBLISHED);
    peer.write("saved", data::bytes(1, 50_000));
    peer.remount();
    let mut file = File::create(peer.path("lost")).unwrap();
    peer.wait_safe();
    let strace = Strace::attach(&peer, Strace::BARRIERS, &["fdatasync,fsync:error=EIO"]);
    let failed = errno(file.write_all(b"not on the disk").and_then(|()| close(file)));
    assert_eq!(failed, Some(Errno::IO), "close returned without a barrier");
    strace.detach();
    // A second barrier that succeeds proves nothing, so there is none.
    for _ in 0..3 {
        let refused = errno(write(&peer.path("more"), b"x"));
        assert!(matches!(refused, Some(Errno::IO | Errno::ROFS)), "{refused:?}");
        let refused = errno(fs::create_dir(peer.path("dir")));
        assert!(matches!(refused, Some(Errno::IO | Errno::ROFS)), "{refused:?}");
    }
    assert!(peer.read("saved") == data::bytes(1, 50_000), "what was saved stays readable");
    let said = peer.home().cairnfs(&["status", BUCKET]);
    assert!(said.stdout.starts_with("safe: no"), "status hides it: {said}");
    peer.kill_and_remount();
    assert!(peer.read("saved") == data::bytes(1, 50_000));
    peer.write("again", "the disk is well");
    peer.kill_and_remount();
    assert_eq!(peer.read("again"), b"the disk is well");
    peer.check().succeeds();
}

#[test]
fn a_failed_write_to_the_disk_is_an_error_to_the_caller() {
    // No version may meet it first.
    let peer = Peer::with(&UNPUBLISHED);
    peer.write("saved", data::bytes(1, 50_000));
    peer.remount();
    let file = File::create(peer.path("lost")).unwrap();
    peer.wait_safe();
    let calls = "pwrite64,pwritev,pwritev2,write,writev";
    // The daemon answers the kernel with writev, so only what goes to files may fail.
    let strace = Strace::attach(&peer, calls, &["pwrite64,pwritev,pwritev2:error=EIO"]);
    let failed = errno(file.write_all_at(&data::bytes(2, 100_000), 0).and_then(|()| close(file)));
    assert_eq!(failed, Some(Errno::IO), "{}", strace.text());
    strace.detach();
    assert!(peer.read("saved") == data::bytes(1, 50_000));
    peer.kill_and_remount();
    assert!(peer.read("saved") == data::bytes(1, 50_000));
    peer.write("again", "x");
}

#[test]
fn a_slow_barrier_blocks_no_reader_and_no_other_writer() {
    let peer = Peer::saving(Save::Release);
    for n in 0..50 {
        peer.write(format!("f{n}"), data::bytes(n, 60_000));
    }
    // So that the kernel has nothing cached, and readers ask the daemon.
    peer.remount();
    let strace = Strace::attach(&peer, Strace::BARRIERS, &["fdatasync,fsync:delay_enter=100s"]);
    thread::scope(|scope| {
        let saver = thread::Builder::new()
            .name("saver".into())
            .spawn_scoped(scope, || {
                let start = Instant::now();
                let mut file = File::create(peer.path("slow")).unwrap();
                file.write_all(b"x").unwrap();
                file.sync_all().unwrap();
                start.elapsed()
            })
            .unwrap();
        let (begun, mut slowest, mut reads) = (Instant::now(), Duration::ZERO, 0);
        // Each of the daemon's calls stops for strace, so how many there are in a time says nothing.
        while begun.elapsed() < Duration::from_secs(10) || reads < 50 {
            assert!(!saver.is_finished(), "fsync returned in its barrier, after {reads} rounds");
            let n = reads % 50;
            let start = Instant::now();
            assert!(peer.read(format!("f{n}")) == data::bytes(n, 60_000));
            assert_eq!(fs::metadata(peer.path(format!("f{n}"))).unwrap().len(), 60_000);
            fs::create_dir(peer.path(format!("d{reads}"))).unwrap();
            slowest = slowest.max(start.elapsed());
            reads += 1;
        }
        // Who waits for the barrier would wait until this.
        strace.detach();
        let waited = saver.join().unwrap();
        assert!(waited >= Duration::from_secs(10), "fsync returned after {waited:?}");
        assert!(slowest < Duration::from_secs(5), "a reader waited {slowest:?} for a save");
    });
}

/// Begins a save under `policy` and calls `meanwhile` once the daemon waits for its barrier, which
/// takes `long`; with a file that is open and unchanged, and what watches the barriers.
fn during_a_save(policy: Save, long: &str, meanwhile: impl FnOnce(&Peer, File, &Strace)) {
    let peer = Peer::saving(policy);
    peer.write("f", data::bytes(1, 1_000));
    peer.wait_safe();
    let unchanged = File::options().read(true).write(true).open(peer.path("f")).unwrap();
    // It also has barriers of its own, when it publishes or writes zeros ahead.
    eventually("the writer has nothing to do", Duration::from_secs(30), || {
        process::has_nothing_to_do(peer.pid(), "writer")
    });
    let tampering = format!("fdatasync,fsync:delay_enter={long}");
    let strace = Strace::attach(&peer, Strace::BARRIERS, &[&tampering]);
    thread::scope(|scope| {
        let mut file = File::create(peer.path("slow")).unwrap();
        file.write_all(b"x").unwrap();
        let saver = move || file.sync_all().unwrap();
        let saver = thread::Builder::new().name("saver".into()).spawn_scoped(scope, saver).unwrap();
        eventually("the barrier is under way", Duration::from_secs(30), || {
            strace.holds_at_a_barrier("writer")
        });
        meanwhile(&peer, unchanged, &strace);
        strace.detach();
        saver.join().unwrap();
    });
}

#[test]
fn close_of_an_unchanged_file_waits_for_a_save_that_is_under_way() {
    during_a_save(Save::Flush, "4s", |_, unchanged, strace| {
        close(unchanged).unwrap();
        eventually("close waited for the barrier", Duration::from_secs(1), || {
            strace.succeeded_in("writer") > 0
        });
    });
}

#[test]
fn close_does_not_wait_under_release_not_even_for_a_save_that_is_under_way() {
    during_a_save(Save::Release, "60s", |peer, unchanged, strace| {
        close(unchanged).unwrap();
        peer.write("g", data::bytes(2, 1_000));
        assert_eq!(strace.succeeded_in("writer"), 0, "a close waited for the barrier");
        assert!(strace.holds_at_a_barrier("writer"), "the save had ended");
    });
}

#[test]
fn saves_that_wait_together_share_a_barrier() {
    let peer = Peer::saving(Save::Flush);
    let files: Vec<_> =
        (0..16).map(|n| File::create(peer.path(format!("f{n}"))).unwrap()).collect();
    peer.wait_safe();
    let strace = Strace::attach(&peer, Strace::BARRIERS, &["fdatasync,fsync:delay_enter=30000"]);
    thread::scope(|scope| {
        for (n, file) in files.iter().enumerate() {
            thread::Builder::new()
                .name(format!("fsync-{n}"))
                .spawn_scoped(scope, move || {
                    for round in 0..10_u64 {
                        file.write_all_at(&round.to_le_bytes(), round * 8).unwrap();
                        file.sync_data().unwrap();
                    }
                })
                .unwrap();
        }
    });
    let barriers = strace.succeeded();
    strace.detach();
    eprintln!("160 fsyncs of 16 files: {barriers} barriers");
    assert!(barriers >= 10, "{barriers} barriers cannot have carried 10 fsyncs of one file");
    assert!(barriers <= 80, "{barriers} barriers for 160 fsyncs: nothing is shared");
}

#[test]
fn umount_with_a_timeout_says_that_something_is_unsaved_and_leaves_it_mounted() {
    let peer = Peer::saving(Save::Interval(Duration::from_secs(3_600)));
    peer.write("f", data::bytes(1, 100_000));
    let strace = Strace::attach(&peer, Strace::BARRIERS, &["fdatasync,fsync:delay_enter=60s"]);
    let dir = peer.dir();
    let args = ["umount", dir.to_str().unwrap(), "--timeout", "500ms"];
    let outcome = peer.home().cairnfs(&args).exits(9);
    assert!(outcome.took < Duration::from_secs(30), "it waited for the disk: {outcome}");
    assert!(cairnfs_tests::mounts::is_mounted(&dir));
    strace.detach();
    assert!(peer.read("f") == data::bytes(1, 100_000));
    peer.umount();
    peer.kill();
    peer.mount();
    assert!(peer.read("f") == data::bytes(1, 100_000));
}
