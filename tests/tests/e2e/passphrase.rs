//! Another passphrase for a bucket: it opens the bucket from then on, and the one before does not,
//! whatever came between.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use cairnfs_tests::{
    Home, Image, Outcome, Pair, Peer, Running, Strace, eventually, mounts, need, peer::BUCKET,
    process, run, terminal,
};

const SOON: Duration = Duration::from_secs(30);

/// A file that holds `word`, to be given as a passphrase.
fn file(home: &Home, word: &str) -> String {
    let path = home.scratch().join(format!("word-{word}"));
    fs::write(&path, word).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The flags that give this passphrase, or none.
fn given(home: &Home, word: Option<&str>) -> Vec<String> {
    word.map_or_else(Vec::new, |word| vec!["--passphrase-file".to_owned(), file(home, word)])
}

/// A home with a bucket under this passphrase.
fn with(home: Home, word: &str) -> Home {
    home.cairnfs(&["create", BUCKET, "--passphrase-file", &file(&home, word)]).succeeds();
    home
}

fn change(home: &Home, present: Option<&str>, new: Option<&str>) -> Outcome {
    let mut args = vec!["passphrase".to_owned(), BUCKET.to_owned()];
    args.extend(given(home, present));
    match new {
        Some(word) => args.extend(["--new-passphrase-file".to_owned(), file(home, word)]),
        None => args.push("--no-passphrase".to_owned()),
    }
    home.cairnfs(&args)
}

fn mount(home: &Home, word: Option<&str>) -> PathBuf {
    let dir = home.dir("mnt");
    let flags = given(home, word);
    home.mount(BUCKET, &dir, &flags.iter().map(String::as_str).collect::<Vec<_>>());
    dir
}

/// Whether this passphrase opens the bucket, mounted or not.
fn opens(home: &Home, word: &str) -> bool {
    let outcome = home.cairnfs(&[
        "passphrase",
        BUCKET,
        "--dry-run",
        "--no-passphrase",
        "--passphrase-file",
        &file(home, word),
    ]);
    assert!(matches!(outcome.code, Some(0 | 4)), "{outcome}");
    outcome.code == Some(0)
}

fn bucket_dir(home: &Home) -> PathBuf {
    home.path().join("buckets").join(BUCKET)
}

fn key_file(home: &Home) -> PathBuf {
    bucket_dir(home).join("key")
}

/// The key files that lie in the bucket's folder, whole or not.
fn key_files(home: &Home) -> Vec<PathBuf> {
    let mut files: Vec<_> = home.files().into_iter().map(|(path, _)| path).collect();
    files.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("key"));
    files
}

#[test]
fn the_new_passphrase_opens_the_bucket_and_the_old_one_does_not() {
    let home = with(Home::new(), "first");
    change(&home, Some("first"), Some("second")).succeeds();
    assert!(opens(&home, "second") && !opens(&home, "first"));
    let dir = mount(&home, Some("second"));
    fs::write(dir.join("f"), "x").unwrap();
    change(&home, Some("second"), Some("third")).succeeds();
    fs::write(dir.join("g"), "y").unwrap();
    home.umount_once_free(&dir).succeeds();
    assert!(opens(&home, "third") && !opens(&home, "second"));
    mount(&home, Some("third"));
    assert_eq!([fs::read(dir.join("f")).unwrap(), fs::read(dir.join("g")).unwrap()], [b"x", b"y"]);
}

