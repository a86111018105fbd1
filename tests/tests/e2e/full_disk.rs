//! A full disk is said to who writes; what was saved stays, deleting works, writing goes on.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    time::Duration,
};

use cairnfs_tests::{
    Home, Image, Peer, data, eventually,
    peer::{BUCKET, UNPUBLISHED},
};
use rustix::io::Errno;

const ENOSPC: Option<i32> = Some(Errno::NOSPC.raw_os_error());

/// Writes files of `len` bytes until one is refused; says how many were saved.
#[track_caller]
fn fill(peer: &Peer, prefix: &str, len: usize) -> u64 {
    for n in 0..100_000 {
        let path = peer.path(format!("{prefix}{n}"));
        if let Err(err) = cairnfs_tests::peer::write(&path, &data::bytes(n, len)) {
            assert_eq!(err.raw_os_error(), ENOSPC, "a full disk is ENOSPC, not: {err}");
            return n;
        }
    }
    panic!("the disk does not fill");
}

fn remove(peer: &Peer, name: &str) {
    fs::remove_file(peer.path(name)).unwrap_or_else(|err| panic!("removing {name}: {err}"));
}

#[test]
fn the_writer_gets_enospc_and_what_was_saved_stays() {
    let peer = Peer::on(Home::on(Image::tmpfs(48)), &[]);
    let saved = fill(&peer, "f", 300_000);
    assert!(saved > 20, "only {saved} files fit in 48 MiB");
    for n in 0..saved {
        assert!(peer.read(format!("f{n}")) == data::bytes(n, 300_000), "f{n}");
    }
    // Still so after a crash on the full disk.
    peer.kill_and_remount();
    for n in 0..saved {
        assert!(peer.read(format!("f{n}")) == data::bytes(n, 300_000), "f{n}, after kill -9");
    }
}

/// `df` shows no room that no write gets, and `status` says that there is none.
#[test]
fn a_disk_on_which_nothing_can_be_written_is_said_to_be_full() {
    let home = Home::on(Image::tmpfs(48));
    let ballast = home.image().path().join("ballast");
    fs::write(&ballast, vec![1; 16 << 20]).unwrap();
    let peer = Peer::on(home, &[]);
    fill(&peer, "f", 300_000);
    fill(&peer, "g", 6);
    let stat = rustix::fs::statvfs(&*peer.dir()).unwrap();
    assert_eq!(stat.f_bavail * stat.f_frsize, 0, "and 6 bytes are refused");
    let home = peer.home();
    let text = home.cairnfs(&["status", BUCKET]).succeeds().stdout;
    assert!(text.contains("no space left"), "{text}");
    let json = home.cairnfs(&["status", BUCKET, "--wait-safe", "--json"]).succeeds().json();
    assert_eq!(json["buckets"][0]["health"], "no-space", "{json}");
    // What was refused was not written: all that was is saved.
    assert_eq!(json["safe"], true, "{json}");
    fs::remove_file(ballast).unwrap();
    eventually("writing goes on", Duration::from_secs(30), || {
        cairnfs_tests::peer::write(&peer.path("again"), &data::bytes(9, 1 << 20)).is_ok()
    });
    let json = home.cairnfs(&["status", BUCKET, "--json"]).succeeds().json();
    assert_eq!(json["buckets"][0]["health"], "good", "{json}");
}

#[test]
fn deleting_works_on_a_full_disk_and_writing_goes_on_when_there_is_space_again() {
    let home = Home::on(Image::tmpfs(64));
    // Something else on the same disk, which goes away later.
    let ballast = home.image().path().join("ballast");
    fs::write(&ballast, vec![1; 24 << 20]).unwrap();
    let peer = Peer::on(home, &[]);
    let saved = fill(&peer, "f", 200_000);
    assert!(saved > 10, "only {saved} files fit");
    for n in 0..5 {
        remove(&peer, &format!("f{n}"));
    }
    File::open(peer.dir()).unwrap().sync_all().expect("deleting is saved on a full disk");
    peer.kill_and_remount();
    for n in 0..5 {
        assert!(!peer.path(format!("f{n}")).exists(), "f{n} came back");
    }
    for n in 5..saved {
        assert!(peer.read(format!("f{n}")) == data::bytes(n, 200_000), "f{n}");
    }
    fill(&peer, "g", 100_000);
    fs::remove_file(ballast).unwrap();
    // Without a remount.
    eventually("writing goes on", Duration::from_secs(20), || {
        cairnfs_tests::peer::write(&peer.path("again"), &data::bytes(9, 2 << 20)).is_ok()
    });
    peer.kill_and_remount();
    assert!(peer.read("again") == data::bytes(9, 2 << 20));
    peer.check().succeeds();
}

