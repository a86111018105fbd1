//! Directories list what is in them, whatever the names.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    thread,
    time::{Duration, Instant},
};

use cairnfs_tests::Peer;
use rustix::io::Errno;

use crate::load::OnDrop;

#[test]
fn names_are_any_bytes_up_to_255() {
    let peer = Peer::new();
    let mut names: Vec<Vec<u8>> = vec![
        vec![b'x'; 255],
        "\u{e9}".repeat(127).into_bytes(),
        b"\xff\xfe not utf-8 \x80".to_vec(),
        b"line\nbreak\ttab \\ \"quote\" 'single'".to_vec(),
        b"-rf".to_vec(),
        b" ".to_vec(),
        b"...".to_vec(),
        "e\u{301} and \u{e9}".as_bytes().to_vec(),
        b"a:b*c?d<e>f|g".to_vec(),
        b"CON".to_vec(),
        b"trailing.".to_vec(),
        (1..=255).filter(|&byte| byte != b'/').collect::<Vec<u8>>()[..200].to_vec(),
    ];
    // Names that differ in case or in composition only are different names.
    names.extend([b"Case".to_vec(), b"case".to_vec()]);
    names.extend(["\u{e9}".as_bytes().to_vec(), "e\u{301}".as_bytes().to_vec()]);
    for name in &names {
        peer.write(OsStr::from_bytes(name), name);
    }
    for round in ["fresh", "killed"] {
        let found: BTreeSet<_> = fs::read_dir(peer.dir())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().as_bytes().to_vec())
            .collect();
        assert_eq!(found, names.iter().cloned().collect(), "{round}");
        for name in &names {
            assert!(peer.read(OsStr::from_bytes(name)) == *name, "{name:?}, {round}");
        }
        peer.kill_and_remount();
    }
    let long = fs::write(peer.path("x".repeat(256)), "").unwrap_err();
    assert_eq!(long.raw_os_error(), Some(Errno::NAMETOOLONG.raw_os_error()));
    let long = fs::create_dir(peer.path("x".repeat(256))).unwrap_err();
    assert_eq!(long.raw_os_error(), Some(Errno::NAMETOOLONG.raw_os_error()));
}

#[test]
fn rmdir_refuses_a_directory_that_is_not_empty() {
    let peer = Peer::new();
    fs::create_dir(peer.path("d")).unwrap();
    peer.write("d/f", "x");
    let refused = fs::remove_dir(peer.path("d")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(Errno::NOTEMPTY.raw_os_error()));
    assert_eq!(peer.read("d/f"), b"x");
    fs::create_dir(peer.path("d/e")).unwrap();
    fs::remove_file(peer.path("d/f")).unwrap();
    assert!(fs::remove_dir(peer.path("d")).is_err(), "removed with a directory in it");
    fs::remove_dir(peer.path("d/e")).unwrap();
    fs::remove_dir(peer.path("d")).unwrap();
    assert!(peer.names("").is_empty());
    let file = fs::remove_dir(peer.path("nothing")).unwrap_err();
    assert_eq!(file.raw_os_error(), Some(Errno::NOENT.raw_os_error()));
    peer.write("f", "x");
    let file = fs::remove_dir(peer.path("f")).unwrap_err();
    assert_eq!(file.raw_os_error(), Some(Errno::NOTDIR.raw_os_error()));
    fs::create_dir(peer.path("d")).unwrap();
    let dir = fs::remove_file(peer.path("d")).unwrap_err();
    assert_eq!(dir.raw_os_error(), Some(Errno::ISDIR.raw_os_error()));
}

#[test]
fn a_new_name_is_in_the_list_at_once_and_a_removed_one_is_not() {
    let peer = Peer::new();
    for round in 0..200 {
        let name = format!("f{round}");
        assert!(!peer.path(&name).exists(), "{name} is there before it is made");
        fs::write(peer.path(&name), "x").unwrap();
        assert!(peer.path(&name).exists(), "{name} is not found right after it was made");
        assert!(peer.names("").contains(&name), "{name} is not listed right after it was made");
        if round % 2 == 0 {
            fs::remove_file(peer.path(&name)).unwrap();
            assert!(!peer.names("").contains(&name), "{name} is listed right after its removal");
        }
    }
}

#[test]
fn deep_paths_work_down_to_the_last_directory() {
    let peer = Peer::new();
    let mut path = peer.dir();
    for depth in 0..150 {
        path.push(format!("directory-{depth}"));
        fs::create_dir(&path).unwrap();
    }
    fs::write(path.join("f"), "deep").unwrap();
    peer.kill_and_remount();
    assert_eq!(fs::read(path.join("f")).unwrap(), b"deep");
    fs::remove_dir_all(peer.path("directory-0")).unwrap();
    assert!(peer.names("").is_empty());
}

