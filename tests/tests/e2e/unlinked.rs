//! An unlinked file lives as long as somebody has it open.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{FileExt, MetadataExt},
};

use cairnfs_tests::{Peer, data};

#[test]
fn an_unlinked_file_stays_readable_and_writable_through_its_handles() {
    let peer = Peer::new();
    peer.write("f", data::bytes(1, 200_000));
    let file = OpenOptions::new().read(true).write(true).open(peer.path("f")).unwrap();
    let second = fs::File::open(peer.path("f")).unwrap();
    fs::remove_file(peer.path("f")).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.write_all_at(b"still here", 100).unwrap();
    file.set_len(150_000).unwrap();
    file.sync_all().unwrap();
    let mut found = vec![0; 10];
    second.read_exact_at(&mut found, 100).unwrap();
    assert_eq!(found, b"still here");
    assert_eq!(second.metadata().unwrap().len(), 150_000);
    // The name is free at once, for another file.
    peer.write("f", "another");
    second.read_exact_at(&mut found, 100).unwrap();
    assert_eq!(found, b"still here");
    cairnfs_tests::peer::close(file).unwrap();
    drop(second);
    peer.kill_and_remount();
    assert_eq!(peer.read("f"), b"another");
    assert_eq!(peer.names(""), ["f"]);
}

#[test]
fn a_file_that_was_unlinked_before_a_crash_does_not_come_back() {
    let peer = Peer::new();
    peer.write("gone", "x");
    let file = fs::File::open(peer.path("gone")).unwrap();
    fs::remove_file(peer.path("gone")).unwrap();
    fs::File::open(peer.dir()).unwrap().sync_all().unwrap();
    peer.kill();
    drop(file);
    peer.mount_again();
    assert!(peer.names("").is_empty());
}

#[test]
fn a_file_replaced_by_rename_stays_readable_through_its_handles() {
    let peer = Peer::new();
    peer.write("f", data::bytes(1, 300_000));
    let old = fs::File::open(peer.path("f")).unwrap();
    peer.write("n", "new");
    fs::rename(peer.path("n"), peer.path("f")).unwrap();
    let mut found = vec![0; 300_000];
    old.read_exact_at(&mut found, 0).unwrap();
    assert!(found == data::bytes(1, 300_000));
    assert_eq!(peer.read("f"), b"new");
}