#[test]
fn a_passphrase_is_taken_off_and_put_on_again() {
    let home = with(Home::new(), "first");
    let dir = mount(&home, Some("first"));
    fs::write(dir.join("f"), "x").unwrap();
    change(&home, Some("first"), None).succeeds().says(&["no passphrase any more"]);
    home.umount_once_free(&dir).succeeds();
    let mode = fs::metadata(key_file(&home)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    mount(&home, None);
    change(&home, None, None).succeeds().says(&["nothing was changed"]);
    change(&home, None, Some("second")).succeeds().says(&["without a passphrase"]);
    assert!(opens(&home, "second"));
    home.umount_once_free(&dir).succeeds();
    home.try_mount(BUCKET, &dir, &[]).exits(2);
    mount(&home, Some("second"));
    assert_eq!(fs::read(dir.join("f")).unwrap(), b"x");
    // And of one that is not mounted.
    home.umount_once_free(&dir).succeeds();
    change(&home, Some("second"), None).succeeds();
    change(&home, None, Some("third")).succeeds();
    assert!(opens(&home, "third") && !opens(&home, "second"));
}

#[test]
fn what_is_refused_changes_nothing() {
    let home = with(Home::new(), "right");
    let before = fs::read(key_file(&home)).unwrap();
    let file = |word: &str| file(&home, word);
    let (right, wrong) = (file("right"), file("wrong"));
    for mounted in [false, true] {
        if mounted {
            mount(&home, Some("right"));
        }
        change(&home, Some("wrong"), Some("new")).exits(4).says(&["wrong passphrase"]);
        change(&home, Some("wrong"), None).exits(4);
        change(&home, None, Some("new")).exits(2).says(&["--passphrase-file"]);
        for new in [
            &["--new-passphrase-file", "/dev/null"][..],
            &["--new-passphrase-file", "/nonexistent"],
            &["--new-passphrase-file", &wrong, "--new-passphrase-command", "echo new"],
            &["--new-passphrase-command", "echo new", "--no-passphrase"],
            // Nobody is there to be asked.
            &[],
        ] {
            let args = [&["passphrase", BUCKET, "--passphrase-file", &right], new].concat();
            let outcome = home.cairnfs(&args).exits(2);
            assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
        }
        let failing = ["--new-passphrase-command", "echo new; exit 3"];
        let args = [&["passphrase", BUCKET, "--passphrase-file", &right], &failing[..]].concat();
        home.cairnfs(&args).exits(1);
        home.cairnfs(&["passphrase", "nowhere", "--no-passphrase"]).exits(3).says(&["nowhere"]);
        assert_eq!(fs::read(key_file(&home)).unwrap(), before, "mounted: {mounted}");
    }
}

#[test]
fn the_present_passphrase_is_asked_for_once_and_tried_before_the_new_one_is_asked_for_twice() {
    let home = with(Home::new(), "old");
    let typed = |answers: &[&str]| terminal::typed(&home, answers, &["passphrase", BUCKET]);
    typed(&["wrong"]).exits(4);
    typed(&["old", "new", "other"]).exits(2);
    typed(&["old", ""]).exits(2);
    assert!(opens(&home, "old"));
    let changed = typed(&["old", "swordfish", "swordfish"]).succeeds();
    assert!(!changed.stdout.contains("swordfish"), "the passphrase is shown: {changed}");
    assert!(opens(&home, "swordfish") && !opens(&home, "old"));
}

#[test]
fn a_dry_run_tries_the_present_passphrase_and_changes_nothing() {
    let home = with(Home::new(), "right");
    let before = fs::read(key_file(&home)).unwrap();
    let new = file(&home, "new");
    let args = ["passphrase", BUCKET, "--dry-run", "--new-passphrase-file", &new];
    let plan = |word: &str| {
        let flags = given(&home, Some(word));
        home.cairnfs(&[&args[..], &[&flags[0], &flags[1]]].concat())
    };
    plan("wrong").exits(4);
    assert!(plan("right").succeeds().stdout.contains("would change the passphrase"));
    // Nor is anybody asked for a new one.
    let alone = |word: &str| {
        let flags = given(&home, Some(word));
        home.cairnfs(&["passphrase", BUCKET, "--dry-run", &flags[0], &flags[1]])
    };
    alone("wrong").exits(4);
    assert!(alone("right").succeeds().stdout.contains("would change the passphrase"));
    assert_eq!(fs::read(key_file(&home)).unwrap(), before);
    assert!(process::of_home(home.path()).is_empty(), "a daemon was started");
}

/// A copied key file and the passphrase that it was under open the bucket for good, which is said.
#[test]
fn a_copy_of_the_old_key_file_opens_with_the_old_passphrase() {
    let home = with(Home::new(), "old");
    let copy = home.scratch().join("copy");
    fs::copy(key_file(&home), &copy).unwrap();
    let outcome = change(&home, Some("old"), Some("new")).succeeds();
    outcome.says(&["copy of its key file from before", "old passphrase", "other devices"]);
    let dir = mount(&home, Some("new"));
    fs::write(dir.join("f"), "written since").unwrap();
    home.umount_once_free(&dir).succeeds();
    home.cairnfs(&["stop"]).succeeds();
    process::ended(home.path());
    fs::copy(&copy, key_file(&home)).unwrap();
    mount(&home, Some("old"));
    assert_eq!(fs::read(dir.join("f")).unwrap(), b"written since");
}

#[test]
fn the_key_file_stays_that_of_its_owner_and_can_be_read_by_nobody_else() {
    need::root("a file of another user");
    let home = with(Home::new(), "old");
    std::os::unix::fs::chown(key_file(&home), Some(1000), Some(1000)).unwrap();
    change(&home, Some("old"), Some("new")).succeeds();
    let meta = fs::metadata(key_file(&home)).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (1000, 1000, 0o600));
    assert!(opens(&home, "new"));
}

