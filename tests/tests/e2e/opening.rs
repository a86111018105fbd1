//! Opening what was left by a crash, a torn write or a hand: as saved, or refused with what helps.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
    time::Duration,
};

use cairnfs_tests::{
    Peer, Strace, Tree, data, mounts,
    peer::{BUCKET, UNASKED_NOTHING},
    run,
};

use crate::damage::{EIO, damage, end_of_packs};

/// A log that was cut off behind what is saved opens again, but not as if nothing had been there. Zeros
/// in the place of its end are no better.
#[test]
fn a_repair_of_a_log_that_has_lost_its_end_says_what_is_lost() {
    for is_cut in [true, false] {
        let peer = Peer::with(&UNASKED_NOTHING);
        let home = peer.home();
        let mut ends = Vec::new();
        for n in 0..5 {
            peer.write(format!("f{n}"), data::bytes(n, 300_000));
            home.cairnfs(&["publish", BUCKET]).succeeds();
            ends.push(end_of_packs(home).1);
        }
        peer.stop();
        let (pack, end) = end_of_packs(home);
        let file = OpenOptions::new().write(true).open(&pack).unwrap();
        let cut = (ends[2] + 50_000).next_multiple_of(512);
        if is_cut {
            file.set_len(cut).unwrap();
        } else {
            file.write_all_at(&vec![0; usize::try_from(end - cut).unwrap()], cut).unwrap();
        }
        drop(file);
        peer.check().exits(8);
        home.try_mount(BUCKET, &peer.dir(), &[]).exits(8);
        // Of zeros only the last record before them tells where they begin.
        let cut = if is_cut { cut.to_string() } else { String::new() };
        let ends_at = format!("00000001.pack ends at byte {cut}");
        for repair in [&["--repair", "--dry-run"][..], &["--repair"]] {
            let outcome = home.cairnfs(&[&["check", BUCKET], repair].concat()).exits(8);
            let said = &outcome.stdout;
            assert!(said.contains(&ends_at) && said.contains("is lost"), "{outcome}");
            assert!(!outcome.stderr.contains("nothing had to be left out"), "{outcome}");
        }
        let status = home.cairnfs(&["status"]).succeeds();
        assert!(!status.stdout.contains("damage"), "what is left is whole: {status}");
        peer.check().succeeds();
        peer.mount();
        assert_eq!(peer.names(""), ["f0", "f1", "f2"]);
        for n in 0..3 {
            assert!(peer.read(format!("f{n}")) == data::bytes(n, 300_000), "f{n}");
        }
    }
}

#[test]
fn a_torn_tail_is_cut_and_what_was_saved_before_it_stays() {
    let peer = Peer::new();
    let home = peer.home();
    for n in 0..10 {
        peer.write(format!("kept-{n}"), data::bytes(n, 20_000));
    }
    fs::create_dir(peer.path("dir")).unwrap();
    File::open(peer.path("dir")).unwrap().sync_all().unwrap();
    let (pack, from) = end_of_packs(home);
    peer.write("torn", data::bytes(99, 50_000));
    home.kill();
    mounts::detach_all(&peer.dir());
    let (same, to) = end_of_packs(home);
    assert!(same == pack && to > from + 50_000, "{from}..{to} of {}", pack.display());
    // The same crash, again and again, with another tail each time.
    let image = peer.scratch().join("image");
    copy(home.path(), &image);
    let mut rng = data::Rng::new(31);
    let places: Vec<u64> = (0..5)
        .map(|_| from + 1 + rng.below(to - from - 1))
        .chain([to - 1, from + 1, from])
        .collect();
    for (n, place) in places.into_iter().enumerate() {
        for tail in ["cut", "garbage", "zeros"] {
            fs::remove_dir_all(home.path()).unwrap();
            copy(&image, home.path());
            let file = OpenOptions::new().write(true).open(&pack).unwrap();
            let len = usize::try_from(to - place).unwrap();
            match tail {
                "cut" => file.set_len(place).unwrap(),
                // The length was written, and the last sectors were not.
                "zeros" => {
                    let place = place.next_multiple_of(512);
                    let len = usize::try_from(to.saturating_sub(place)).unwrap();
                    file.write_all_at(&vec![0; len], place).unwrap();
                }
                _ => file.write_all_at(&data::bytes(rng.next_u64(), len), place).unwrap(),
            }
            let what = format!("{tail} from {place} of {to}");
            drop(file);
            open_or_repair(&peer, &what, tail == "garbage");
            for n in 0..10 {
                assert!(peer.read(format!("kept-{n}")) == data::bytes(n, 20_000), "{what}");
            }
            assert!(peer.path("dir").is_dir(), "{what}");
            if let Ok(found) = fs::read(peer.path("torn")) {
                assert!(found.is_empty() || found == data::bytes(99, 50_000), "half, {what}");
            }
            // And the bucket goes on from there.
            peer.write("next", data::bytes(7, 10_000));
            peer.kill_and_remount();
            assert!(peer.read("next") == data::bytes(7, 10_000), "{what}");
            if n == 0 {
                peer.check().succeeds();
            }
            home.kill();
            mounts::detach_all(&peer.dir());
        }
    }
}

