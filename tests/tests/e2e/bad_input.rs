//! A bad argument is said in one line that names it, with the exit code of its kind, and changes
//! nothing.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, path::Path, process::Command, time::Duration};

use cairnfs_tests::{Home, Peer, eventually, mounts, peer::BUCKET, process, run, terminal};

/// One line that a person can act on, or those that clap has for a wrong use of it; no panic, no
/// backtrace.
#[track_caller]
fn is_plain(outcome: &cairnfs_tests::Outcome) {
    for word in ["panicked", "backtrace", "RUST_BACKTRACE", "unwrap"] {
        assert!(!outcome.stderr.contains(word), "not for people: {outcome}");
    }
    assert!(!outcome.stderr.trim().is_empty(), "says nothing: {outcome}");
    let lines = outcome.stderr.lines().count();
    let most = if outcome.stderr.contains("\nUsage: ") { 8 } else { 1 };
    assert!(lines <= most, "says it in {lines} lines: {outcome}");
}

#[test]
fn a_second_daemon_says_which_process_holds_the_home() {
    let peer = Peer::new();
    let pid = peer.pid();
    let second = peer.home().cairnfs(&["daemon"]).exits(5);
    is_plain(&second);
    second.says(&[&pid.to_string()]);
    peer.write("f", "still served");
    assert_eq!(peer.pid(), pid);
}

#[test]
fn of_several_daemons_started_at_once_one_is_left() {
    let home = Home::new();
    home.create(BUCKET);
    let mut daemons: Vec<_> = (0..4).map(|_| home.start(&["daemon"])).collect();
    eventually("all but one have ended", Duration::from_secs(30), || {
        daemons.iter_mut().filter_map(|daemon| (!daemon.ended()).then_some(())).count() <= 1
    });
    assert_eq!(daemons.iter_mut().filter_map(|d| (!d.ended()).then_some(())).count(), 1);
    let dir = home.dir("mnt");
    home.mount(BUCKET, &dir, &[]);
    fs::write(dir.join("f"), "x").unwrap();
}

#[test]
fn a_mount_point_that_is_missing_is_named() {
    let home = Home::new();
    home.create(BUCKET);
    let dir = home.beside("nowhere");
    let outcome = home.try_mount(BUCKET, &dir, &[]).exits(6);
    is_plain(&outcome);
    outcome.says(&["nowhere"]);
    assert!(!dir.exists(), "the mount point was made");
}

#[test]
fn a_mount_point_that_is_not_a_directory_is_named() {
    let home = Home::new();
    home.create(BUCKET);
    let file = home.beside("file");
    fs::write(&file, "x").unwrap();
    let outcome = home.try_mount(BUCKET, &file, &[]).exits(6);
    is_plain(&outcome);
    outcome.says(&["file"]);
}

#[test]
fn a_mount_point_that_is_not_empty_is_named_and_left_alone() {
    let home = Home::new();
    home.create(BUCKET);
    let dir = home.dir("mnt");
    fs::write(dir.join("mine"), "x").unwrap();
    let outcome = home.try_mount(BUCKET, &dir, &[]).exits(6);
    is_plain(&outcome);
    outcome.says(&["empty"]);
    assert!(!mounts::is_mounted(&dir));
    assert_eq!(fs::read(dir.join("mine")).unwrap(), b"x");
}

#[test]
fn a_mount_point_that_is_already_mounted_is_said_and_the_first_mount_goes_on() {
    let peer = Peer::new();
    peer.write("f", "x");
    let outcome = peer.home().try_mount(BUCKET, &peer.dir(), &[]).exits(6);
    is_plain(&outcome);
    assert_eq!(mounts::below(&peer.dir()).len(), 1);
    assert_eq!(peer.read("f"), b"x");
}

#[test]
fn a_mount_point_of_another_bucket_is_busy() {
    let peer = Peer::new();
    peer.home().create("other");
    let outcome = peer.home().try_mount("other", &peer.dir(), &[]).exits(6);
    is_plain(&outcome);
    assert_eq!(mounts::below(&peer.dir()).len(), 1);
    peer.write("f", "of the first");
}

