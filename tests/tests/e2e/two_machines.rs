//! One bucket on two devices: what was done apart is kept, and what comes in is seen at once.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    ops::Range,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use cairnfs_tests::{
    Cut, Home, Pair, Peer, Save, Strace, Tree, data, eventually, peer, peer::BUCKET, process,
};
use nix::libc;
use rustix::{fs::XattrFlags, process::Signal};

use crate::damage::{damage, records};

/// How long a change may take to arrive; it needs a second or two.
pub(crate) const ARRIVE: Duration = Duration::from_secs(180);

/// The two contents that were written to one name are there under two, on both devices.
#[track_caller]
fn both_are_kept(pair: &Pair) -> Tree {
    let tree = pair.agree();
    for peer in pair.both() {
        let names = peer.names("");
        let [name, copy] = names.as_slice() else { panic!("not two names: {names:?}") };
        assert_eq!(name, "test.txt");
        let digits = copy.strip_prefix("test.txt@").unwrap_or_else(|| panic!("{names:?}"));
        assert!(
            digits.len() == 8
                && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
            "{names:?}"
        );
        let mut contents = [peer.read(name), peer.read(copy)];
        contents.sort();
        assert_eq!(contents, [b"local content".to_vec(), b"remote content".to_vec()], "{names:?}");
    }
    tree
}

/// The acceptance scenario: apart, the same name is written with two contents; then they meet.
fn one_name_written_apart(cut: Cut, first: &str, second: &str) {
    let pair = Pair::new();
    pair.apart(cut, |one| one.write("test.txt", first), |other| other.write("test.txt", second));
    pair.meet();
    let tree = both_are_kept(&pair);
    for peer in pair.both() {
        peer.stop();
    }
    for peer in pair.both() {
        peer.mount();
    }
    both_are_kept(&pair).same_as(&tree);
    for peer in pair.both() {
        peer.kill();
    }
    for peer in pair.both() {
        peer.mount_again();
    }
    both_are_kept(&pair).same_as(&tree);
    pair.meet();
    both_are_kept(&pair).same_as(&tree);
    for peer in pair.both() {
        peer.check().succeeds();
    }
}

#[test]
fn what_was_written_apart_is_kept_on_both_while_both_are_mounted() {
    one_name_written_apart(Cut::StandStill, "local content", "remote content");
}

#[test]
fn what_was_written_apart_is_kept_on_both_the_other_way_round() {
    one_name_written_apart(Cut::StandStill, "remote content", "local content");
}

#[test]
fn what_was_written_while_the_other_daemon_had_ended_is_kept_on_both() {
    one_name_written_apart(Cut::Ended, "local content", "remote content");
}

#[test]
fn what_was_written_while_the_other_daemon_had_ended_is_kept_the_other_way_round() {
    one_name_written_apart(Cut::Ended, "remote content", "local content");
}

/// Waits until `peer` shows `bytes` as the content of `name`.
#[track_caller]
fn shows(peer: &Peer, name: &str, bytes: &[u8]) {
    eventually(&format!("{name} shows what was written elsewhere"), ARRIVE, || {
        fs::read(peer.path(name)).is_ok_and(|found| found == bytes)
    });
}

#[test]
fn a_change_from_elsewhere_is_seen_although_the_kernel_remembered_what_was_before() {
    let pair = Pair::new();
    let (one, other) = (&pair.one, &pair.other);
    one.write("f", "short");
    one.write("gone", "x");
    fs::create_dir(one.path("d")).unwrap();
    one.write("d/moved", "y");
    pair.meet();
    // Everything that the kernel may remember of it.
    let len = |name: &str| fs::metadata(other.path(name)).map(|meta| meta.len());
    assert_eq!(len("f").unwrap(), 5);
    assert_eq!(other.read("f"), b"short");
    assert_eq!(other.read("gone"), b"x");
    assert_eq!(other.read("d/moved"), b"y");
    assert!(len("new").is_err() && len("d/new").is_err());
    assert_eq!(other.names(""), ["d", "f", "gone"]);
    let number = fs::metadata(other.path("d/moved")).unwrap().ino();

    one.write("new", "appeared");
    fs::rename(one.path("d/moved"), one.path("d/new")).unwrap();
    fs::remove_file(one.path("gone")).unwrap();
    one.write("f", "a much longer content");
    shows(other, "f", b"a much longer content");
    shows(other, "new", b"appeared");
    shows(other, "d/new", b"y");
    eventually("what was removed elsewhere is gone", ARRIVE, || len("gone").is_err());
    assert_eq!(len("f").unwrap(), 21);
    assert!(len("d/moved").is_err());
    assert_eq!(other.names(""), ["d", "f", "new"]);
    assert_eq!(other.names("d"), ["new"]);
    assert_eq!(fs::metadata(other.path("d/new")).unwrap().ino(), number, "a move keeps the number");
    assert_eq!(fs::metadata(other.path("d/new")).unwrap().nlink(), 1);
    pair.agree();
}

