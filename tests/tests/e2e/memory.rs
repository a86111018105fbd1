//! Memory is bounded, whatever is written.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    thread,
    time::{Duration, Instant},
};

use cairnfs_tests::{Peer, data, peer::close, process};

const MIB: u64 = 1 << 20;

#[test]
fn a_file_larger_than_the_memory_allowed_is_written_and_read_within_it() {
    let size_mib = data::number_from_env("CAIRNFS_TEST_BIG_MIB").unwrap_or(2_048);
    let peer = Peer::within(Duration::from_secs(3_600), &["--cache", "32MiB"]);
    let pid = peer.pid();
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).open(peer.path("f")).unwrap();
    let start = Instant::now();
    // Every MiB is different, and made quickly: what is measured is not the generator.
    let mut block = data::bytes(1, 1 << 20);
    for n in 0..size_mib {
        for place in (0..1 << 20).step_by(4_096) {
            block[place..place + 8]
                .copy_from_slice(&(n << 32 | u64::try_from(place).unwrap()).to_le_bytes());
        }
        file.write_all_at(&block, n * MIB).unwrap();
    }
    file.sync_all().unwrap();
    let wrote = start.elapsed();
    let after_write = process::data_bytes_max(pid);
    let start = Instant::now();
    let mut found = vec![0; 1 << 20];
    for n in 0..size_mib {
        for place in (0..1 << 20).step_by(4_096) {
            block[place..place + 8]
                .copy_from_slice(&(n << 32 | u64::try_from(place).unwrap()).to_le_bytes());
        }
        file.read_exact_at(&mut found, n * MIB).unwrap();
        assert!(found == block, "MiB {n}");
    }
    let read = start.elapsed();
    let after_read = process::data_bytes_max(pid);
    eprintln!(
        "{size_mib} MiB: written in {wrote:?}, read in {read:?}; at most {} MiB of memory while \
         writing, {} MiB in all",
        after_write / MIB,
        after_read / MIB
    );
    // Caches of 32 MiB, dirty data of 32 MiB, and 32 MiB for everything else. The program itself
    // is not counted, of which an unoptimised build maps several times as much.
    assert!(after_write <= 96 * MIB, "{} MiB while writing", after_write / MIB);
    assert!(after_read <= 96 * MIB, "{} MiB while reading", after_read / MIB);
    close(file).unwrap();
}

#[test]
fn a_byte_here_and_there_is_kept_within_the_memory_allowed() {
    const WRITERS: u64 = 4;
    const WRITES: u64 = 100_000;
    let options = ["--cache", "4MiB", "--dirty", "4MiB", "--save", "interval:10m"];
    let peer = Peer::within(Duration::from_secs(600), &options);
    let start = Instant::now();
    thread::scope(|scope| {
        for n in 0..WRITERS {
            let path = peer.path(format!("f{n}"));
            scope.spawn(move || {
                let file = File::create_new(path).unwrap();
                for at in 0..WRITES {
                    file.write_all_at(b"x", at * 64).unwrap();
                }
            });
        }
    });
    peer.wait_safe();
    let most = process::data_bytes_max(peer.pid());
    eprintln!("{WRITERS} times {WRITES} bytes in {:?}: {} KiB", start.elapsed(), most / 1024);
    // Caches, dirty data, and 32 MiB for everything else. What was written is less than 1 MiB; to keep
    // it takes some 160 bytes for each.
    assert!(most <= 40 * MIB, "{} KiB", most / 1024);
}

#[test]
fn an_empty_bucket_needs_little_memory() {
    // A release build is what the promise of 12 MiB is about; an unoptimised one maps more.
    let peer = Peer::new();
    let limit = if cfg!(debug_assertions) { 24 } else { 12 };
    peer.wait_safe();
    let rss = process::rss_bytes(peer.pid());
    eprintln!("an empty bucket, mounted: {} KiB of memory", rss / 1024);
    assert!(rss <= limit * MIB, "{} KiB", rss / 1024);
}

#[test]
fn many_files_open_and_closed_leave_no_descriptor_behind() {
    let peer = Peer::new();
    let pid = peer.pid();
    let fds = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    peer.write("f", "x");
    let before = fds();
    for round in 0..300 {
        let _a = File::open(peer.path("f")).unwrap();
        peer.write(format!("g{}", round % 10), "y");
    }
    assert!(fds() <= before + 4, "{before} descriptors became {}", fds());
}
