//! The command line: what it says, what its exit codes are, what scripts can rely on.

use std::{fs, process::Command, time::Duration};

use cairnfs_tests::{
    Home, Peer, Rng, data, eventually, mounts, need,
    peer::{BUCKET, UNPUBLISHED},
    process, run,
};

const VERBS: [&str; 28] = [
    "create",
    "mount",
    "umount",
    "daemon",
    "stop",
    "list",
    "status",
    "log",
    "publish",
    "check",
    "passphrase",
    "conflicts",
    "resolve",
    "restore",
    "strategy",
    "members",
    "role",
    "invite",
    "join",
    "peers",
    "sync",
    "remove",
    "demo",
    "doctor",
    "id",
    "config",
    "completions",
    "man",
];

#[test]
fn every_verb_explains_itself_with_an_example() {
    let home = Home::new();
    let all = home.cairnfs(&["--help"]).succeeds().stdout;
    for verb in VERBS {
        assert!(all.contains(verb), "`cairnfs --help` leaves out {verb}");
        let help = home.cairnfs(&[verb, "--help"]).succeeds().stdout;
        assert!(
            help.to_lowercase().contains("example"),
            "`cairnfs {verb} --help` shows no example"
        );
        assert!(
            help.contains(&format!("cairnfs {verb}")),
            "the example of {verb} is of something else"
        );
    }
    assert!(home.files().is_empty(), "asking for help wrote files: {:?}", home.files());
}

#[test]
fn version_id_config_completions_and_man_work_without_a_bucket() {
    let home = Home::new();
    for args in [["version"], ["--version"]] {
        let said = home.cairnfs(&args).succeeds().stdout;
        assert!(said.contains(env!("CARGO_PKG_VERSION")), "{said}");
    }
    let first = home.cairnfs(&["id", "--json"]).succeeds().json();
    assert_eq!(
        first,
        home.cairnfs(&["id", "--json"]).succeeds().json(),
        "the device changed its key"
    );
    assert!(first.is_object(), "{first}");
    assert!(!home.cairnfs(&["id"]).succeeds().stdout.is_empty());
    let config = home.path().join("config.toml");
    let said = home.cairnfs(&["config"]).succeeds().stdout;
    let first_line = format!("# there is no {}\n", config.display());
    assert!(said.starts_with(&first_line), "{said}");
    assert!(said.contains("allow_other        = false "), "{said}");
    fs::write(&config, "allow_other = true\n").unwrap();
    let said = home.cairnfs(&["config"]).succeeds().stdout;
    assert!(said.starts_with(&format!("# settings from {}\n", config.display())), "{said}");
    assert!(said.contains("allow_other        = true "), "{said}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            home.cairnfs(&["completions", shell]).succeeds().stdout.contains("cairnfs"),
            "{shell}"
        );
    }
    let man = home.dir("man");
    home.cairnfs(&["man", man.to_str().unwrap()]).succeeds();
    let pages: Vec<_> =
        fs::read_dir(&man).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(pages.iter().any(|page| page == "cairnfs.1"), "{pages:?}");
}

/// Who makes a bucket hears what must not be lost, and where it lies.
#[test]
fn create_says_what_opens_the_bucket() {
    let home = Home::new();
    let key_file = |name: &str| home.path().join("buckets").join(name).join("key");
    let passphrase = ["--passphrase-command", "echo word"];
    for (name, flags) in [("one", &passphrase[..]), ("two", &["--no-passphrase"])] {
        let outcome = home.cairnfs(&[&["create", name][..], flags].concat()).succeeds();
        assert!(key_file(name).exists());
        outcome.says(&["is lost", "keep a copy", key_file(name).to_str().unwrap()]);
    }
}

#[test]
fn doctor_looks_at_what_this_machine_has() {
    let home = Home::new();
    let outcome = home.cairnfs(&["doctor"]);
    assert!(matches!(outcome.code, Some(0 | 1)), "{outcome}");
    let said = format!("{}{}", outcome.stdout, outcome.stderr).to_lowercase();
    for word in ["fuse device", "fusermount3", "allow-other", "clock", "sync"] {
        assert!(said.contains(word), "says nothing of {word}: {outcome}");
    }
}

