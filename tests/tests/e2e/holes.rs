//! Holes stay holes; space can be allocated, punched out, zeroed and copied.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, MetadataExt},
};

use cairnfs_tests::{Peer, data};
use rustix::{
    fs::{FallocateFlags, SeekFrom, copy_file_range, fallocate, seek},
    io::Errno,
};

fn new_file(peer: &Peer, name: &str) -> File {
    OpenOptions::new().read(true).write(true).create_new(true).open(peer.path(name)).unwrap()
}

const MIB: u64 = 1 << 20;

#[test]
fn a_sparse_file_reads_zeros_and_takes_little_space() {
    let peer = Peer::new();
    let file = new_file(&peer, "f");
    file.write_all_at(b"begin", 0).unwrap();
    file.write_all_at(b"end", 500 * MIB).unwrap();
    cairnfs_tests::peer::close(file).unwrap();
    peer.kill_and_remount();
    let file = File::open(peer.path("f")).unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!(meta.len(), 500 * MIB + 3);
    assert!(meta.blocks() * 512 < MIB, "{} blocks", meta.blocks());
    let mut found = vec![1; 100_000];
    for offset in [5, MIB, 250 * MIB, 500 * MIB - 100_000] {
        file.read_exact_at(&mut found, offset).unwrap();
        assert!(found.iter().all(|&byte| byte == 0), "at {offset}");
    }
}

#[test]
fn seek_finds_data_and_holes() {
    let peer = Peer::new();
    let file = new_file(&peer, "f");
    file.write_all_at(&data::bytes(1, 1 << 20), 0).unwrap();
    file.write_all_at(&data::bytes(2, 1 << 20), 8 * MIB).unwrap();
    file.set_len(16 * MIB).unwrap();
    for round in ["dirty", "saved"] {
        let at = |from| seek(&file, from);
        assert_eq!(at(SeekFrom::Data(0)), Ok(0), "{round}");
        let hole = at(SeekFrom::Hole(0)).unwrap();
        assert!((MIB..=8 * MIB).contains(&hole), "{round}: first hole at {hole}");
        let found = at(SeekFrom::Data(4 * MIB)).unwrap();
        assert!((4 * MIB..=8 * MIB).contains(&found), "{round}: second data at {found}");
        let hole = at(SeekFrom::Hole(8 * MIB)).unwrap();
        assert!((9 * MIB..=16 * MIB).contains(&hole), "{round}: second hole at {hole}");
        let last = at(SeekFrom::Data(12 * MIB));
        // Whether the last hole is reported exactly is the file system's choice; the end is not.
        let is_choice = last.is_ok_and(|found| (12 * MIB..16 * MIB).contains(&found));
        assert!(last == Err(Errno::NXIO) || peer.is_plain() && is_choice, "{round}: {last:?}");
        assert_eq!(at(SeekFrom::Data(16 * MIB)), Err(Errno::NXIO), "{round}");
        assert_eq!(at(SeekFrom::Hole(16 * MIB)), Err(Errno::NXIO), "{round}");
        file.sync_all().unwrap();
    }
    // Here it is promised: a hole of megabytes is not data.
    if !peer.is_plain() {
        assert_eq!(seek(&file, SeekFrom::Data(4 * MIB)), Ok(8 * MIB));
    }
}

#[test]
fn fallocate_allocates_punches_and_zeroes() {
    let peer = Peer::new();
    let file = new_file(&peer, "f");
    let mut wanted = data::bytes(5, 3 << 20);
    file.write_all_at(&wanted, 0).unwrap();
    let both = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    for (flags, offset, len) in [
        (both, 100, 10),
        (both, 65_536, 65_536),
        (both, 123_456, 1_234_567),
        (FallocateFlags::ZERO_RANGE, 2_000_000, 300_001),
        (FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, (3 << 20) - 10, 1_000),
    ] {
        fallocate(&file, flags, u64::try_from(offset).unwrap(), u64::try_from(len).unwrap())
            .unwrap();
        let end = wanted.len().min(offset + len);
        wanted[offset..end].fill(0);
        assert!(peer.read("f") == wanted, "{flags:?} {offset} {len}");
    }
    // Zeroing beyond the end makes the file longer, allocating with KEEP_SIZE does not.
    fallocate(&file, FallocateFlags::ZERO_RANGE, (3 << 20) - 5, 1_005).unwrap();
    wanted.resize((3 << 20) + 1_000, 0);
    wanted[(3 << 20) - 5..].fill(0);
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 8 << 20).unwrap();
    assert!(peer.read("f") == wanted);
    fallocate(&file, FallocateFlags::empty(), 4 << 20, 1 << 20).unwrap();
    wanted.resize(5 << 20, 0);
    assert!(peer.read("f") == wanted);
    cairnfs_tests::peer::close(file).unwrap();
    peer.kill_and_remount();
    assert!(peer.read("f") == wanted, "after kill -9");
    let file = File::options().read(true).write(true).open(peer.path("f")).unwrap();
    assert_eq!(fallocate(&file, FallocateFlags::empty(), 0, 0), Err(Errno::INVAL));
    assert_eq!(fallocate(&file, FallocateFlags::PUNCH_HOLE, 0, 10), Err(Errno::OPNOTSUPP));
}

