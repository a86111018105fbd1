//! Sharing a bucket, from the command line: what is said on one device alone, and to wrong words.

use cairnfs_tests::{Home, Outcome, Peer, eventually, peer::BUCKET};

/// One line that a person can act on.
#[track_caller]
fn is_one_line(outcome: &Outcome) {
    let lines: Vec<_> = outcome.stderr.lines().collect();
    assert!(matches!(lines.as_slice(), [line] if line.starts_with("cairnfs: ")), "{outcome}");
    assert!(!outcome.stderr.contains("panicked"), "{outcome}");
}

#[test]
fn wrong_usage_of_each_verb_is_exit_code_2_and_changes_nothing() {
    let home = Home::new();
    home.create(BUCKET);
    let before = home.files();
    for line in [
        "conflicts a b",
        "resolve",
        "resolve f",
        "resolve f --keep",
        "strategy",
        "strategy photos sometimes",
        "strategy photos --rule *.md",
        "strategy photos --rule *.md=sometimes",
        "strategy photos --rule [=fork",
        "strategy photos --rule *.md=merge-text --rule *.md=fork",
        "strategy photos --remove-rule",
        "members",
        "members a b",
        "remove photos",
        "invite",
        "invite photos --role king",
        "invite photos --for never",
        "invite photos --for 0s",
        "invite photos --for 366d",
        "invite photos --for 99999999d",
        "invite photos --uses 0",
        "invite photos --uses 1001",
        "join",
        "join ticket --name ../photos",
        "join ticket --no-passphrase --passphrase-file f",
        "rejoin",
        "rejoin a b",
        "drop",
        "drop photos",
        "drop photos --yes=no",
        "drop a b --yes",
        "peers photos",
        "sync photos --timeout soon",
        "sync a b",
        "daemon --listen here",
        "daemon --listen 127.0.0.1",
    ] {
        let args: Vec<_> = line.split(' ').collect();
        let outcome = home.cairnfs(&args).exits(2);
        is_one_line(&outcome);
        assert!(outcome.stdout.is_empty(), "{outcome}");
    }
    assert_eq!(home.files(), before);
}

#[test]
fn settings_of_the_network_are_checked_before_anything_begins() {
    let home = Home::new();
    for (name, value) in [("CAIRNFS_LISTEN", "nowhere"), ("CAIRNFS_DISCOVERY", "perhaps")] {
        let mut command = home.command(&["create", "notes"]);
        command.env(name, value);
        let outcome = cairnfs_tests::run(&mut command, std::time::Duration::from_secs(30)).exits(2);
        is_one_line(&outcome);
        outcome.says(&[name, value]);
    }
}

/// Whoever mounts hears why the daemon did not start, and where its log is.
#[test]
fn a_port_in_use_is_named_by_the_verb_that_starts_the_daemon() {
    let home = Home::new();
    home.create("notes");
    let dir = home.dir("mnt");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = home.command(&["mount", "notes", dir.to_str().unwrap()]);
    command.env("CAIRNFS_LISTEN", &address);
    let outcome = cairnfs_tests::run(&mut command, std::time::Duration::from_secs(30)).exits(5);
    is_one_line(&outcome);
    let log = home.path().join("daemon.log");
    let outcome = outcome.says(&[&format!("cannot listen at {address}: the port is in use")]);
    outcome.says(&[log.to_str().unwrap()]);
}

#[test]
fn an_unknown_bucket_or_path_is_exit_code_3_and_named() {
    let peer = Peer::new();
    let home = peer.home();
    let mount = peer.dir();
    for args in [
        ["conflicts", "nowhere"],
        ["members", "nowhere"],
        ["strategy", "nowhere"],
        ["invite", "nowhere"],
        ["sync", "nowhere"],
        ["rejoin", "nowhere"],
        ["conflicts", "/nowhere/at/all"],
    ] {
        let outcome = home.cairnfs(&args).exits(3);
        is_one_line(&outcome);
        outcome.says(&["nowhere"]);
    }
    home.cairnfs(&["drop", "nowhere", "--yes"]).exits(3).says(&["nowhere"]);
    home.cairnfs(&["drop", "nowhere", "--yes", "--force"]).exits(3).says(&["nowhere"]);
    home.cairnfs(&["remove", "nowhere", "laptop"]).exits(3).says(&["nowhere"]);
    home.cairnfs(&["remove", BUCKET, "no-such-laptop"]).exits(3).says(&["no-such-laptop"]);
    home.cairnfs(&["resolve", "/nowhere/f", "--keep", "ours"]).exits(3).says(&["/nowhere/f"]);
    home.cairnfs(&["resolve", "nowhere", "--all", "--keep", "ours"]).exits(3).says(&["nowhere"]);
    home.cairnfs(&["resolve", "nowhere", "--keep", "ours"]).exits(3).says(&["nowhere"]);
    home.cairnfs(&["resolve", BUCKET, "--keep", "ours"]).exits(2).says(&[BUCKET, "--all"]);
    assert!(mount.join(".").exists());
}

