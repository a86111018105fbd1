//! Who has a bucket and may do what, and how those hear of it.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use cairnfs_tests::{Home, Pair, Peer, eventually, peer::BUCKET};

use crate::two_machines::{ARRIVE, with_a_reader};

/// What names a device to the verbs.
fn key(home: &Home) -> String {
    let id = home.cairnfs(&["id", "--json"]).succeeds().json();
    id["key"].as_str().unwrap()[..16].to_owned()
}

#[test]
fn a_device_that_still_shares_another_bucket_is_told_that_it_was_removed() {
    let pair = Pair::new();
    let (one, other) = (pair.one.home(), pair.other.home());
    one.cairnfs(&["create", "second", "--no-passphrase"]).succeeds();
    let dir = one.dir("second");
    one.mount("second", &dir, &[]);
    let ticket = one.cairnfs(&["invite", "second"]).succeeds().stdout;
    other.cairnfs(&["join", ticket.trim(), "--no-passphrase"]).succeeds();
    let there = other.dir("second");
    other.mount("second", &there, &[]);
    one.cairnfs(&["remove", "second", &key(other)]).succeeds();
    let said = "this device was removed from bucket 'second' by its members";
    eventually("it is told", ARRIVE, || {
        other.cairnfs(&["status"]).succeeds().stdout.contains(said)
    });
    other.cairnfs(&["sync", "second"]).exits(11).says(&[said]);
    let peers = other.cairnfs(&["peers", "--json"]).succeeds().json();
    assert_eq!(peers["peers"][0]["removed_from"], serde_json::json!(["second"]), "{peers}");
    assert_eq!(peers["peers"][0]["connected"], true, "{peers}");
    // What they share still is shared.
    pair.one.write("f", "for both");
    pair.meet();
    assert_eq!(pair.other.read("f"), b"for both");
    // Let in again it hears so too.
    let ticket = one.cairnfs(&["invite", "second"]).succeeds().stdout;
    other.umount_once_free(&there).succeeds();
    other.cairnfs(&["drop", "second", "--yes", "--force"]).succeeds();
    other.cairnfs(&["join", ticket.trim(), "--no-passphrase"]).succeeds();
    other.mount("second", &there, &[]);
    other.cairnfs(&["sync", "second", "--timeout", "30s"]).succeeds();
    let status = other.cairnfs(&["status"]).succeeds().stdout;
    assert!(!status.contains(said), "{status}");
}

/// So the bucket outlives the machine that made it.
#[test]
fn an_owner_makes_another_who_goes_on_without_it() {
    let pair = Pair::new();
    let (one, other) = (pair.one.home(), pair.other.home());
    let alone = one.cairnfs(&["members", BUCKET]).succeeds();
    alone.says(&["is the only owner", &format!("cairnfs role {BUCKET} DEVICE owner")]);
    other.cairnfs(&["role", BUCKET, &key(other), "owner"]).exits(1).says(&["only an owner"]);
    one.cairnfs(&["role", BUCKET, &key(one), "writer"]).exits(1).says(&["must keep an owner"]);
    one.cairnfs(&["role", BUCKET, &key(other), "king"]).exits(2).says(&["owner"]);
    let dry = one.cairnfs(&["role", BUCKET, &key(other), "owner", "--dry-run"]).succeeds();
    assert!(dry.stdout.contains("would make"), "{dry}");
    one.cairnfs(&["role", BUCKET, &key(other), "owner"]).succeeds().says(&["is owner of bucket"]);
    one.cairnfs(&["role", BUCKET, &key(other), "owner"]).succeeds().says(&["is that already"]);
    pair.meet();
    pair.one.stop();
    other.cairnfs(&["remove", BUCKET, &key(one)]).succeeds();
    let third = Peer::joining(Home::new(), &pair.other, &[]);
    third.write("f", "without the first");
    eventually("it arrives", ARRIVE, || pair.other.names("") == ["f"]);
}

/// Also of what is mounted: but what the kernel was told is read-only has to be mounted anew.
#[test]
fn a_role_holds_from_when_its_device_hears_of_it() {
    let pair = Pair::new();
    let (one, other) = (pair.one.home(), key(pair.other.home()));
    let write = |name: &str| fs::write(pair.other.path(name), "x");
    for (role, may) in [("reader", false), ("writer", true)] {
        one.cairnfs(&["role", BUCKET, &other, role]).succeeds();
        eventually("it hears of it", ARRIVE, || write(role).is_ok() == may);
    }
    eventually("it arrives", ARRIVE, || pair.one.names("").contains(&"writer".to_owned()));

    let (one, home, dir) = with_a_reader();
    home.mount(BUCKET, &dir, &[]);
    one.home().cairnfs(&["role", BUCKET, &key(&home), "writer"]).succeeds();
    eventually("it hears of it", ARRIVE, || {
        let status = home.cairnfs(&["status", BUCKET, "--json"]).succeeds().json();
        status["buckets"][0]["role"] == "writer"
    });
    home.umount_once_free(&dir).succeeds();
    home.mount(BUCKET, &dir, &[]);
    fs::write(dir.join("by-it"), "x").unwrap();
    eventually("it arrives", ARRIVE, || one.names("").contains(&"by-it".to_owned()));
}

/// The way out that the guide tells: on a new machine in the place of the old one, as others find it there.
#[test]
fn the_only_owner_is_made_again_of_its_device_key_and_of_what_another_has() {
    let pair = Pair::new();
    pair.one.write("f", "of both");
    pair.meet();
    let home = pair.one.home();
    let key = home.path().join("device.key");
    let kept = fs::read(&key).unwrap();
    pair.one.stop();
    pair.other.write("g", "since it was lost");
    pair.other.stop();
    for entry in fs::read_dir(home.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }

    let bucket = format!("buckets/{BUCKET}");
    let [from, to] = [pair.other.home(), home].map(|home| home.path().join(&bucket));
    fs::create_dir(to.parent().unwrap()).unwrap();
    let copied = Command::new("cp").arg("-a").args([&from, &to]).status().unwrap();
    assert!(copied.success());
    fs::write(&key, kept).unwrap();
    fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    pair.other.mount();
    let rejoin = ["rejoin", BUCKET, "--force"];
    eventually("the other is reached", ARRIVE, || home.cairnfs(&rejoin).code == Some(0));
    pair.one.mount();
    assert_eq!(pair.one.names(""), ["f", "g"]);
    let members = home.cairnfs(&["members", BUCKET, "--json"]).succeeds().json();
    let this = members["members"].as_array().unwrap().iter().find(|it| it["this_device"] == true);
    assert_eq!(this.unwrap()["role"], "owner", "{members}");
    let third = Peer::joining(Home::new(), &pair.one, &[]);
    third.write("h", "of a third");
    pair.one.write("i", "of who is back");
    for peer in [&pair.one, &pair.other, &third] {
        eventually("all arrives", ARRIVE, || peer.names("") == ["f", "g", "h", "i"]);
    }
}
