//! Attributes are what was set, to the nanosecond, and change when they should.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::unix::fs::{DirEntryExt, FileExt, MetadataExt, PermissionsExt},
};

use cairnfs_tests::{Peer, need, peer::BUCKET};
use rustix::{
    fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat},
    mount::{MountFlags, mount_remount},
};

fn set_times(path: &std::path::Path, atime: Timespec, mtime: Timespec) {
    let times = Timestamps { last_access: atime, last_modification: mtime };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

const fn at(seconds: i64, nanos: i64) -> Timespec {
    Timespec { tv_sec: seconds, tv_nsec: nanos }
}

#[test]
fn times_have_nanoseconds_before_1970_and_after_2038() {
    let peer = Peer::new();
    let times = [
        at(1_700_000_000, 123_456_789),
        at(0, 1),
        at(-1, 999_999_999),
        at(-2_000_000_000, 5),
        at(-1_000_000_000, 0),
        at(4_294_967_296, 999_999_999),
        at(10_000_000_000, 1),
    ];
    for (n, &time) in times.iter().enumerate() {
        let path = peer.path(format!("f{n}"));
        fs::write(&path, "x").unwrap();
        set_times(&path, at(time.tv_sec, 7), time);
    }
    File::open(peer.dir()).unwrap().sync_all().unwrap();
    for round in ["fresh", "killed"] {
        for (n, time) in times.iter().enumerate() {
            let meta = fs::metadata(peer.path(format!("f{n}"))).unwrap();
            assert_eq!((meta.mtime(), meta.mtime_nsec()), (time.tv_sec, time.tv_nsec), "{round}");
            assert_eq!((meta.atime(), meta.atime_nsec()), (time.tv_sec, 7), "{round}");
        }
        peer.kill_and_remount();
    }
}

#[test]
fn one_time_can_be_set_and_the_other_left_alone() {
    let peer = Peer::new();
    let path = peer.path("f");
    fs::write(&path, "x").unwrap();
    set_times(&path, at(100, 1), at(200, 2));
    set_times(&path, at(0, UTIME_OMIT), at(300, 3));
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(
        (meta.atime(), meta.atime_nsec(), meta.mtime(), meta.mtime_nsec()),
        (100, 1, 300, 3)
    );
    set_times(&path, at(0, UTIME_NOW), at(0, UTIME_OMIT));
    let meta = fs::metadata(&path).unwrap();
    assert!(meta.atime() > 1_600_000_000 && meta.mtime() == 300);
    // Those of a symbolic link are its own.
    std::os::unix::fs::symlink("f", peer.path("l")).unwrap();
    set_times(&peer.path("l"), at(5, 5), at(6, 6));
    assert_eq!(fs::symlink_metadata(peer.path("l")).unwrap().mtime(), 6);
    assert_eq!(fs::metadata(&path).unwrap().mtime(), 300);
}

#[test]
fn changes_move_the_times_that_posix_says_they_move() {
    let peer = Peer::new();
    let path = peer.path("f");
    fs::write(&path, "x").unwrap();
    let old = at(1_000, 0);
    let ctime = || {
        let meta = fs::metadata(&path).unwrap();
        (meta.ctime(), meta.ctime_nsec())
    };
    let mut before = ctime();
    let mut moved = |what: &str| {
        let now = ctime();
        assert!(now > before, "{what} left ctime at {now:?}");
        before = now;
    };
    set_times(&path, old, old);
    moved("utimensat");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    moved("chmod");
    let owner = fs::metadata(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    moved("chown");
    fs::hard_link(&path, peer.path("l")).unwrap();
    moved("link");
    fs::remove_file(peer.path("l")).unwrap();
    moved("unlink of another name");
    assert_eq!(fs::metadata(&path).unwrap().mtime(), 1_000, "none of these changes the content");
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"y", 0).unwrap();
    moved("write");
    assert!(fs::metadata(&path).unwrap().mtime() > 1_000, "write left mtime alone");
    set_times(&path, old, old);
    File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
    assert!(fs::metadata(&path).unwrap().mtime() > 1_000, "truncate left mtime alone");
    let dir = || fs::metadata(peer.dir()).unwrap().mtime();
    for (what, act) in [
        ("create", Box::new(|| fs::write(peer.path("n"), "").unwrap()) as Box<dyn Fn()>),
        ("rename", Box::new(|| fs::rename(peer.path("n"), peer.path("m")).unwrap())),
        ("unlink", Box::new(|| fs::remove_file(peer.path("m")).unwrap())),
        ("mkdir", Box::new(|| fs::create_dir(peer.path("d")).unwrap())),
        ("rmdir", Box::new(|| fs::remove_dir(peer.path("d")).unwrap())),
    ] {
        set_times(&peer.dir(), old, old);
        act();
        assert!(dir() > 1_000, "{what} left the directory's mtime alone");
    }
}

#[test]
fn modes_and_owners_are_kept() {
    need::root("changing owners");
    let peer = Peer::new();
    for mode in [0o000, 0o400, 0o644, 0o755, 0o1777, 0o4755, 0o2755, 0o6777] {
        let path = peer.path(format!("f{mode:o}"));
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    peer.write("owned", "x");
    std::os::unix::fs::chown(peer.path("owned"), Some(1_234), Some(4_000_000_000)).unwrap();
    std::os::unix::fs::symlink("owned", peer.path("l")).unwrap();
    std::os::unix::fs::lchown(peer.path("l"), Some(77), Some(78)).unwrap();
    File::open(peer.dir()).unwrap().sync_all().unwrap();
    for round in ["fresh", "killed"] {
        for mode in [0o000, 0o400, 0o644, 0o755, 0o1777, 0o4755, 0o2755, 0o6777] {
            let meta = fs::metadata(peer.path(format!("f{mode:o}"))).unwrap();
            assert_eq!(meta.mode(), 0o100_000 | mode, "{round}");
        }
        let meta = fs::metadata(peer.path("owned")).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1_234, 4_000_000_000), "{round}");
        let meta = fs::symlink_metadata(peer.path("l")).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (77, 78), "{round}");
        peer.kill_and_remount();
    }
}