/// Mounts what was killed while it wrote. A tail that lacks sectors is cut off without a word;
/// where bytes stand that were not written so, it is said, and mended when asked to be.
#[track_caller]
fn open_or_repair(peer: &Peer, what: &str, may_be_refused: bool) {
    let home = peer.home();
    let outcome = home.try_mount(BUCKET, &peer.dir(), &[]);
    if outcome.code == Some(8) && may_be_refused {
        outcome.says(&["--repair", "pack"]);
        let repair = home.cairnfs(&["check", BUCKET, "--repair"]);
        let outcome = home.try_mount(BUCKET, &peer.dir(), &[]);
        assert_eq!(outcome.code, Some(0), "{what}: not mended by\n{repair}\n{outcome}");
    } else {
        assert_eq!(outcome.code, Some(0), "{what}: {outcome}");
    }
}

fn copy(from: &Path, to: &Path) {
    let mut cp = Command::new("cp");
    run(cp.args(["-a", "--sparse=never"]).args([from, to]), Duration::from_secs(60)).succeeds();
}

#[test]
fn bytes_appended_to_a_pack_cost_nothing_that_was_saved() {
    let peer = Peer::new();
    peer.write("f", data::bytes(1, 100_000));
    peer.kill();
    mounts::detach_all(&peer.dir());
    let home = peer.home();
    let (pack, _) = end_of_packs(home);
    let len = fs::metadata(&pack).unwrap().len();
    let image = peer.scratch().join("image");
    copy(home.path(), &image);
    for tail in [vec![0; 4_096], vec![0; 3], data::bytes(5, 10_000), vec![0xff; 3]] {
        fs::remove_dir_all(home.path()).unwrap();
        copy(&image, home.path());
        OpenOptions::new().write(true).open(&pack).unwrap().write_all_at(&tail, len).unwrap();
        let what = format!("{} bytes appended, the first {}", tail.len(), tail[0]);
        open_or_repair(&peer, &what, tail[0] != 0);
        assert!(peer.read("f") == data::bytes(1, 100_000), "{what}");
        peer.write("g", "goes on");
        peer.kill_and_remount();
        assert_eq!(peer.read("g"), b"goes on", "{what}");
        peer.kill();
        mounts::detach_all(&peer.dir());
    }
}

#[test]
fn a_missing_or_broken_index_is_made_again() {
    let peer = Peer::new();
    for n in 0..30 {
        peer.write(format!("f{n}"), data::bytes(n, 20_000));
    }
    for damage in ["remove", "empty", "garbage"] {
        peer.stop();
        let index: Vec<_> = peer
            .home()
            .files()
            .into_iter()
            .filter(|(path, _)| {
                path.to_string_lossy().contains("index")
                    || path.extension().is_some_and(|ext| ext == "redb")
            })
            .collect();
        assert!(!index.is_empty(), "no index among {:?}", peer.home().files());
        for (path, len) in index {
            match damage {
                "remove" => fs::remove_file(path).unwrap(),
                "empty" => fs::write(path, "").unwrap(),
                _ => fs::write(path, data::bytes(3, usize::try_from(len).unwrap())).unwrap(),
            }
        }
        peer.mount();
        for n in 0..30 {
            assert!(peer.read(format!("f{n}")) == data::bytes(n, 20_000), "f{n}, index: {damage}");
        }
        peer.check().succeeds();
        peer.write("f0", data::bytes(0, 20_000));
    }
}

#[test]
fn an_index_that_is_older_than_the_packs_catches_up() {
    let peer = Peer::new();
    peer.write("old", data::bytes(1, 50_000));
    peer.stop();
    let image = peer.scratch().join("image");
    copy(peer.home().path(), &image);
    peer.mount();
    for n in 0..20 {
        peer.write(format!("new-{n}"), data::bytes(n, 50_000));
    }
    peer.stop();
    for (path, _) in peer.home().files() {
        let index = path.to_string_lossy().contains("index")
            || path.extension().is_some_and(|ext| ext == "redb");
        if index {
            let old = image.join(path.strip_prefix(peer.home().path()).unwrap());
            fs::copy(old, &path).unwrap();
        }
    }
    peer.mount();
    assert!(peer.read("old") == data::bytes(1, 50_000));
    for n in 0..20 {
        assert!(peer.read(format!("new-{n}")) == data::bytes(n, 50_000), "new-{n}");
    }
    peer.check().succeeds();
}