#[test]
fn a_directory_counts_its_subdirectories_as_links() {
    let peer = Peer::new();
    fs::create_dir(peer.path("d")).unwrap();
    assert_eq!(fs::metadata(peer.path("d")).unwrap().nlink(), 2);
    for name in ["a", "b", "c"] {
        fs::create_dir(peer.path("d").join(name)).unwrap();
    }
    assert_eq!(fs::metadata(peer.path("d")).unwrap().nlink(), 5);
    fs::remove_dir(peer.path("d/a")).unwrap();
    fs::rename(peer.path("d/b"), peer.path("b")).unwrap();
    assert_eq!(fs::metadata(peer.path("d")).unwrap().nlink(), 3);
}

#[test]
fn readdir_misses_nothing_and_repeats_nothing_while_others_create_and_remove() {
    list_while_others_change(3_000, Duration::from_secs(3));
}

#[test]
fn a_hundred_thousand_entries_are_listed_while_others_create_and_remove() {
    list_while_others_change(100_000, Duration::ZERO);
}

/// Makes `count` names, and lists them for at least `long` while a thread makes and removes others.
fn list_while_others_change(count: usize, long: Duration) {
    let peer = Peer::in_memory(Duration::from_secs(600), &[]);
    let dir = peer.path("d");
    fs::create_dir(&dir).unwrap();
    let rounds = if count > 10_000 { 2 } else { 15 };
    let lasting: BTreeSet<_> = (0..count).map(|n| format!("lasting-{n}")).collect();
    let names: Vec<_> = lasting.iter().collect();
    thread::scope(|scope| {
        for (n, part) in names.chunks(count.div_ceil(8)).enumerate() {
            let dir = &dir;
            let make = move || {
                for name in part {
                    let (kind, mode) = (rustix::fs::FileType::RegularFile, 0o644.into());
                    rustix::fs::mknodat(rustix::fs::CWD, dir.join(name), kind, mode, 0).unwrap();
                }
            };
            thread::Builder::new().name(format!("maker-{n}")).spawn_scoped(scope, make).unwrap();
        }
    });
    let made = Instant::now();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let other = thread::Builder::new()
            .name("churn".into())
            .spawn_scoped(scope, || {
                // Relaxed: only to end the loop.
                for n in 0_u64.. {
                    if stop.load(std::sync::atomic::Ordering::Relaxed) {
                        return;
                    }
                    let path = dir.join(format!("passing-{n}"));
                    fs::create_dir(&path).unwrap();
                    fs::remove_dir(&path).unwrap();
                }
            })
            .unwrap();
        // Also if this fails.
        let end = OnDrop(|| stop.store(true, std::sync::atomic::Ordering::Relaxed));
        // Until they are to be durable too, though nothing but names changes all the while.
        for round in 0.. {
            if round >= rounds && made.elapsed() > long {
                break;
            }
            let mut seen = BTreeSet::new();
            for entry in fs::read_dir(&dir).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(seen.insert(name.clone()), "{name} is listed twice");
            }
            let missed: Vec<_> = lasting.difference(&seen).take(3).collect();
            assert!(missed.is_empty(), "missed: {missed:?}");
        }
        drop(end);
        other.join().unwrap();
    });
    // What is older than the promised second is safe without asking.
    if long.is_zero() {
        peer.wait_safe();
    }
    peer.kill_and_remount();
    let found: BTreeSet<_> = peer.names("d").into_iter().collect();
    let lost: Vec<_> = lasting.difference(&found).collect();
    let old = made.elapsed();
    assert!(
        lost.is_empty(),
        "{} of {count} names, {old:?} old, were lost: {:?}..",
        lost.len(),
        lost[0]
    );
}

#[test]
fn a_removed_directory_stays_usable_for_who_stands_in_it() {
    let peer = Peer::new();
    fs::create_dir(peer.path("d")).unwrap();
    let open = fs::File::open(peer.path("d")).unwrap();
    fs::remove_dir(peer.path("d")).unwrap();
    assert!(open.metadata().unwrap().is_dir());
    assert_eq!(open.metadata().unwrap().nlink(), 0);
    let again = format!("/proc/self/fd/{}/.", std::os::fd::AsRawFd::as_raw_fd(&open));
    assert_eq!(fs::read_dir(again).unwrap().count(), 0);
    let made = rustix::fs::mkdirat(&open, "x", 0o755.into()).unwrap_err();
    assert_eq!(made, Errno::NOENT);
    fs::create_dir(peer.path("d")).unwrap();
}