/// The kernel takes in what it looked up before the merge, after it was told of the merge.
#[test]
fn a_lookup_that_is_answered_after_a_merge_is_not_believed_for_long() {
    let pair = Pair::new();
    let (one, other) = (&pair.one, &pair.other);
    fs::create_dir(one.path("d")).unwrap();
    one.write("d/f", "x".repeat(10));
    pair.meet();
    // The kernel has forgotten the file.
    other.remount();
    fs::metadata(other.path("d")).unwrap();
    let slow = Strace::attach_to(other, "fuser", "writev", &["writev:delay_enter=30s"]);
    let path = other.path("d/f");
    let looking = thread::spawn(move || fs::metadata(path).unwrap().len());
    eventually("the answer is on its way", ARRIVE, || slow.holds_in(libc::SYS_writev, "fuser"));
    let after = "y".repeat(20);
    one.write("d/f", &after);
    for peer in pair.both() {
        peer.home().cairnfs(&["sync", BUCKET, "--timeout", "20s"]).succeeds();
    }
    slow.detach();
    assert_eq!(looking.join().unwrap(), 10, "the merge came first");
    eventually("the new length is seen", Duration::from_secs(10), || {
        fs::metadata(other.path("d/f")).unwrap().len() == 20
    });
    assert_eq!(other.read("d/f"), after.as_bytes());
}

#[test]
fn what_is_opened_after_a_merge_is_read_to_its_end_before_the_kernel_was_told() {
    let pair = Pair::new();
    let (one, other) = (&pair.one, &pair.other);
    let [before, after] = ["x".repeat(10), "y".repeat(20)];
    one.write("f", &before);
    pair.meet();
    assert_eq!(other.read("f"), before.as_bytes());
    let slow = Strace::attach_to(other, "notify", "writev", &["writev:delay_enter=30s"]);
    one.write("f", &after);
    let mut read = Vec::new();
    eventually("the file is what it was, and then something else", ARRIVE, || {
        read = other.read("f");
        read != before.as_bytes()
    });
    assert_eq!(String::from_utf8_lossy(&read), after);
    slow.detach();
    assert_eq!(other.read("f"), after.as_bytes());
}

#[test]
fn a_directory_that_moved_elsewhere_goes_on_working_for_who_stands_in_it() {
    let pair = Pair::new();
    fs::create_dir(pair.one.path("d")).unwrap();
    pair.one.write("d/f", "x");
    pair.meet();
    let inside = File::open(pair.other.path("d")).unwrap();
    let below = |name: &str| Path::new("/proc/self/fd").join(fd(&inside)).join(name);
    assert_eq!(fs::read(below("f")).unwrap(), b"x");
    fs::rename(pair.one.path("d"), pair.one.path("e")).unwrap();
    shows(&pair.other, "e/f", b"x");
    assert_eq!(fs::read(below("f")).unwrap(), b"x");
    fs::write(below("g"), "made in what has moved").unwrap();
    shows(&pair.one, "e/g", b"made in what has moved");
    pair.agree();
}

fn fd(file: &File) -> String {
    std::os::fd::AsRawFd::as_raw_fd(file).to_string()
}

