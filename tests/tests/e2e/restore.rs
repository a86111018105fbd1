//! What was is brought back: `cairnfs restore`, by version and by time, in place and elsewhere.

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
    time::Duration,
};

use cairnfs_tests::{
    Home, Image, Outcome, Peer, Running, Strace, data, eventually,
    peer::{BUCKET, UNPUBLISHED},
    process, run,
    tree::Tree,
};
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(120);

pub(crate) fn publish(peer: &Peer) -> String {
    peer.home().cairnfs(&["publish", BUCKET]).succeeds().stdout.trim().to_owned()
}

fn restore(peer: &Peer, args: &[&str]) -> Outcome {
    peer.home().cairnfs(&[&["restore", BUCKET], args].concat())
}

/// A tree with everything that a tree can hold.
pub(crate) fn fill(dir: &Path) {
    fs::create_dir_all(dir.join("sub/deep")).unwrap();
    fs::write(dir.join("sub/short"), "a few bytes").unwrap();
    fs::write(dir.join("sub/deep/long"), data::bytes(7, 3 << 20)).unwrap();
    fs::write(dir.join("sub/empty"), "").unwrap();
    let sparse = fs::File::create(dir.join("sub/sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"far out", 1 << 25).unwrap();
    drop(sparse);
    fs::hard_link(dir.join("sub/short"), dir.join("sub/second name")).unwrap();
    symlink("deep/long", dir.join("sub/link")).unwrap();
    let mode =
        |path: &str, mode| fs::set_permissions(dir.join(path), PermissionsExt::from_mode(mode));
    mode("sub/short", 0o4751).unwrap();
    mode("sub/deep", 0o2770).unwrap();
    let set = Command::new("setfattr")
        .args(["-n", "user.colour", "-v", "green"])
        .arg(dir.join("sub/empty"))
        .status();
    assert!(set.unwrap().success());
    assert!(Command::new("mkfifo").arg(dir.join("sub/pipe")).status().unwrap().success());
    std::os::unix::fs::chown(dir.join("sub/empty"), Some(1234), Some(4321)).unwrap();
}

#[test]
fn a_folder_comes_back_as_it_was_and_elsewhere_too() {
    let peer = Peer::new();
    fill(&peer.dir());
    let was = Tree::of(&peer.path("sub"));
    let version = publish(&peer);
    fs::remove_dir_all(peer.path("sub")).unwrap();
    peer.write("other", "stays");
    publish(&peer);

    restore(&peer, &["sub", "--at", &version]).succeeds();
    Tree::of(&peer.path("sub")).same_as(&was);
    assert_eq!(peer.read("other"), b"stays");
    let (short, second) = (peer.path("sub/short"), peer.path("sub/second name"));
    assert_eq!(fs::metadata(short).unwrap().ino(), fs::metadata(second).unwrap().ino());
    assert!(fs::metadata(peer.path("sub/sparse")).unwrap().blocks() < 1000, "a hole stays one");
    let empty = fs::metadata(peer.path("sub/empty")).unwrap();
    assert_eq!((empty.uid(), empty.gid()), (1234, 4321));
    let colour = Command::new("getfattr")
        .args(["--only-values", "-n", "user.colour"])
        .arg(peer.path("sub/empty"))
        .output();
    assert_eq!(colour.unwrap().stdout, b"green");

    // Elsewhere, and of a bucket that is not mounted.
    let elsewhere = peer.scratch().join("elsewhere");
    peer.umount();
    let at = ["sub", "--at", &version[..8], "--to", elsewhere.to_str().unwrap()];
    restore(&peer, &at).succeeds();
    Tree::of(&elsewhere).same_as(&was);
    restore(&peer, &at).exits(2).says(&["is there already"]);
    restore(&peer, &["sub", "--at", &version]).exits(2).says(&["is not mounted", "--to"]);
    let mut named = peer.home().command(&["restore", BUCKET, "sub/short", "--at", &version]);
    named.args(["--to", "short"]).current_dir(peer.scratch());
    run(&mut named, SOON).succeeds();
    assert_eq!(fs::read(peer.scratch().join("short")).unwrap(), b"a few bytes");
    peer.mount();
    peer.kill_and_remount();
    Tree::of(&peer.path("sub")).same_as(&was);
}

#[test]
fn what_is_replaced_can_be_brought_back_in_turn() {
    let peer = Peer::new();
    peer.write("notes", "first");
    let first = publish(&peer);
    // Never published by anybody: the command does that.
    peer.write("notes", "second");
    let told = restore(&peer, &["notes", "--at", &first, "--dry-run"]).succeeds();
    assert!(told.stdout.contains("would replace"), "{}", told.stdout);
    assert_eq!(peer.read("notes"), b"second");

    let said = restore(&peer, &["notes", "--at", &first]).succeeds();
    assert!(said.stdout.contains("brought back 1 file, 5 B"), "{}", said.stdout);
    assert_eq!(peer.read("notes"), b"first");
    let second = said.stderr.rsplit(' ').next().unwrap().trim();
    restore(&peer, &["notes", "--at", second]).succeeds();
    assert_eq!(peer.read("notes"), b"second");
    assert_eq!(peer.names(""), ["notes"], "nothing is left beside it");
}

#[test]
fn a_reader_with_the_file_open_keeps_what_it_opened() {
    let peer = Peer::new();
    peer.write("notes", "first");
    let first = publish(&peer);
    peer.write("notes", "second");
    let open = fs::File::open(peer.path("notes")).unwrap();
    restore(&peer, &["notes", "--at", &first]).succeeds();
    let mut seen = [0; 6];
    open.read_exact_at(&mut seen, 0).unwrap();
    assert_eq!(&seen, b"second");
    assert_eq!(peer.read("notes"), b"first");
}

#[test]
fn a_time_means_the_newest_version_of_then() {
    let peer = Peer::new();
    let mut edits = 0;
    // When the version was published that this edit is in, as `log` says it.
    let mut edit = || {
        edits += 1;
        peer.write("notes", format!("edit {edits}"));
        publish(&peer);
        let log = peer.home().cairnfs(&["log", BUCKET, "notes", "--limit", "1"]).succeeds().stdout;
        let time = log.split("  ").nth(1).unwrap().to_owned();
        (time, format!("edit {edits}"))
    };
    let (then, mut newest_of_then) = edit();
    eventually("another second", SOON, || {
        let (time, text) = edit();
        if time == then {
            newest_of_then = text;
        }
        time != then
    });
    restore(&peer, &["notes", "--at", &then]).succeeds();
    assert_eq!(String::from_utf8(peer.read("notes")).unwrap(), newest_of_then);
    let now = restore(&peer, &["notes", "--at", "0s"]).succeeds();
    // Of what was brought back there may be a version by now, and then nothing is left to do.
    assert!(now.stdout.contains("brought back "), "{}", now.stdout);
    let none = restore(&peer, &["notes", "--at", "9d"]).exits(1);
    none.says(&["no such version", "the oldest is from", "s ago", "cairnfs log"]);
}

/// Also where nothing is to be changed.
#[test]
fn a_time_that_is_not_over_includes_what_is_not_published_yet() {
    let peer = Peer::with(&UNPUBLISHED);
    peer.write("notes", "first");
    let first = publish(&peer);
    let to = peer.scratch().join("copy");
    let unchanged = |time: &str, dry_run: &[&str]| {
        let said = restore(&peer, &[&["notes", "--at", time], dry_run].concat()).succeeds();
        assert!(said.stdout.ends_with("1 unchanged\n"), "{time}: {said}");
    };
    for (round, time) in ["2999-12-31", "0s"].into_iter().enumerate() {
        let text = |what| format!("{what} of round {round}");
        peer.write("notes", text("for the plan"));
        unchanged(time, &["--dry-run"]);
        peer.write("notes", text("in place"));
        unchanged(time, &[]);
        assert_eq!(peer.read("notes"), text("in place").as_bytes());
        peer.write("notes", text("elsewhere"));
        restore(&peer, &["notes", "--at", time, "--to", to.to_str().unwrap()]).succeeds();
        assert_eq!(fs::read(&to).unwrap(), text("elsewhere").as_bytes());
        fs::remove_file(&to).unwrap();
    }
    // A version is named as ever, and nobody may write to what is read-only.
    restore(&peer, &["notes", "--at", &first]).succeeds();
    assert_eq!(peer.read("notes"), b"first");
    peer.umount();
    peer.home().mount(BUCKET, &peer.dir(), &["--read-only"]);
    restore(&peer, &["notes", "--at", "0s", "--to", to.to_str().unwrap()]).succeeds();
    assert_eq!(fs::read(&to).unwrap(), b"first");
}

#[test]
fn what_cannot_be_brought_back_is_said_in_one_line() {
    let peer = Peer::new();
    peer.write("notes", "first");
    fs::create_dir(peer.path("folder")).unwrap();
    peer.write("folder/inside", "deep");
    let version = publish(&peer);
    let at = |args: &[&str]| restore(&peer, &[args, &["--at", &version]].concat());
    at(&["nothing"]).exits(1).says(&["has no 'nothing'"]);
    at(&["notes/inside"]).exits(1).says(&["has no 'notes/inside'"]);
    at(&["../notes"]).exits(2).says(&["without '..'"]);
    restore(&peer, &["notes", "--at", "00000000"]).exits(1).says(&["no such version"]);
    restore(&peer, &["notes", "--at", "yesterday"]).exits(2).says(&["a version or a time"]);
    restore(&peer, &["notes"]).exits(2).says(&["--at"]);
    let nobody = peer.home().cairnfs(&["restore", "nobody", "notes", "--at", "2h"]);
    nobody.exits(3).says(&["no bucket 'nobody'"]);

    // A link in the place of a folder is not followed.
    fs::remove_dir_all(peer.path("folder")).unwrap();
    let outside = peer.scratch();
    symlink(&outside, peer.path("folder")).unwrap();
    at(&["folder"]).exits(1).says(&["in the way of a folder"]);
    at(&["folder", "--dry-run"]).exits(1).says(&["in the way of a folder"]);
    at(&["folder/inside"]).exits(1).says(&["in the way of a folder"]);
    at(&[]).exits(1).says(&["in the way of a folder"]);
    assert!(!outside.join("inside").exists());
    // A folder in the place of a file is not removed.
    fs::remove_file(peer.path("notes")).unwrap();
    fs::create_dir(peer.path("notes")).unwrap();
    at(&["notes"]).exits(1).says(&["cannot bring back", "directory"]);
    assert_eq!(peer.names(""), ["folder", "notes"], "nothing is left beside them");
}

#[test]
fn the_versions_of_both_devices_come_back() {
    let peer = Peer::new();
    let other = Peer::joining(Home::new(), &peer, &[]);
    other.write("theirs", "from the other device");
    let version = publish(&other);
    eventually("theirs arrives", SOON, || peer.path("theirs").exists());
    fs::remove_file(peer.path("theirs")).unwrap();
    restore(&peer, &["theirs", "--at", &version]).succeeds();
    assert_eq!(peer.read("theirs"), b"from the other device");
    eventually("it is on both", SOON, || {
        fs::read(other.path("theirs")).is_ok_and(|bytes| bytes == b"from the other device")
    });
}

#[test]
fn folders_come_back_with_their_attributes_those_above_too() {
    let peer = Peer::new();
    fs::create_dir_all(peer.path("private/within")).unwrap();
    peer.write("private/within/file", "secret");
    let mode = |path: &str, mode| {
        fs::set_permissions(peer.path(path), PermissionsExt::from_mode(mode)).unwrap();
    };
    let is = |path: &str| fs::metadata(peer.path(path)).unwrap().mode() & 0o7777;
    mode("private", 0o700);
    mode("private/within", 0o711);
    std::os::unix::fs::chown(peer.path("private"), Some(1234), None).unwrap();
    let version = publish(&peer);

    fs::remove_dir_all(peer.path("private")).unwrap();
    let link = peer.scratch().join("link");
    symlink(peer.dir(), &link).unwrap();
    // By another way to the mount, although the folder is gone.
    let path = link.join("private/within/file");
    restore(&peer, &[path.to_str().unwrap(), "--at", &version]).succeeds();
    assert_eq!((is("private"), is("private/within")), (0o700, 0o711));
    assert_eq!(fs::metadata(peer.path("private")).unwrap().uid(), 1234);

    // A folder that is there gets back what it had; one above what was asked for is left alone.
    mode("private", 0o750);
    mode("private/within", 0o777);
    restore(&peer, &["private/within", "--at", &version]).succeeds();
    assert_eq!((is("private"), is("private/within")), (0o750, 0o711));
}

/// Begins to bring `path` back and returns when a file of it has come to the folder `dir`, but has not
/// taken its place: the disk is so slow, until the second of the two is dropped.
fn begin(peer: &Peer, path: &str, dir: &str, version: &str) -> (Running, Strace) {
    let slow = Strace::attach(peer, Strace::BARRIERS, &["fdatasync,fsync:delay_enter=3s"]);
    let mut running = peer.home().start(&["restore", BUCKET, path, "--at", version]);
    let fresh = peer.path(dir).join(format!(".cairnfs-restore-{}", running.pid()));
    eventually("a file is being brought back", SOON, || {
        assert!(!running.ended(), "it is over");
        fresh.exists()
    });
    (running, slow)
}

#[test]
fn what_is_saved_while_it_runs_is_in_a_version_too() {
    let peer = Peer::new();
    fs::create_dir(peer.path("folder")).unwrap();
    peer.write("folder/a", data::bytes(1, 1 << 20));
    peer.write("folder/z", "first");
    let version = publish(&peer);
    peer.write("folder/a", data::bytes(2, 1 << 20));
    peer.write("folder/z", "second");
    let (running, slow) = begin(&peer, "folder", "folder", &version);
    process::stand_still(running.pid());
    slow.detach();
    peer.write("folder/z", "edited meanwhile");
    running.signal(Signal::CONT);
    running.wait(SOON).succeeds();
    assert_eq!(peer.read("folder/z"), b"first");
    let log = peer.home().cairnfs(&["log", BUCKET, "folder/z", "--json"]).succeeds().json();
    let versions = log["versions"].as_array().unwrap();
    let kept = versions.iter().enumerate().any(|(n, version)| {
        let (id, to) = (version["id"].as_str().unwrap(), peer.scratch().join(n.to_string()));
        restore(&peer, &["folder/z", "--at", id, "--to", to.to_str().unwrap()]).succeeds();
        fs::read(to).unwrap() == b"edited meanwhile"
    });
    assert!(kept, "the edit is in no version");
}

#[test]
fn one_that_is_interrupted_leaves_no_part_of_a_file() {
    let peer = Peer::new();
    let dir = peer.path("dir");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o751)).unwrap();
    peer.write("dir/large", data::bytes(1, 8 << 20));
    let version = publish(&peer);
    peer.write("dir/large", "now");
    let interrupt = || {
        let (running, slow) = begin(&peer, "dir/large", "dir", &version);
        running.signal(Signal::INT);
        running.wait(SOON).exits(130);
        slow.detach();
    };
    interrupt();
    assert_eq!(peer.names("dir"), ["large"]);
    assert_eq!(peer.read("dir/large"), b"now");
    // A folder that it has made is as it was, and is not touched by who comes after it.
    fs::remove_dir_all(&dir).unwrap();
    interrupt();
    assert_eq!(peer.names("dir"), [""; 0]);
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o751);
}