#[test]
fn a_bucket_is_not_mounted_in_two_places() {
    let peer = Peer::new();
    let second = peer.home().dir("second");
    let outcome = peer.home().try_mount(BUCKET, &second, &[]).exits(6);
    is_plain(&outcome);
    outcome.says(&[peer.dir().to_str().unwrap()]);
    assert!(!mounts::is_mounted(&second));
}

#[test]
fn unmounting_while_a_file_is_open_says_so_and_loses_nothing() {
    let peer = Peer::new();
    let file = fs::File::create(peer.path("f")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"held", 0).unwrap();
    let outcome = peer.home().umount(&peer.dir()).exits(6);
    is_plain(&outcome);
    assert!(mounts::is_mounted(&peer.dir()), "exit code 6, and it is gone");
    // It is as usable as before.
    peer.write("g", "x");
    drop(file);
    peer.remount();
    assert_eq!(peer.read("f"), b"held");
}

#[test]
fn unmounting_what_is_not_mounted_is_said() {
    let home = Home::new();
    home.create(BUCKET);
    let dir = home.dir("mnt");
    let outcome = home.umount(&dir).exits(3);
    is_plain(&outcome);
}

#[test]
fn an_unknown_bucket_is_named() {
    let home = Home::new();
    let dir = home.dir("mnt");
    for args in [
        vec!["mount", "nosuch", dir.to_str().unwrap()],
        vec!["status", "nosuch"],
        vec!["log", "nosuch"],
        vec!["publish", "nosuch"],
        vec!["check", "nosuch"],
    ] {
        let outcome = home.cairnfs(&args).exits(3);
        is_plain(&outcome);
        outcome.says(&["nosuch"]);
    }
    assert!(!mounts::is_mounted(&dir));
}

#[test]
fn a_bad_policy_is_refused_with_what_would_be_right() {
    let home = Home::new();
    home.create(BUCKET);
    let dir = home.dir("mnt");
    let all = &["flush", "release", "interval"][..];
    for (policy, right) in [
        ("sometimes", all),
        ("interval", all),
        ("interval:", all),
        ("flush ", all),
        ("interval:0s", &["zero", "flush"]),
        ("interval:10", &["interval:10s"]),
    ] {
        let outcome = home.try_mount(BUCKET, &dir, &["--save", policy]).exits(2);
        is_plain(&outcome);
        outcome.says(right);
        assert!(!mounts::is_mounted(&dir), "{policy}");
    }
    let outcome = home.try_mount(BUCKET, &dir, &["-o", "save=never"]).exits(2);
    is_plain(&outcome);
}

#[test]
fn wrong_usage_is_exit_code_2_and_changes_nothing() {
    let home = Home::new();
    for args in [
        vec![],
        vec!["frobnicate"],
        vec!["mount"],
        vec!["mount", "--no-such-flag", "a", "b"],
        vec!["create"],
        vec!["create", "a", "b"],
        vec!["umount"],
        vec!["create", "x", "--no-passphrase", "--passphrase-file", "/dev/null"],
    ] {
        let outcome = home.cairnfs(&args).exits(2);
        is_plain(&outcome);
    }
    assert!(home.files().is_empty(), "{:?}", home.files());
}

#[test]
fn a_bad_size_or_duration_is_refused() {
    let home = Home::new();
    home.create(BUCKET);
    let dir = home.dir("mnt");
    for cache in ["lots", "-1", "64XB", ""] {
        let outcome = home.try_mount(BUCKET, &dir, &[&format!("--cache={cache}")]).exits(2);
        is_plain(&outcome);
    }
    for (limit, why) in [
        ("--cache=99999TiB", "cache = 99999TiB: this machine has "),
        ("--dirty=99999TiB", "dirty = 99999TiB: this machine has "),
        ("--dirty=1KiB", "dirty = 1KiB: it takes 1MiB at least"),
    ] {
        let outcome = home.try_mount(BUCKET, &dir, &[limit]).exits(2);
        is_plain(&outcome);
        outcome.says(&[why]);
    }
    let outcome = home.cairnfs(&["umount", dir.to_str().unwrap(), "--timeout", "soon"]).exits(2);
    is_plain(&outcome);
    assert!(!mounts::is_mounted(&dir));
}

