//! What `status` says of a bucket that is not as it should be.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
    time::Duration,
};

use cairnfs_tests::{
    Home, Image, Peer, Strace, data, eventually, need,
    peer::{BUCKET, UNASKED_NOTHING},
    run,
};
use rustix::fs::{Advice, fadvise};

use crate::damage::{damage, end_of_packs};

const SOON: Duration = Duration::from_secs(60);

/// `status`, as text and as a document of the bucket.
fn status(peer: &Peer) -> (String, serde_json::Value) {
    let text = peer.home().cairnfs(&["status"]).succeeds().stdout;
    let json = peer.home().cairnfs(&["status", "--json"]).succeeds().json();
    (text, json["buckets"][0].clone())
}

#[track_caller]
fn says_damaged(peer: &Peer, what: &str) {
    let (text, json) = status(peer);
    assert!(text.lines().next().unwrap().ends_with("; damaged: 'photos'"), "{text}");
    assert!(text.contains(&format!("  health        damaged: {what}, found")), "{text}");
    assert!(text.contains("'cairnfs check photos'"), "{text}");
    assert_eq!((&json["health"], &json["health_reason"]), (&"damaged".into(), &what.into()));
    assert!(json["damage_found"].is_string(), "{json}");
}

/// Reads up to the first piece that is damaged, and no further: read ahead, the kernel asks for several at
/// once, and is still being answered after the reader was.
#[track_caller]
fn meet_damage(path: &Path) {
    let file = File::open(path).unwrap();
    fadvise(&file, 0, None, Advice::Random).unwrap();
    let mut places = (0..file.metadata().unwrap().len()).step_by(4_096);
    assert!(
        places.any(|place| file.read_at(&mut [0; 4_096], place).is_err()),
        "nothing is damaged"
    );
}

/// Damage that a reader met, or a check found, is said until a check finds none, whether the bucket is
/// mounted or not, and after a restart of the daemon.
#[test]
fn damage_is_said_until_a_check_finds_none() {
    let peer = Peer::with(&UNASKED_NOTHING);
    let (_, from) = end_of_packs(peer.home());
    peer.write("victim", data::bytes(1, 4 << 20));
    peer.wait_safe();
    let (pack, _) = end_of_packs(peer.home());
    peer.check().succeeds();
    peer.stop();
    let flip = || {
        let places = (from + (2 << 20)..from + (3 << 20)).step_by(16 << 10);
        places.for_each(|place| damage(&pack, place));
    };
    flip();
    peer.mount();
    assert!(!status(&peer).0.contains("damaged"), "nobody has met it yet");
    meet_damage(&peer.path("victim"));
    says_damaged(&peer, "1 piece could not be read");
    peer.stop();
    says_damaged(&peer, "1 piece could not be read");
    let found = peer.check().exits(8);
    let count = found.stderr.split("'photos': ").nth(1).unwrap().trim().to_owned();
    assert!(count.ends_with(" found"), "{found}");
    says_damaged(&peer, &count);
    peer.mount();
    says_damaged(&peer, &count);
    meet_damage(&peer.path("victim"));
    // The same bits once more.
    flip();
    peer.check().succeeds();
    let (text, json) = status(&peer);
    assert!(text.starts_with("safe: yes, everything written is saved\n"), "{text}");
    assert!(text.contains("  health        good"), "{text}");
    assert_eq!(json["health"], "good");
    assert!(json["damage_found"].is_null(), "{json}");
    assert_eq!(peer.read("victim"), data::bytes(1, 4 << 20));
}

