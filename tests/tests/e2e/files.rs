//! Files hold what was written to them.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    thread,
    time::Duration,
};

use cairnfs_tests::{Peer, data};
use rustix::{fs::OFlags, io::Errno};

#[test]
fn bytes_come_back_after_writing_and_after_remounting() {
    let peer = Peer::new();
    let sizes =
        [0, 1, 511, 2_048, 2_049, 4_096, 65_535, 65_536, 65_537, 1 << 20, (1 << 20) + 1, 9_999_999];
    for (seed, size) in (1..).zip(sizes) {
        peer.write(format!("f{size}"), data::bytes(seed, size));
    }
    for round in ["fresh", "remounted", "killed"] {
        for (seed, size) in (1..).zip(sizes) {
            assert!(peer.read(format!("f{size}")) == data::bytes(seed, size), "f{size}, {round}");
        }
        if round == "fresh" { peer.remount() } else { peer.kill_and_remount() }
    }
}

#[test]
fn writes_at_random_offsets_and_lengths_agree_with_memory() {
    let peer = Peer::new();
    let mut rng = data::Rng::new(11);
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).open(peer.path("f")).unwrap();
    let mut wanted: Vec<u8> = Vec::new();
    for step in 0..600 {
        let offset = rng.index(2 << 20);
        let len = 1 + rng.index(if step % 10 == 0 { 300_000 } else { 9_000 });
        match rng.below(10) {
            0 => {
                wanted.resize(offset, 0);
                file.set_len(u64::try_from(offset).unwrap()).unwrap();
            }
            1 => file.sync_data().unwrap(),
            2..=4 => {
                let mut found = vec![0; len];
                let n = file.read_at(&mut found, u64::try_from(offset).unwrap()).unwrap();
                let end = wanted.len().min(offset + len);
                let expected = wanted.get(offset..end).unwrap_or_default();
                assert!(found[..n] == *expected, "step {step}: read of {len} at {offset}");
            }
            _ => {
                let bytes = rng.bytes(len);
                wanted.resize(wanted.len().max(offset + len), 0);
                wanted[offset..offset + len].copy_from_slice(&bytes);
                file.write_all_at(&bytes, u64::try_from(offset).unwrap()).unwrap();
            }
        }
    }
    assert!(peer.read("f") == wanted, "before closing");
    cairnfs_tests::peer::close(file).unwrap();
    peer.kill_and_remount();
    assert!(peer.read("f") == wanted, "after kill -9");
}

#[test]
fn open_flags_mean_what_they_mean_elsewhere() {
    let peer = Peer::new();
    let path = peer.path("f");
    let open = |flags: OFlags| {
        rustix::fs::open(&path, flags | OFlags::CLOEXEC, 0o644.into()).map(File::from)
    };
    assert_eq!(open(OFlags::RDONLY).unwrap_err(), Errno::NOENT);
    open(OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY).unwrap().write_all(b"hello").unwrap();
    assert_eq!(open(OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY).unwrap_err(), Errno::EXIST);
    assert_eq!(open(OFlags::DIRECTORY).unwrap_err(), Errno::NOTDIR);
    assert!(open(OFlags::RDONLY).unwrap().write_all(b"x").is_err(), "written through O_RDONLY");
    assert!(open(OFlags::WRONLY).unwrap().read(&mut [0; 4]).is_err(), "read through O_WRONLY");
    let mut file = open(OFlags::RDWR | OFlags::TRUNC).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 0);
    file.write_all(b"abc").unwrap();
    let mut text = String::new();
    file.seek(SeekFrom::Start(1)).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "bc");
    assert_eq!(rustix::fs::open(peer.dir(), OFlags::WRONLY, 0.into()).unwrap_err(), Errno::ISDIR);
    std::os::unix::fs::symlink("f", peer.path("l")).unwrap();
    let nofollow = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(OFlags::NOFOLLOW.bits()).unwrap())
        .open(peer.path("l"));
    assert_eq!(nofollow.unwrap_err().raw_os_error(), Some(Errno::LOOP.raw_os_error()));
}