#[test]
fn list_and_status_tell_of_buckets_and_mounts_in_json_too() {
    let home = Home::new();
    assert!(home.cairnfs(&["list", "--json"]).succeeds().json().to_string().len() < 100);
    home.create("one");
    home.create("two");
    let dir = home.dir("mnt");
    home.mount("two", &dir, &["--save", "interval:2s"]);
    let text = home.cairnfs(&["list"]).succeeds().stdout;
    assert!(text.contains("one") && text.contains("two"), "{text}");
    assert!(text.contains(dir.to_str().unwrap()), "the mount is not listed: {text}");
    let json = home.cairnfs(&["list", "--json"]).succeeds().json().to_string();
    assert!(
        json.contains("\"one\"") && json.contains("\"two\"") && json.contains("/mnt"),
        "{json}"
    );
    let status = home.cairnfs(&["status", "two"]).succeeds().stdout;
    assert!(status.contains("interval:2s"), "the policy is not said: {status}");
    assert!(status.lines().next().unwrap().to_lowercase().contains("safe"), "not first: {status}");
    let json = home.cairnfs(&["status", "two", "--json"]).succeeds().json();
    assert!(json.to_string().contains("interval:2s"), "{json}");
}

#[test]
fn status_says_what_is_not_yet_safe() {
    let peer = Peer::with(&["--save", "interval:1h"]);
    peer.write("f", data::bytes(1, 2_000_000));
    let home = peer.home();
    let before = home.cairnfs(&["status", BUCKET, "--json"]).succeeds().json();
    assert_eq!(before["safe"], false, "{before}");
    assert!(before["unsaved_bytes"].as_u64() >= Some(2_000_000), "{before}");
    assert!(before["unsaved_since"].is_string(), "{before}");
    let text = home.cairnfs(&["status", BUCKET]).succeeds().stdout;
    assert!(text.lines().next().unwrap().starts_with("safe: no"), "{text}");
    peer.wait_safe();
    let after = home.cairnfs(&["status", BUCKET, "--json"]).succeeds().json();
    assert_eq!(after["safe"], true, "{after}");
    assert!(home.cairnfs(&["status", BUCKET]).succeeds().stdout.starts_with("safe: yes"));
    peer.kill_and_remount();
    assert!(peer.read("f") == data::bytes(1, 2_000_000));
}

#[test]
fn publish_prints_the_version_that_log_then_shows() {
    let peer = Peer::new();
    let home = peer.home();
    let mut ids = Vec::new();
    for round in 0..3 {
        fs::create_dir_all(peer.path("dir")).unwrap();
        peer.write("dir/story.txt", format!("draft {round}"));
        peer.write(format!("other-{round}"), "x");
        let id = home.cairnfs(&["publish", BUCKET]).succeeds().stdout.trim().to_owned();
        assert!(id.len() >= 8 && !id.contains(char::is_whitespace), "{id:?} is no id");
        assert!(!ids.contains(&id), "two versions of one name");
        ids.push(id);
    }
    let log = home.cairnfs(&["log", BUCKET]).succeeds().stdout;
    for id in &ids {
        assert!(log.contains(&id[..8]), "{id} is not in the log:\n{log}");
    }
    let newest = log.find(&ids[2][..8]);
    assert!(newest < log.find(&ids[0][..8]), "the newest does not come first:\n{log}");
    assert!(log.contains("story.txt"), "what changed is not said:\n{log}");
    let of_path = home.cairnfs(&["log", BUCKET, "other-1"]).succeeds().stdout;
    assert!(of_path.contains(&ids[1][..8]) && !of_path.contains(&ids[2][..8]), "{of_path}");
    let json = home.cairnfs(&["log", BUCKET, "--json"]).succeeds().json();
    for id in &ids {
        assert!(json.to_string().contains(&id[..8]), "{json}");
    }
    peer.kill_and_remount();
    assert!(home.cairnfs(&["log", BUCKET]).succeeds().stdout.contains(&ids[0][..8]));
}

/// What is at a path now is followed to where it was before.
#[test]
fn log_of_a_path_follows_what_was_moved_there() {
    let peer = Peer::new();
    let home = peer.home();
    let publish = || home.cairnfs(&["publish", BUCKET]).succeeds().stdout[..8].to_owned();
    fs::create_dir(peer.path("d")).unwrap();
    peer.write("d/y", "1");
    let made = publish();
    peer.write("d/y", "2");
    let changed = publish();
    peer.write("other", "x");
    let elsewhere = publish();
    fs::rename(peer.path("d"), peer.path("dd")).unwrap();
    let moved = publish();
    let listed = |mut command: Command| {
        let log = run(&mut command, Duration::from_secs(60)).succeeds().stdout;
        let ids = [&made, &changed, &elsewhere, &moved];
        ids.map(|id| log.contains(id.as_str()))
    };
    let of = |path: &str| listed(home.command(&["log", BUCKET, path]));
    assert_eq!(of("dd/y"), [true, true, false, false]);
    assert_eq!(of("dd"), [true, true, false, true]);
    assert_eq!(of("d"), [true, true, false, true]);
    assert_eq!(of(peer.path("dd/y").to_str().unwrap()), [true, true, false, false]);
    // As everywhere else, a path is meant from where one stands.
    let mut inside = home.command(&["log", BUCKET, "y"]);
    inside.current_dir(peer.path("dd"));
    assert_eq!(listed(inside), [true, true, false, false]);
    home.cairnfs(&["log", BUCKET, "--limit", "0"]).exits(2).says(&["--limit"]);
}

