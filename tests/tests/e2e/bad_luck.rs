//! What a crash, a bad disk or a torn write may do, and what it may not.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use cairnfs_tests::{
    Home, Outcome, Peer, Tree, data, eventually, mounts, peer::BUCKET, poll::let_pass, process, run,
};
use rustix::io::Errno;

const EIO: Option<i32> = Some(Errno::IO.raw_os_error());

/// Flips all bits of the byte at `offset`.
pub(crate) fn damage(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[!byte[0]], offset).unwrap();
}

/// Where the newest bytes of the packs are: the last pack and where its last record ends, by their
/// lengths (FORMAT.md). Zeros may follow that were written ahead, and the record may end in some.
pub(crate) fn end_of_packs(home: &Home) -> (std::path::PathBuf, u64) {
    let modified = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let (path, _) = home.packs().into_iter().max_by_key(|(path, _)| modified(path)).unwrap();
    let bytes = fs::read(&path).unwrap();
    let mut end = 88;
    while let Some([b'c', b'r', b'n', b'1', len @ ..]) = bytes.get(end..end + 8) {
        end += 68 + u32::from_le_bytes(len.try_into().unwrap()) as usize + 16;
    }
    (path, u64::try_from(end).unwrap())
}

#[test]
fn a_damaged_byte_is_eio_for_that_file_only_and_check_names_it() {
    let peer = Peer::new();
    let home = peer.home();
    fs::create_dir(peer.path("docs")).unwrap();
    for n in 0..20 {
        peer.write(format!("docs/before-{n}"), data::bytes(n, 30_000));
    }
    peer.remount();
    let (pack, from) = end_of_packs(home);
    peer.write("docs/victim", data::bytes(1_000, 4 << 20));
    let (same, to) = end_of_packs(home);
    assert!(same == pack && to > from + (4 << 20), "{from}..{to} of {}", pack.display());
    for n in 0..20 {
        peer.write(format!("docs/after-{n}"), data::bytes(100 + n, 30_000));
    }
    peer.check().ok();
    peer.stop();
    // Amid the four megabytes that do not compress there is nothing else. Several places, because
    // a piece that was saved before the file was whole may have been cut and sealed anew.
    for place in (from + (2 << 20)..from + (3 << 20)).step_by(16 << 10) {
        damage(&pack, place);
    }
    peer.mount();
    match fs::read(peer.path("docs/victim")) {
        Err(error) => assert_eq!(error.raw_os_error(), EIO, "{error}"),
        Ok(found) => {
            let same = found == data::bytes(1_000, 4 << 20);
            panic!("damaged, and read without an error; the right bytes: {same}");
        }
    }
    // What is whole in it can still be read.
    let victim = File::open(peer.path("docs/victim")).unwrap();
    let mut head = vec![0; 4_096];
    victim.read_exact_at(&mut head, 0).unwrap();
    assert!(head == data::bytes(1_000, 4_096));
    drop(victim);
    for n in 0..20 {
        assert!(peer.read(format!("docs/before-{n}")) == data::bytes(n, 30_000));
        assert!(peer.read(format!("docs/after-{n}")) == data::bytes(100 + n, 30_000));
    }
    names_only(&peer.check(), "docs/victim");
    // Writing goes on, and a file that is replaced is whole again.
    peer.write("new", "x");
    peer.write("docs/victim", data::bytes(1_001, 100_000));
    peer.remount();
    assert_eq!(peer.read("new"), b"x");
    assert!(peer.read("docs/victim") == data::bytes(1_001, 100_000));
}

/// Attributes that cannot be read are not made up for who lists the folder before it looks at the file.
#[test]
fn a_file_whose_attributes_are_damaged_is_eio_also_when_it_was_listed_first() {
    let peer = Peer::new();
    peer.write("before", "x");
    peer.write("victim", "y");
    // So long that the file's node is no part of the tree's own nodes.
    let long: String = data::bytes(1, 3600).iter().map(|byte| format!("{byte:02x}")).collect();
    let set = Command::new("setfattr")
        .args(["-n", "user.long", "-v", &format!("0x{long}")])
        .arg(peer.path("victim"))
        .status();
    assert!(set.unwrap().success());
    peer.wait_safe();
    let (pack, from) = end_of_packs(peer.home());
    peer.home().cairnfs(&["publish", BUCKET]).ok();
    assert!(end_of_packs(peer.home()).1 > from + 3600, "the node is not there");
    peer.stop();
    damage(&pack, from + 1500);
    peer.mount();
    // The kernel has the attributes listed too.
    assert_eq!(fs::read_dir(peer.dir()).unwrap().count(), 2);
    let victim = fs::symlink_metadata(peer.path("victim"));
    assert_eq!(victim.unwrap_err().raw_os_error(), EIO);
    assert_eq!(peer.read("before"), b"x");
}