#[test]
fn an_open_file_goes_on_showing_what_was_opened() {
    let pair = Pair::new();
    let before: Vec<u8> = b"before ".repeat(100_000);
    let after: Vec<u8> = b"afterwards ".repeat(100_000);
    pair.one.write("f", &before);
    pair.meet();
    let mut open = File::open(pair.other.path("f")).unwrap();
    let mut half = vec![0; before.len() / 2];
    open.read_exact(&mut half).unwrap();
    pair.one.write("f", &after);
    shows(&pair.other, "f", &after);
    let mut rest = Vec::new();
    open.read_to_end(&mut rest).unwrap();
    assert!([half, rest].concat() == before, "a mixture of what was before and after");
    open.seek(SeekFrom::Start(0)).unwrap();
    let mut all = Vec::new();
    open.read_to_end(&mut all).unwrap();
    assert!(all == before, "not what was opened");
}

#[test]
fn what_is_unsaved_in_an_open_file_is_merged_and_not_lost() {
    let hour = Save::Interval(Duration::from_secs(3600)).text();
    let pair = Pair::with(&[], &["--save", &hour, "--publish-quiet", "1h", "--publish-max", "1h"]);
    pair.one.write("f", "the beginning");
    pair.meet();
    let mut open = OpenOptions::new().append(true).open(pair.other.path("f")).unwrap();
    open.write_all(b", and more that nobody saved").unwrap();
    pair.one.write("f", "something else");
    let all_contents = |peer: &Peer| {
        let mut all: Vec<_> = peer.names("").iter().map(|name| peer.read(name)).collect();
        all.sort();
        all
    };
    let expected =
        [b"something else".to_vec(), b"the beginning, and more that nobody saved".to_vec()];
    for peer in pair.both() {
        eventually("both contents are on both", ARRIVE, || all_contents(peer) == expected);
    }
    open.write_all(b", not even now").unwrap();
    peer::close(open).unwrap();
    pair.meet();
    for peer in pair.both() {
        let all = all_contents(peer);
        let whole = b"the beginning, and more that nobody saved, not even now".to_vec();
        assert!(all.contains(&whole), "{all:?}");
        assert!(all.contains(&expected[0]), "{all:?}");
    }
}

/// Two devices that have met after each has written another content to `f`.
#[track_caller]
fn contested() -> Pair {
    let pair = Pair::new();
    pair.apart(
        Cut::StandStill,
        |one| one.write("f", "from one"),
        |other| other.write("f", "other"),
    );
    pair.meet();
    pair
}

#[test]
fn a_conflict_is_told_and_settled() {
    let pair = contested();
    for peer in pair.both() {
        let home = peer.home();
        let outcome = home.cairnfs(&["conflicts", BUCKET, "--json"]).exits(10);
        let json = outcome.json();
        let [conflict] = json["conflicts"].as_array().unwrap().as_slice() else {
            panic!("not one conflict: {json}")
        };
        assert_eq!(conflict["path"], "f", "{json}");
        let versions = conflict["versions"].as_array().unwrap();
        assert_eq!(versions.len(), 2, "{json}");
        let here = versions.iter().filter(|version| version["this_device"] == true);
        assert_eq!(here.count(), 1, "{json}");
        let status = home.cairnfs(&["status", BUCKET, "--json"]).succeeds().json();
        assert_eq!(status["buckets"][0]["conflicts"], 1, "{status}");
        let shown = home.cairnfs(&["conflicts"]).exits(10);
        assert!(shown.stdout.contains(peer.path("f").to_str().unwrap()), "{shown}");
    }
    let path = pair.one.path("f");
    let resolve = ["resolve", path.to_str().unwrap(), "--keep", "theirs"];
    pair.one.home().cairnfs(&[&resolve[..], &["--dry-run"]].concat()).succeeds();
    for word in ["f@nosuch", "nosuch"] {
        let resolve = ["resolve", path.to_str().unwrap(), "--keep", word];
        let refused = pair.one.home().cairnfs(&resolve).exits(2);
        refused.says(&[word, "no such copy or version takes part (f, f@", "no such file"]);
    }
    assert_eq!(pair.one.names("").len(), 2, "a dry run changed something");
    pair.one.home().cairnfs(&resolve).succeeds();
    for peer in pair.both() {
        eventually("the conflict is settled", ARRIVE, || peer.names("") == ["f"]);
        assert_eq!(peer.read("f"), b"other");
        peer.home().cairnfs(&["conflicts"]).succeeds();
    }
}