#[test]
fn a_bucket_is_not_made_twice_nor_under_a_name_that_leads_elsewhere() {
    let home = Home::new();
    home.create(BUCKET);
    let before = home.files();
    let outcome = home.cairnfs(&["create", BUCKET, "--no-passphrase"]);
    assert_eq!(outcome.code, Some(2), "{outcome}");
    is_plain(&outcome);
    outcome.says(&[BUCKET]);
    assert_eq!(home.files(), before, "something changed");
    for name in ["../out", "a/b", "", ".", "..", "/abs", "a\nb"] {
        let outcome = home.cairnfs(&["create", name, "--no-passphrase"]);
        assert_eq!(outcome.code, Some(2), "{name:?}: {outcome}");
        is_plain(&outcome);
    }
    assert!(!home.beside("out").exists() && !Path::new("/abs").exists());
}

#[test]
fn a_passphrase_opens_and_a_wrong_one_is_said_quickly_and_locks_nothing_out() {
    let home = Home::new();
    let (right, wrong) = (home.beside("right"), home.beside("wrong"));
    fs::write(&right, "correct horse battery staple\n").unwrap();
    fs::write(&wrong, "correct horse battery stapler\n").unwrap();
    let file = |path: &Path| path.to_str().unwrap().to_owned();
    home.cairnfs(&["create", BUCKET, "--passphrase-file", &file(&right)]).succeeds();
    let dir = home.dir("mnt");
    let times = (0..3).map(|_| {
        let outcome = home.try_mount(BUCKET, &dir, &["--passphrase-file", &file(&wrong)]).exits(4);
        is_plain(&outcome);
        outcome.clone().says(&["passphrase"]);
        assert!(!mounts::is_mounted(&dir));
        outcome.took
    });
    // The first one starts the daemon too, and any may wait for a disk that is shared.
    let took = times.min().unwrap();
    assert!(took < Duration::from_secs(10), "{took:?}");
    // Without a terminal nobody can be asked.
    let outcome = home.try_mount(BUCKET, &dir, &[]).exits(2);
    is_plain(&outcome);
    outcome.says(&["--passphrase-file"]);
    let command = format!("cat '{}'", file(&right));
    home.mount(BUCKET, &dir, &["--passphrase-command", &command]);
    fs::write(dir.join("f"), "x").unwrap();
    home.umount_once_free(&dir).succeeds();
    home.kill();
    home.mount(BUCKET, &dir, &["--passphrase-file", &file(&right)]);
    assert_eq!(fs::read(dir.join("f")).unwrap(), b"x");
    let missing = home.cairnfs(&["create", "other", "--passphrase-file", "/no/such/file"]);
    assert_eq!(missing.code, Some(2), "{missing}");
    is_plain(&missing);
}

/// What `mount --dry-run` lets pass, `mount` does.
#[test]
fn a_planned_mount_tries_the_passphrase_and_says_what_would_be_done() {
    let home = Home::new();
    let (right, wrong) = (home.beside("right"), home.beside("wrong"));
    fs::write(&right, "correct horse battery staple\n").unwrap();
    fs::write(&wrong, "correct horse battery stapler\n").unwrap();
    home.cairnfs(&["create", BUCKET, "--passphrase-file", right.to_str().unwrap()]).succeeds();
    let dir = home.dir("mnt");
    let plan = |file: &Path| {
        let file = file.to_str().unwrap();
        home.try_mount(BUCKET, &dir, &["--dry-run", "--read-only", "--passphrase-file", file])
    };
    is_plain(&plan(&wrong).exits(4));
    for dry_run in [&["--dry-run"][..], &[]] {
        let args = [&["-o", "foo=bar", "--passphrase-file", right.to_str().unwrap()], dry_run];
        let outcome = home.try_mount(BUCKET, &dir, &args.concat()).exits(2);
        is_plain(&outcome.says(&["foo=bar"]));
    }
    let said = plan(&right).succeeds().stdout;
    assert!(said.contains(BUCKET) && said.contains("/mnt") && said.contains("read-only"), "{said}");
    assert!(!mounts::is_mounted(&dir));
    home.mount(BUCKET, &dir, &["--passphrase-file", right.to_str().unwrap()]);
    is_plain(&plan(&right).exits(6));
}

/// Nobody thinks of a passphrase for what cannot be joined.
#[test]
fn what_is_no_ticket_is_refused_before_a_passphrase_is_asked_for() {
    let home = Home::new();
    for ticket in ["foo", "cairnfs1-abcd"] {
        is_plain(&home.cairnfs(&["join", ticket]).exits(4).says(&["ticket"]));
    }
}

