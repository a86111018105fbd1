//! Taking a bucket off a device.

use std::{fs, time::Duration};

use cairnfs_tests::{
    Home, Outcome, Pair, Peer, Strace, eventually,
    peer::{BUCKET, UNPUBLISHED},
    terminal,
};

use crate::put_back::copy;

/// How long devices may take to meet.
const MEET: Duration = Duration::from_secs(60);

fn drop_bucket(home: &Home, args: &[&str]) -> Outcome {
    home.cairnfs(&[&["drop", BUCKET][..], args].concat())
}

/// Nothing of any bucket is left in the home.
#[track_caller]
fn is_gone(home: &Home) {
    let left: Vec<_> = fs::read_dir(home.path().join("buckets")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let list = home.cairnfs(&["list", "--json"]).succeeds().json();
    assert_eq!(list["buckets"].as_array().unwrap().len(), 0, "{list}");
    for file in ["at-start.toml", "invites.toml"] {
        let text = fs::read_to_string(home.path().join(file)).unwrap_or_default();
        assert!(!text.contains("[["), "{file}: {text}");
    }
}

#[test]
fn what_others_have_is_dropped_and_can_be_joined_again() {
    let pair = Pair::new();
    let (one, other) = (&pair.one, &pair.other);
    one.write("f", "x");
    pair.meet();
    let home = other.home();
    drop_bucket(home, &["--yes"]).exits(5).says(&["is mounted at", "cairnfs umount"]);
    other.umount();
    home.cairnfs(&["mount", BUCKET, other.dir().to_str().unwrap(), "--at-start"]).succeeds();
    other.umount();
    let outcome = drop_bucket(home, &["--dry-run"]).succeeds();
    assert!(outcome.stdout.contains("would drop"), "{outcome}");
    other.mount();
    assert_eq!(other.read("f"), b"x");
    other.umount();
    let outcome = drop_bucket(home, &["--yes"]).succeeds();
    outcome.says(&["is not on this device any more", "still a member"]);
    is_gone(home);
    let peers = fs::read_to_string(home.path().join("peers.toml")).unwrap();
    assert!(!peers.contains("addresses"), "{peers}");
    for args in [&["--yes"][..], &["--force", "--yes"], &["--dry-run"], &[]] {
        drop_bucket(home, args).exits(3).says(&["no bucket"]);
    }

    // It is a member still, and comes as a new copy.
    let ticket = one.invite(&[]);
    home.cairnfs(&["join", &ticket, "--no-passphrase", "--name", BUCKET]).succeeds();
    other.mount();
    assert_eq!(other.read("f"), b"x");
    other.write("after", "y");
    pair.meet();
    assert_eq!(one.read("after"), b"y");
}

#[test]
fn what_only_this_device_has_is_not_dropped_unasked() {
    let pair = Pair::with(&[], &UNPUBLISHED);
    let (one, other) = (&pair.one, &pair.other);
    one.write("f", "x");
    pair.meet();
    one.stop();
    other.write("g", "only here");
    other.umount();
    let home = other.home();
    drop_bucket(home, &["--yes"]).exits(11).says(&["--force"]);
    other.mount();
    // Saved, and killed before it could become a version.
    other.write("h", "nor this");
    other.kill();
    one.mount();
    let outcome = drop_bucket(home, &["--yes"]).exits(9);
    outcome.says(&["would lose", "what was changed since the newest version", "--force"]);
    other.mount_again();
    assert_eq!(["f", "g", "h"].map(|name| other.read(name).len()), [1, 9, 8]);
    other.umount();
    drop_bucket(home, &["--yes", "--force"]).succeeds();
    is_gone(home);
}

#[test]
fn the_only_copy_goes_by_force_only_and_without_its_passphrase() {
    let home = Home::new();
    let file = home.scratch().join("passphrase");
    fs::write(&file, "correct horse").unwrap();
    let given = ["--passphrase-file", file.to_str().unwrap()];
    home.cairnfs(&[&["create", BUCKET][..], &given].concat()).succeeds();
    let outcome = drop_bucket(&home, &[&["--yes"][..], &given].concat()).exits(9);
    outcome.says(&["no other device has", "1 version", "--force"]);
    drop_bucket(&home, &["--yes"]).exits(2);
    fs::write(&file, "wrong").unwrap();
    drop_bucket(&home, &[&["--yes"][..], &given].concat()).exits(4).says(&["--force"]);
    drop_bucket(&home, &["--force"]).exits(2).says(&["--yes"]);
    drop_bucket(&home, &["--force", "--dry-run"]).succeeds();
    assert!(home.cairnfs(&["list"]).succeeds().stdout.contains(BUCKET));
    drop_bucket(&home, &["--force", "--yes"]).succeeds();
    is_gone(&home);
}

/// Has a device lose its identity, and drop the bucket.
fn without_its_key(peer: &Peer) -> Outcome {
    peer.stop();
    fs::remove_file(peer.home().path().join("device.key")).unwrap();
    let mounted = peer.home().try_mount(BUCKET, &peer.dir(), &[]).succeeds();
    mounted.says(&["copy out", "--force"]);
    peer.umount();
    drop_bucket(peer.home(), &["--yes"])
}

/// Nothing is said of other devices where there are none; what is in no version yet counts too.
#[test]
fn who_never_shared_a_bucket_hears_nothing_of_other_devices() {
    let peer = Peer::with(&["--publish-quiet", "1h"]);
    peer.write("f", "x");
    peer.kill();
    let home = peer.home();
    home.cairnfs(&["umount", peer.dir().to_str().unwrap()]).succeeds();
    drop_bucket(home, &["--yes"]).exits(9).says(&["1 version and what was changed since"]);
    let dropped = drop_bucket(home, &["--force", "--yes"]).succeeds();
    assert!(!dropped.stderr.contains("member"), "{dropped}");
    is_gone(home);
}

/// What others have cannot be asked then: it is not dropped as if it were elsewhere.
#[test]
fn who_is_no_member_any_more_is_told_to_copy_out_before_it_drops() {
    let alone = Peer::new();
    alone.write("f", "x");
    without_its_key(&alone).exits(9).says(&["no other device has", "--force"]);

    let pair = Pair::new();
    pair.one.write("f", "x");
    pair.meet();
    let told = without_its_key(&pair.other).exits(11);
    told.says(&["under another key", "copy out", "--force"]);

    let removed = Peer::joining(Home::new(), &pair.one, &[]);
    let key = removed.home().cairnfs(&["id", "--json"]).succeeds().json()["key"].clone();
    pair.one.home().cairnfs(&["remove", BUCKET, &key.as_str().unwrap()[..16]]).succeeds();
    eventually("it is told", MEET, || {
        removed.home().cairnfs(&["status"]).succeeds().stdout.contains("was removed")
    });
    removed.umount();
    drop_bucket(removed.home(), &["--yes"]).exits(11).says(&["was removed", "--force", "is lost"]);
}

/// As which of its lives `home` would join the bucket.
fn next_life(home: &Home) -> u32 {
    let text = fs::read_to_string(home.path().join("former.toml")).unwrap_or_default();
    let next = text.lines().find_map(|line| line.strip_prefix("next = "));
    next.map_or(0, |number| number.parse().unwrap())
}

/// What a device did in a life that ended by force is not mistaken for what it does in the next one.
#[test]
fn a_drop_by_force_ends_every_life_that_there_was() {
    let pair = Pair::new();
    let (one, other) = (&pair.one, &pair.other);
    other.stop();
    let (buckets, backup) = (other.home().path().join("buckets"), other.scratch().join("backup"));
    copy(&buckets, &backup);
    other.mount();
    other.write("first", "which the backup lacks");
    pair.meet();
    other.stop();
    fs::remove_dir_all(&buckets).unwrap();
    copy(&backup, &buckets);
    one.stop();
    other.mount();
    other.write("second", "in the life after that");
    one.mount();
    pair.meet();
    other.umount();
    let home = other.home();
    drop_bucket(home, &["--force", "--yes"]).succeeds();
    assert_eq!(next_life(home), 2);

    // How many there were cannot be told without the key.
    home.cairnfs(&["join", &one.invite(&[]), "--no-passphrase", "--name", BUCKET]).succeeds();
    fs::remove_file(buckets.join(BUCKET).join("key")).unwrap();
    drop_bucket(home, &["--force", "--yes"]).succeeds();
    assert!(next_life(home) > 3, "{}", next_life(home));
    home.cairnfs(&["join", &one.invite(&[]), "--no-passphrase", "--name", BUCKET]).succeeds();
    other.mount();
    other.write("third", "in yet another");
    pair.meet();
    assert_eq!(one.names(""), ["first", "second", "third"]);
}

/// What it would write in one more life nobody takes.
#[test]
fn who_has_joined_too_often_is_told_so_and_keeps_its_ticket() {
    let (one, home) = (Peer::new(), Home::new());
    fs::create_dir_all(home.path()).unwrap();
    let id = fs::read_to_string(one.home().path().join("buckets").join(BUCKET).join("id")).unwrap();
    let ticket = one.invite(&[]);
    let join = |next: u32| {
        let former = format!("[[bucket]]\nid = \"{}\"\nnext = {next}\n", id.trim());
        fs::write(home.path().join("former.toml"), former).unwrap();
        home.cairnfs(&["join", &ticket, "--no-passphrase"])
    };
    join(257).exits(1).says(&["too often", "CAIRNFS_HOME"]);
    assert!(!home.path().join("buckets").join(BUCKET).exists());
    join(256).succeeds();
}

#[test]
fn who_sits_at_a_terminal_is_asked_first() {
    let home = Home::new();
    home.create(BUCKET);
    let typed = |answer: &str| terminal::typed(&home, &[answer], &["drop", BUCKET, "--force"]);
    let refused = typed("n");
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stdout.contains("Go on? [y/N]"), "{refused}");
    assert!(home.cairnfs(&["list"]).succeeds().stdout.contains(BUCKET));
    let outcome = typed("y");
    assert_eq!(outcome.code, Some(0), "{outcome}");
    is_gone(&home);
}