#[test]
fn a_content_merged_by_hand_settles_a_conflict() {
    let pair = contested();
    let merged = pair.other.scratch().join("merged");
    fs::write(&merged, "from one and other").unwrap();
    // A copy stands for the name it was made from.
    let names = pair.other.names("");
    let copy = pair.other.path(names.iter().find(|name| name.starts_with("f@")).unwrap());
    let copy = copy.to_str().unwrap();
    let home = pair.other.home();
    home.cairnfs(&["resolve", copy, "--keep", merged.to_str().unwrap()]).succeeds();
    for peer in pair.both() {
        eventually("the conflict is settled", ARRIVE, || peer.names("") == ["f"]);
        shows(peer, "f", b"from one and other");
    }
}

/// However long what was set is.
#[test]
fn attributes_as_long_as_they_can_be_are_settled() {
    let pair = Pair::new();
    pair.one.write("f", "x");
    pair.meet();
    let set = |peer: &Peer, byte: u8| {
        for n in 0..5 {
            let (name, value) = (format!("user.{n}"), vec![byte; 60_000]);
            rustix::fs::setxattr(peer.path("f"), name, &value, XattrFlags::empty()).unwrap();
        }
    };
    pair.apart(Cut::Ended, |one| set(one, b'1'), |other| set(other, b'2'));
    pair.meet();
    let (home, path) = (pair.other.home(), pair.other.path("f"));
    home.cairnfs(&["conflicts", BUCKET]).exits(10);
    home.cairnfs(&["resolve", path.to_str().unwrap(), "--keep", "ours"]).succeeds();
    home.cairnfs(&["conflicts", BUCKET]).succeeds();
    let mut value = [0; 60_000];
    rustix::fs::getxattr(&path, "user.4", &mut value).unwrap();
    assert_eq!(value[59_999], b'2');
}

/// Another version comes between the moment when the file is written there and the decision.
#[test]
fn a_content_that_was_written_but_settles_nothing_is_said_to_be_there() {
    let pair = contested();
    let peer = &pair.other;
    let merged = peer.scratch().join("merged");
    fs::write(&merged, "from one and other").unwrap();
    let slow = Strace::attach(peer, Strace::BARRIERS, &["fdatasync,fsync:delay_enter=5s"]);
    let (name, file) = (peer.path("f"), merged.to_str().unwrap());
    let mut running = peer.home().start(&["resolve", name.to_str().unwrap(), "--keep", file]);
    eventually("it is written", ARRIVE, || {
        assert!(!running.ended(), "it is over");
        fs::read(&name).unwrap() == b"from one and other"
    });
    process::stand_still(running.pid());
    slow.detach();
    pair.one.write("f", "and more");
    let is_there = || peer.names("").iter().any(|name| peer.read(name) == b"and more");
    eventually("another version is there", ARRIVE, is_there);
    running.signal(Signal::CONT);
    let told = running.wait(ARRIVE).exits(10);
    told.says(&["has changed since", &format!("{file} was written there"), "cairnfs log"]);
}

#[test]
fn the_strategy_is_the_same_on_both_and_is_followed() {
    let pair = Pair::new();
    let home = pair.one.home();
    home.cairnfs(&["strategy", BUCKET, "last-write-wins", "--rule", "*.md=merge-text"]).succeeds();
    pair.meet();
    let there = pair.other.home().cairnfs(&["strategy", BUCKET, "--json"]).succeeds().json();
    assert_eq!(there["strategy"], "last-write-wins", "{there}");
    assert_eq!(there["rules"][0]["glob"], "*.md", "{there}");
    pair.one.write("notes.md", "one\ntwo\nthree\n");
    pair.meet();
    pair.apart(
        Cut::Ended,
        |one| {
            one.write("f", "first");
            one.write("notes.md", "one!\ntwo\nthree\n");
        },
        |other| {
            other.write("f", "second");
            other.write("notes.md", "one\ntwo\nthree!\n");
        },
    );
    pair.meet();
    for peer in pair.both() {
        eventually("there is one version of each", ARRIVE, || peer.names("") == ["f", "notes.md"]);
        assert_eq!(peer.read("notes.md"), b"one!\ntwo\nthree!\n");
    }
    pair.agree();
}