/// What is as it was is left alone: also the plan says so.
#[test]
fn equal_files_are_left_alone() {
    let peer = Peer::new();
    fill(&peer.dir());
    let version = publish(&peer);
    let inode = |path: &str| fs::symlink_metadata(peer.path(path)).unwrap().ino();
    let before = (inode("sub/short"), inode("sub/link"));
    let was = Tree::of(&peer.path("sub"));
    let long = fs::OpenOptions::new().write(true).open(peer.path("sub/deep/long")).unwrap();
    long.write_all_at(b"changed", 1 << 20).unwrap();
    drop(long);
    fs::remove_file(peer.path("sub/empty")).unwrap();
    let told = restore(&peer, &["sub", "--at", &version, "--dry-run"]).succeeds().stdout;
    let has = |line: &str, what: &str| line.contains(what);
    let lines: Vec<_> = told.lines().collect();
    assert!(lines.iter().any(|it| has(it, "deep/long") && has(it, "would replace")), "{told}");
    assert!(lines.iter().any(|it| has(it, "empty") && has(it, "would come back")), "{told}");
    assert_eq!((lines.len(), lines[2]), (3, "5 unchanged"), "{told}");
    let said = restore(&peer, &["sub", "--at", &version]).succeeds().stdout;
    assert!(said.contains("brought back 2 files") && said.ends_with("; 5 unchanged\n"), "{said}");
    Tree::of(&peer.path("sub")).same_as(&was);
    assert_eq!((inode("sub/short"), inode("sub/link")), before);
    // A name that means another file than it did is not unchanged.
    fs::remove_file(peer.path("sub/second name")).unwrap();
    fs::write(peer.path("sub/second name"), "a few bytes").unwrap();
    restore(&peer, &["sub", "--at", &version]).succeeds();
    assert_eq!(inode("sub/short"), inode("sub/second name"));
    Tree::of(&peer.path("sub")).same_as(&was);
}