/// Stops the daemon and mounts again: with this passphrase only if it is that of the key file, and
/// only if all secrets are in there.
#[track_caller]
fn starts_again_with(peer: &Peer, word: &str) {
    peer.stop();
    mount(peer.home(), Some(word));
}

fn key_of(peer: &Peer) -> String {
    let id = peer.home().cairnfs(&["id", "--json"]).succeeds().json();
    id["key"].as_str().unwrap()[..16].to_owned()
}

#[test]
fn the_secret_that_follows_a_removal_is_kept_under_the_new_passphrase() {
    let pair = Pair::new();
    let (one, other) = (&pair.one, &pair.other);
    one.write("f", "before");
    pair.meet();
    change(one.home(), None, Some("new")).succeeds();
    let before = fs::read(key_file(one.home())).unwrap();
    one.home().cairnfs(&["remove", BUCKET, &key_of(other)]).succeeds();
    assert!(fs::read(key_file(one.home())).unwrap().len() > before.len(), "no secret came");
    one.write("g", "sealed with the new secret");
    starts_again_with(one, "new");
    assert_eq!(one.read("f"), b"before");
    assert_eq!(one.read("g"), b"sealed with the new secret");
    change(one.home(), Some("new"), Some("newer")).succeeds();
    starts_again_with(one, "newer");
    assert_eq!(one.read("g"), b"sealed with the new secret");
}

#[test]
fn a_removal_and_a_change_at_once_lose_nothing_of_each_other() {
    let pair = Pair::new();
    let home = pair.one.home();
    let args = ["remove", BUCKET, &key_of(&pair.other)];
    let removing = home.start(&args);
    change(home, None, Some("new")).succeeds();
    removing.wait(Duration::from_secs(60)).succeeds();
    pair.one.write("f", "sealed with the new secret");
    starts_again_with(&pair.one, "new");
    assert_eq!(pair.one.read("f"), b"sealed with the new secret");
}

/// The calls by which a key file is replaced, in their order, and whether the new one is there when
/// the last of them is reached.
const STEPS: [(&str, bool); 5] = [
    ("unlink,unlinkat", false),
    ("pwrite64", false),
    ("fdatasync", false),
    ("rename,renameat,renameat2", false),
    ("fsync", true),
];

#[test]
fn a_kill_at_any_step_leaves_the_old_key_file_or_the_new_one() {
    for (calls, is_new) in STEPS {
        let home = with(Home::new(), "old");
        let word = file(&home, "old");
        let peer = Peer::again(home, &["--passphrase-file", &word]);
        let home = peer.home();
        peer.write("f", "x");
        home.cairnfs(&["publish", BUCKET]).succeeds();
        let pid = peer.pid();
        eventually("the daemon has nothing to do", Duration::from_secs(30), || {
            ["writer", "index"].iter().all(|thread| process::has_nothing_to_do(pid, thread))
        });
        let _strace = Strace::attach(&peer, calls, &[&format!("{calls}:signal=KILL")]);
        let outcome = change(home, Some("old"), Some("new"));
        assert_eq!(outcome.code, Some(1), "{calls}: {outcome}");
        eventually("the daemon is gone", Duration::from_secs(30), || !process::is_alive(pid));
        for path in key_files(home) {
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{calls}: {}", path.display());
        }
        assert_eq!([opens(home, "old"), opens(home, "new")], [!is_new, is_new], "{calls}");
        mounts::detach_all(&peer.dir());
        mount(home, Some(if is_new { "new" } else { "old" }));
        assert_eq!(peer.read("f"), b"x", "{calls}");
        assert_eq!(key_files(home), [key_file(home)], "{calls}");
    }
}