/// A bucket whose `join` was cut short says so, and what to do, until its first version is here.
#[test]
fn a_bucket_without_its_first_version_says_what_to_do() {
    let (home, one) = (Home::on(Image::tmpfs(12)), Peer::new());
    one.write("large", data::bytes(1, 20_000_000));
    one.home().cairnfs(&["publish", BUCKET]).succeeds();
    let join = ["join", &one.invite(&[]), "--passphrase-command", "echo word"];
    home.cairnfs(&join).exits(12);
    let status = || home.cairnfs(&["status"]).succeeds().stdout;
    let awaits = || {
        let json = home.cairnfs(&["status", "--json"]).succeeds().json();
        json["buckets"][0]["awaits_first_version"].as_bool().unwrap()
    };
    assert!(status().contains("first one is not here yet: 'cairnfs sync photos'"), "{}", status());
    home.cairnfs(&["stop"]).succeeds();
    assert!(status().contains("first one is not here yet") && awaits());
    let list = home.cairnfs(&["list"]).succeeds().stdout;
    assert!(list.contains("joining it was cut off"), "{list}");
    let mut grow = Command::new("mount");
    run(grow.args(["-o", "remount,size=96m"]).arg(home.image().path()), SOON).succeeds();
    home.cairnfs(&["sync", BUCKET, "--passphrase-command", "echo word"]).succeeds();
    assert!(!status().contains("first one") && !awaits(), "{}", status());
}

/// It is still mounted, and takes nothing any more.
#[test]
fn a_bucket_whose_folder_goes_while_it_is_mounted_is_not_safe() {
    let peer = Peer::new();
    let home = peer.home();
    peer.write("f", "x");
    let (there, away) = (home.path().join("buckets").join(BUCKET), home.beside("away"));
    fs::rename(&there, &away).unwrap();
    let (text, json) = status(&peer);
    assert!(text.starts_with("safe: no, 'photos': its folder was moved or deleted"), "{text}");
    assert_eq!((&json["mounted"], &json["safe"]), (&true.into(), &false.into()));
    assert_eq!(json["health"], "failed", "{json}");
    let list = home.cairnfs(&["list"]).succeeds().stdout;
    assert!(list.contains("photos"), "{list}");
    fs::rename(&away, &there).unwrap();
    assert!(status(&peer).0.starts_with("safe: yes"));
}

/// What was to be mounted when the daemon started and could not be is told by `status` and `list` until
/// it is mounted.
#[test]
fn a_mount_that_failed_at_start_is_told() {
    let home = Home::new();
    home.create(BUCKET);
    let dir = home.dir("mnt");
    home.mount(BUCKET, &dir, &["--at-start"]);
    home.cairnfs(&["stop"]).succeeds();
    fs::write(dir.join("in the way"), "").unwrap();
    let mut daemon = home.start(&["daemon"]);
    let status = || home.cairnfs(&["status"]).succeeds().stdout;
    eventually("the daemon tells of it", SOON, || {
        assert!(!daemon.ended());
        status().contains("at start      could not be mounted at")
    });
    assert!(status().contains("not empty"), "{}", status());
    assert!(home.cairnfs(&["list"]).succeeds().stdout.contains("not empty"));
    for verb in ["status", "list"] {
        let json = home.cairnfs(&[verb, "--json"]).succeeds().json();
        let why = json["buckets"][0]["at_start_error"].as_str().unwrap().to_owned();
        assert!(why.contains("not empty"), "{verb}: {why}");
    }
    fs::remove_file(dir.join("in the way")).unwrap();
    home.mount(BUCKET, &dir, &[]);
    home.umount(&dir).succeeds();
    assert!(!status().contains("could not be mounted"), "{}", status());
    home.cairnfs(&["stop"]).succeeds();
    daemon.wait(SOON);
}