/// What was written since the last version is more than the space kept for deleting has room for.
#[test]
fn an_unmount_that_finds_no_room_for_a_version_says_so_and_loses_nothing() {
    let peer = Peer::on(Home::on(Image::tmpfs(64)), &UNPUBLISHED);
    for n in 0..1_200 {
        peer.write(format!("f{n}"), data::bytes(n, 3_000));
    }
    peer.wait_safe();
    let ballast = peer.home().image().path().join("ballast");
    let full = fs::write(&ballast, vec![1; 64 << 20]).unwrap_err();
    assert_eq!(full.raw_os_error(), ENOSPC, "{full}");
    let dir = peer.dir();
    let umount = peer.home().cairnfs(&["umount", dir.to_str().unwrap()]).succeeds();
    assert!(umount.stderr.contains("not published yet: no space"), "{umount}");
    fs::remove_file(ballast).unwrap();
    peer.mount();
    for n in 0..1_200 {
        assert!(peer.read(format!("f{n}")) == data::bytes(n, 3_000), "f{n}");
    }
}

#[test]
fn deleting_everything_gives_the_space_back() {
    let peer = Peer::on(Home::on(Image::tmpfs(64)), &[]);
    for round in 0..3 {
        let saved = fill(&peer, "f", 500_000);
        for name in peer.names("") {
            remove(&peer, &name);
        }
        let wanted = data::bytes(round, 10 << 20);
        eventually("ten megabytes fit where more was deleted", Duration::from_secs(30), || {
            cairnfs_tests::peer::write(&peer.path("big"), &wanted).is_ok()
        });
        assert!(saved > 20 && peer.read("big") == wanted, "round {round}, {saved} files");
        peer.kill_and_remount();
        assert!(peer.read("big") == wanted, "round {round}, after kill -9");
        remove(&peer, "big");
        // Older versions were given up; what is left of them is no damage.
        peer.check().succeeds();
        let log = peer.home().cairnfs(&["log", BUCKET, "--json"]).succeeds().json();
        assert!(!log["versions"].as_array().unwrap().is_empty(), "{log}");
    }
}

#[test]
fn a_full_disk_is_reported_by_fsync_and_close_of_a_held_file() {
    let peer = Peer::on(Home::on(Image::tmpfs(40)), &["--save", "interval:1h"]);
    let file = File::create(peer.path("f")).unwrap();
    let mut written = 0;
    let failed = loop {
        let bytes = data::bytes(written, 1 << 20);
        match file.write_all_at(&bytes, written << 20).and_then(|()| file.sync_all()) {
            Ok(()) => written += 1,
            Err(err) => break err,
        }
        assert!(written < 64, "64 MiB fit on 40");
    };
    assert_eq!(failed.raw_os_error(), ENOSPC, "{failed}");
    drop(file);
    peer.kill_and_remount();
    let found = peer.read("f");
    for n in 0..written {
        let at = usize::try_from(n << 20).unwrap();
        assert!(found[at..at + (1 << 20)] == data::bytes(n, 1 << 20), "MiB {n} of {written}");
    }
}

#[test]
fn metadata_changes_are_refused_or_saved_on_a_full_disk_but_not_lost_in_silence() {
    let peer = Peer::on(Home::on(Image::tmpfs(40)), &[]);
    let saved = fill(&peer, "f", 400_000);
    let mut made = Vec::new();
    for n in 0..200 {
        let dir = peer.path(format!("d{n}"));
        let result =
            fs::create_dir(&dir).and_then(|()| File::open(&dir)).and_then(|dir| dir.sync_all());
        match result {
            Ok(()) => made.push(n),
            Err(err) => assert_eq!(err.raw_os_error(), ENOSPC, "{err}"),
        }
    }
    peer.kill_and_remount();
    for n in made {
        assert!(peer.path(format!("d{n}")).is_dir(), "d{n} was acknowledged");
    }
    assert!(saved > 0);
}

#[test]
fn a_bucket_on_a_full_ext4_is_opened_and_read() {
    let home = Home::on(Image::ext4(64));
    let peer = Peer::on(home, &[]);
    let saved = fill(&peer, "f", 700_000);
    peer.kill();
    // Not a block is left, not even for the reserve.
    let disk = peer.home().image();
    let ballast = File::create(disk.path().join("ballast")).unwrap();
    let mut offset = 0;
    while ballast.write_all_at(&[1; 4_096], offset).is_ok() {
        offset += 4_096;
    }
    ballast.sync_all().ok();
    peer.mount_again();
    for n in 0..saved {
        assert!(peer.read(format!("f{n}")) == data::bytes(n, 700_000), "f{n}");
    }
}