#[test]
fn one_that_is_interrupted_leaves_no_empty_folder_in_a_new_place() {
    let peer = Peer::new();
    fs::create_dir_all(peer.path("dir/deep")).unwrap();
    peer.write("dir/deep/large", data::bytes(1, 8 << 20));
    let version = publish(&peer);
    // What it reads comes from the disk then, piece by piece, and that is slow.
    peer.stop();
    peer.mount();
    let slow = Strace::attach(&peer, "pread64", &["pread64:delay_enter=50000"]);
    let to = peer.scratch().join("new");
    let mut running = peer.home().start(&[
        "restore",
        BUCKET,
        "dir",
        "--at",
        &version,
        "--to",
        to.to_str().unwrap(),
    ]);
    eventually("it has begun", SOON, || {
        assert!(!running.ended(), "it is over");
        to.join("deep").exists()
    });
    running.signal(Signal::INT);
    running.wait(SOON).exits(130);
    slow.detach();
    assert!(!to.exists(), "{:?}", fs::read_dir(&to).unwrap().collect::<Vec<_>>());
    restore(&peer, &["dir", "--at", &version, "--to", to.to_str().unwrap()]).succeeds();
    assert_eq!(fs::read(to.join("deep/large")).unwrap(), data::bytes(1, 8 << 20));
}