#[test]
fn damage_before_the_tail_is_refused_or_noticed_but_never_served() {
    let peer = Peer::new();
    let mut wanted = Vec::new();
    for n in 0..12 {
        wanted.push(data::bytes(n, 40_000));
        peer.write(format!("f{n}"), wanted.last().unwrap());
    }
    peer.kill();
    mounts::detach_all(&peer.dir());
    let home = peer.home();
    let image = peer.scratch().join("image");
    copy(home.path(), &image);
    let mut rng = data::Rng::new(77);
    for round in 0..12 {
        fs::remove_dir_all(home.path()).unwrap();
        copy(&image, home.path());
        // Any file of the bucket, any byte.
        let files: Vec<_> = home.files().into_iter().filter(|(_, len)| *len > 0).collect();
        let (path, len) =
            if round % 2 == 0 { end_of_packs(home) } else { files[rng.index(files.len())].clone() };
        let place = rng.below(len);
        damage(&path, place);
        let what = format!("byte {place} of {}", path.display());
        let outcome = home.try_mount(BUCKET, &peer.dir(), &[]);
        assert!(!outcome.stderr.contains("panicked") && !outcome.timed_out, "{what}: {outcome}");
        if outcome.code == Some(0) {
            for (n, wanted) in wanted.iter().enumerate() {
                match fs::read(peer.path(format!("f{n}"))) {
                    Ok(found) => assert!(
                        found == *wanted || found.is_empty() && n == 11,
                        "f{n} is wrong: {what}"
                    ),
                    Err(err) => {
                        // The newest of all may be taken for a torn tail.
                        let lost_tail = n == 11 && err.kind() == std::io::ErrorKind::NotFound;
                        assert!(err.raw_os_error() == EIO || lost_tail, "f{n}: {err}: {what}");
                    }
                }
            }
        } else {
            assert!(!outcome.stderr.trim().is_empty(), "refused without a word: {what}");
            assert!(matches!(outcome.code, Some(1 | 4 | 8 | 13)), "{what}: {outcome}");
        }
        home.kill();
        mounts::detach_all(&peer.dir());
    }
}

/// Only where there is no folder of the bucket is there no bucket.
#[test]
fn a_bucket_without_its_packs_or_its_key_file_says_what_is_missing_and_where() {
    let peer = Peer::new();
    let home = peer.home();
    peer.write("f", "x");
    peer.stop();
    let (pack, _) = end_of_packs(home);
    let aside = peer.scratch().join("aside");
    let dir = peer.dir();
    let check = ["check", BUCKET];
    let verbs: [&[&str]; 4] = [
        &check,
        &["check", BUCKET, "--repair", "--dry-run"],
        &["check", BUCKET, "--repair"],
        &["mount", BUCKET, dir.to_str().unwrap()],
    ];
    fs::rename(&pack, &aside).unwrap();
    for verb in verbs {
        let packs = pack.parent().unwrap().to_str().unwrap();
        home.cairnfs(verb).exits(8).says(&["is damaged", "missing", packs]);
    }
    let status = home.cairnfs(&["status"]).succeeds();
    assert!(status.stdout.contains("health        damaged: all of its log is missing"), "{status}");
    fs::rename(&aside, &pack).unwrap();
    home.cairnfs(&check).succeeds();

    let key = pack.parent().unwrap().with_file_name("key");
    fs::rename(&key, &aside).unwrap();
    for verb in verbs {
        home.cairnfs(verb).exits(4).says(&["key file is missing", key.to_str().unwrap()]);
    }
    let listed = home.cairnfs(&["list"]).succeeds();
    assert!(listed.stdout.contains("key file is missing"), "{listed}");
    fs::rename(&aside, &key).unwrap();
    peer.mount();
    assert_eq!(peer.read("f"), b"x");
}

/// Killed at the first thing that it reads, the second, the third, the fifth and so on.
#[test]
fn a_daemon_killed_while_it_opens_opens_the_next_time() {
    let peer = Peer::new();
    let home = peer.home();
    for n in 0..100 {
        peer.write(format!("f{n}"), data::bytes(n, 10_000));
    }
    let before = Tree::of(&peer.dir());
    home.create("another");
    let another = home.dir("another");
    home.mount("another", &another, &[]);
    let (mut nth, mut next) = (1, 2);
    loop {
        peer.umount();
        let strace =
            Strace::attach(&peer, "pread64", &[&format!("pread64:signal=KILL:when={nth}")]);
        if home.try_mount(BUCKET, &peer.dir(), &[]).code == Some(0) {
            strace.detach();
            break;
        }
        peer.kill();
        mounts::detach_all(&another);
        home.mount("another", &another, &[]);
        peer.mount_again();
        before.same_as(&Tree::of(&peer.dir()));
        (nth, next) = (next, nth + next);
    }
    assert!(nth >= 8, "an opening reads more often than {nth} times");
}