#[test]
fn a_version_is_published_by_itself_once_it_is_quiet() {
    let peer = Peer::new();
    let versions = || {
        let log = peer.home().cairnfs(&["log", BUCKET, "--json"]).succeeds().json();
        log["versions"].as_array().unwrap().len()
    };
    let before = versions();
    peer.write("f", "x");
    eventually("a version is published", Duration::from_secs(60), || versions() > before);
    // And only one, as long as nothing changes.
    cairnfs_tests::poll::let_pass(Duration::from_secs(3));
    assert_eq!(versions(), before + 1);
}

#[test]
fn check_is_quiet_about_a_sound_bucket() {
    let peer = Peer::new();
    for n in 0..40 {
        peer.write(format!("f{n}"), data::bytes(n, 50_000));
    }
    peer.check().succeeds();
    assert!(peer.home().cairnfs(&["check", BUCKET, "--json"]).succeeds().json().is_object());
    peer.stop();
    peer.check().succeeds();
}

#[test]
fn log_says_that_something_is_not_published_yet() {
    let peer = Peer::with(&UNPUBLISHED);
    let log = |args: &[&str]| peer.home().cairnfs(&[&["log", BUCKET], args].concat());
    let not_yet = "what was changed last is not published yet";
    assert!(!log(&[]).succeeds().stderr.contains(not_yet));
    peer.write("new", "x");
    log(&["new"]).exits(1).says(&["no version of bucket 'photos' changed 'new'", not_yet]);
    log(&[]).succeeds().says(&[not_yet, "cairnfs publish photos"]);
    assert_eq!(log(&["--json"]).succeeds().json()["unpublished"], true);
    peer.home().cairnfs(&["publish", BUCKET]).succeeds();
    let told = log(&["new"]).succeeds();
    assert!(told.stdout.contains("  + new\n") && !told.stderr.contains(not_yet), "{told}");
    assert_eq!(log(&["--json"]).succeeds().json()["unpublished"], false);
}

#[test]
fn stop_unmounts_saves_and_ends_the_daemon() {
    let peer = Peer::with(&["--save", "interval:1h"]);
    let pid = peer.pid();
    peer.write("f", "kept");
    peer.home().cairnfs(&["stop"]).succeeds();
    eventually("the daemon ends", Duration::from_secs(20), || !process::is_alive(pid));
    assert!(!mounts::is_mounted(&peer.dir()));
    peer.mount();
    assert_eq!(peer.read("f"), b"kept");
    // Stopping what does not run is no failure.
    peer.stop();
    peer.home().cairnfs(&["stop"]).succeeds();
}

#[test]
fn mounting_is_quick_however_much_is_stored() {
    let peer = Peer::with(&["--save", "release"]);
    for n in 0..1_500 {
        peer.write(format!("f{n}"), data::bytes(n, 300));
    }
    peer.write("large", data::bytes(1, 60 << 20));
    let times = (0..10).map(|_| {
        peer.stop();
        peer.home().try_mount(BUCKET, &peer.dir(), &[]).succeeds().took
    });
    // Any of them may wait for others; if it took long by itself, none would be quick.
    let quick = Duration::from_secs(3);
    let slow: Vec<_> = times.take_while(|took| *took >= quick).collect();
    assert!(slow.len() < 10, "{slow:?}");
}

#[test]
fn options_may_be_given_as_in_fstab() {
    let home = Home::new();
    home.create(BUCKET);
    let dir = home.dir("mnt");
    home.mount(BUCKET, &dir, &["-o", "save=release,ro"]);
    assert!(home.cairnfs(&["status", BUCKET]).succeeds().stdout.contains("release"));
    assert!(fs::write(dir.join("f"), "x").is_err(), "mounted read-only, and it was written to");
}

