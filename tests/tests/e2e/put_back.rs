//! A device whose backup was put back after others had gone on, and what helps it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use cairnfs_tests::{
    Home, Pair, Peer, Strace, eventually,
    peer::{BUCKET, UNPUBLISHED},
    run,
};

/// How long devices may take to meet.
const MEET: Duration = Duration::from_secs(180);

pub(crate) fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to), MEET).succeeds();
}

/// A copy of all buckets of `peer`, which has ended.
fn back_up(peer: &Peer) -> PathBuf {
    let backup = peer.scratch().join("backup");
    copy(&peer.home().path().join("buckets"), &backup);
    backup
}

/// Has that take the place of what `peer` has now.
fn put_back(peer: &Peer, backup: &Path) {
    let buckets = peer.home().path().join("buckets");
    std::fs::remove_dir_all(&buckets).unwrap();
    copy(backup, &buckets);
}

/// Waits until `peer` has met whoever runs.
#[track_caller]
fn meets(peer: &Peer) {
    eventually("the devices reach each other", MEET, || {
        peer.home().cairnfs(&["sync", BUCKET, "--timeout", "30s"]).code == Some(0)
    });
}

#[test]
fn who_cannot_go_on_after_a_put_back_is_told_so_and_comes_anew() {
    let pair = Pair::new();
    let (one, other) = (&pair.one, &pair.other);
    let third = Peer::joining(Home::new(), one, &[]);
    meets(&third);
    third.stop();
    one.stop();
    let backup = back_up(one);
    one.mount();
    one.write("first", "which the backup lacks");
    pair.meet();
    one.stop();
    other.stop();
    put_back(one, &backup);
    // It merges what the third one has done, which knows of nothing that the backup lacks.
    one.mount();
    third.mount();
    one.write("second", "made on the backup");
    third.write("third", "made elsewhere");
    meets(&third);
    meets(one);
    assert_eq!(one.names(""), ["second", "third"]);
    third.stop();

    other.mount();
    let home = one.home();
    let remedy = format!("'cairnfs rejoin {BUCKET} --force'");
    eventually("it is refused, and told what helps", MEET, || {
        let outcome = home.cairnfs(&["sync", BUCKET, "--timeout", "30s"]);
        outcome.code == Some(1) && outcome.stderr.contains(&remedy)
    });
    let peers = home.cairnfs(&["peers"]).succeeds();
    assert!(peers.stdout.contains(&remedy), "{peers}");
    assert_eq!(one.names(""), ["second", "third"]);
    assert_eq!(other.names(""), ["first"]);

    home.cairnfs(&["rejoin", BUCKET, "--force"]).exits(5).says(&["unmount it first"]);
    one.umount();
    home.cairnfs(&["rejoin", BUCKET]).exits(9).says(&["would drop", "is known to have", "--force"]);
    home.cairnfs(&["rejoin", BUCKET, "--force", "--dry-run"]).succeeds();
    one.mount();
    assert_eq!(one.names(""), ["second", "third"], "what was refused changed something");
    one.umount();
    home.cairnfs(&["rejoin", BUCKET, "--force"]).succeeds();
    one.mount();
    pair.meet();
    assert_eq!(one.names(""), ["first"]);
    one.write("after", "x");
    pair.meet();
    assert_eq!(other.read("after"), b"x");
    one.check().succeeds();
}

#[test]
fn a_bucket_comes_anew_unasked_only_if_nothing_is_lost() {
    let pair = Pair::with(&[], &UNPUBLISHED);
    let (one, other) = (&pair.one, &pair.other);
    one.write("f", "x");
    pair.meet();
    other.umount();
    let rejoin = |args: &[&str]| other.home().cairnfs(&[&["rejoin", BUCKET][..], args].concat());
    let outcome = rejoin(&["--dry-run"]).succeeds();
    assert!(outcome.stdout.contains("nothing would be lost"), "{outcome}");
    rejoin(&[]).succeeds().says(&["nothing was lost"]);
    other.mount();
    assert_eq!(other.read("f"), b"x");
    // Nobody has this, and nobody is there to bring anything.
    one.stop();
    other.write("g", "y");
    other.umount();
    rejoin(&[]).exits(11);
    rejoin(&["--force"]).exits(11);
    other.mount();
    // Saved, and killed before it could become a version.
    other.write("h", "z");
    other.kill();
    one.mount();
    rejoin(&[]).exits(9).says(&["what was changed since the newest version", "--force"]);
    other.mount_again();
    assert_eq!(["f", "g", "h"].map(|name| other.read(name)), [b"x", b"y", b"z"]);
    is_alone(other);
}