/// `check` names the file `wanted`, and no other one.
#[track_caller]
fn names_only(outcome: &Outcome, wanted: &str) {
    assert_eq!(outcome.code, Some(8), "{outcome}");
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(said.contains(wanted), "{wanted} is not named: {outcome}");
    assert!(!said.contains("before-") && !said.contains("after-"), "too much named: {outcome}");
}

#[test]
fn a_bucket_with_damage_is_checked_without_a_mount_too() {
    let peer = Peer::new();
    let (_, from) = end_of_packs(peer.home());
    peer.write("victim", data::bytes(1, 2 << 20));
    peer.stop();
    peer.check().ok();
    let (pack, _) = end_of_packs(peer.home());
    for place in (from + (1 << 19)..from + (3 << 19)).step_by(16 << 10) {
        damage(&pack, place);
    }
    names_only(&peer.check(), "victim");
    let json = peer.home().cairnfs(&["check", BUCKET, "--json"]).exits(8).json();
    assert!(json.to_string().contains("victim"), "{json}");
}

/// A repair that is only planned changes nothing, and names what the repair then leaves out.
#[test]
fn a_planned_repair_names_what_would_be_left_out() {
    let peer = Peer::new();
    let home = peer.home();
    for n in 0..12 {
        peer.write(format!("f{n}"), data::bytes(n, 40_000));
    }
    peer.stop();
    let (pack, to) = end_of_packs(home);
    for place in (to / 4..to - 10_000).step_by(60_000) {
        damage(&pack, place);
    }
    let contents = || home.packs().into_iter().map(|(path, _)| fs::read(path).unwrap());
    let before: Vec<_> = contents().collect();
    let planned = home.cairnfs(&["check", BUCKET, "--repair", "--dry-run"]).exits(8);
    let planned = planned.says(&["would be left out"]);
    assert!(contents().eq(before), "a plan changed something");
    let json = home.cairnfs(&["check", BUCKET, "--repair", "--dry-run", "--json"]).exits(8).json();
    // `PACK at byte N`, wherever it stands in a line.
    let places = |text: &str| -> Vec<String> {
        let found = text.lines().filter_map(|line| line.split_once(" at byte "));
        let word = |(before, after): (&str, &str)| {
            let pack = before.rsplit(' ').next().unwrap().to_owned();
            format!("{pack} {}", after.split(' ').next().unwrap())
        };
        found.map(word).collect()
    };
    let planned = places(&planned.stdout);
    assert!(planned.len() > 2, "{planned:?}");
    assert_eq!(json["damaged"].as_array().unwrap().len(), planned.len(), "{json}");
    let repaired = home.cairnfs(&["check", BUCKET, "--repair"]);
    assert_eq!(places(&repaired.stderr), planned, "{repaired}");
    home.cairnfs(&["check", BUCKET, "--dry-run"]).exits(2);
}

