//! What was seen to go wrong in an existing encrypted, syncing file system.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use cairnfs_tests::{Peer, data};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

#[test]
fn appending_keeps_what_was_there() {
    let peer = Peer::new();
    let mut wanted = Vec::new();
    for (seed, len) in (1..).zip([10, 1, 4_096, 70_000, 3, 500_000, 17]) {
        let bytes = data::bytes(seed, len);
        let mut file = OpenOptions::new().append(true).create(true).open(peer.path("f")).unwrap();
        file.write_all(&bytes).unwrap();
        cairnfs_tests::peer::close(file).unwrap();
        wanted.extend(bytes);
        assert!(peer.read("f") == wanted, "after appending {len}");
    }
    peer.kill_and_remount();
    assert!(peer.read("f") == wanted, "after kill -9");
}

#[test]
fn overwriting_a_part_keeps_the_rest() {
    let peer = Peer::new();
    let mut wanted = data::bytes(1, 1_000_000);
    peer.write("f", &wanted);
    for (seed, (offset, len)) in
        (2..).zip([(0, 1), (5, 10), (65_530, 12), (300_000, 200_000), (999_999, 1)])
    {
        let bytes = data::bytes(seed, len);
        let file = OpenOptions::new().write(true).open(peer.path("f")).unwrap();
        file.write_all_at(&bytes, u64::try_from(offset).unwrap()).unwrap();
        cairnfs_tests::peer::close(file).unwrap();
        wanted[offset..offset + len].copy_from_slice(&bytes);
        assert!(peer.read("f") == wanted, "{len} bytes at {offset}");
    }
    peer.kill_and_remount();
    assert!(peer.read("f") == wanted, "after kill -9");
}

#[test]
fn appending_with_a_stat_in_between_goes_to_the_end() {
    let peer = Peer::new();
    let path = peer.path("log");
    let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
    let mut wanted = String::new();
    for line in 0..100 {
        let text = format!("line {line}\n");
        file.write_all(text.as_bytes()).unwrap();
        wanted.push_str(&text);
        assert_eq!(fs::metadata(&path).unwrap().len(), u64::try_from(wanted.len()).unwrap());
        // Another handle that appends moves the end for the first one too.
        if line % 7 == 0 {
            OpenOptions::new().append(true).open(&path).unwrap().write_all(b"other\n").unwrap();
            wanted.push_str("other\n");
        }
    }
    cairnfs_tests::peer::close(file).unwrap();
    assert_eq!(String::from_utf8(peer.read("log")).unwrap(), wanted);
    peer.kill_and_remount();
    assert_eq!(String::from_utf8(peer.read("log")).unwrap(), wanted);
}

#[test]
fn a_file_that_is_open_is_made_one_to_append_to_and_back() {
    let peer = Peer::new();
    let file = OpenOptions::new().append(true).create(true).open(peer.path("f")).unwrap();
    file.write_all_at(b"0123456789", 0).unwrap();
    let flags = fcntl_getfl(&file).unwrap();
    fcntl_setfl(&file, flags - OFlags::APPEND).unwrap();
    file.write_all_at(b"AB", 0).unwrap();
    assert_eq!(peer.read("f"), b"AB23456789");
    fcntl_setfl(&file, flags).unwrap();
    // Linux appends then, whatever the offset is.
    file.write_all_at(b"CD", 0).unwrap();
    assert_eq!(peer.read("f"), b"AB23456789CD");
    cairnfs_tests::peer::close(file).unwrap();
}

#[test]
fn truncating_to_1_tib_and_back_is_quick_and_harmless() {
    let peer = Peer::new();
    peer.write("f", "begin");
    let file = OpenOptions::new().read(true).write(true).open(peer.path("f")).unwrap();
    let times = [1 << 38, 1 << 39, 1 << 40].map(|len| {
        let start = Instant::now();
        file.set_len(len).unwrap();
        file.sync_all().unwrap();
        start.elapsed()
    });
    // Any of them may wait for others of the disk; if it took long by itself, none would be quick.
    assert!(times.iter().any(|took| *took < Duration::from_secs(5)), "{times:?}");
    let mut found = [1; 9];
    file.read_exact_at(&mut found, 0).unwrap();
    assert_eq!(&found, b"begin\0\0\0\0");
    file.read_exact_at(&mut found, (1 << 40) - 9).unwrap();
    assert_eq!(found, [0; 9]);
    cairnfs_tests::peer::close(file).unwrap();
    peer.kill_and_remount();
    assert_eq!(fs::metadata(peer.path("f")).unwrap().len(), 1 << 40);
    let file = OpenOptions::new().write(true).open(peer.path("f")).unwrap();
    file.set_len(3).unwrap();
    cairnfs_tests::peer::close(file).unwrap();
    assert_eq!(peer.read("f"), b"beg");
}

#[test]
fn a_kill_right_after_close_leaves_the_whole_bucket_readable() {
    let peer = Peer::new();
    for n in 0..50 {
        peer.write(format!("before-{n}"), data::bytes(n, 10_000));
    }
    for round in 0..8 {
        let name = format!("round-{round}");
        let len = [1, 5_000, 100_000, 3_000_000][usize::try_from(round % 4).unwrap()];
        peer.write(&name, data::bytes(1_000 + round, len));
        peer.kill_and_remount();
        assert!(peer.read(&name) == data::bytes(1_000 + round, len), "{name}");
        for n in 0..50 {
            assert!(peer.read(format!("before-{n}")) == data::bytes(n, 10_000), "before-{n}");
        }
    }
    if !peer.is_plain() {
        peer.check().succeeds();
    }
}

#[test]
fn a_file_made_by_one_program_is_found_by_the_next_at_once() {
    // A lookup that found nothing must not be remembered beyond the creation.
    let peer = Peer::new();
    for n in 0..50 {
        let name = format!("f{n}");
        assert!(File::open(peer.path(&name)).is_err());
        let mut command = std::process::Command::new("sh");
        command
            .current_dir(peer.dir())
            .args(["-c", &format!("echo {n} > {name}; ls | grep -qx {name}")]);
        cairnfs_tests::run(&mut command, Duration::from_secs(20)).succeeds();
        assert_eq!(peer.read(&name), format!("{n}\n").as_bytes());
    }
}
