//! The power is cut at random calls of a disk that forgets what no barrier covered: what a save
//! acknowledged is there, each save is whole or absent, and nothing is there that never was.

use std::time::Duration;

use cairnfs_store::sim;

use crate::{
    Health, Ino,
    random_load::{
        ME, Op, Possible, fresh, mount, mount_publishing, number, read_back, save, sizes, step,
        write_all,
    },
};

type Case = sim::Case<Op>;

fn case(seed: u64, lies: bool) -> Case {
    let (_, _, mut rng) = fresh(seed);
    Case { seed, lies, cut: 1 + rng.below(400), load: Op::load(&mut rng, 120), luck: 0 }
}

/// Runs until the power goes off, and compares what is left; says how many saves were
/// acknowledged.
fn run(case: &Case) -> Result<usize, String> {
    let (disk, device, _) = fresh(case.seed);
    let mounted = mount(&disk, &device).unwrap();
    case.arm(&disk);
    let mut states = Possible::empty();
    let mut acknowledged = 0;
    for op in &case.load {
        if step(&mounted, &mut states, op).is_err() {
            break;
        }
        acknowledged += usize::from(matches!(op, Op::Save));
        let dirs = states.now().values().filter(|content| content.is_none()).count();
        // It may have to be read, and the power may be off by now.
        if let Ok(attr) = mounted.getattr(Ino::ROOT)
            && usize::try_from(attr.nlink).unwrap() != 2 + dirs
        {
            return Err(format!("{} links, where {dirs} directories are", attr.nlink));
        }
    }
    let after = disk.crash(case.seed ^ 0x5eed ^ (case.luck << 40));
    // The one that lost its power may end as it likes.
    mounted.stop().ok();
    let again = mount(&after, &device).map_err(|err| format!("not opened: {err}"))?;
    let found = read_back(&again).map_err(|err| format!("not read: {err}"))?;
    if !states.must_be(&found) {
        let (found, now) = (sizes(&found), sizes(states.now()));
        let possible = states.all().len();
        return Err(format!(
            "after {acknowledged} saves found {found:?}, none of {possible} states, the last {now:?}"
        ));
    }
    // And it goes on from there.
    again.mkdir(ME, Ino::ROOT, b"after", 0o755).unwrap();
    save(&again).unwrap();
    again.stop().unwrap();
    Ok(acknowledged)
}

/// The shortest load of this one's calls that goes wrong. Where in it the cut must be, what it
/// leaves, and what the thread that publishes did just then is another matter each time, so
/// that some are tried.
fn shortest(case: &Case) -> (Case, String) {
    let wrong = |load: &[Op]| {
        (0..40).find_map(|luck| {
            let cut = 1 + (case.cut + luck * 7) % case.cut;
            let case = Case { load: load.to_vec(), cut, luck, ..case.clone() };
            sim::outcome(|| run(&case)).err().map(|why| (case, why))
        })
    };
    let mut found = None;
    sim::shrink(&case.load, |load| {
        let failed = wrong(load);
        let fails = failed.is_some();
        found = failed.or(found.take());
        fails
    });
    found.unwrap_or_else(|| (case.clone(), "only with all of it".into()))
}

#[test]
#[allow(clippy::print_stderr, reason = "a long run says how far it went")]
fn what_was_acknowledged_survives_every_cut() {
    let first = number("CAIRNFS_CRASH_FIRST", 1);
    let seeds = number("CAIRNFS_CRASH_SEEDS", 300);
    let mut saves = 0;
    for seed in first..first + seeds {
        let case = case(seed, false);
        saves += sim::outcome(|| run(&case)).unwrap_or_else(|why| {
            let (shortest, then) = shortest(&case);
            panic!("seed {seed}: {why}\nshortest: {then}\n{shortest}");
        });
        if seed % 1000 == 0 {
            eprintln!("{} cuts", seed - first + 1);
        }
    }
    assert!(seeds < 300 || saves > 1_000, "{saves}");
}

/// The save may be one of the thread that publishes.
#[test]
fn of_a_load_on_a_disk_that_lies_one_change_and_its_save_are_left() {
    let case = Case { cut: 300, ..case(2, true) };
    let (shortest, why) = shortest(&case);
    let [Op::Create { .. } | Op::Mkdir(_), save @ ..] = &shortest.load[..] else {
        panic!("{why}\n{shortest}");
    };
    assert!(matches!(save, [] | [Op::Save]), "{why}\n{shortest}");
}

#[test]
fn publishing_fails_where_saving_did() {
    let (disk, device, _) = fresh(1);
    let mounted = mount(&disk, &device).unwrap();
    mounted.mkdir(ME, Ino::ROOT, b"d", 0o755).unwrap();
    disk.inject(sim::Fault::PowerOff { after_calls: 0 });
    assert!(mounted.publish().is_err());
    let health = mounted.status().health;
    let Health::Poisoned { reason } = &health else { panic!("{health:?}") };
    assert!(!reason.contains("earlier"), "{reason} is not why");
    assert!(mounted.publish().is_err());
    mounted.stop().unwrap_err();
}

#[test]
fn save_records_that_a_version_made_redundant_go_when_it_is_quiet() {
    let (disk, device, mut rng) = fresh(1);
    let quiet = Duration::from_millis(300);
    let mounted = mount_publishing(&disk, &device, quiet, Duration::from_secs(3600)).unwrap();
    let ino = mounted.mknod(ME, Ino::ROOT, b"f", crate::Kind::File, 0o644, 0).unwrap().ino;
    let mut last = Vec::new();
    for n in 0..300 {
        last = rng.bytes(8_000);
        last[0] = 1;
        write_all(&mounted, ino, 0, &last).unwrap();
        save(&mounted).unwrap();
        if n == 150 {
            // A version in the middle: its blobs must outlive the packs they lie in.
            mounted.publish().unwrap();
        }
    }
    // Of 2.4 MB that were saved.
    let began = std::time::Instant::now();
    let pack_bytes = || mounted.shared().vault.blobs().stats().unwrap().pack_bytes;
    while pack_bytes() > 600_000 {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", mounted.status());
        std::thread::sleep(Duration::from_millis(5));
    }
    let versions = mounted.log(None, usize::MAX, usize::MAX).unwrap();
    assert!(versions.len() >= 3, "every version is kept: {versions:?}");
    assert!(versions.iter().all(|version| version.changes.len() <= 1), "{versions:?}");
    mounted.stop().unwrap();
    let again = mount(&disk.kill(), &device).unwrap();
    assert_eq!(read_back(&again).unwrap()[&b"f"[..]], Some(last));
    again.stop().unwrap();
}
