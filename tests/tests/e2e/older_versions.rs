//! Older versions are mounted beside the bucket: `cairnfs mount --at`.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use cairnfs_tests::{
    Home, Image, Peer, Tree, data, eventually, mounts, need, peer::BUCKET, process, run,
};
use rustix::{io::Errno, process::Signal};

use crate::{
    damage::{damage, end_of_packs},
    restore::{fill, publish},
};

const SOON: Duration = Duration::from_secs(30);
const EROFS: Option<i32> = Some(Errno::ROFS.raw_os_error());
const EIO: Option<i32> = Some(Errno::IO.raw_os_error());
const ENOTCONN: Option<i32> = Some(Errno::NOTCONN.raw_os_error());

/// Mounts a version of the peer's bucket at `name`.
#[track_caller]
fn show(peer: &Peer, name: &str, version: &str) -> PathBuf {
    let dir = peer.home().dir(name);
    peer.home().mount(BUCKET, &dir, &["--at", version]);
    dir
}

/// Unmounts it without the daemon's being asked.
fn unmount_by_the_system(dir: &Path) {
    need::root("umount(8)");
    eventually("it is not busy", SOON, || {
        Command::new("umount").arg(dir).status().unwrap().success()
    });
}

fn colour(path: &Path) -> Vec<u8> {
    let get =
        Command::new("getfattr").args(["--only-values", "-n", "user.colour"]).arg(path).output();
    get.unwrap().stdout
}

#[test]
fn versions_stand_as_they_were_beside_each_other_and_the_live_mount() {
    let peer = Peer::new();
    fill(&peer.dir());
    let was = Tree::of(&peer.dir());
    let numbers = |dir: &Path| {
        ["sub/short", "sub/deep", "sub/link"]
            .map(|name| fs::symlink_metadata(dir.join(name)).unwrap().ino())
    };
    let number = numbers(&peer.dir());
    let first = show(&peer, "first", &publish(&peer));
    peer.write("sub/short", "others by now");
    fs::remove_file(peer.path("sub/deep/long")).unwrap();
    fs::rename(peer.path("sub/deep"), peer.path("moved")).unwrap();
    peer.write("later", "new");
    let then = Tree::of(&peer.dir());
    let second = show(&peer, "second", &publish(&peer));
    peer.write("later", "newer");
    fs::remove_dir_all(peer.path("sub")).unwrap();
    publish(&peer);

    Tree::of(&first).same_as(&was);
    Tree::of(&second).same_as(&then);
    assert_eq!(numbers(&first), number, "the numbers of the live files");
    let stat = |name: &str| fs::symlink_metadata(first.join(name)).unwrap();
    assert_eq!(stat("sub/short").ino(), stat("sub/second name").ino());
    assert_eq!((stat("sub/short").nlink(), stat("sub").nlink()), (2, 3));
    assert_eq!(stat("sub/short").mode() & 0o7777, 0o4751);
    assert_eq!((stat("sub/empty").uid(), stat("sub/empty").gid()), (1234, 4321));
    assert_eq!(fs::read_link(first.join("sub/link")).unwrap(), Path::new("deep/long"));
    assert_eq!(colour(&first.join("sub/empty")), b"green");
    assert!(stat("sub/sparse").blocks() < 1000, "a hole stays one");
    let sparse = File::open(first.join("sub/sparse")).unwrap();
    let data = rustix::fs::seek(&sparse, rustix::fs::SeekFrom::Data(0)).unwrap();
    assert!(data > 0 && data <= 1 << 25, "{data}");
    drop(sparse);

    // What people do with it.
    let diff = Command::new("diff").arg("-r").args([&first, &second]).output().unwrap();
    let told = String::from_utf8(diff.stdout).unwrap();
    assert!(told.contains("sub: deep") && told.contains("later"), "{told}");
    let copied = peer.scratch().join("copied");
    let copy = Command::new("cp").arg("-a").arg(&first).arg(&copied).status();
    assert!(copy.unwrap().success());
    Tree::of(&copied).same_as(&was);
    assert_eq!(peer.read("later"), b"newer");
    peer.home().umount_once_free(&second).succeeds();
    Tree::of(&first).same_as(&was);
}