/// Killed between the moment when it stops being a bucket and its end.
#[test]
fn what_a_kill_leaves_of_a_bucket_is_none_and_goes_at_the_next_start() {
    let peer = Peer::new();
    peer.write("f", "x");
    let home = peer.home();
    peer.umount();
    home.cairnfs(&["mount", BUCKET, peer.dir().to_str().unwrap(), "--at-start"]).succeeds();
    // Its files go one by one: the second of them late.
    let late = Strace::attach(&peer, "unlinkat", &["unlinkat:delay_enter=60000000:when=2"]);
    peer.umount();
    let dropping = home.start(&["drop", BUCKET, "--force", "--yes"]);
    let aside = home.path().join("buckets").join(format!(".{BUCKET}.dropped"));
    let has_no_key = || {
        let key = fs::read(aside.join("key"));
        key.map_or_else(|_| aside.exists(), |key| key.iter().all(|byte| *byte == 0))
    };
    eventually("it is no bucket any more, and has no key", MEET, has_no_key);
    late.kill();
    dropping.wait(MEET);
    assert!(aside.exists(), "it was not killed in the middle");
    assert_eq!(home.cairnfs(&["list"]).succeeds().stdout, "");
    // Any verb that needs a daemon starts one.
    home.create("another");
    home.cairnfs(&["drop", "another", "--force", "--yes"]).succeeds();
    is_gone(home);
}