#[test]
fn two_handles_see_each_others_writes_at_once() {
    let peer = Peer::new();
    let path = peer.path("f");
    let writer = File::create(&path).unwrap();
    let reader = File::open(&path).unwrap();
    for round in 0..50_u64 {
        writer.write_all_at(&round.to_le_bytes(), round * 8).unwrap();
        let mut found = [0; 8];
        reader.read_exact_at(&mut found, round * 8).unwrap();
        assert_eq!(u64::from_le_bytes(found), round);
        assert_eq!(fs::metadata(&path).unwrap().len(), round * 8 + 8);
    }
}

#[test]
fn threads_appending_to_one_file_lose_no_line() {
    let peer = Peer::new();
    let path = peer.path("log");
    File::create(&path).unwrap();
    thread::scope(|scope| {
        for writer in 0..4 {
            let path = &path;
            thread::Builder::new()
                .name(format!("append-{writer}"))
                .spawn_scoped(scope, move || {
                    let mut file = OpenOptions::new().append(true).open(path).unwrap();
                    for line in 0..100 {
                        file.write_all(format!("{writer} {line:04}\n").as_bytes()).unwrap();
                    }
                })
                .unwrap();
        }
    });
    for round in ["before", "after kill -9"] {
        let text = String::from_utf8(peer.read("log")).unwrap();
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 400, "{round}");
        assert_eq!(text.len(), 400 * 7, "{round}");
        peer.kill_and_remount();
    }
}

#[test]
fn offsets_beyond_4_gib_and_1_tib_hold_their_bytes() {
    let peer = Peer::new();
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).open(peer.path("f")).unwrap();
    let places = [0, (4 << 30) - 3, 5 << 30, (1 << 40) - 1, (1 << 40) + 1_234_567, 7 << 40];
    for (seed, &offset) in (1..).zip(&places) {
        file.write_all_at(&data::bytes(seed, 70_000), offset).unwrap();
    }
    cairnfs_tests::peer::close(file).unwrap();
    for round in ["fresh", "killed"] {
        let file = File::open(peer.path("f")).unwrap();
        assert_eq!(file.metadata().unwrap().len(), (7 << 40) + 70_000);
        assert!(file.metadata().unwrap().blocks() * 512 < 64 << 20, "holes take space");
        for (seed, &offset) in (1..).zip(&places) {
            let mut found = vec![0; 70_000];
            file.read_exact_at(&mut found, offset).unwrap();
            assert!(found == data::bytes(seed, 70_000), "at {offset}, {round}");
        }
        drop(file);
        peer.kill_and_remount();
    }
}

#[test]
fn statfs_tells_of_the_disk_below() {
    let peer = Peer::new();
    let stat = rustix::fs::statvfs(peer.dir()).unwrap();
    assert!(stat.f_bavail > 0 && stat.f_blocks >= stat.f_bfree && stat.f_bsize >= 512);
    assert_eq!(stat.f_namemax, 255);
}

#[test]
fn access_is_what_mode_and_owner_say() {
    use std::os::unix::process::CommandExt;
    cairnfs_tests::need::root("acting as another user");
    let peer = Peer::with(&["--allow-other"]);
    let nobody = |script: &str| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]).current_dir("/").uid(65_534).gid(65_534);
        cairnfs_tests::run(&mut command, Duration::from_secs(20)).code == Some(0)
    };
    // The way there is of mode 0700, as temporary directories are.
    let mut at = peer.dir();
    while at.parent().is_some_and(|up| up.starts_with(std::env::temp_dir())) && at.pop() {
        if at != std::env::temp_dir() {
            mode(&at, 0o755);
        }
    }
    mode(&peer.dir(), 0o755);
    let path = peer.path("secret");
    peer.write("secret", "x");
    let text = path.to_str().unwrap().to_owned();
    mode(&path, 0o600);
    assert!(!nobody(&format!("cat '{text}'")), "0600 is read by another");
    mode(&path, 0o644);
    assert!(nobody(&format!("cat '{text}'")), "0644 is not read by another");
    assert!(!nobody(&format!("echo y >> '{text}'")), "0644 is written by another");
    assert!(!nobody(&format!("touch '{}/new'", peer.dir().display())), "0755 takes another's file");
    mode(&peer.dir(), 0o1777);
    assert!(nobody(&format!("touch '{}/new'", peer.dir().display())));
    assert_eq!(fs::metadata(peer.path("new")).unwrap().uid(), 65_534);
    assert!(!nobody(&format!("rm -f '{text}'")), "a sticky directory lets another remove");
}

fn mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
