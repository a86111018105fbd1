//! Many workers at once: a short sample of what `make stress` does for long, and the same on two
//! devices that meanwhile merge what the other one writes.
//!
//! `CAIRNFS_TEST_BUSY_SECONDS` has the two devices write for longer.

use std::{
    fs,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use cairnfs_tests::{Pair, Peer, Rng, Save, data, need, run};

use crate::load;

const SECONDS: &str = "6";

#[test]
fn many_workers_of_every_kind_meet_no_error() {
    need::program("stress-ng", "stress-ng");
    let peer = Peer::saving(Save::Release);
    let pid = (!peer.is_plain()).then(|| peer.pid());
    let dir = peer.path("stress");
    fs::create_dir(&dir).unwrap();
    let mut command = Command::new("stress-ng");
    for stressor in [
        "chmod",
        "copy-file",
        "dentry",
        "dir",
        "dirdeep",
        "fallocate",
        "filename",
        "flock",
        "fpunch",
        "hdd",
        "link",
        "lockf",
        "open",
        "rename",
        "revio",
        "seek",
        "symlink",
        "utime",
        "xattr",
    ] {
        command.args([format!("--{stressor}"), "1".to_owned()]);
    }
    command.args(["--timeout", SECONDS, "--verify", "--temp-path"]).arg(&dir);
    let outcome = run(&mut command, Duration::from_secs(120));
    // 3 and 4: not all of it is to be had from this kernel.
    assert!(matches!(outcome.code, Some(0 | 3 | 4)), "{outcome}");
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    let bad: Vec<_> = said.lines().filter(|line| line.starts_with("stress-ng: fail")).collect();
    assert!(bad.is_empty(), "{bad:?}");
    fs::remove_dir_all(&dir).unwrap();
    peer.wait_safe();
    if let Some(pid) = pid {
        peer.check().succeeds();
        assert_eq!(peer.pid(), pid, "another daemon serves it than before");
    }
}

#[test]
fn blocks_written_by_many_workers_come_back_as_they_were() {
    need::program("fio", "fio");
    let peer = Peer::saving(Save::Release);
    let mut command = Command::new("fio");
    command
        .arg(format!("--directory={}", peer.dir().display()))
        .args(["--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--group_reporting"])
        .args(["--minimal", "--size=6m", "--numjobs=3", "--randseed=7"])
        .args(["--name=random", "--rw=randwrite", "--bsrange=512-64k", "--bs_unaligned=1"])
        .args(["--name=synced", "--rw=randwrite", "--bs=4k", "--fsync=64", "--size=2m"])
        .args(["--name=mapped", "--rw=randwrite", "--bs=4k", "--ioengine=mmap", "--size=4m"])
        .args(["--name=direct", "--rw=randwrite", "--bs=16k", "--ioengine=libaio", "--iodepth=8"])
        .arg("--direct=1");
    run(&mut command, Duration::from_secs(180)).succeeds();
}

#[test]
fn what_many_write_on_two_devices_at_once_is_found_on_both() {
    let seconds = data::number_from_env("CAIRNFS_TEST_BUSY_SECONDS").unwrap_or(5);
    let seed = Rng::seed_from_env();
    eprintln!("{seconds} s, CAIRNFS_TEST_SEED={seed}");
    let mut rng = Rng::new(seed);
    let saves = [Save::Release, Save::Flush];
    let options = saves.map(Save::text);
    let pair = Pair::with(&["--save", &options[0]], &["--save", &options[1]]);
    let [ours, theirs] =
        [load::writers(&pair.one, &mut rng, 0..3), load::writers(&pair.other, &mut rng, 3..6)];
    let end = Instant::now() + Duration::from_secs(seconds);
    let steps = AtomicU64::new(0);
    thread::scope(|scope| {
        for (writers, save) in [&ours, &theirs].into_iter().zip(saves) {
            for writer in writers {
                let steps = &steps;
                scope.spawn(move || {
                    while Instant::now() < end {
                        load::step(writer, save).unwrap();
                        steps.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
    });
    let steps = steps.into_inner();
    eprintln!("{steps} steps");
    assert!(steps >= 6 * seconds, "six writers made {steps} steps in {seconds} s");
    pair.meet();
    for (n, writer) in ours.iter().chain(&theirs).enumerate() {
        let mut writer = writer.lock();
        // It is judged by what the devices show: all that was acknowledged, saved or not.
        writer.everything_is_durable();
        for peer in pair.both() {
            let dir = peer.path(format!("w{n}"));
            load::judge(&dir, &writer.files, end, &format!("seed {seed}"));
        }
    }
    for peer in pair.both() {
        peer.check().succeeds();
    }
}
