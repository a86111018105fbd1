//! A save costs what was changed, not what is there.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use cairnfs_tests::{Peer, data, peer::close, process};

const MIB: u64 = 1 << 20;

#[test]
fn changing_4_kib_of_256_mib_costs_little() {
    let peer = Peer::new();
    let file = OpenOptions::new().write(true).create_new(true).open(peer.path("f")).unwrap();
    for n in 0..64 {
        file.write_all_at(&data::bytes(n, 4 << 20), n * 4 * MIB).unwrap();
    }
    close(file).unwrap();
    // Published and indexed, so that none of that is counted below.
    peer.remount();
    let pid = peer.pid();
    let before = (process::written_bytes(pid), peer.home().disk_bytes());
    let probe = fs::File::create(peer.scratch().join("probe")).unwrap();
    // What the disk takes for as much beside it: it is shared, and may be busy with what was built.
    let disk = |n: u64| {
        let start = Instant::now();
        probe.write_all_at(&[1; 4_096], n * 4_096).unwrap();
        probe.sync_data().unwrap();
        start.elapsed()
    };
    let times = (0..5).map(|n| {
        let disk = disk(n);
        let start = Instant::now();
        let file = OpenOptions::new().write(true).open(peer.path("f")).unwrap();
        file.write_all_at(&data::bytes(100 + n, 4_096), n * 50_000_000 + 1_234).unwrap();
        close(file).unwrap();
        start.elapsed().saturating_sub(disk)
    });
    let took = times.min().unwrap();
    let written = (process::written_bytes(pid) - before.0) / 5;
    // Through unmounting, so that publishing is counted too.
    peer.remount();
    let grown = peer.home().disk_bytes().saturating_sub(before.1) / 5;
    eprintln!("4 KiB of 256 MiB: {took:?}, {written} bytes written, {grown} bytes on disk");
    assert!(written < MIB, "{written} bytes written to save 4 KiB");
    assert!(grown < MIB, "{grown} bytes more on disk for 4 KiB");
    assert!(took < Duration::from_millis(500), "{took:?} to save 4 KiB");
    let mut wanted = data::bytes(100, 4_096);
    let mut found = vec![0; 4_096];
    let file = fs::File::open(peer.path("f")).unwrap();
    file.read_exact_at(&mut found, 1_234).unwrap();
    assert!(found == wanted);
    wanted = data::bytes(63, 4 << 20);
    found.resize(4 << 20, 0);
    file.read_exact_at(&mut found, 63 * 4 * MIB).unwrap();
    assert!(found == wanted);
}

#[test]
fn two_thousand_small_files_take_little_space() {
    let peer = Peer::with(&["--save", "release"]);
    let before = peer.home().disk_bytes();
    let mut bytes = 0;
    for n in 0..2_000_u64 {
        let len = 100 + usize::try_from(n * 37 % 900).unwrap();
        peer.write(format!("f{n}"), data::bytes(n, len));
        bytes += u64::try_from(len).unwrap();
    }
    peer.remount();
    let grown = peer.home().disk_bytes().saturating_sub(before);
    eprintln!("2,000 files, {bytes} bytes: {grown} bytes on disk");
    assert!(grown < bytes + 12 * MIB, "{grown} bytes on disk for {bytes}");
    for n in (0..2_000).step_by(97) {
        let len = 100 + usize::try_from(n * 37 % 900).unwrap();
        assert!(peer.read(format!("f{n}")) == data::bytes(n, len), "f{n}");
    }
}

#[test]
fn a_save_of_4_kib_writes_at_most_8_kib_besides() {
    let peer = Peer::new();
    for n in 0..500 {
        peer.write(format!("f{n}"), data::bytes(n, 4_096));
    }
    peer.remount();
    let pid = peer.pid();
    // The shortest of several: publishing and indexing come at a distance, and not for each save.
    let least = (0..8)
        .map(|n| {
            let before = process::written_bytes(pid);
            peer.write("f0", data::bytes(1_000 + n, 4_096));
            process::written_bytes(pid) - before
        })
        .min()
        .unwrap();
    assert!(least >= 4_096, "{least} bytes written cannot hold 4 KiB that do not compress");
    assert!(least <= 4_096 + 8_192, "{least} bytes written to save 4 KiB");
}

#[test]
fn equal_content_is_stored_once() {
    let peer = Peer::new();
    let bytes = data::bytes(7, 8 << 20);
    peer.write("a", &bytes);
    peer.remount();
    let before = peer.home().disk_bytes();
    for name in ["b", "c", "d"] {
        peer.write(name, &bytes);
    }
    peer.remount();
    let grown = peer.home().disk_bytes().saturating_sub(before);
    assert!(grown < 2 * MIB, "{grown} bytes more for three copies of what is there");
    peer.kill_and_remount();
    assert!(peer.read("d") == bytes);
}

#[test]
fn an_idle_daemon_sleeps() {
    let peer = Peer::new();
    peer.write("f", "x");
    peer.remount();
    peer.wait_safe();
    let pid = peer.pid();
    let switches = || -> u64 {
        fs::read_dir(format!("/proc/{pid}/task"))
            .unwrap()
            // A thread that ends meanwhile lowers the sum, which is a change too.
            .filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok())
            .map(|status| {
                let count = status
                    .lines()
                    .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
                    .expect("because the kernel counts them");
                count.trim().parse::<u64>().unwrap()
            })
            .sum()
    };
    // Whatever unmounting and mounting set off comes to rest first.
    let mut last = switches();
    cairnfs_tests::eventually(
        "ten seconds pass without a wake-up",
        Duration::from_secs(60),
        || {
            cairnfs_tests::poll::let_pass(Duration::from_secs(10));
            let now = switches();
            let idle = now == last;
            last = now;
            idle
        },
    );
}