#[test]
fn a_punched_hole_is_a_hole() {
    let peer = Peer::new();
    let file = new_file(&peer, "f");
    file.write_all_at(&data::bytes(6, 8 << 20), 0).unwrap();
    file.sync_all().unwrap();
    let full = file.metadata().unwrap().blocks();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, MIB, 6 * MIB).unwrap();
    file.sync_all().unwrap();
    let hole = seek(&file, SeekFrom::Hole(0)).unwrap();
    assert_eq!(hole, MIB);
    assert_eq!(seek(&file, SeekFrom::Data(2 * MIB)), Ok(7 * MIB));
    assert!(file.metadata().unwrap().blocks() < full, "the hole still counts as blocks");
}

#[test]
fn copy_file_range_copies_within_and_between_files() {
    let peer = Peer::new();
    let bytes = data::bytes(8, 5 << 20);
    peer.write("from", &bytes);
    let from = File::open(peer.path("from")).unwrap();
    let to = new_file(&peer, "to");
    let copy = |from: &File, mut at: u64, to: &File, mut into: u64, len: usize| {
        let mut left = len;
        while left > 0 {
            let done = copy_file_range(from, Some(&mut at), to, Some(&mut into), left).unwrap();
            assert!(done > 0, "{left} bytes left and nothing copied");
            left -= done;
        }
    };
    copy(&from, 0, &to, 0, 5 << 20);
    assert!(peer.read("to") == bytes);
    let mut wanted = bytes.clone();
    for (at, into, len) in
        [(10, 3_000_000, 99_999), (1 << 20, 7, 1 << 20), (5_000_000, 6_000_000, 242_880)]
    {
        copy(&from, u64::try_from(at).unwrap(), &to, u64::try_from(into).unwrap(), len);
        wanted.resize(wanted.len().max(into + len), 0);
        wanted[into..into + len].copy_from_slice(&bytes[at..at + len]);
    }
    // Within one file, apart from each other.
    copy(&to, 0, &to, 4 << 20, 1 << 20);
    wanted.copy_within(0..1 << 20, 4 << 20);
    assert!(peer.read("to") == wanted);
    let beyond = copy_file_range(&from, Some(&mut (6 << 20)), &to, Some(&mut 0), 100);
    assert_eq!(beyond, Ok(0));
    cairnfs_tests::peer::close(to).unwrap();
    peer.kill_and_remount();
    assert!(peer.read("to") == wanted, "after kill -9");
}

#[test]
fn sparse_files_go_in_and_out_through_cp() {
    use std::{process::Command, time::Duration};
    let peer = Peer::new();
    let outside = peer.scratch().join("image");
    let file = File::create(&outside).unwrap();
    file.set_len(300 * MIB).unwrap();
    for place in [0, 100, 299] {
        file.write_all_at(&data::bytes(place, 10_000), place * MIB).unwrap();
    }
    let cp = |from: &std::path::Path, to: &std::path::Path| {
        let mut command = Command::new("cp");
        command.arg("--sparse=always").args([from, to]);
        cairnfs_tests::run(&mut command, Duration::from_secs(60)).succeeds();
    };
    cp(&outside, &peer.path("image"));
    peer.kill_and_remount();
    let back = peer.scratch().join("back");
    cp(&peer.path("image"), &back);
    assert!(std::fs::metadata(peer.path("image")).unwrap().blocks() * 512 < 4 * MIB);
    let mut cmp = Command::new("cmp");
    cmp.args([&outside, &back]);
    cairnfs_tests::run(&mut cmp, Duration::from_secs(60)).succeeds();
}