/// What `config` is asked about has to be there.
#[test]
fn the_settings_of_a_bucket_that_does_not_exist_are_not_shown() {
    let home = Home::new();
    home.create(BUCKET);
    home.cairnfs(&["config", BUCKET]).succeeds();
    let outcome = home.cairnfs(&["config", "nowhere"]).exits(3);
    is_plain(&outcome);
    assert!(outcome.stdout.is_empty(), "{outcome}");
}

/// A path cannot steer the terminal of who reads it, nor look like another line.
#[test]
fn the_name_of_a_mount_point_is_shown_without_control_characters() {
    let home = Home::new();
    home.create(BUCKET);
    let dir = home.dir("a\nsafe: yes\x1b[2J");
    home.mount(BUCKET, &dir, &[]);
    // That no escape is among it is asserted of all that is said.
    let listed = home.cairnfs(&["list"]).succeeds().stdout;
    assert_eq!(listed.lines().count(), 1, "{listed}");
    let status = home.cairnfs(&["status"]).succeeds().stdout;
    assert_eq!(status.lines().filter(|line| line.starts_with("safe")).count(), 1, "{status}");
    assert!(status.contains("a\\nsafe: yes\\u{1b}[2J"), "{status}");
    let outcome = home.umount(&dir).succeeds();
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
    let outcome = home.umount(&dir).exits(3);
    is_plain(&outcome);
}

/// A path is any bytes; only what is kept as text must be text.
#[test]
fn a_mount_point_need_not_be_utf_8() {
    let home = Home::new();
    home.create(BUCKET);
    let dir = home.beside("").join(OsStr::from_bytes(b"m\xff"));
    fs::create_dir(&dir).unwrap();
    let outcome = home.try_mount(BUCKET, &dir, &["--at-start"]).exits(2);
    is_plain(&outcome);
    assert_eq!(outcome.says(&["UTF-8"]).stderr.lines().count(), 1);
    assert!(!mounts::is_mounted(&dir), "what was refused was done");
    home.mount(BUCKET, &dir, &[]);
    fs::write(dir.join("f"), "x").unwrap();
    for verb in ["list", "status"] {
        home.cairnfs(&[verb]).succeeds();
        let json = home.cairnfs(&[verb, "--json"]).succeeds().json();
        assert!(json["buckets"][0]["dir"].as_str().unwrap().ends_with("/m\u{fffd}"), "{json}");
    }
    home.cairnfs(&["conflicts", "--json"]).succeeds();
    home.umount_once_free(&dir).succeeds();
    assert!(!mounts::is_mounted(&dir));
}

/// Who asks for it is no reason why it cannot be done.
#[test]
fn a_busy_unmount_names_who_keeps_it_busy_and_not_itself() {
    let home = Home::new();
    home.create(BUCKET);
    let dir = home.dir("mnt");
    home.mount(BUCKET, &dir, &[]);
    let inside = "cd \"$2\" && { \"$1\" umount \"$2\"; exit $?; }";
    let mut shell = Command::new("sh");
    shell.args(["-c", inside, "sh"]).arg(cairnfs_tests::binary::path()).arg(&dir);
    let outcome = run(home.settle(&mut shell), Duration::from_secs(30)).exits(6);
    let outcome = outcome.says(&["in use by process", "(sh)"]);
    assert!(!outcome.stderr.contains("(cairnfs)"), "{outcome}");
}

#[test]
fn a_broken_config_is_named_and_stops_nothing_that_runs() {
    let home = Home::new();
    home.create(BUCKET);
    let where_is = home.path().join("config.toml");
    fs::write(&where_is, "save = [ this is no toml\n").unwrap();
    let dir = home.dir("mnt");
    let outcome = home.try_mount(BUCKET, &dir, &[]).exits(2);
    is_plain(&outcome);
    outcome.says(&["config.toml"]);
    assert!(!mounts::is_mounted(&dir));
    fs::remove_file(&where_is).unwrap();
    home.mount(BUCKET, &dir, &[]);
    // It is told, in one line, and whatever is for the daemon that runs is done all the same.
    fs::write(&where_is, "savee = \"flush\"\n").unwrap();
    for verb in [&["list"][..], &["status"], &["umount", dir.to_str().unwrap()], &["stop"]] {
        let outcome = home.cairnfs(verb).succeeds().says(&["config.toml", "unknown key \"savee\""]);
        let warning = outcome.stderr.lines().next().unwrap_or_default();
        assert!(warning.starts_with("cairnfs: ") && warning.contains("savee"), "{outcome}");
        assert_eq!(outcome.stderr.matches("savee").count(), 1, "{outcome}");
    }
    assert!(!mounts::is_mounted(&dir));
    let found = home.cairnfs(&["doctor"]);
    assert!(found.stdout.contains("BAD   settings: ") && found.stdout.contains("savee"), "{found}");
    assert_ne!(found.code, Some(0), "{found}");
    is_plain(&home.try_mount(BUCKET, &dir, &[]).exits(2));
}