/// What was found of a bucket and what is to be mounted at start, where that cannot be read, do not count
/// as nothing.
#[test]
fn what_status_cannot_read_it_says() {
    let home = Home::new();
    home.create(BUCKET);
    let bucket = home.path().join("buckets").join(BUCKET);
    let status = || home.cairnfs(&["status"]).succeeds().stdout;
    let json = || home.cairnfs(&["status", "--json"]).succeeds().json();
    assert_eq!(json()["buckets"][0]["health"], "good");
    assert!(json()["at_start_error"].is_null(), "{}", status());
    fs::write(bucket.join("remarks.toml"), "not toml").unwrap();
    fs::write(home.path().join("at-start.toml"), "not toml").unwrap();
    assert!(status().contains("nothing is mounted at start: "), "{}", status());
    assert!(status().contains("what was found of it before cannot be told: "), "{}", status());
    assert!(status().contains("'cairnfs check photos'"), "{}", status());
    assert_eq!(json()["buckets"][0]["health"], "failed");
    assert!(json()["at_start_error"].as_str().unwrap().contains("at-start.toml"));
}

/// Unmounts past the daemon, as soon as no process that another test is just starting has files open there.
#[track_caller]
fn unmounted_by_others(peer: &Peer) {
    eventually("it is unmounted", SOON, || {
        let outcome = run(Command::new("umount").arg(peer.dir()), SOON);
        assert!(outcome.code == Some(0) || outcome.stderr.contains("busy"), "{outcome}");
        outcome.code == Some(0)
    });
}

/// What is unsaved when others unmount it is being saved: who waits for that hears how it ended.
#[test]
fn who_waits_while_others_unmount_hears_how_it_ended() {
    for (inject, code) in [("delay_enter=5000000", 0), ("error=EIO", 9)] {
        let peer = Peer::with(&["--save", "interval:1h"]);
        peer.write("f", data::bytes(1, 2_000_000));
        let tampering = format!("fdatasync,fsync:{inject}");
        let strace = Strace::attach(&peer, Strace::BARRIERS, &[&tampering]);
        unmounted_by_others(&peer);
        if code == 0 {
            eventually("it is being saved", SOON, || strace.holds_at_a_barrier("writer"));
        }
        let waited = peer.home().cairnfs(&["status", "--wait-safe"]).exits(code);
        assert!(!waited.stderr.contains("stopping"), "{waited}");
        strace.detach();
        if code == 0 {
            assert!(waited.stdout.starts_with("safe: yes"), "{waited}");
            assert!(waited.stdout.contains("photos: not mounted"), "{waited}");
            peer.kill();
            peer.mount();
            assert_eq!(peer.read("f"), data::bytes(1, 2_000_000));
        }
    }
}

/// What could not be saved when others unmounted it is said until it is mounted again.
#[test]
fn what_was_lost_when_others_unmounted_is_said_until_it_is_mounted_again() {
    let peer = Peer::with(&["--save", "interval:1h"]);
    peer.write("f", data::bytes(1, 2_000_000));
    let strace = Strace::attach(&peer, Strace::BARRIERS, &["fdatasync,fsync:error=EIO"]);
    unmounted_by_others(&peer);
    eventually("the mount has ended", SOON, || status(&peer).1["mounted"] == false);
    strace.detach();
    let (text, json) = status(&peer);
    assert!(text.starts_with("safe: no, 'photos': what was not saved when it was unm"), "{text}");
    assert!(text.contains("  health        what was not saved when it was unmounted"), "{text}");
    assert_eq!((&json["safe"], &json["health"]), (&false.into(), &"failed".into()), "{json}");
    peer.home().cairnfs(&["status", "--wait-safe"]).exits(9).says(&["is lost"]);
    peer.mount();
    assert!(status(&peer).0.starts_with("safe: yes"));
    peer.umount();
    assert!(status(&peer).0.starts_with("safe: yes"));
    peer.home().cairnfs(&["status", "--wait-safe"]).succeeds();
}

/// Whoever has lost the device's key can read all, and is told what helps.
#[test]
fn a_device_whose_key_is_another_one_is_told_so_and_reads() {
    let peer = Peer::new();
    peer.write("f", "kept");
    peer.stop();
    let (key, away) = (peer.home().path().join("device.key"), peer.home().path().join("away"));
    fs::rename(&key, &away).unwrap();
    let mounted = peer.home().try_mount(BUCKET, &peer.dir(), &[]).succeeds();
    assert!(mounted.stderr.contains("knows this device under another key"), "{mounted}");
    assert_eq!(peer.read("f"), b"kept");
    assert!(status(&peer).0.contains("read-only, as this device is no member of the bucket"));
    peer.stop();
    fs::rename(&away, &key).unwrap();
    peer.mount();
    peer.write("f", "written");
}