#[test]
fn every_kind_of_change_is_refused() {
    let peer = Peer::new();
    fill(&peer.dir());
    let version = publish(&peer);
    let was = Tree::of(&peer.dir());
    let dir = show(&peer, "old", &version);
    refuses_all(&dir);
    // The kernel refuses these itself, unless somebody takes that from it.
    need::root("mounting anew");
    let again = Command::new("mount").args(["-i", "-o", "remount,rw"]).arg(&dir).status();
    assert!(again.unwrap().success());
    refuses_all(&dir);
    Tree::of(&dir).same_as(&was);
    Tree::of(&peer.dir()).same_as(&was);
}

#[track_caller]
fn refuses_all(dir: &Path) {
    let (file, new) = (dir.join("sub/short"), dir.join("new"));
    let write = OpenOptions::new().write(true).clone();
    let run = |words: &str, file: &Path| {
        let mut words = words.split(' ');
        let done = Command::new(words.next().unwrap()).args(words).arg(file).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        let is_read_only = said.contains("Read-only file system");
        if is_read_only { Errno::ROFS.into() } else { io::Error::other(said) }
    };
    let refusals = [
        ("create", File::create(&new).unwrap_err()),
        ("open", write.open(&file).unwrap_err()),
        ("truncate", OpenOptions::new().write(true).truncate(true).open(&file).unwrap_err()),
        ("unlink", fs::remove_file(&file).unwrap_err()),
        ("mkdir", fs::create_dir(&new).unwrap_err()),
        ("rmdir", fs::remove_dir(dir.join("sub/deep")).unwrap_err()),
        ("rename", fs::rename(&file, &new).unwrap_err()),
        ("link", fs::hard_link(&file, &new).unwrap_err()),
        ("symlink", symlink("x", &new).unwrap_err()),
        ("chmod", fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap_err()),
        ("chown", std::os::unix::fs::chown(&file, Some(1), None).unwrap_err()),
        ("utimes", run("touch -c", &file)),
        ("mknod", run("mkfifo", &new)),
        ("setxattr", run("setfattr -n user.colour -v red", &file)),
        ("removexattr", run("setfattr -x user.colour", &dir.join("sub/empty"))),
    ];
    for (what, refusal) in refusals {
        assert_eq!(refusal.raw_os_error(), EROFS, "{what}: {refusal}");
    }
}

#[test]
fn ten_thousand_names_are_listed_each_once() {
    let peer = Peer::saving(cairnfs_tests::peer::Save::Release);
    let name = |n: u32| format!("a name that is not short, number {n}");
    for n in 0..10_000 {
        File::create(peer.path(name(n))).unwrap();
    }
    let dir = show(&peer, "old", &publish(&peer));
    fs::remove_file(peer.path(name(7))).unwrap();
    publish(&peer);
    // Twice: the second time the kernel may know them.
    for _ in 0..2 {
        let listed: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(listed.len(), 10_000);
        let names: BTreeSet<_> = listed.iter().map(|name| name.to_str().unwrap()).collect();
        assert!((0..10_000).all(|n| names.contains(&*name(n))));
    }
    let listed = Command::new("ls").arg("-l").arg(&dir).output().unwrap();
    assert_eq!(listed.stdout.split(|byte| *byte == b'\n').count(), 10_002);
}