/// The new file has the name already: what counts is what is there.
#[test]
fn a_change_that_could_not_be_made_durable_holds_and_is_said_to_have_failed() {
    let home = with(Home::new(), "old");
    let word = file(&home, "old");
    let peer = Peer::again(home, &["--passphrase-file", &word]);
    let home = peer.home();
    let strace = Strace::attach(&peer, "fsync", &["fsync:error=EIO"]);
    change(home, Some("old"), Some("new")).exits(1).says(&["the new passphrase holds"]);
    strace.detach();
    assert!(opens(home, "new") && !opens(home, "old"));
    change(home, Some("new"), Some("newer")).succeeds();
    assert!(opens(home, "newer"));
}

/// Leaves not a byte of room beside what is there.
fn fill(disk: &Path) -> PathBuf {
    let path = disk.join("ballast");
    let ballast = File::create(&path).unwrap();
    let mut offset = 0;
    while ballast.write_all_at(&[1; 4_096], offset).is_ok() {
        offset += 4_096;
    }
    path
}

#[test]
fn on_a_full_disk_the_passphrase_stays_and_no_part_of_a_key_file_is_left() {
    let home = with(Home::on(Image::tmpfs(48)), "old");
    let before = fs::read(key_file(&home)).unwrap();
    for mounted in [true, false] {
        if mounted {
            mount(&home, Some("old"));
        } else {
            home.umount_once_free(&home.dir("mnt")).succeeds();
        }
        let ballast = fill(home.image().path());
        change(&home, Some("old"), Some("new")).exits(12);
        assert_eq!(fs::read(key_file(&home)).unwrap(), before);
        assert_eq!(key_files(&home), [key_file(&home)]);
        fs::remove_file(ballast).unwrap();
    }
    change(&home, Some("old"), Some("new")).succeeds();
    assert!(opens(&home, "new") && !opens(&home, "old"));
}

#[test]
fn a_daemon_keeps_a_bucket_for_other_devices_while_it_has_no_passphrase() {
    let home = Home::new();
    home.create(BUCKET);
    let is_kept = || {
        let status = home.cairnfs(&["status", BUCKET, "--json"]).succeeds().json();
        status["buckets"][0]["kept"] == true
    };
    let limit = Duration::from_secs(30);
    let mut daemon = home.start(&["daemon"]);
    eventually("the bucket is kept", limit, is_kept);
    change(&home, None, Some("word")).succeeds();
    assert!(!is_kept(), "kept, and it has a passphrase");
    change(&home, Some("word"), None).succeeds();
    eventually("the bucket is kept again", limit, is_kept);
    home.cairnfs(&["stop"]).succeeds();
    eventually("the daemon ends", limit, || daemon.ended());
}

#[test]
fn places_where_the_old_passphrase_is_read_still_are_named() {
    let home = with(Home::new(), "old");
    let (old, dir) = (file(&home, "old"), home.dir("mnt"));
    home.mount(BUCKET, &dir, &["--at-start", "--passphrase-file", &old]);
    let config = format!("[bucket.{BUCKET}]\npassphrase_command = \"cat '{old}'\"\n");
    fs::write(home.path().join("config.toml"), config).unwrap();
    // The settings name where the present one comes from, and not the new one.
    home.cairnfs(&["passphrase", BUCKET]).exits(2).says(&["--new-passphrase-file"]);
    let new = file(&home, "new");
    let changed = home.cairnfs(&["passphrase", BUCKET, "--new-passphrase-file", &new]).succeeds();
    changed.says(&["settings take the passphrase from 'cat", "daemon takes it from the file"]);
    assert!(opens(&home, "new"));
}