/// A log that was cut off behind what is saved opens again, but not as if nothing had been there.
#[test]
fn a_repair_of_a_log_that_has_lost_its_end_says_what_is_lost() {
    let peer = Peer::new();
    let home = peer.home();
    let mut ends = Vec::new();
    for n in 0..5 {
        peer.write(format!("f{n}"), data::bytes(n, 300_000));
        home.cairnfs(&["publish", BUCKET]).ok();
        ends.push(end_of_packs(home).1);
    }
    peer.stop();
    let (pack, _) = end_of_packs(home);
    let cut = ends[2] + 50_000;
    OpenOptions::new().write(true).open(&pack).unwrap().set_len(cut).unwrap();
    peer.check().exits(8);
    let ends_at = format!("00000001.pack ends at byte {cut}");
    for repair in [&["--repair", "--dry-run"][..], &["--repair"]] {
        let outcome = home.cairnfs(&[&["check", BUCKET], repair].concat()).exits(8);
        let said = &outcome.stdout;
        assert!(said.contains(&ends_at) && said.contains("is lost"), "{outcome}");
        assert!(!outcome.stderr.contains("nothing had to be left out"), "{outcome}");
    }
    peer.check().ok();
    peer.mount();
    assert_eq!(peer.names(""), ["f0", "f1", "f2"]);
    for n in 0..3 {
        assert!(peer.read(format!("f{n}")) == data::bytes(n, 300_000), "f{n}");
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
                peer.check().ok();
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
    run(cp.args(["-a", "--sparse=never"]).args([from, to]), Duration::from_secs(60)).ok();
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
        peer.check().ok();
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
    peer.check().ok();
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
    fs::rename(&aside, &pack).unwrap();
    home.cairnfs(&check).ok();

    let key = pack.parent().unwrap().with_file_name("key");
    fs::rename(&key, &aside).unwrap();
    for verb in verbs {
        home.cairnfs(verb).exits(4).says(&["key file is missing", key.to_str().unwrap()]);
    }
    let listed = home.cairnfs(&["list"]).ok();
    assert!(listed.stdout.contains("key file is missing"), "{listed}");
    fs::rename(&aside, &key).unwrap();
    peer.mount();
    assert_eq!(peer.read("f"), b"x");
}

#[test]
fn kill_in_the_middle_of_a_large_copy_leaves_whole_files() {
    let peer = Peer::within(Duration::from_secs(300), &[]);
    let source = peer.scratch().join("source");
    fs::create_dir(&source).unwrap();
    for n in 0..24 {
        fs::write(source.join(format!("f{n:02}")), data::bytes(n, 3_000_000)).unwrap();
    }
    let mut done = 0;
    for round in 0..6 {
        thread::scope(|scope| {
            let (source, peer) = (&source, &peer);
            let copy = thread::Builder::new()
                .name("copy".into())
                .spawn_scoped(scope, move || {
                    let mut copied = 0;
                    for n in 0..24 {
                        let bytes = fs::read(source.join(format!("f{n:02}"))).unwrap();
                        let name = format!("copy-{round}-{n:02}");
                        if cairnfs_tests::peer::write(&peer.path(&name), &bytes).is_err() {
                            break;
                        }
                        copied = n + 1;
                    }
                    copied
                })
                .unwrap();
            let_pass(Duration::from_millis(50 + 90 * round));
            peer.kill();
            done = copy.join().unwrap();
        });
        peer.mount_again();
        for n in 0..done {
            let found = peer.read(format!("copy-{round}-{n:02}"));
            assert!(found == data::bytes(n, 3_000_000), "copy-{round}-{n:02} of {done}");
        }
        for name in peer.names("") {
            let n: u64 = name.rsplit('-').next().unwrap().parse().unwrap();
            let found = peer.read(&name);
            // The one being written may be there in part: what there is of it is right.
            assert!(
                found.len() <= 3_000_000 && data::bytes(n, 3_000_000).starts_with(&found),
                "{name}"
            );
        }
    }
    peer.check().ok();
}

#[test]
fn a_mount_point_whose_daemon_died_answers_with_an_error_until_it_is_mounted_again() {
    let peer = Peer::new();
    peer.write("f", "x");
    peer.kill();
    let looked = fs::read_dir(peer.dir());
    assert!(looked.is_err(), "it looks like an empty bucket: a backup would mirror that");
    assert!(fs::write(peer.path("g"), "y").is_err(), "it takes files that go nowhere");
    // As the user would: no unmounting first.
    peer.mount();
    assert_eq!(peer.names(""), ["f"]);
    peer.umount();
    assert!(!mounts::is_mounted(&peer.dir()), "the dead mount was left below");
}

#[test]
fn a_dead_mount_point_can_be_unmounted() {
    let peer = Peer::new();
    peer.write("f", "x");
    peer.kill();
    peer.home().umount(&peer.dir()).ok();
    assert!(!mounts::is_mounted(&peer.dir()));
    peer.mount();
    assert_eq!(peer.read("f"), b"x");
}

#[test]
fn a_daemon_killed_while_it_opens_opens_the_next_time() {
    let peer = Peer::new();
    for n in 0..100 {
        peer.write(format!("f{n}"), data::bytes(n, 10_000));
    }
    let before = Tree::of(&peer.dir());
    for round in 0..10 {
        peer.kill();
        mounts::detach_all(&peer.dir());
        let dir = peer.dir();
        let mount = peer.home().start(&["mount", BUCKET, dir.to_str().unwrap()]);
        let_pass(Duration::from_millis(round * 7));
        peer.kill();
        drop(mount);
        peer.mount_again();
    }
    before.same_as(&Tree::of(&peer.dir()));
}

#[test]
fn several_buckets_and_mounts_are_served_by_one_daemon() {
    let home = Home::new();
    let mut dirs = Vec::new();
    for name in ["one", "two", "three"] {
        home.create(name);
        let dir = home.dir(&format!("mnt-{name}"));
        home.mount(name, &dir, &[]);
        fs::write(dir.join("f"), name).unwrap();
        dirs.push((name, dir));
    }
    assert_eq!(process::of_home(home.path()).len(), 1);
    home.kill();
    for (name, dir) in &dirs {
        home.mount(name, dir, &[]);
        assert_eq!(fs::read(dir.join("f")).unwrap(), name.as_bytes());
    }
    // Unmounting one leaves the others alone.
    home.umount(&dirs[0].1).ok();
    assert_eq!(fs::read(dirs[1].1.join("f")).unwrap(), b"two");
    home.cairnfs(&["stop"]).ok();
    eventually("everything is unmounted", Duration::from_secs(20), || {
        dirs.iter().all(|(_, dir)| !mounts::is_mounted(dir))
    });
}