#[test]
fn what_was_given_up_for_space_is_said_and_the_rest_comes_back() {
    let peer = Peer::on(Home::on(Image::tmpfs(64)), &[]);
    fs::create_dir(peer.path("dir")).unwrap();
    peer.write("dir/lost", data::bytes(1, 8 << 20));
    // What is written around it keeps the version's own pack.
    peer.write("dir/kept", data::bytes(2, 900_000));
    let version = publish(&peer);
    peer.write("also", data::bytes(3, 900_000));
    fs::remove_file(peer.path("dir/lost")).unwrap();
    publish(&peer);
    let is_whole = || {
        let log = peer.home().cairnfs(&["log", BUCKET, "--json"]).succeeds().json();
        let versions = log["versions"].as_array().unwrap();
        let found = versions.iter().find(|it| it["id"].as_str().unwrap().starts_with(&version));
        found.unwrap()["whole"].as_bool().unwrap()
    };
    assert!(is_whole());
    eventually("space is taken from it", Duration::from_secs(60), || {
        // One that finds no room has it looked for.
        if cairnfs_tests::peer::write(&peer.path("big"), &data::bytes(4, 30 << 20)).is_ok() {
            fs::remove_file(peer.path("big")).unwrap();
        }
        !is_whole()
    });
    let log = peer.home().cairnfs(&["log", BUCKET]).succeeds().stdout;
    assert!(log.contains("  not whole: parts of it are not on this device\n"), "{log}");
    let at = |args: &[&str]| restore(&peer, &[args, &["--at", &version]].concat());
    let told = at(&["dir", "--dry-run"]).exits(1);
    assert_eq!(told.stdout, "1 unchanged\n", "{told}");
    told.says(&["dir/lost: cannot come back", "given up for space"]);
    at(&["dir/lost"]).exits(1).says(&["cannot come back"]);
    let to = peer.scratch().join("to");
    let said = at(&["dir", "--to", to.to_str().unwrap()]).exits(1);
    assert!(said.stdout.starts_with("brought back 1 file"), "{said}");
    said.says(&["to/lost: cannot come back", "1 file of version"]);
    assert!(fs::read(to.join("kept")).unwrap() == data::bytes(2, 900_000));
    assert!(!to.join("lost").exists());
    peer.check().succeeds();
}