#[test]
fn a_removed_device_that_is_invited_anew_joins_again_with_that_ticket_alone() {
    let pair = Pair::new();
    let (one, other) = (&pair.one, &pair.other);
    one.write("f", "x");
    pair.meet();
    let before = one.invite(&[]);
    let key = other.home().cairnfs(&["id", "--json"]).succeeds().json()["key"].clone();
    one.home().cairnfs(&["remove", BUCKET, &key.as_str().unwrap()[..16]]).succeeds();
    one.write("g", "while it was none");
    one.home().cairnfs(&["publish", BUCKET]).succeeds();
    let anew = one.invite(&[]);
    let home = other.home();
    let join = |ticket: &str| home.cairnfs(&["join", ticket, "--no-passphrase", "--name", BUCKET]);
    join(&anew).exits(2).says(&["exists already"]);
    other.umount();
    drop_bucket(home, &["--yes", "--force"]).succeeds();
    join(&before).exits(4).says(&["removed", "new ticket"]);
    join(&anew).succeeds();
    other.mount();
    pair.meet();
    assert_eq!(other.names(""), ["f", "g"]);
    other.write("h", "and now it is one");
    pair.meet();
    assert_eq!(one.read("h"), b"and now it is one");
    let status = home.cairnfs(&["status"]).succeeds();
    assert!(!status.stdout.contains("was removed"), "{status}");
}
