//! Bytes that are not what they were: noticed, named, and never served.

use std::{
    fs::{self, File, OpenOptions},
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
};

use cairnfs_tests::{
    Home, Outcome, Peer, data, mounts,
    peer::{BUCKET, UNASKED_NOTHING, UNPUBLISHED},
};
use rustix::io::Errno;

pub(crate) const EIO: Option<i32> = Some(Errno::IO.raw_os_error());

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
    let end = records(&fs::read(&path).unwrap()).last().map_or(88, |record| record.end);
    (path, u64::try_from(end).unwrap())
}

/// Where the records of a pack are, which begin with 68 bytes and end with 16 of their own (FORMAT.md).
pub(crate) fn records(pack: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 88;
    std::iter::from_fn(move || {
        let Some([b'c', b'r', b'n', b'1', len @ ..]) = pack.get(at..at + 8) else { return None };
        let len = u32::from_le_bytes(len.try_into().unwrap()) as usize;
        let record = at..at + 68 + len + 16;
        at = record.end;
        Some(record)
    })
}

#[test]
fn a_damaged_byte_is_eio_for_that_file_only_and_check_names_it() {
    let peer = Peer::with(&UNASKED_NOTHING);
    let home = peer.home();
    fs::create_dir(peer.path("docs")).unwrap();
    for n in 0..20 {
        peer.write(format!("docs/before-{n}"), data::bytes(n, 30_000));
    }
    peer.remount();
    let (pack, from) = end_of_packs(home);
    peer.write("docs/victim", data::bytes(1_000, 4 << 20));
    peer.wait_safe();
    let (same, to) = end_of_packs(home);
    assert!(same == pack && to > from + (4 << 20), "{from}..{to} of {}", pack.display());
    for n in 0..20 {
        peer.write(format!("docs/after-{n}"), data::bytes(100 + n, 30_000));
    }
    peer.check().succeeds();
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
    let peer = Peer::with(&UNPUBLISHED);
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
    peer.home().cairnfs(&["publish", BUCKET]).succeeds();
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
    let peer = Peer::with(&UNASKED_NOTHING);
    let (_, from) = end_of_packs(peer.home());
    peer.write("victim", data::bytes(1, 2 << 20));
    peer.stop();
    peer.check().succeeds();
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
    assert!(places(&repaired.stdout).starts_with(&planned), "{repaired}");
    home.cairnfs(&["check", BUCKET, "--dry-run"]).exits(2);
}

/// It is gone from the log afterwards, so that nobody finds it any more.
#[test]
fn a_repair_that_leaves_out_what_was_saved_last_says_so() {
    for json in [&[][..], &["--json"]] {
        let peer = Peer::with(&UNASKED_NOTHING);
        let home = peer.home();
        peer.write("first", "x");
        home.cairnfs(&["publish", BUCKET]).succeeds();
        let (_, from) = end_of_packs(home);
        peer.write("lost", data::bytes(1, 1_500));
        peer.wait_safe();
        home.kill();
        mounts::detach_all(&peer.dir());
        let (pack, _) = end_of_packs(home);
        damage(&pack, from + 700);
        let place = format!("{} at byte {from} ", pack.file_name().unwrap().display());
        let repaired = home.cairnfs(&[&["check", BUCKET, "--repair"], json].concat()).exits(8);
        assert!(repaired.stdout.contains(&place), "{repaired}");
        if !json.is_empty() {
            let json = repaired.json();
            assert_eq!(json["ok"], false, "{json}");
            assert_eq!(json["damaged"].as_array().unwrap().len(), 1, "{json}");
        }
        peer.check().succeeds();
        peer.mount();
        assert_eq!(peer.names(""), ["first"]);
    }
}

/// Flips a byte in each record of the only pack that begins a version (FORMAT.md).
fn damage_all_checkpoints(home: &Home) {
    let (pack, _) = end_of_packs(home);
    let bytes = fs::read(&pack).unwrap();
    for at in records(&bytes).map(|record| record.start) {
        if bytes[at + 8] == 0x80 && bytes[at + 9] & 4 != 0 {
            damage(&pack, at as u64 + 100);
        }
    }
}

#[test]
fn a_bucket_that_has_lost_all_that_begins_a_version_goes_on_from_the_newest_version() {
    let peer = Peer::with(&UNASKED_NOTHING);
    let home = peer.home();
    peer.write("published", data::bytes(1, 100_000));
    home.cairnfs(&["publish", BUCKET]).succeeds();
    let newest = home.cairnfs(&["log", BUCKET, "--json"]).succeeds().json();
    peer.write("saved", "x");
    peer.wait_safe();
    home.kill();
    mounts::detach_all(&peer.dir());
    damage_all_checkpoints(home);
    let check = |how: &[&str]| home.cairnfs(&[&["check", BUCKET], how].concat()).exits(8);
    home.try_mount(BUCKET, &peer.dir(), &[]).exits(8);
    check(&["--repair", "--dry-run"]).says(&["the newest version that can be read would take"]);
    home.try_mount(BUCKET, &peer.dir(), &[]).exits(8);
    let repaired = check(&["--repair"]);
    let said =
        repaired.stdout.split_once("the bucket goes on from version ").expect("it is said").1;
    assert!(newest.to_string().contains(&said[..16]), "{newest} {repaired}");
    assert!(said.contains("1 save since is left out"), "{repaired}");
    peer.mount();
    assert_eq!(peer.names(""), ["published"]);
    assert!(peer.read("published") == data::bytes(1, 100_000));
    peer.write("next", "x");
    peer.remount();
    assert_eq!(peer.names(""), ["next", "published"]);
}