#[test]
fn a_wrong_passphrase_is_exit_code_4() {
    let home = Home::new();
    let scratch = home.scratch();
    std::fs::write(scratch.join("right"), "right\n").unwrap();
    std::fs::write(scratch.join("wrong"), "wrong\n").unwrap();
    let file = |name: &str| format!("--passphrase-file={}", scratch.join(name).display());
    home.cairnfs(&["create", BUCKET, &file("right")]).succeeds();
    // Deriving a key takes its time, so not each verb is asked.
    for verb in ["conflicts", "sync"] {
        let outcome = home.cairnfs(&[verb, BUCKET, &file("wrong")]).exits(4);
        is_one_line(&outcome);
    }
    home.cairnfs(&["members", BUCKET, &file("right")]).succeeds();
}

#[test]
fn nothing_conflicts_on_one_device() {
    let peer = Peer::new();
    let home = peer.home();
    peer.write("f", "x");
    let path = peer.path("f");
    let path = path.to_str().unwrap();
    for args in [vec!["conflicts"], vec!["conflicts", BUCKET], vec!["conflicts", path]] {
        home.cairnfs(&args).succeeds().says(&["no conflicts"]);
    }
    let json = home.cairnfs(&["conflicts", "--json"]).succeeds().json();
    assert_eq!(json["conflicts"].as_array().unwrap().len(), 0, "{json}");
    let outcome = home.cairnfs(&["resolve", path, "--keep", "ours"]).exits(1);
    is_one_line(&outcome);
    outcome.says(&[path, "nothing conflicts"]);
    // All of nothing is settled.
    for args in [&[BUCKET, "--all"][..], &[path, "--all"], &["--all"], &["--all", "--dry-run"]] {
        let resolve = [&["resolve", "--keep", "ours"], args].concat();
        home.cairnfs(&resolve).succeeds().says(&["nothing conflicts"]);
    }
    home.cairnfs(&["resolve", "--keep", "ours"]).exits(2).says(&["PATH"]);
    home.cairnfs(&["resolve", "--all", "--keep", "0123abcd"])
        .exits(2)
        .says(&["ours, theirs or both"]);
    let status = home.cairnfs(&["status"]).succeeds().stdout;
    assert!(status.contains("conflicts     none"), "{status}");
    assert_eq!(peer.read("f"), b"x");
}

#[test]
fn who_makes_a_bucket_owns_it_and_stays() {
    let peer = Peer::new();
    let home = peer.home();
    let key = home.cairnfs(&["id", "--json"]).succeeds().json()["key"].as_str().unwrap().to_owned();
    let members = home.cairnfs(&["members", BUCKET, "--json"]).succeeds().json();
    let members = members["members"].as_array().unwrap();
    assert_eq!(members.len(), 1, "{members:?}");
    assert_eq!(members[0]["key"], *key);
    assert_eq!(members[0]["role"], "owner");
    assert_eq!(members[0]["this_device"], true);
    let text = home.cairnfs(&["members", BUCKET]).succeeds().stdout;
    assert!(text.contains(&key[..16]) && text.contains("this device"), "{text}");
    for dry_run in [false, true] {
        let mut args = vec!["remove", BUCKET, &key[..8]];
        args.extend(dry_run.then_some("--dry-run"));
        home.cairnfs(&args).exits(1).says(&["last owner"]);
    }
    let status = home.cairnfs(&["status", "--json"]).succeeds().json();
    assert_eq!(status["buckets"][0]["role"], "owner", "{status}");
    assert_eq!(status["buckets"][0]["members"], 1, "{status}");
}

#[test]
fn the_device_is_called_as_the_settings_say() {
    let home = Home::new();
    let mut command = home.command(&["id", "--json"]);
    command.env("CAIRNFS_DEVICE_NAME", "kitchen");
    let outcome = cairnfs_tests::run(&mut command, std::time::Duration::from_secs(30)).succeeds();
    assert_eq!(outcome.json()["name"], "kitchen");
}

#[test]
fn without_a_daemon_there_are_no_peers_and_none_is_started() {
    let home = Home::new();
    home.create(BUCKET);
    let json = home.cairnfs(&["peers", "--json"]).succeeds().json();
    assert_eq!(json["peers"].as_array().unwrap().len(), 0, "{json}");
    home.cairnfs(&["sync"]).exits(3).says(&["nothing is mounted"]);
    home.cairnfs(&["invite", BUCKET]).exits(3).says(&["not mounted"]);
    assert!(cairnfs_tests::process::of_home(home.path()).is_empty(), "a daemon was started");
}

#[test]
fn a_name_that_is_taken_is_refused_before_the_ticket_is_used() {
    let home = Home::new();
    home.create(BUCKET);
    let outcome = home.cairnfs(&["join", "ticket", "--no-passphrase", "--name", BUCKET]).exits(2);
    is_one_line(&outcome);
    outcome.says(&[BUCKET, "exists"]);
}