#[test]
fn a_disk_that_turns_read_only_is_an_error_to_the_writer() {
    let home = Home::on(Image::ext4(64));
    let peer = Peer::on(home, &[]);
    peer.write("f", "saved");
    let mut frozen = false;
    // Files open for writing keep the disk from being remounted in the ordinary way, so the
    // emergency is made: what a kernel does to a disk that fails.
    let mut command = std::process::Command::new("mount");
    command.args(["-o", "remount,abort"]).arg(peer.home().image().path());
    if cairnfs_tests::run(&mut command, Duration::from_secs(20)).code == Some(0) {
        frozen = true;
    }
    assert!(frozen, "ext4 takes no remount,abort here");
    let refused = cairnfs_tests::peer::write(&peer.path("g"), b"lost?").unwrap_err();
    let errno = refused.raw_os_error();
    let (eio, erofs) = (Some(Errno::IO.raw_os_error()), Some(Errno::ROFS.raw_os_error()));
    assert!(errno == eio || errno == erofs, "{refused}");
    assert_eq!(peer.read("f"), b"saved", "reading goes on");
    let again = cairnfs_tests::peer::write(&peer.path("h"), b"lost?").unwrap_err();
    assert!(again.raw_os_error() == erofs || again.raw_os_error() == eio, "{again}");
    let said = peer.home().cairnfs(&["status", BUCKET]);
    let text = format!("{}{}", said.stdout, said.stderr).to_lowercase();
    assert!(text.contains("read-only") || text.contains("failed"), "not said: {said}");
}

#[test]
fn a_bucket_is_not_made_in_part_where_there_is_no_room() {
    let home = Home::on(Image::tmpfs(1));
    let ballast = File::create(home.image().path().join("ballast")).unwrap();
    let mut offset = 0;
    while ballast.write_all_at(&[1; 4_096], offset).is_ok() {
        offset += 4_096;
    }
    drop(ballast);
    let outcome = home.cairnfs(&["create", BUCKET, "--no-passphrase"]).exits(12);
    assert!(!outcome.stderr.contains("panicked"), "{outcome}");
    fs::remove_file(home.image().path().join("ballast")).unwrap();
    let list = home.cairnfs(&["list"]).succeeds().stdout;
    assert!(!list.contains(BUCKET), "half a bucket is listed: {list}");
}

/// Nobody who could be reached would help.
#[test]
fn a_first_version_that_does_not_fit_is_a_full_disk() {
    let (home, one) = (Home::on(Image::tmpfs(12)), Peer::new());
    one.write("large", data::bytes(1, 20_000_000));
    one.home().cairnfs(&["publish", BUCKET]).succeeds();
    home.cairnfs(&["join", &one.invite(&[]), "--no-passphrase"]).exits(12);
    // `mount` gives it ten seconds to come, or to be found too large.
    let mut outcome = None;
    eventually("it is found too large", Duration::from_secs(120), || {
        let tried = home.try_mount(BUCKET, &home.dir("mnt"), &[]);
        assert!(matches!(tried.code, Some(11 | 12)), "{tried}");
        outcome = (tried.code == Some(12)).then_some(tried);
        outcome.is_some()
    });
    outcome.unwrap().says(&["first version", "no space left"]);
}

#[test]
fn what_is_brought_back_takes_no_room_a_second_time() {
    let home = Home::on(Image::tmpfs(64));
    let ballast = home.image().path().join("ballast");
    let peer = Peer::on(home, &[]);
    peer.write("large", data::bytes(1, 20_000_000));
    peer.write("small", "before");
    let publish = || peer.home().cairnfs(&["publish", BUCKET]).succeeds().stdout.trim().to_owned();
    let version = publish();
    remove(&peer, "large");
    peer.write("small", "now");
    publish();
    fs::write(&ballast, vec![1; 38 << 20]).unwrap();

    let restore = |args: &[&str]| {
        let all = [&["restore", BUCKET], args, &["--at", &version]].concat();
        peer.home().cairnfs(&all)
    };
    let free = rustix::fs::statvfs(peer.home().image().path()).unwrap();
    assert!(free.f_bavail * free.f_frsize < 5_000_000, "there is room for more");
    restore(&["large"]).succeeds();
    assert!(peer.read("large") == data::bytes(1, 20_000_000));
    assert_eq!(peer.read("small"), b"now");
    peer.kill_and_remount();
    assert!(peer.read("large") == data::bytes(1, 20_000_000));
}