#[test]
fn a_new_file_gets_its_mode_through_the_umask_and_a_setgid_directory_hands_down_its_group() {
    need::root("changing owners");
    let peer = Peer::new();
    let dir = peer.path("team");
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::chown(&dir, None, Some(4_242)).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o2775)).unwrap();
    let mut script = std::process::Command::new("sh");
    script.current_dir(&dir).args(["-c", "umask 027; echo x > f; mkdir d"]);
    cairnfs_tests::run(&mut script, std::time::Duration::from_secs(20)).succeeds();
    let (file, sub) = (fs::metadata(dir.join("f")).unwrap(), fs::metadata(dir.join("d")).unwrap());
    assert_eq!((file.mode() & 0o7777, file.gid()), (0o640, 4_242));
    assert_eq!((sub.mode() & 0o7777, sub.gid()), (0o2750, 4_242));
}

#[test]
fn truncate_cuts_and_extends_with_zeros() {
    let peer = Peer::new();
    let bytes = cairnfs_tests::data::bytes(3, 300_000);
    for (n, len) in
        [0, 1, 1_000, 65_536, 299_999, 300_000, 300_001, 900_000].into_iter().enumerate()
    {
        let name = format!("f{n}");
        peer.write(&name, &bytes);
        let file = File::options().write(true).open(peer.path(&name)).unwrap();
        file.set_len(u64::try_from(len).unwrap()).unwrap();
        cairnfs_tests::peer::close(file).unwrap();
        let mut wanted = bytes.clone();
        wanted.resize(len, 0);
        assert!(peer.read(&name) == wanted, "{len}");
        // What was cut off does not come back.
        let file = File::options().write(true).open(peer.path(&name)).unwrap();
        file.set_len(400_000).unwrap();
        file.sync_all().unwrap();
        wanted.resize(400_000, 0);
        assert!(peer.read(&name) == wanted, "{len}, extended");
    }
    peer.kill_and_remount();
    assert!(peer.read("f1")[1..].iter().all(|&byte| byte == 0));
}

#[test]
fn inode_numbers_do_not_change_while_mounted_and_differ_from_file_to_file() {
    let peer = Peer::new();
    let mut wanted = BTreeMap::new();
    for n in 0..100 {
        let name = format!("f{n}");
        peer.write(&name, "x");
        wanted.insert(name.clone(), fs::metadata(peer.path(name)).unwrap().ino());
    }
    let differ: BTreeSet<_> = wanted.values().collect();
    assert_eq!(differ.len(), 100, "two files have one number");
    let same = |wanted: &BTreeMap<String, u64>, after: &str| {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(peer.dir()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            assert_eq!(entry.ino(), entry.metadata().unwrap().ino(), "{name:?}, {after}");
            found.insert(name.into_string().unwrap(), entry.ino());
        }
        assert!(*wanted == found, "after {after}: wanted {wanted:?}\nfound {found:?}");
    };
    same(&wanted, "nothing");
    for n in 0..50 {
        let (from, to) = (format!("f{n}"), format!("g{n}"));
        fs::rename(peer.path(&from), peer.path(&to)).unwrap();
        let ino = wanted.remove(&from).unwrap();
        wanted.insert(to, ino);
    }
    same(&wanted, "renames");
    if !peer.is_plain() {
        peer.home().cairnfs(&["publish", BUCKET]).succeeds();
        same(&wanted, "a version");
        need::root("to have the kernel forget what it knows of one file system");
        mount_remount(peer.dir(), MountFlags::NOSUID | MountFlags::NODEV, "").unwrap();
        same(&wanted, "the kernel has asked anew");
    }
}