/// A device with a file, one that may read only, and where that is to be mounted.
pub(crate) fn with_a_reader() -> (Peer, Home, PathBuf) {
    let one = Peer::new();
    one.write("f", "for all to read");
    let home = Home::new();
    let ticket = one.invite(&["--role", "reader"]);
    home.cairnfs(&["join", &ticket, "--no-passphrase"]).succeeds();
    let dir = home.dir("mnt");
    (one, home, dir)
}

#[test]
fn a_reader_reads_and_changes_nothing() {
    let (one, home, dir) = with_a_reader();
    home.try_mount(BUCKET, &dir, &[]).succeeds().says(&["read-only"]);
    assert_eq!(fs::read(dir.join("f")).unwrap(), b"for all to read");
    assert_eq!(
        fs::write(dir.join("g"), "x").unwrap_err().kind(),
        std::io::ErrorKind::ReadOnlyFilesystem
    );
    one.write("f", "and to be changed by one");
    eventually("a reader sees what changes", ARRIVE, || {
        fs::read(dir.join("f")).is_ok_and(|bytes| bytes == b"and to be changed by one")
    });
    let members = one.home().cairnfs(&["members", BUCKET, "--json"]).succeeds().json();
    for member in members["members"].as_array().unwrap() {
        assert_ne!(member["name"], "", "a device without a name: {members}");
    }
    let roles: Vec<_> =
        members["members"].as_array().unwrap().iter().map(|it| it["role"].clone()).collect();
    assert!(roles.contains(&"reader".into()) && roles.contains(&"owner".into()), "{members}");
    home.cairnfs(&["invite", BUCKET]).exits(1).says(&["owner"]);
}

#[test]
fn a_device_that_was_removed_gets_nothing_new() {
    let pair = Pair::new();
    pair.one.write("f", "for both");
    pair.meet();
    let key = pair.other.home().cairnfs(&["id", "--json"]).succeeds().json()["key"].clone();
    let key = &key.as_str().unwrap()[..16];
    pair.one.home().cairnfs(&["remove", BUCKET, key]).succeeds();
    pair.one.write("g", "not for other");
    pair.one.home().cairnfs(&["publish", BUCKET]).succeeds();
    // It says so wherever somebody may wonder.
    let said = format!("this device was removed from bucket '{BUCKET}' by its members");
    eventually("it is told", ARRIVE, || {
        let outcome = pair.other.home().cairnfs(&["sync", BUCKET, "--timeout", "30s"]);
        outcome.code != Some(0) && outcome.stderr.contains(&said)
    });
    for verb in ["status", "peers"] {
        let outcome = pair.other.home().cairnfs(&[verb]).succeeds();
        assert!(outcome.stdout.contains(&said), "{outcome}");
    }
    assert_eq!(pair.other.names(""), ["f"]);
    assert_eq!(pair.other.read("f"), b"for both");
    let members = pair.one.home().cairnfs(&["members", BUCKET, "--json"]).succeeds().json();
    assert_eq!(members["members"].as_array().unwrap().len(), 1, "{members}");
}

/// As `chmod -R`, `chown -R` and whoever looks with a database's program at a copy do it.
#[test]
fn what_goes_over_all_files_settles_no_conflict() {
    let pair = Pair::new();
    pair.apart(Cut::StandStill, |one| one.write("x", "one"), |other| other.write("x", "other"));
    pair.meet();
    let home = pair.one.home();
    let names = pair.one.names("");
    let owner = fs::metadata(pair.one.path("x")).unwrap();
    // The kernel knows what they are like by now.
    let owner = format!("{}:{}", owner.uid(), owner.gid());
    for (program, args) in [("chmod", ["-R", "g+w"]), ("chown", ["-R", &owner])] {
        let status = Command::new(program).args(args).arg(pair.one.dir()).status().unwrap();
        assert!(status.success(), "{program}");
        home.cairnfs(&["conflicts"]).exits(10);
    }
    for name in &names {
        let mode = fs::metadata(pair.one.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o664, "{name}");
        OpenOptions::new().read(true).write(true).open(pair.one.path(name)).unwrap();
    }
    home.cairnfs(&["conflicts"]).exits(10);
    let copy = names.iter().find(|name| name.contains('@')).unwrap();
    pair.one.write(copy, "written to");
    home.cairnfs(&["conflicts"]).succeeds();
    assert_eq!(pair.agree().len(), 2);
}

