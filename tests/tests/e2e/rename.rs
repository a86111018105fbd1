//! Renaming is atomic, and knows its flags.

use std::{fs, os::fd::AsRawFd, thread};

use cairnfs_tests::Peer;
use rustix::{
    fs::{CWD, Mode, OFlags, RenameFlags, open, renameat_with},
    io::Errno,
};

#[test]
fn rename_replaces_an_existing_file() {
    let peer = Peer::new();
    peer.write("old", "old");
    peer.write("new", "new");
    let open = fs::File::open(peer.path("old")).unwrap();
    fs::rename(peer.path("new"), peer.path("old")).unwrap();
    assert_eq!(peer.read("old"), b"new");
    assert_eq!(peer.names(""), ["old"]);
    assert_eq!(std::io::read_to_string(open).unwrap(), "old", "the open file changed");
    fs::File::open(peer.dir()).unwrap().sync_all().unwrap();
    peer.kill_and_remount();
    assert_eq!(peer.read("old"), b"new");
    assert_eq!(peer.names(""), ["old"]);
}

#[test]
fn rename_moves_directories_with_all_that_is_in_them() {
    let peer = Peer::new();
    fs::create_dir_all(peer.path("a/b/c")).unwrap();
    fs::create_dir(peer.path("z")).unwrap();
    peer.write("a/b/c/f", "x");
    fs::rename(peer.path("a/b"), peer.path("z/b")).unwrap();
    assert_eq!(peer.read("z/b/c/f"), b"x");
    assert!(peer.names("a").is_empty());
    let below_itself = fs::rename(peer.path("z"), peer.path("z/b/z")).unwrap_err();
    assert_eq!(below_itself.raw_os_error(), Some(Errno::INVAL.raw_os_error()));
    let onto_full = fs::rename(peer.path("a"), peer.path("z")).unwrap_err();
    assert_eq!(onto_full.raw_os_error(), Some(Errno::NOTEMPTY.raw_os_error()));
    let dir_onto_file = fs::rename(peer.path("a"), peer.path("z/b/c/f")).unwrap_err();
    assert_eq!(dir_onto_file.raw_os_error(), Some(Errno::NOTDIR.raw_os_error()));
    let file_onto_dir = fs::rename(peer.path("z/b/c/f"), peer.path("a")).unwrap_err();
    assert_eq!(file_onto_dir.raw_os_error(), Some(Errno::ISDIR.raw_os_error()));
    // An empty directory is replaced.
    fs::rename(peer.path("z"), peer.path("a")).unwrap();
    fs::File::open(peer.dir()).unwrap().sync_all().unwrap();
    peer.kill_and_remount();
    assert_eq!(peer.read("a/b/c/f"), b"x");
    assert_eq!(peer.names(""), ["a"]);
}

#[test]
fn noreplace_refuses_and_exchange_swaps() {
    let peer = Peer::new();
    peer.write("f", "file");
    fs::create_dir(peer.path("d")).unwrap();
    peer.write("d/in", "in");
    let rename = |from: &str, to: &str, flags| {
        renameat_with(CWD, peer.path(from), CWD, peer.path(to), flags)
    };
    assert_eq!(rename("f", "d", RenameFlags::NOREPLACE).unwrap_err(), Errno::EXIST);
    assert_eq!(rename("f", "no", RenameFlags::EXCHANGE).unwrap_err(), Errno::NOENT);
    rename("f", "g", RenameFlags::NOREPLACE).unwrap();
    assert_eq!(peer.names(""), ["d", "g"]);
    rename("g", "d", RenameFlags::EXCHANGE).unwrap();
    fs::File::open(peer.dir()).unwrap().sync_all().unwrap();
    for round in ["fresh", "killed"] {
        assert_eq!(peer.read("d"), b"file", "{round}");
        assert_eq!(peer.read("g/in"), b"in", "{round}");
        peer.kill_and_remount();
    }
    let both = RenameFlags::EXCHANGE | RenameFlags::NOREPLACE;
    assert_eq!(rename("g", "d", both).unwrap_err(), Errno::INVAL);
    // A directory may not be swapped below itself.
    fs::create_dir(peer.path("g/sub")).unwrap();
    assert_eq!(rename("g", "g/sub", RenameFlags::EXCHANGE).unwrap_err(), Errno::INVAL);
}

#[test]
fn a_reader_always_finds_the_old_or_the_new_file() {
    let peer = Peer::new();
    peer.write("f", "0".repeat(5_000));
    thread::scope(|scope| {
        let writer = thread::Builder::new()
            .name("replace".into())
            .spawn_scoped(scope, || {
                for round in 1..=100 {
                    let digit = (round % 10).to_string();
                    peer.write("f.tmp", digit.repeat(5_000));
                    fs::rename(peer.path("f.tmp"), peer.path("f")).unwrap();
                }
            })
            .unwrap();
        let mut reads = 0;
        while !writer.is_finished() || reads == 0 {
            let found = peer.read("f");
            assert_eq!(found.len(), 5_000, "after {reads} reads");
            assert!(found.iter().all(|&byte| byte == found[0]), "a mixture, after {reads} reads");
            reads += 1;
        }
    });
}

#[test]
fn a_file_renamed_while_open_is_written_under_its_new_name() {
    use std::io::Write;
    let peer = Peer::new();
    let mut file = fs::File::create(peer.path("a")).unwrap();
    file.write_all(b"one").unwrap();
    fs::create_dir(peer.path("d")).unwrap();
    fs::rename(peer.path("a"), peer.path("d/b")).unwrap();
    file.write_all(b"two").unwrap();
    cairnfs_tests::peer::close(file).unwrap();
    peer.kill_and_remount();
    assert_eq!(peer.read("d/b"), b"onetwo");
}

/// As by a container that has the file alone bound into it.
#[test]
fn who_holds_a_replaced_file_by_its_inode_sees_what_is_written_under_the_name() {
    let peer = Peer::new();
    peer.write("f", "old");
    let place = open(peer.path("f"), OFlags::PATH, Mode::empty()).unwrap();
    peer.write("new", "new");
    fs::rename(peer.path("new"), peer.path("f")).unwrap();
    let held = fs::File::open(format!("/proc/self/fd/{}", place.as_raw_fd())).unwrap();
    assert_eq!(held.metadata().unwrap().len(), 3);
    peer.write("f", "newer");
    assert_eq!(held.metadata().unwrap().len(), 5);
    assert_eq!(std::io::read_to_string(&held).unwrap(), "newer");
}