#[test]
fn a_home_of_no_name_is_wrong_usage() {
    let home = Home::new();
    home.create(BUCKET);
    let dir = home.dir("mnt");
    is_plain(&home.try_mount(BUCKET, &dir, &["-o", "home="]).exits(2));
    is_plain(&home.cairnfs(&["list", "--home", ""]).exits(2));
}

#[test]
fn a_home_that_cannot_be_written_is_said() {
    let home = Home::new();
    fs::write(home.path(), "a file where the home should be").unwrap();
    let outcome = home.cairnfs(&["create", BUCKET, "--no-passphrase"]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    is_plain(&outcome);
    fs::remove_file(home.path()).unwrap();
    assert!(process::of_home(home.path()).is_empty());
}

#[test]
fn a_read_only_mount_refuses_every_change() {
    let peer = Peer::new();
    peer.write("f", "x");
    peer.umount();
    let home = peer.home();
    home.mount(BUCKET, &peer.dir(), &["--read-only"]);
    assert_eq!(peer.read("f"), b"x");
    let refused = |result: std::io::Result<()>| {
        let errno = result.unwrap_err().raw_os_error();
        assert_eq!(errno, Some(rustix::io::Errno::ROFS.raw_os_error()));
    };
    refused(fs::write(peer.path("f"), "y"));
    refused(fs::write(peer.path("g"), "y"));
    refused(fs::create_dir(peer.path("d")));
    refused(fs::remove_file(peer.path("f")));
    refused(fs::rename(peer.path("f"), peer.path("g")));
}

/// Runs a command where `/dev` has the devices that every program needs, and no other.
const HIDE: &str = "
dev=$1; shift
mknod $dev/null c 1 3; mknod $dev/zero c 1 5; mknod $dev/random c 1 8; mknod $dev/urandom c 1 9
mount --bind $dev /dev
exec \"$@\"
";

#[test]
fn without_dev_fuse_mounting_says_what_is_missing() {
    cairnfs_tests::need::root("hiding /dev/fuse in a mount namespace");
    let home = Home::new();
    home.create(BUCKET);
    let dir = home.dir("mnt");
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-ec", HIDE, "sh"])
        .arg(home.dir("dev"))
        .arg(cairnfs_tests::binary::path())
        .args(["mount", BUCKET])
        .arg(&dir);
    let outcome = run(home.settle(&mut command), Duration::from_secs(60)).exits(7);
    is_plain(&outcome);
    outcome.says(&["fuse"]);
}

#[test]
fn a_new_passphrase_is_asked_for_twice_and_an_old_one_once() {
    let home = Home::new();
    let dir = home.dir("mnt");
    let typed = |answers: &[&str], args: &[&str]| terminal::typed(&home, answers, args);
    typed(&["one secret", "another"], &["create", BUCKET]).exits(2);
    typed(&["one secret", "one secret"], &["create", BUCKET]).succeeds();
    typed(&["wrong secret"], &["mount", BUCKET, dir.to_str().unwrap()]).exits(4);
    let mounted = typed(&["one secret"], &["mount", BUCKET, dir.to_str().unwrap()]).succeeds();
    assert!(!mounted.stdout.contains("one secret"), "the passphrase is shown: {mounted}");
    assert!(mounts::is_mounted(&dir));
    // Ctrl-C is answered once.
    let interrupted = typed(&["\x03"], &["create", "another"]).exits(130);
    assert_eq!(interrupted.stdout.matches("interrupted").count(), 1, "{interrupted}");
}