/// It is one file, whatever it is called, and it is settled under all its names at once.
#[test]
fn a_file_with_several_names_conflicts_once() {
    let pair = Pair::new();
    fs::create_dir(pair.one.path("sub")).unwrap();
    for (file, names) in [("todo", ["todo-too", "sub/todo"]), ("plain", ["hard", "sub/hard"])] {
        pair.one.write(file, "both");
        for name in names {
            fs::hard_link(pair.one.path(file), pair.one.path(name)).unwrap();
        }
    }
    pair.meet();
    let change = |peer: &Peer, text, mode| {
        peer.write("todo", text);
        fs::set_permissions(peer.path("plain"), PermissionsExt::from_mode(mode)).unwrap();
    };
    pair.apart(
        Cut::StandStill,
        |one| change(one, "one", 0o600),
        |other| change(other, "other", 0o640),
    );
    pair.meet();
    let home = pair.one.home();
    let listed = |args: &[&str]| {
        let json = home.cairnfs(&[&["conflicts", "--json"], args].concat()).exits(10).json();
        let names = |conflict: &serde_json::Value| {
            let others = conflict["other_names"].as_array().unwrap().iter();
            let names = others.map(|it| &it["path"]).chain([&conflict["path"]]);
            let mut names: Vec<_> = names.map(|it| it.as_str().unwrap().to_owned()).collect();
            names.sort();
            (conflict["kind"].as_str().unwrap().to_owned(), names)
        };
        json["conflicts"].as_array().unwrap().iter().map(names).collect::<Vec<_>>()
    };
    let names = |names: [&str; 3]| names.map(ToOwned::to_owned).to_vec();
    let plain = ("meta".to_owned(), names(["hard", "plain", "sub/hard"]));
    let todo = ("content".to_owned(), names(["sub/todo", "todo", "todo-too"]));
    assert_eq!(listed(&[]), [plain.clone(), todo.clone()]);
    assert_eq!(listed(&[pair.one.path("sub").to_str().unwrap()]), [plain, todo]);
    let said = home.cairnfs(&["conflicts"]).exits(10).says(&["2 conflicts remain"]);
    assert_eq!(said.stdout.matches("  also called ").count(), 4, "{said}");
    let status = home.cairnfs(&["status", BUCKET, "--json"]).succeeds().json();
    assert_eq!(status["buckets"][0]["conflicts"], 2, "{status}");

    let todo = pair.one.path("sub/todo");
    home.cairnfs(&["resolve", todo.to_str().unwrap(), "--keep", "theirs"]).succeeds();
    home.cairnfs(&["resolve", "--all", "--keep", "ours"]).succeeds();
    home.cairnfs(&["conflicts"]).succeeds();
    for name in ["todo", "todo-too", "sub/todo"] {
        assert_eq!(pair.one.read(name), b"other", "{name}");
    }
    assert_eq!(fs::metadata(pair.one.path("hard")).unwrap().permissions().mode() & 0o777, 0o600);
}

/// Nothing is changed where only can be read.
#[test]
fn a_reader_that_was_removed_is_not_told_of_changes_of_its_own() {
    let (one, home, dir) = with_a_reader();
    home.mount(BUCKET, &dir, &[]);
    let key = home.cairnfs(&["id", "--json"]).succeeds().json()["key"].clone();
    one.home().cairnfs(&["remove", BUCKET, &key.as_str().unwrap()[..16]]).succeeds();
    let said = "by its members: what others change does not come here";
    eventually("it is told", ARRIVE, || home.cairnfs(&["status"]).succeeds().stdout.contains(said));
    home.umount_once_free(&dir).succeeds();
    let mount = home.try_mount(BUCKET, &dir, &[]).succeeds().says(&["read-only"]);
    for told in [mount.stderr, home.cairnfs(&["status"]).succeeds().stdout] {
        assert!(told.contains(said) && !told.contains("stays here"), "{told}");
    }
}