#[test]
fn a_bucket_that_is_not_mounted_is_opened_for_its_version() {
    let home = Home::new();
    let secret = home.scratch().join("secret");
    fs::write(&secret, "a passphrase\n").unwrap();
    let secret = ["--passphrase-file", secret.to_str().unwrap()];
    home.cairnfs(&[&["create", BUCKET], secret.as_slice()].concat()).succeeds();
    let (live, old) = (home.dir("mnt"), home.dir("old"));
    home.mount(BUCKET, &live, &secret);
    fs::write(live.join("f"), "first").unwrap();
    let version = home.cairnfs(&["publish", BUCKET]).succeeds().stdout.trim().to_owned();
    fs::write(live.join("f"), "second").unwrap();
    home.umount_once_free(&live).succeeds();

    let at = ["--at", &version];
    home.try_mount(BUCKET, &old, &[&at, secret.as_slice()].concat())
        .succeeds()
        .says(&[&version[..16], "read-only"]);
    assert_eq!(fs::read(old.join("f")).unwrap(), b"first");
    // The daemon has it open, so that nobody is asked for the passphrase again.
    let other = home.dir("other");
    home.mount(BUCKET, &other, &["--at", "0s"]);
    assert_eq!(fs::read(other.join("f")).unwrap(), b"second");
    home.cairnfs(&["log", BUCKET]).succeeds();
    home.cairnfs(&["check", BUCKET]).succeeds();
    let to = home.scratch().join("f");
    home.cairnfs(&["restore", BUCKET, "f", "--at", &version, "--to", to.to_str().unwrap()])
        .succeeds();
    assert_eq!(fs::read(to).unwrap(), b"first");
    // It is not mounted for all that.
    let refused = home.try_mount(BUCKET, &live, &secret).exits(5);
    refused.says(&["a version of bucket", "unmount that first"]);
    home.cairnfs(&["invite", BUCKET]).exits(3).says(&["is not mounted"]);
    home.umount_once_free(&other).succeeds();
    assert_eq!(fs::read(old.join("f")).unwrap(), b"first");
    home.umount_once_free(&old).succeeds();
    // And now it can be, at once.
    home.mount(BUCKET, &live, &secret);
    assert_eq!(fs::read(live.join("f")).unwrap(), b"second");
}

#[test]
fn unmounting_the_bucket_unmounts_its_versions_too_and_says_so() {
    let peer = Peer::with(&["--save", "interval:1h"]);
    let home = peer.home();
    peer.write("f", "first");
    let version = publish(&peer);
    let (idle, busy) = (show(&peer, "idle", &version), show(&peer, "busy", &version));
    let within = peer.path("within");
    fs::create_dir(&within).unwrap();
    home.mount(BUCKET, &within, &["--at", &version]);
    peer.write("f", "never saved but by this");
    let open = File::open(busy.join("f")).unwrap();
    let said = home.umount_once_free(&peer.dir()).succeeds().stderr;
    for dir in [&idle, &busy, &within] {
        let line = format!("unmounted {}, version {}", dir.display(), &version[..16]);
        assert!(said.contains(&line), "{said}");
        assert!(!mounts::is_mounted(dir));
    }
    // Whoever has something open learns that it is over, unless the kernel knows the answer.
    let err = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open)));
    assert_eq!(err.unwrap_err().raw_os_error(), ENOTCONN);
    drop(open);
    peer.mount();
    assert_eq!(peer.read("f"), b"never saved but by this");

    // So does `umount` of the system.
    show(&peer, "idle", &version);
    unmount_by_the_system(&peer.dir());
    eventually("the version goes too", SOON, || !mounts::is_mounted(&idle));
    peer.mount();
    assert_eq!(peer.read("f"), b"never saved but by this");
}

#[test]
fn a_version_that_is_in_use_stays_mounted_and_its_users_are_named() {
    let peer = Peer::new();
    peer.write("f", "first");
    let dir = show(&peer, "old", &publish(&peer));
    let open = File::open(dir.join("f")).unwrap();
    let pid = std::process::id().to_string();
    peer.home().umount(&dir).exits(6).says(&["is busy", &pid]);
    let mut text = [0; 5];
    open.read_exact_at(&mut text, 0).unwrap();
    assert_eq!(&text, b"first");
    drop(open);
    peer.home().umount_once_free(&dir).succeeds();
    peer.home().umount(&dir).exits(3);
    // Unmounted by the system, it is over as well.
    show(&peer, "old", "0s");
    unmount_by_the_system(&dir);
    let list = || peer.home().cairnfs(&["list"]).succeeds().stdout;
    eventually("it is not listed", SOON, || !list().contains("version"));
    show(&peer, "old", "0s");
}