/// mount(8) looks for programs in its own places only, so the binary is put there, in a mount
/// namespace that ends with the script.
const SYSTEM: &str = "
bin=$1; dir=$2; links=$3; bucket=$4
ln -s $bin $links/cairnfs
mount --bind $links /usr/local/sbin
mount -t fuse.cairnfs -o save=interval:7s $bucket $dir
mountpoint -q $dir
grep -q interval:7s <<< \"$(cairnfs status $bucket)\"
echo through the system > $dir/f
umount $dir
mountpoint -q $dir && exit 20
# The daemon may still be saving; mounting waits for it.
mount -t fuse.cairnfs -o ro $bucket $dir
grep -qx 'through the system' $dir/f
umount $dir
# As at boot; what is mounted is left alone.
echo cairnfs:$bucket $dir fuse.cairnfs save=release > $links/fstab
mount --all --fstab $links/fstab
grep -q release <<< \"$(cairnfs status $bucket)\"
mount --all --fstab $links/fstab
umount $dir
cairnfs stop
";

#[test]
fn mount_and_umount_of_the_system_work() {
    need::root("mount(8)");
    let home = Home::new();
    home.create(BUCKET);
    let mut command = Command::new("unshare");
    command
        .args(["-m", "bash", "-ec", SYSTEM, "bash"])
        .arg(cairnfs_tests::binary::path())
        .args([home.dir("mnt"), home.dir("links")])
        .arg(BUCKET);
    run(home.settle(&mut command), Duration::from_secs(60)).succeeds();
}

#[test]
fn the_settings_come_from_flags_then_the_environment_then_the_file() {
    let home = Home::new();
    home.create(BUCKET);
    let dir = home.dir("mnt");
    let policy = || home.cairnfs(&["status", BUCKET]).succeeds().stdout;
    let mut command = home.command(&["mount", BUCKET, dir.to_str().unwrap()]);
    run(command.env("CAIRNFS_SAVE", "interval:7s"), Duration::from_secs(60)).succeeds();
    assert!(policy().contains("interval:7s"), "{}", policy());
    home.umount_once_free(&dir).succeeds();
    let mut command = home.command(&["mount", BUCKET, dir.to_str().unwrap(), "--save", "release"]);
    run(command.env("CAIRNFS_SAVE", "interval:7s"), Duration::from_secs(60)).succeeds();
    assert!(policy().contains("release"), "{}", policy());
}

#[test]
fn the_demo_shows_the_main_job() {
    let home = Home::new();
    let mut command = home.command(&["demo"]);
    let outcome = run(&mut command, Duration::from_secs(180)).succeeds();
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    let last = said.lines().rev().find(|line| line.starts_with("demo: ")).unwrap_or_default();
    let numbers: Vec<u32> = last.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(
        last.ends_with("steps ok")
            && numbers.len() == 2
            && numbers[0] == numbers[1]
            && numbers[0] >= 8,
        "{last:?}\n{outcome}"
    );
    for command in
        ["cairnfs create", "cairnfs mount", "cairnfs status", "cairnfs log", "cairnfs umount"]
    {
        assert!(said.contains(command), "the demo does not show `{command}`:\n{outcome}");
    }
    // In a throw-away home: nothing of it is left here.
    let names: Vec<_> = home.files();
    assert!(names.iter().all(|(path, _)| !path.to_string_lossy().contains("bucket")), "{names:?}");
}

#[test]
fn random_arguments_never_panic() {
    let home = Home::new();
    home.create(BUCKET);
    let words = [
        "create",
        "mount",
        "umount",
        "status",
        "log",
        "publish",
        "check",
        "list",
        "id",
        "stop",
        "--json",
        "--save",
        "interval:5s",
        "--timeout",
        "photos",
        "/",
        "",
        "-o",
        "--",
        "-",
        "\u{1F980}",
        "--passphrase-file",
        "/dev/null",
        "18446744073709551616",
        "--no-passphrase",
        "--wait-safe",
    ];
    let mut rng = Rng::new(41);
    for _ in 0..60 {
        // Nothing that would wait for somebody or mount somewhere.
        let args: Vec<_> = (0..rng.index(5)).map(|_| words[rng.index(words.len())]).collect();
        let mut command = home.command(&args);
        let outcome = run(&mut command, Duration::from_secs(30));
        assert!(outcome.code.is_some_and(|code| code != 101) && !outcome.timed_out, "{outcome}");
        assert!(!outcome.stderr.contains("panicked"), "{outcome}");
    }
    home.cairnfs(&["stop"]).succeeds();
    let mut closed = Command::new("sh");
    closed
        .args(["-c", "\"$0\" --help | head -n 1 && \"$0\" list > /dev/full; test $? -ne 101"])
        .arg(cairnfs_tests::binary::path());
    let outcome = run(home.settle(&mut closed), Duration::from_secs(30)).succeeds();
    assert!(!outcome.stderr.contains("panicked"), "{outcome}");
}