/// Whether the daemon keeps the bucket for other devices.
fn is_kept(home: &Home) -> bool {
    let status = home.cairnfs(&["status", BUCKET, "--json"]).succeeds().json();
    status["buckets"][0]["kept"] == true
}

#[test]
fn a_daemon_of_its_own_keeps_what_is_not_mounted_for_other_devices() {
    let home = Home::new();
    home.create(BUCKET);
    let limit = std::time::Duration::from_secs(30);
    let mut daemon = home.start(&["daemon"]);
    eventually("the bucket is kept", limit, || is_kept(&home));
    let status = home.cairnfs(&["status"]).succeeds().stdout;
    assert!(status.contains("kept for other devices"), "{status}");
    // Whoever wants it here gets it, and gives it back.
    home.cairnfs(&["check", BUCKET]).succeeds();
    home.cairnfs(&["members", BUCKET]).succeeds();
    home.cairnfs(&["check", BUCKET, "--repair"]).succeeds();
    eventually("the bucket is kept after a repair", limit, || is_kept(&home));
    let dir = home.dir("mnt");
    home.mount(BUCKET, &dir, &[]);
    assert!(!is_kept(&home), "kept and mounted");
    std::fs::write(dir.join("f"), "x").unwrap();
    home.umount_once_free(&dir).succeeds();
    eventually("the bucket is kept after a mount", limit, || is_kept(&home));
    home.mount(BUCKET, &dir, &[]);
    assert_eq!(std::fs::read(dir.join("f")).unwrap(), b"x");
    home.umount_once_free(&dir).succeeds();
    home.cairnfs(&["stop"]).succeeds();
    eventually("the daemon ends", limit, || daemon.ended());
}

#[test]
fn a_daemon_that_a_verb_started_keeps_nothing_but_what_is_mounted() {
    let peer = Peer::new();
    peer.home().create("second");
    peer.umount();
    let status = peer.home().cairnfs(&["status", "--json"]).succeeds().json();
    for bucket in status["buckets"].as_array().unwrap() {
        assert_eq!(bucket["kept"], false, "{status}");
    }
}

#[test]
fn a_strategy_is_kept_with_its_rules_in_their_order() {
    let peer = Peer::new();
    let home = peer.home();
    let strategy = |args: &[&str]| home.cairnfs(&[&["strategy", BUCKET][..], args].concat());
    assert_eq!(strategy(&[]).succeeds().stdout, "conflict-file\n");
    let planned = ["merge-text", "--rule", "*.db=last-write-wins", "--rule", "*=fork"];
    strategy(&[&planned[..], &["--dry-run"]].concat()).succeeds().says(&["nothing was changed"]);
    assert_eq!(strategy(&[]).succeeds().stdout, "conflict-file\n");
    strategy(&planned).succeeds();
    let expected = "merge-text\nlast-write-wins for *.db\nfork for *\n";
    assert_eq!(strategy(&[]).succeeds().stdout, expected);
    peer.kill_and_remount();
    assert_eq!(strategy(&[]).succeeds().stdout, expected);
    peer.umount();
    let json = strategy(&["--remove-rule", "*.db", "--json"]).succeeds().json();
    assert_eq!(json["strategy"], "merge-text", "{json}");
    assert_eq!(json["rules"], serde_json::json!([{ "glob": "*", "strategy": "fork" }]));
    assert_eq!(strategy(&[]).succeeds().stdout, "merge-text\nfork for *\n");
    strategy(&["--remove-rule", "*.db"]).exits(2).says(&["*.db"]);
}

#[test]
fn status_and_peers_say_in_the_same_words_that_the_daemon_does_not_listen() {
    let (home, says) = (Home::new(), "as the setting 'listen' wants it");
    home.create(BUCKET);
    let dir = home.dir("mnt");
    // An address that is for documentation.
    let mut mount = home.command(&["mount", BUCKET, dir.to_str().unwrap()]);
    mount.env("CAIRNFS_LISTEN", "192.0.2.1:7117");
    cairnfs_tests::run(&mut mount, std::time::Duration::from_secs(30)).succeeds();
    let line = format!("not listening: this machine has no address 192.0.2.1, {says}");
    for verb in ["peers", "status"] {
        let said = home.cairnfs(&[verb]).succeeds().stdout;
        assert!(said.lines().any(|it| it == line), "{said}");
        let document = home.cairnfs(&[verb, "--json"]).succeeds().json();
        assert_eq!(document["not_listening"], line["not listening: ".len()..], "{document}");
    }
    home.cairnfs(&["stop"]).succeeds();
    home.mount(BUCKET, &dir, &[]);
    let said = home.cairnfs(&["status"]).succeeds().stdout;
    assert!(!said.contains("listening"), "{said}");
    let document = home.cairnfs(&["status", "--json"]).succeeds().json();
    assert_eq!(document["not_listening"], serde_json::Value::Null, "{document}");
}