#[test]
fn stop_and_sigterm_unmount_versions() {
    let peer = Peer::new();
    let home = peer.home();
    peer.write("f", "first");
    let version = publish(&peer);
    let dir = show(&peer, "old", &version);
    let open = File::open(dir.join("f")).unwrap();
    home.cairnfs(&["stop"]).succeeds().says(&["is busy", "unmounted"]);
    assert!(!mounts::is_mounted(&dir) && !mounts::is_mounted(&peer.dir()));
    drop(open);
    process::ended(home.path());
    // One that stands for nothing else ends on a signal with 0, and when it is unmounted.
    for is_signal in [true, false] {
        let args = ["mount", BUCKET, dir.to_str().unwrap(), "--at", &version, "--foreground"];
        let mut mount = home.start(&args);
        eventually("it is mounted", SOON, || {
            assert!(!mount.ended(), "it ended: {}", mount.stderr_so_far());
            mounts::is_mounted(&dir)
        });
        assert_eq!(fs::read(dir.join("f")).unwrap(), b"first");
        if is_signal {
            mount.signal(Signal::TERM);
        } else {
            home.umount_once_free(&dir).succeeds();
        }
        mount.wait(SOON).succeeds();
        assert!(!mounts::is_mounted(&dir));
    }
    process::ended(home.path());
}

#[test]
fn a_version_whose_daemon_died_answers_with_an_error_and_is_no_loss() {
    const MORTAL: &str = "mortal-version";
    let home = Home::new();
    home.create(MORTAL);
    let (live, old) = (home.dir("mnt"), home.dir("old"));
    home.mount(MORTAL, &live, &[]);
    fs::write(live.join("f"), "first").unwrap();
    let version = home.cairnfs(&["publish", MORTAL]).succeeds().stdout.trim().to_owned();
    home.umount_once_free(&live).succeeds();
    home.mount(MORTAL, &old, &["--at", &version]);
    home.kill();
    assert_eq!(fs::read_dir(&old).unwrap_err().raw_os_error(), ENOTCONN);
    home.cairnfs(&["status", "--wait-safe"]).succeeds();
    // Mounted again in the same place, or taken away.
    home.mount(MORTAL, &old, &["--at", &version]);
    assert_eq!(fs::read(old.join("f")).unwrap(), b"first");
    home.kill();
    home.umount_once_free(&old).succeeds().says(&["its daemon had died"]);
    home.mount(MORTAL, &live, &[]);
}

#[test]
fn list_and_status_tell_of_versions_and_count_nothing_of_them_as_unsaved() {
    let peer = Peer::new();
    let home = peer.home();
    peer.write("f", "first");
    let version = publish(&peer);
    let dir = show(&peer, "old", &version);
    let dir = dir.to_str().unwrap();
    for verb in ["list", "status"] {
        let text = home.cairnfs(&[verb]).succeeds().stdout;
        assert!(text.contains(dir) && text.contains(&version[..16]), "{text}");
        let json = home.cairnfs(&[verb, "--json"]).succeeds().json();
        let view = &json["buckets"][0]["views"][0];
        assert!(view["dir"] == dir && view["version"] == *version, "{json}");
        assert_eq!(json["buckets"][0]["dir"], peer.dir().to_str().unwrap(), "{json}");
    }
    assert_eq!(home.cairnfs(&["status", "--json"]).succeeds().json()["safe"], true);
    let source = mounts::below(Path::new(dir)).remove(0).source;
    assert_eq!(source, format!("cairnfs:{BUCKET}@{}", &version[..16]));
}

#[test]
fn what_cannot_be_shown_is_said_in_one_line() {
    let peer = Peer::new();
    peer.write("f", "first");
    let version = publish(&peer);
    let dir = peer.home().dir("old");
    let at = |at: &str, more: &[&str]| {
        peer.home().try_mount(BUCKET, &dir, &[&["--at", at], more].concat())
    };
    at("00000000", &[]).exits(1).says(&["no such version", "cairnfs log"]);
    at("9d", &[]).exits(1).says(&["no such version", "the oldest is from"]);
    at("yesterday", &[]).exits(2).says(&["a version or a time"]);
    for more in [["--save", "flush"], ["--dirty", "1MiB"], ["-o", "save=flush"]] {
        at(&version, &more).exits(2).says(&["at"]);
    }
    at(&version, &["--at-start"]).exits(2).says(&["--at-start"]);
    at(&version, &["-o", "auto_unmount"]).exits(2).says(&["auto_unmount"]);
    peer.home().try_mount("nobody", &dir, &["--at", "2h"]).exits(3).says(&["no bucket 'nobody'"]);
    peer.home().try_mount(BUCKET, &peer.dir(), &["--at", "0s"]).exits(6);
    assert!(!mounts::is_mounted(&dir));
    let planned = at(&version, &["--dry-run"]).succeeds().stdout;
    assert!(planned.contains("would mount version") && !mounts::is_mounted(&dir), "{planned}");
    // Two in one place there are not.
    at(&version, &[]).succeeds();
    at(&version, &[]).exits(6).says(&["is mounted there"]);
    at(&version, &["--dry-run"]).exits(6);
}