/// Waits until `peer` has noticed that all but `count` have gone.
#[track_caller]
fn knows_of_connections(peer: &Peer, count: usize) {
    eventually("it notices who has gone", ARRIVE, || {
        let peers = peer.home().cairnfs(&["peers", "--json"]).succeeds().json();
        let all = peers["peers"].as_array().unwrap();
        all.iter().filter(|peer| peer["connected"] == true).count() == count
    });
}

#[test]
fn nobody_to_reach_is_exit_code_11() {
    let pair = Pair::new();
    pair.other.stop();
    knows_of_connections(&pair.one, 0);
    let outcome = pair.one.home().cairnfs(&["sync", BUCKET, "--timeout", "20s"]).exits(11);
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
    let peers = pair.one.home().cairnfs(&["peers", "--json"]).succeeds().json();
    assert_eq!(peers["peers"][0]["connected"], false, "{peers}");
}

#[test]
fn who_gives_sync_no_time_is_told_just_that() {
    let pair = Pair::new();
    pair.other.stop();
    knows_of_connections(&pair.one, 0);
    let outcome = pair.one.home().cairnfs(&["sync", BUCKET, "--timeout", "0s"]).exits(11);
    outcome.says(&["no peer was reached in time"]);
}

#[test]
fn a_ticket_is_good_once_and_not_when_it_is_mistyped() {
    let one = Peer::new();
    let ticket = one.invite(&[]);
    let (home, late) = (Home::new(), Home::new());
    let join = |home: &Home, ticket: &str| {
        home.cairnfs(&["join", ticket, "--no-passphrase", "--name", "mine"])
    };
    let mut mistyped = ticket.clone();
    let last = mistyped.pop().unwrap();
    mistyped.push(if last == 'a' { 'b' } else { 'a' });
    for wrong in [&*mistyped, "nonsense", &ticket[..ticket.len() / 2]] {
        let outcome = join(&home, wrong).exits(4);
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
    }
    join(&home, &ticket).succeeds();
    assert!(home.cairnfs(&["list"]).succeeds().stdout.contains("mine"));
    let outcome = join(&late, &ticket).exits(4);
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
    assert!(!late.cairnfs(&["list"]).succeeds().stdout.contains("mine"));
}

#[test]
fn joining_what_is_here_already_under_a_name_is_refused_and_uses_up_no_ticket() {
    let one = Peer::new();
    let (home, late) = (Home::new(), Home::new());
    home.cairnfs(&["join", &one.invite(&[]), "--no-passphrase", "--name", "mine"]).succeeds();
    let ticket = one.invite(&[]);
    let join = |name| home.cairnfs(&["join", &*ticket, "--no-passphrase", "--name", name]);
    for name in ["again", "photos"] {
        let outcome = join(name).exits(2);
        assert_eq!(outcome.stderr, "cairnfs: the ticket's bucket is here already, as 'mine'\n");
    }
    join("mine").exits(2).says(&["'mine' exists already, and is that of the ticket"]);
    let list = home.cairnfs(&["list", "--json"]).succeeds().json();
    assert_eq!(list["buckets"].as_array().unwrap().len(), 1, "{list}");
    late.cairnfs(&["join", &ticket, "--no-passphrase"]).succeeds();
}

