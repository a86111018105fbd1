//! Links, and files that are not regular ones.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, symlink},
        net::{UnixListener, UnixStream},
    },
    process::Command,
    time::Duration,
};

use cairnfs_tests::{Peer, need, run};
use rustix::{
    fs::{CWD, FileType, Mode, makedev, mknodat},
    io::Errno,
};

#[test]
fn hard_links_are_names_of_one_file() {
    let peer = Peer::new();
    peer.write("a", "one");
    fs::create_dir(peer.path("d")).unwrap();
    fs::hard_link(peer.path("a"), peer.path("b")).unwrap();
    fs::hard_link(peer.path("b"), peer.path("d/c")).unwrap();
    let ino = fs::metadata(peer.path("a")).unwrap().ino();
    for name in ["a", "b", "d/c"] {
        let meta = fs::metadata(peer.path(name)).unwrap();
        assert_eq!((meta.ino(), meta.nlink()), (ino, 3), "{name}");
    }
    peer.write("b", "two");
    assert_eq!(peer.read("d/c"), b"two");
    fs::remove_file(peer.path("a")).unwrap();
    assert_eq!(fs::metadata(peer.path("b")).unwrap().nlink(), 2);
    // Writing makes what was changed before it durable with it.
    peer.write("d/c", "three");
    peer.kill_and_remount();
    assert_eq!(peer.read("b"), b"three");
    let (b, c) = (fs::metadata(peer.path("b")).unwrap(), fs::metadata(peer.path("d/c")).unwrap());
    assert_eq!((b.ino(), b.nlink()), (c.ino(), 2));
    let taken = fs::hard_link(peer.path("b"), peer.path("d/c")).unwrap_err();
    assert_eq!(taken.raw_os_error(), Some(Errno::EXIST.raw_os_error()));
    let dir = fs::hard_link(peer.path("d"), peer.path("e")).unwrap_err();
    assert_eq!(dir.raw_os_error(), Some(Errno::PERM.raw_os_error()));
}

#[test]
fn hundreds_of_names_of_one_file_are_kept_and_counted() {
    let peer = Peer::new();
    peer.write("f", "x");
    for dir in 0..7 {
        fs::create_dir(peer.path(format!("d{dir}"))).unwrap();
    }
    let name = |n: u32| peer.path(format!("d{}/{n}", n % 7));
    for n in 0..699 {
        fs::hard_link(peer.path("f"), name(n)).unwrap();
    }
    peer.remount();
    assert_eq!(fs::metadata(name(500)).unwrap().nlink(), 700);
    for n in (0..699).step_by(2) {
        fs::remove_file(name(n)).unwrap();
    }
    fs::write(name(1), "written").unwrap();
    peer.kill_and_remount();
    for n in (1..699).step_by(2) {
        assert_eq!(fs::metadata(name(n)).unwrap().nlink(), 350);
        assert_eq!(fs::read(name(n)).unwrap(), b"written");
    }
}

#[test]
fn renaming_one_hard_link_onto_another_does_nothing() {
    let peer = Peer::new();
    peer.write("a", "x");
    fs::hard_link(peer.path("a"), peer.path("b")).unwrap();
    fs::rename(peer.path("a"), peer.path("b")).unwrap();
    assert_eq!(peer.names(""), ["a", "b"]);
}

#[test]
fn symbolic_links_hold_any_target() {
    let peer = Peer::new();
    // As long as one can be.
    let long = "x".repeat(4_095);
    let targets: [&[u8]; 5] =
        [b"f", b"/etc/hosts", b"../..", b"\xff not \n utf-8", long.as_bytes()];
    for (n, target) in targets.iter().enumerate() {
        symlink(OsStr::from_bytes(target), peer.path(format!("l{n}"))).unwrap();
    }
    peer.write("f", "through");
    peer.kill_and_remount();
    for (n, target) in targets.iter().enumerate() {
        let path = peer.path(format!("l{n}"));
        assert_eq!(fs::read_link(&path).unwrap().as_os_str().as_bytes(), *target);
        assert_eq!(
            fs::symlink_metadata(&path).unwrap().len(),
            u64::try_from(target.len()).unwrap()
        );
    }
    assert_eq!(peer.read("l0"), b"through");
    symlink("loop", peer.path("loop")).unwrap();
    let looped = fs::read(peer.path("loop")).unwrap_err();
    assert_eq!(looped.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
    symlink("nowhere", peer.path("dangling")).unwrap();
    assert!(!peer.path("dangling").exists());
    fs::remove_file(peer.path("dangling")).unwrap();
}

#[test]
fn fifos_sockets_and_devices_are_kept_as_what_they_are() {
    need::root("making a device");
    let peer = Peer::new();
    let mode = Mode::from_raw_mode(0o640);
    mknodat(CWD, peer.path("file"), FileType::RegularFile, mode, 0).unwrap();
    mknodat(CWD, peer.path("fifo"), FileType::Fifo, mode, 0).unwrap();
    mknodat(CWD, peer.path("socket"), FileType::Socket, mode, 0).unwrap();
    mknodat(CWD, peer.path("char"), FileType::CharacterDevice, mode, makedev(1, 3)).unwrap();
    mknodat(CWD, peer.path("block"), FileType::BlockDevice, mode, makedev(259, 70_000)).unwrap();
    fs::File::open(peer.dir()).unwrap().sync_all().unwrap();
    for round in ["fresh", "killed"] {
        let kind = |name: &str| fs::symlink_metadata(peer.path(name)).unwrap();
        assert!(kind("file").is_file() && kind("file").len() == 0, "{round}");
        assert!(kind("fifo").file_type().is_fifo(), "{round}");
        assert!(kind("socket").file_type().is_socket(), "{round}");
        assert!(kind("char").file_type().is_char_device(), "{round}");
        assert!(kind("block").file_type().is_block_device(), "{round}");
        assert_eq!(kind("char").rdev(), makedev(1, 3), "{round}");
        assert_eq!(kind("block").rdev(), makedev(259, 70_000), "{round}");
        assert_eq!(kind("fifo").mode() & 0o7777, 0o640, "{round}");
        peer.kill_and_remount();
    }
    let taken = mknodat(CWD, peer.path("fifo"), FileType::Fifo, mode, 0).unwrap_err();
    assert_eq!(taken, Errno::EXIST);
}

#[test]
fn a_fifo_and_a_socket_carry_bytes() {
    let peer = Peer::new();
    let mut script = Command::new("sh");
    script.current_dir(peer.dir()).args(["-c", "mkfifo p && (echo through > p & cat p && wait)"]);
    assert_eq!(run(&mut script, Duration::from_secs(20)).succeeds().stdout, "through\n");
    // By a short way: the path of a socket has 108 bytes.
    let short = peer.scratch().join("s");
    symlink(peer.dir(), &short).unwrap();
    let listener = UnixListener::bind(short.join("sock")).unwrap();
    let _client = UnixStream::connect(short.join("sock")).unwrap();
    listener.accept().unwrap();
}
