//! A daemon that died, or that does not answer, is told by every verb that needs it.

use std::{fs, time::Duration};

use cairnfs_tests::{Home, Peer, eventually, mounts, peer::BUCKET, process};
use rustix::process::Signal;

/// Whatever was not saved when a daemon died is lost, and `status` does not call that safe.
#[test]
fn a_mount_whose_daemon_died_is_not_safe() {
    let home = Home::new();
    home.create(BUCKET);
    let dir = home.dir("mnt");
    home.mount(BUCKET, &dir, &["--save", "interval:1h"]);
    fs::write(dir.join("f"), "never saved").unwrap();
    home.kill();
    let outcome = home.cairnfs(&["status", "--wait-safe"]).exits(9);
    assert!(outcome.stdout.starts_with("safe: no"), "{outcome}");
    let outcome = outcome.says(&[BUCKET, "its daemon died", "lost"]);
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
    let json = home.cairnfs(&["status", BUCKET, "--wait-safe", "--json"]).exits(9).json();
    assert_eq!(json["safe"], false, "{json}");
    let bucket = &json["buckets"][0];
    assert_eq!(bucket["safe"], false, "{json}");
    assert_eq!(bucket["dead_mount"], true, "{json}");
    assert_eq!(bucket["health"], "failed", "{json}");
    assert!(bucket["health_reason"].is_string(), "{json}");
    // Whoever was told of it goes on.
    home.umount(&dir).succeeds();
    home.cairnfs(&["status", "--wait-safe"]).succeeds();
}

/// A bucket of the same name in another home is another one.
#[test]
fn a_dead_mount_is_that_of_the_home_whose_daemon_died() {
    let [alive, dead] = [Peer::new(), Peer::new()];
    alive.home().umount(&alive.dir()).succeeds();
    dead.home().kill();
    let status = |peer: &Peer| peer.home().cairnfs(&["status", "--json"]).succeeds().json();
    assert_eq!(status(&alive)["safe"], true);
    assert_eq!(status(&dead)["safe"], false);
    let told = |peer: &Peer| {
        let doctor = peer.home().cairnfs(&["doctor"]);
        doctor.stdout.contains(dead.dir().to_str().unwrap())
    };
    assert!(!told(&alive) && told(&dead));
    // What was taken away leaves nothing behind.
    dead.home().umount(&dead.dir()).succeeds();
    for peer in [&alive, &dead] {
        assert_eq!(fs::read_dir(peer.home().path().join("run/mounts")).unwrap().count(), 0);
        assert_eq!(status(peer)["safe"], true);
    }
}

/// A daemon that stands still is named after two seconds, and nobody has to wait for it for ever.
#[test]
fn a_daemon_that_does_not_answer_is_named() {
    let peer = Peer::new();
    peer.write("f", "x");
    let (home, pid, dir) = (peer.home(), peer.pid(), peer.dir());
    let dir = dir.to_str().unwrap();
    process::stand_still(pid);
    let line = format!("the daemon (process {pid}) does not answer");
    let begun = |args: &[&str]| home.start(args);
    let bounded = [
        (begun(&["umount", dir, "--timeout", "1s"]), 9),
        (begun(&["sync", "--timeout", "3s"]), 1),
        (begun(&["status"]), 1),
        (begun(&["list"]), 1),
        (begun(&["peers"]), 1),
    ];
    let patient = begun(&["umount", dir]);
    let interrupted = begun(&["stop"]);
    for (verb, code) in bounded {
        let outcome = verb.wait(Duration::from_secs(30)).exits(code);
        let last = outcome.stderr.lines().last().unwrap_or_default();
        assert_eq!(last, format!("cairnfs: {line}"), "{outcome}");
    }
    assert_eq!(patient.stderr_so_far(), format!("{line}, still waiting\n"));
    interrupted.signal(Signal::INT);
    interrupted.wait(Duration::from_secs(10)).exits(130).says(&[&line]);
    // It was waited for, and goes on where it stood.
    process::signal(pid, Signal::CONT);
    patient.wait(Duration::from_secs(30)).succeeds();
}

#[test]
fn a_mount_point_whose_daemon_died_answers_with_an_error_until_it_is_mounted_again() {
    let peer = Peer::new();
    peer.write("f", "x");
    peer.kill();
    let looked = fs::read_dir(peer.dir());
    assert!(looked.is_err(), "it looks like an empty bucket: a backup would mirror that");
    assert!(fs::write(peer.path("g"), "y").is_err(), "it takes files that go nowhere");
    // As the user would: no unmounting first.
    peer.mount();
    assert_eq!(peer.names(""), ["f"]);
    peer.umount();
    assert!(!mounts::is_mounted(&peer.dir()), "the dead mount was left below");
}

#[test]
fn a_dead_mount_point_can_be_unmounted() {
    let peer = Peer::new();
    peer.write("f", "x");
    peer.kill();
    peer.home().umount(&peer.dir()).succeeds();
    assert!(!mounts::is_mounted(&peer.dir()));
    peer.mount();
    assert_eq!(peer.read("f"), b"x");
}

#[test]
fn several_buckets_and_mounts_are_served_by_one_daemon() {
    let home = Home::new();
    let mut dirs = Vec::new();
    for name in ["one", "two", "three"] {
        home.create(name);
        let dir = home.dir(&format!("mnt-{name}"));
        home.mount(name, &dir, &[]);
        fs::write(dir.join("f"), name).unwrap();
        dirs.push((name, dir));
    }
    assert_eq!(process::of_home(home.path()).len(), 1);
    home.kill();
    for (name, dir) in &dirs {
        home.mount(name, dir, &[]);
        assert_eq!(fs::read(dir.join("f")).unwrap(), name.as_bytes());
    }
    // Unmounting one leaves the others alone.
    home.umount_once_free(&dirs[0].1).succeeds();
    assert_eq!(fs::read(dirs[1].1.join("f")).unwrap(), b"two");
    home.cairnfs(&["stop"]).succeeds();
    eventually("everything is unmounted", Duration::from_secs(20), || {
        dirs.iter().all(|(_, dir)| !mounts::is_mounted(dir))
    });
}
