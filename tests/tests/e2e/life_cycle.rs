//! What the daemon begins and ends at the same moment: mounts, unmounts, its own start and end.

use std::{
    fs::{self, OpenOptions},
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use cairnfs_tests::{
    Home, Image, Peer, Running, Strace, data, eventually, mounts, need, peer::BUCKET, process, run,
};

use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(30);

/// A mount of which something is unsaved that finds no room, and what takes the room.
fn full() -> (Peer, PathBuf) {
    let options = ["--save", "interval:10m", "-o", "publish_quiet=10m,publish_max=20m"];
    let peer = Peer::on(Home::on(Image::tmpfs(48)), &options);
    fs::write(peer.path("f"), data::bytes(1, 5_000_000)).unwrap();
    let ballast = peer.home().image().path().join("ballast");
    // The end of it is refused, however little that is.
    for len in [64 << 20, 1 << 16, 1 << 12] {
        let mut bytes = fs::read(&ballast).unwrap_or_default();
        bytes.resize(bytes.len() + len, 1);
        fs::write(&ballast, bytes).unwrap_err();
    }
    (peer, ballast)
}

/// Begins to unmount, and returns when that waits for room.
fn unmounting(peer: &Peer, timeout: &str) -> Running {
    let dir = peer.dir();
    let umount = peer.home().start(&["umount", "--timeout", timeout, dir.to_str().unwrap()]);
    let waits = || process::tries_again_later(peer.pid(), "control-");
    eventually("it waits for room", SOON, waits);
    umount
}

fn mount_over(dir: &Path) {
    run(Command::new("mount").args(["-t", "tmpfs", "other"]).arg(dir), SOON).succeeds();
}

#[test]
fn stop_takes_over_from_who_unmounts_and_says_what_is_lost() {
    let (peer, _ballast) = full();
    let (home, dir) = (peer.home(), peer.dir());
    let umount = unmounting(&peer, "60s");
    let start = Instant::now();
    home.cairnfs(&["stop"]).exits(9).says(&["lost"]);
    assert!(start.elapsed() < Duration::from_secs(30), "it waited for the time of `umount`");
    umount.wait(SOON).exits(9).says(&["cannot be saved"]);
    assert!(!mounts::is_mounted(&dir));
    let log = fs::read_to_string(home.path().join("daemon.log")).unwrap();
    assert!(log.contains("daemon-ended saved=false"), "{log}");
}

#[test]
fn stop_waits_for_an_unmount_that_is_slow() {
    let peer = Peer::with(&["--save", "interval:1h"]);
    peer.write("f", data::bytes(1, 2_000_000));
    let (home, dir) = (peer.home(), peer.dir());
    let delay = ["fdatasync,fsync:delay_enter=12000000:when=1"];
    let strace = Strace::attach_to(&peer, "writer", Strace::BARRIERS, &delay);
    let umount = home.start(&["umount", dir.to_str().unwrap()]);
    eventually("it saves", SOON, || strace.holds_at_a_barrier("writer"));
    home.cairnfs(&["stop"]).succeeds();
    umount.wait(SOON).succeeds();
    assert!(!mounts::is_mounted(&dir));
    drop(strace);
    peer.mount();
    assert!(peer.read("f") == data::bytes(1, 2_000_000));
}

#[test]
fn what_others_unmount_while_a_verb_does_is_ended_all_the_same() {
    need::root("umount(8)");
    let (peer, ballast) = full();
    let umount = unmounting(&peer, "6s");
    run(Command::new("umount").arg(peer.dir()), SOON).succeeds();
    umount.wait(SOON).exits(9);
    fs::remove_file(ballast).unwrap();
    peer.mount();
}

#[test]
fn umount_takes_nothing_away_that_lies_over_its_mount() {
    need::root("mount(8)");
    let peer = Peer::new();
    peer.write("f", "below");
    let (home, dir) = (peer.home(), peer.dir());
    mount_over(&dir);
    fs::write(dir.join("x"), "precious").unwrap();
    home.umount(&dir).exits(6).says(&["something else is mounted over", "umount"]);
    assert_eq!(fs::read(dir.join("x")).unwrap(), b"precious");
    run(Command::new("umount").arg(&dir), SOON).succeeds();
    assert_eq!(peer.read("f"), b"below");
    // Nor does it take something for unmounted that only cannot be reached.
    let above = dir.parent().unwrap().to_owned();
    let (nested, under) = (home.dir("above/mnt"), home.dir("above"));
    home.umount(&dir).succeeds();
    home.mount(BUCKET, &nested, &[]);
    mount_over(&under);
    fs::create_dir(&nested).unwrap();
    home.umount(&nested).exits(6).says(&["something else is mounted over"]);
    run(Command::new("umount").arg(&under), SOON).succeeds();
    assert_eq!(fs::read(nested.join("f")).unwrap(), b"below");
    home.umount(&nested).succeeds();
    assert!(mounts::below(&above).is_empty());
}

#[test]
fn a_directory_is_mounted_on_once() {
    let peer = Peer::new();
    let home = peer.home();
    let place = home.dir("place");
    for name in ["one", "two"] {
        home.create(name);
    }
    let strace = Strace::attach(&peer, "mount", &["mount:delay_enter=300000"]);
    let verbs = ["one", "two"].map(|name| home.start(&["mount", name, place.to_str().unwrap()]));
    let mut outcomes = verbs.map(|verb| verb.wait(SOON));
    drop(strace);
    outcomes.sort_by_key(|outcome| outcome.code);
    let [first, second] = outcomes;
    first.succeeds();
    second.exits(6).says(&["mounted there"]);
    assert_eq!(mounts::below(&place).len(), 1);
}

#[test]
fn stop_and_umount_are_served_however_many_ask() {
    let peer = Peer::new();
    let home = peer.home();
    peer.write("f", "x");
    let socket = home.path().join("run/daemon.sock");
    let idle: Vec<_> = (0..64).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    eventually("there is no room", SOON, || {
        home.cairnfs(&["list"]).stderr.contains("too many verbs")
    });
    home.umount(&peer.dir()).succeeds();
    home.cairnfs(&["stop"]).succeeds();
    drop(idle);
}

/// Such as one that asks a person who is not there.
#[test]
fn a_command_that_gives_no_passphrase_keeps_no_daemon_from_ending() {
    let home = Home::new();
    let dir = home.dir("mnt");
    let [locked, asked] = ["locked", "asked"].map(|name| home.scratch().join(name));
    let command = format!(
        "while test -e '{0}'; do touch '{1}'; sleep 0.1; done; echo word",
        locked.display(),
        asked.display()
    );
    let flags = ["--passphrase-command", &command];
    home.cairnfs(&[&["create", BUCKET], &flags[..]].concat()).succeeds();
    home.mount(BUCKET, &dir, &[&["--at-start"], &flags[..]].concat());
    home.cairnfs(&["stop"]).succeeds();
    for by_signal in [false, true] {
        fs::write(&locked, "").unwrap();
        let mut daemon = home.start(&["daemon"]);
        eventually("the daemon asks", SOON, || asked.exists());
        if by_signal {
            daemon.signal(Signal::TERM);
        } else {
            home.cairnfs(&["stop"]).succeeds();
        }
        eventually("the daemon ends", SOON, || daemon.ended());
        fs::remove_file(&locked).unwrap();
        fs::remove_file(&asked).unwrap();
    }
}

#[test]
fn the_verb_that_starts_the_daemon_and_its_mounts_at_start_wait_for_each_other() {
    let home = Home::new();
    home.create(BUCKET);
    let dir = home.dir("mnt");
    home.mount(BUCKET, &dir, &["--at-start"]);
    for _ in 0..15 {
        home.cairnfs(&["stop"]).succeeds();
        home.cairnfs(&["log", BUCKET]).succeeds();
        eventually("it is mounted at start", SOON, || {
            let status = home.cairnfs(&["status"]).succeeds().stdout;
            assert!(!status.contains("could not be mounted"), "{status}");
            mounts::is_mounted(&dir)
        });
    }
}

/// As on a stick that is not plugged in.
#[test]
fn a_device_key_that_leads_nowhere_is_not_made_again() {
    let home = Home::new();
    let id = home.cairnfs(&["id"]).succeeds().stdout;
    let (key, away) = (home.path().join("device.key"), home.scratch().join("device.key"));
    fs::rename(&key, &away).unwrap();
    std::os::unix::fs::symlink(home.scratch().join("stick"), &key).unwrap();
    home.cairnfs(&["id"]).exits(1).says(&["device.key", "bring that back"]);
    assert!(key.is_symlink() && !home.scratch().join("stick").exists());
    fs::rename(&away, home.scratch().join("stick")).unwrap();
    assert_eq!(home.cairnfs(&["id"]).succeeds().stdout, id);
}

/// Makes the log of the daemon of `peer` longer by `len` bytes of `byte`, and has it log a line.
fn fill_log(peer: &Peer, byte: u8, len: usize) {
    let path = peer.home().path().join("daemon.log");
    let mut log = OpenOptions::new().append(true).open(path).unwrap();
    log.write_all(&vec![byte; len]).unwrap();
    process::signal(peer.pid(), Signal::HUP);
}

#[test]
fn the_log_of_a_daemon_that_goes_on_is_set_aside_when_it_is_full() {
    let peer = Peer::new();
    let read = |name: &str| fs::read(peer.home().path().join(name)).unwrap_or_default();
    let lines = |log: &[u8]| String::from_utf8_lossy(log).matches("hup=ignored").count();
    fill_log(&peer, b'a', 1 << 20);
    eventually("a line behind it", SOON, || lines(&read("daemon.log")) == 1);
    assert!(read("daemon.log.1").is_empty(), "set aside before it was full");
    for byte in [b'b', b'c'] {
        fill_log(&peer, byte, 4 << 20);
        // One look: the log from before has a line as well, and may be set aside between two.
        eventually("a new one", SOON, || {
            let log = read("daemon.log");
            log.len() < 1000 && lines(&log) == 1
        });
        assert!(read("daemon.log.1").ends_with(&[byte]), "another one was set aside");
    }
    // What a panic would say goes to the new one too.
    let log = peer.home().path().join("daemon.log");
    for fd in ["1", "2"] {
        let link = format!("/proc/{}/fd/{fd}", peer.pid());
        assert_eq!(fs::read_link(link).unwrap(), log);
    }
}

#[test]
fn ten_thousand_who_are_turned_away_leave_a_few_lines_in_the_log_and_nothing_in_memory() {
    let peer = Peer::new();
    let log = || fs::read_to_string(peer.home().path().join("daemon.log")).unwrap();
    let port = || log().split_once("listening port=")?.1.lines().next()?.parse::<u16>().ok();
    let address = ("127.0.0.1", port().expect("it listens"));
    let (start, before) = (Instant::now(), process::rss_bytes(peer.pid()));
    for _ in 0..100 {
        let mut sockets = Vec::new();
        for _ in 0..100 {
            let mut socket = TcpStream::connect(address).unwrap();
            socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            sockets.push(socket);
        }
        // Until they are turned away.
        for mut socket in sockets {
            socket.read_to_end(&mut Vec::new()).ok();
        }
    }
    let minutes = usize::try_from(start.elapsed().as_secs() / 60).unwrap();
    let lines = log().matches(" refused ").count();
    assert!((1..=8 * (minutes + 1)).contains(&lines), "{lines} lines");
    // What a hundred at once take, and not what each of them took.
    let most = process::rss_bytes_max(peer.pid());
    assert!(most < before + (8 << 20), "{before} bytes became {most}");
}