#[test]
fn a_time_means_the_newest_version_of_then() {
    let peer = Peer::new();
    peer.write("f", "first");
    publish(&peer);
    let dir = show(&peer, "old", "0s");
    assert_eq!(fs::read(dir.join("f")).unwrap(), b"first");
    // As mount(8) and fstab have it.
    let again = peer.home().dir("again");
    let options = ["-o", "rw,at=0s,noatime"];
    peer.home().mount(BUCKET, &again, &options);
    peer.write("f", "second");
    assert_eq!(fs::read(again.join("f")).unwrap(), b"first");
    assert_eq!(File::create(again.join("g")).unwrap_err().raw_os_error(), EROFS);
}

#[test]
fn a_version_stays_whole_while_space_is_taken_from_others() {
    let peer = Peer::on(Home::on(Image::tmpfs(64)), &[]);
    let kept = |n: u64| data::bytes(1000 + n, 1 << 20);
    for n in 0..8 {
        peer.write(format!("kept-{n}"), kept(n));
    }
    let dir = show(&peer, "old", &publish(&peer));
    for n in 0..8 {
        fs::remove_file(peer.path(format!("kept-{n}"))).unwrap();
    }
    for round in 0..4 {
        // What fills the disk is deleted, and its space comes back; that of the version does not.
        let wanted = data::bytes(round, 20 << 20);
        eventually("twenty megabytes fit", SOON * 4, || {
            cairnfs_tests::peer::write(&peer.path("big"), &wanted).is_ok()
        });
        assert!(peer.read("big") == wanted, "round {round}");
        fs::remove_file(peer.path("big")).unwrap();
    }
    for n in 0..8 {
        assert!(fs::read(dir.join(format!("kept-{n}"))).unwrap() == kept(n), "file {n}");
    }
    peer.check().succeeds();
}

#[test]
fn damage_is_eio_for_the_file_that_holds_it() {
    let peer = Peer::new();
    peer.write("before", data::bytes(1, 30_000));
    peer.remount();
    let (pack, from) = end_of_packs(peer.home());
    peer.write("victim", data::bytes(2, 4 << 20));
    peer.write("after", data::bytes(3, 30_000));
    let version = publish(&peer);
    peer.stop();
    for place in (from + (2 << 20)..from + (3 << 20)).step_by(16 << 10) {
        damage(&pack, place);
    }
    peer.mount();
    let dir = show(&peer, "old", &version);
    assert_eq!(fs::read(dir.join("victim")).unwrap_err().raw_os_error(), EIO);
    assert!(fs::read(dir.join("before")).unwrap() == data::bytes(1, 30_000));
    assert!(fs::read(dir.join("after")).unwrap() == data::bytes(3, 30_000));
}

/// A bucket that is kept for other devices stays that, and is not mounted while a version is.
#[test]
fn a_version_of_a_bucket_that_is_kept_for_others_is_shown_too() {
    let peer = Peer::new();
    let home = peer.home();
    peer.write("f", "first");
    let version = publish(&peer);
    peer.stop();
    let daemon = home.start(&["daemon"]);
    let kept =
        || home.cairnfs(&["status", "--json"]).succeeds().json()["buckets"][0]["kept"] == true;
    eventually("it is kept", SOON, kept);
    let dir = show(&peer, "old", &version);
    assert!(kept());
    home.try_mount(BUCKET, &peer.dir(), &[]).exits(5).says(&["unmount that first"]);
    assert_eq!(fs::read(dir.join("f")).unwrap(), b"first");
    home.umount_once_free(&dir).succeeds();
    assert!(kept());
    peer.mount();
    assert_eq!(peer.read("f"), b"first");
    let mut stop = home.command(&["stop"]);
    run(&mut stop, SOON).succeeds();
    daemon.wait(SOON).succeeds();
}