#[test]
fn a_lost_id_file_does_not_keep_a_bucket_from_opening() {
    let peer = Peer::new();
    peer.write("f", "kept");
    peer.stop();
    let id = peer.home().path().join("buckets").join(BUCKET).join("id");
    let was = fs::read(&id).unwrap();
    fs::remove_file(&id).unwrap();
    peer.mount();
    assert_eq!((fs::read(&id).unwrap(), peer.read("f")), (was, b"kept".to_vec()));
}

/// What was unmounted and is in use still, which `umount` cannot see, is said by all that need the bucket.
#[test]
fn a_bucket_that_is_in_use_after_it_was_unmounted_is_said_to_be() {
    need::root("mount(8)");
    let peer = Peer::new();
    fs::create_dir(peer.path("d")).unwrap();
    let bound = peer.home().dir("bound");
    let bind = Command::new("mount").arg("--bind").args([&peer.path("d"), &bound]).status();
    assert!(bind.unwrap().success());
    let dir = peer.dir();
    let dir = dir.to_str().unwrap();
    let umount = peer.home().umount_once_free(&peer.dir()).succeeds();
    umount.says(&["unmounted", "bucket 'photos' is still in use", "bind mount"]);

    let (text, json) = status(&peer);
    let said = format!("photos: unmounted, but still in use, at {dir}, ");
    assert!(text.contains(&said), "{text}");
    assert_eq!((&json["mounted"], &json["still_in_use"]), (&false.into(), &dir.into()), "{json}");
    let list = peer.home().cairnfs(&["list"]).succeeds().stdout;
    assert!(list.contains(&format!("  unmounted, but still in use, at {dir}\n")), "{list}");
    let why = [&*format!("was unmounted at {dir}, but is still in use"), "bind mount"];
    peer.check().exits(5).says(&why);
    peer.home().try_mount(BUCKET, &peer.dir(), &[]).exits(5).says(&why);

    let unbound = Command::new("umount").arg(&bound).status();
    assert!(unbound.unwrap().success());
    peer.mount();
    let (text, json) = status(&peer);
    assert!(text.contains("photos: mounted at ") && json["still_in_use"].is_null(), "{text}");
    let umount = peer.home().umount_once_free(&peer.dir()).succeeds();
    assert!(!umount.stderr.contains("in use"), "{umount}");
    let list = peer.home().cairnfs(&["list"]).succeeds().stdout;
    assert!(list.ends_with("  not mounted\n"), "{list}");
}

/// What cannot be opened is not called good, as `list` says why.
#[test]
fn a_bucket_that_cannot_be_opened_is_said_to_be() {
    let home = Home::new();
    home.create(BUCKET);
    let key = home.path().join("buckets").join(BUCKET).join("key");
    let aside = home.scratch().join("key");
    fs::rename(&key, &aside).unwrap();
    let list = home.cairnfs(&["list"]).succeeds().stdout;
    let text = home.cairnfs(&["status"]).succeeds().stdout;
    let json = home.cairnfs(&["status", "--json"]).succeeds().json();
    let (json, health) = (&json["buckets"][0], text.lines().last().unwrap());
    let why = health.strip_prefix("  health        ").unwrap_or_else(|| panic!("{text}"));
    assert!(why.contains("key") && list.trim_end().ends_with(why), "{text}{list}");
    assert_eq!((&json["health"], &json["health_reason"]), (&"failed".into(), &why.into()));
    fs::rename(&aside, &key).unwrap();
    let json = home.cairnfs(&["status", "--json"]).succeeds().json();
    assert_eq!(json["buckets"][0]["health"], "good");
}