/// Nobody is asked in vain.
#[test]
fn what_is_mounted_already_is_said_before_a_passphrase_is_asked_for() {
    let home = with(Home::new(), "old");
    let dir = mount(&home, Some("old"));
    let other = home.dir("other");
    for place in [&dir, &other] {
        let said = home.try_mount(BUCKET, place, &[]).exits(6);
        said.says(&[&format!("bucket 'photos' is mounted already, at {}", dir.display())]);
    }
    home.cairnfs(&["create", "notes", "--passphrase-file", &file(&home, "new")]).succeeds();
    home.try_mount("notes", &dir, &[]).exits(6).says(&["bucket 'photos' is mounted already"]);
}

/// Credentials of a service, by name.
fn credentials(home: &Home, words: &[(&str, &str)]) -> PathBuf {
    let dir = home.dir("credentials");
    fs::remove_dir_all(&dir).unwrap();
    let dir = home.dir("credentials");
    for (name, word) in words {
        fs::write(dir.join(name), word).unwrap();
    }
    dir
}

/// The daemon as a service that is given `credentials`.
fn service(home: &Home, credentials: &Path) -> Running {
    let mut daemon = home.command(&["daemon"]);
    Running::start(daemon.env("CREDENTIALS_DIRECTORY", credentials))
}

fn end(home: &Home, mut daemon: Running) {
    home.cairnfs(&["stop"]).succeeds();
    eventually("the daemon ends", SOON, || daemon.ended());
}

#[test]
fn a_mount_at_start_takes_the_credential_that_the_daemon_is_given() {
    let home = with(Home::new(), "right");
    let dir = home.dir("mnt");
    let is_mounted = || mounts::is_mounted(&dir);
    let ways = ["--passphrase-file", "--passphrase-command", "credential"];
    home.try_mount(BUCKET, &dir, &["--at-start"]).exits(2).says(&ways);
    assert!(!is_mounted());
    let given = credentials(&home, &[("passphrase", "right\n")]);
    let mut verb = home.command(&["mount", BUCKET, dir.to_str().unwrap(), "--at-start"]);
    run(verb.env("CREDENTIALS_DIRECTORY", &given), SOON).succeeds();
    let kept = fs::read_to_string(home.path().join("at-start.toml")).unwrap();
    assert!(!kept.contains(given.to_str().unwrap()), "kept, and not there next time: {kept}");
    home.cairnfs(&["stop"]).succeeds();
    // The next one has them elsewhere, and that of the bucket counts.
    let moved = home.beside("moved");
    fs::rename(&given, &moved).unwrap();
    fs::write(moved.join("passphrase"), "another").unwrap();
    fs::write(moved.join("passphrase.photos"), "right").unwrap();
    let daemon = service(&home, &moved);
    eventually("it is mounted", SOON, is_mounted);
    end(&home, daemon);
    // One without them says what it lacks.
    let daemon = home.start(&["daemon"]);
    let why = || {
        let status = home.cairnfs(&["status", BUCKET, "--json"]).json();
        status["buckets"][0]["at_start_error"].as_str().map(str::to_owned)
    };
    eventually("it is told why not", SOON, || why().is_some_and(|why| why.contains("credential")));
    end(&home, daemon);
}

#[test]
fn what_is_typed_once_the_daemon_takes_from_its_credential_at_start() {
    let home = with(Home::new(), "right");
    let dir = home.dir("mnt");
    let given = credentials(&home, &[("passphrase", "right")]);
    let daemon = service(&home, &given);
    eventually("it serves", SOON, || home.path().join("run/daemon.sock").exists());
    let mount = ["mount", BUCKET, dir.to_str().unwrap(), "--at-start"];
    terminal::typed(&home, &["right"], &mount).succeeds();
    end(&home, daemon);
    let daemon = service(&home, &given);
    eventually("it is mounted", SOON, || mounts::is_mounted(&dir));
    end(&home, daemon);
}

#[test]
fn a_bucket_that_got_a_passphrase_later_is_mounted_at_start_with_the_credential() {
    let home = Home::new();
    home.create(BUCKET);
    let dir = home.dir("mnt");
    home.mount(BUCKET, &dir, &["--at-start"]);
    change(&home, None, Some("right")).succeeds().says(&["credential"]);
    home.cairnfs(&["stop"]).succeeds();
    let daemon = service(&home, &credentials(&home, &[("passphrase", "right")]));
    eventually("it is mounted", SOON, || mounts::is_mounted(&dir));
    end(&home, daemon);
}