#[test]
fn what_was_changed_after_a_put_back_is_not_dropped_unasked() {
    let pair = Pair::new();
    let (one, other) = (&pair.one, &pair.other);
    one.stop();
    let backup = back_up(one);
    one.mount();
    for name in ["first", "and more"] {
        one.write(name, "which the backup lacks");
        pair.meet();
    }
    one.stop();
    other.stop();
    put_back(one, &backup);
    // Under a number that the other knows, with another meaning.
    one.mount();
    one.write("second", "made on the backup");
    one.umount();
    other.mount();
    let rejoin = |args: &[&str]| one.home().cairnfs(&[&["rejoin", BUCKET][..], args].concat());
    for args in [&[][..], &["--dry-run"]] {
        rejoin(args).exits(9).says(&["would drop the newest version", "--force"]);
    }
    one.mount();
    pair.meet();
    assert_eq!(other.names(""), ["and more", "first", "second"]);
}

#[test]
fn older_versions_that_only_this_device_has_are_not_dropped_unasked() {
    let one = Peer::on(Home::new(), &[]);
    for content in ["1", "2", "3"] {
        one.write("f", content);
        one.home().cairnfs(&["publish", BUCKET]).succeeds();
    }
    // Who joins gets the newest version only.
    let other = Peer::joining(Home::new(), &one, &[]);
    meets(&one);
    one.umount();
    other.write("g", "which is not here");
    other.home().cairnfs(&["publish", BUCKET]).succeeds();
    let log = || one.home().cairnfs(&["log", BUCKET]).succeeds().stdout;
    let rejoin = |args: &[&str]| one.home().cairnfs(&[&["rejoin", BUCKET][..], args].concat());
    let before = log();
    for args in [&[][..], &["--dry-run"]] {
        rejoin(args).exits(9).says(&["would drop 3 older versions", "--force"]);
    }
    let outcome = rejoin(&["--force", "--dry-run"]).succeeds();
    assert!(outcome.stdout.contains("drop 3 older versions"), "{outcome}");
    assert_eq!(log(), before, "what was refused changed something");

    rejoin(&["--force"]).succeeds().says(&["dropped 3 older versions"]);
    assert_eq!(
        log().lines().filter(|line| line.starts_with(|c: char| !c.is_whitespace())).count(),
        1
    );
    one.mount();
    assert_eq!(one.names(""), ["f", "g"]);
    is_alone(&one);
}

#[test]
fn what_a_kill_left_beside_a_bucket_is_gone_at_the_next_start() {
    let pair = Pair::new();
    let (one, other) = (&pair.one, &pair.other);
    one.write("f", "x");
    pair.meet();
    // The second exchange is that of the whole buckets: it begins so late that the kill is earlier.
    let late = Strace::attach(other, "renameat2", &["renameat2:delay_enter=60000000:when=2"]);
    other.umount();
    let rejoining = other.home().start(&["rejoin", BUCKET]);
    let buckets = other.home().path().join("buckets");
    let anew = buckets.join(format!(".{BUCKET}.anew"));
    eventually("the new bucket is beside the old one", MEET, || anew.join("key").exists());
    late.kill();
    rejoining.wait(MEET);
    assert!(anew.exists(), "it was not killed in the middle");
    for left in [format!(".{BUCKET}.unfinished"), format!("..{BUCKET}.anew.unfinished")] {
        std::fs::create_dir(buckets.join(&left)).unwrap();
        std::fs::write(buckets.join(&left).join("id"), "").unwrap();
    }
    other.mount_again();
    is_alone(other);
    assert_eq!(other.read("f"), b"x");
    pair.meet();
    other.check().succeeds();
}

#[test]
fn where_folders_cannot_be_exchanged_nothing_is_fetched() {
    let pair = Pair::new();
    let other = &pair.other;
    let fails = Strace::attach(other, "renameat2", &["renameat2:error=EINVAL"]);
    other.umount();
    for args in [&["rejoin", BUCKET][..], &["rejoin", BUCKET, "--dry-run"]] {
        let outcome = other.home().cairnfs(args).exits(1).says(&["cannot exchange two folders"]);
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
    }
    fails.detach();
    is_alone(other);
    other.mount();
    pair.meet();
}

/// Nothing lies beside the bucket.
#[track_caller]
fn is_alone(peer: &Peer) {
    let buckets = std::fs::read_dir(peer.home().path().join("buckets")).unwrap();
    let names: Vec<_> = buckets.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [BUCKET], "something was left behind");
}