#[test]
fn two_that_have_both_moved_meet_again_by_a_ticket_which_is_not_used_up() {
    let pair = Pair::new();
    for peer in pair.both() {
        peer.stop();
    }
    for peer in pair.both() {
        let dir = peer.dir();
        let mut mount = peer.home().command(&["mount", BUCKET, dir.to_str().unwrap()]);
        mount.env("CAIRNFS_LISTEN", "127.0.0.1:0");
        cairnfs_tests::run(&mut mount, ARRIVE).succeeds();
    }
    pair.one.write("f", "after the move");
    let home = pair.other.home();
    home.cairnfs(&["sync", BUCKET, "--timeout", "20s"]).exits(11);
    let ticket = pair.one.invite(&[]);
    let outcome = home.cairnfs(&["join", &ticket]).succeeds();
    assert_eq!(outcome.stdout, format!("{BUCKET}\n"));
    let listening =
        pair.one.home().cairnfs(&["peers", "--json"]).succeeds().json()["listening"].clone();
    let at = listening.as_str().unwrap();
    outcome.says(&["is here already: ", &format!("was reached at {at}\n")]);
    pair.agree();
    // One that is not mounted is found too, and by itself from then on.
    pair.other.umount();
    home.cairnfs(&["join", &ticket, "--no-passphrase"]).succeeds();
    Home::new().cairnfs(&["join", &ticket, "--no-passphrase"]).succeeds();
    home.cairnfs(&["sync", BUCKET, "--timeout", "30s"]).succeeds();
}

#[test]
fn a_home_that_was_copied_is_said_on_both_machines_and_where_they_connect() {
    let pair = Pair::new();
    let (one, other) = (pair.one.home(), pair.other.home());
    pair.other.stop();
    let copy = Home::new();
    let mut cp = Command::new("cp");
    cairnfs_tests::run(cp.arg("-a").args([other.path(), copy.path()]), ARRIVE).succeeds();
    pair.other.mount();
    let copy = Peer::again(copy, &[]);
    for (home, says) in [
        (one, "two machines, both at 127.0.0.1, have its key"),
        (other, "another machine that has the key of this device, at 127.0.0.1"),
        (copy.home(), "another machine that has the key of this device, at 127.0.0.1"),
    ] {
        eventually("it is said", ARRIVE, || {
            let said = home.cairnfs(&["peers"]).succeeds().stdout;
            said.contains(says) && said.contains("one of the two homes is a copy of the other")
        });
        let log = fs::read_to_string(home.path().join("daemon.log")).unwrap();
        assert_eq!(log.matches("copied-home").count(), 1, "{log}");
    }
}

#[test]
fn sync_names_those_that_were_not_reached() {
    let pair = Pair::new();
    let kitchen = Home::new();
    let mut join = kitchen.command(&["join", &pair.one.invite(&[]), "--no-passphrase"]);
    join.env("CAIRNFS_DEVICE_NAME", "kitchen");
    cairnfs_tests::run(&mut join, ARRIVE).succeeds();
    kitchen.cairnfs(&["stop"]).succeeds();
    knows_of_connections(&pair.one, 1);
    let outcome = pair.one.home().cairnfs(&["sync", BUCKET, "--timeout", "30s"]).succeeds();
    assert_eq!(outcome.stderr, "in step with 1 device; not reached: kitchen\n");
}

#[test]
fn what_is_damaged_on_one_device_is_fetched_from_the_other() {
    let pair = Pair::new();
    let bytes = data::bytes(7, 4 << 20);
    pair.other.write("large", &bytes);
    pair.meet();
    pair.one.stop();
    // Of all that is there a piece of the file takes most.
    let (pack, _) = pair.one.home().packs().into_iter().max_by_key(|it| it.1).unwrap();
    let log = fs::read(&pack).unwrap();
    let longest = records(&log).max_by_key(Range::len).unwrap();
    damage(&pack, u64::try_from(longest.start.midpoint(longest.end)).unwrap());
    pair.one.mount();
    let damaged = pair.one.check();
    assert_eq!(damaged.code, Some(8), "{damaged}");
    assert!(damaged.stdout.contains("large"), "{damaged}");
    fs::read(pair.one.path("large")).unwrap_err();
    eventually("they reach each other", ARRIVE, || {
        pair.one.home().cairnfs(&["sync", BUCKET, "--timeout", "30s"]).code == Some(0)
    });
    let mended = pair.one.home().cairnfs(&["check", "--repair", BUCKET]).succeeds();
    assert!(mended.stderr.contains("fetched 1 damaged piece"), "{mended}");
    assert!(pair.one.read("large") == bytes);
    pair.one.check().succeeds();
    pair.one.remount();
    assert!(pair.one.read("large") == bytes);
}
