//! Power cuts at every call on the disk: what was acknowledged is there, whole, and nothing else.

#![allow(clippy::unwrap_used, reason = "tests")]

mod load;
mod support;

use std::path::Path;
use std::sync::Arc;

use cairnfs_store::sim::{self, Fault, SimDisk};
use cairnfs_store::{Error, Options, create, open};

use load::{Model, Op};
use support::{DIR, keys, small};

fn options() -> Options {
    small(64 << 10, 4096)
}

type Case = sim::Case<Op>;

fn case(seed: u64, lies: bool) -> Case {
    Case { seed, lies, load: load::random(seed << 32, 40), cut: 0, luck: 0 }
}

/// Cuts the power and opens what is left, twice. True if the load came to its end before.
fn run(case: &Case) -> Result<bool, String> {
    let Case { seed, cut, luck, .. } = *case;
    let disk = SimDisk::new(seed);
    let (mut appender, blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    let mut model = Model::default();
    case.arm(&disk);
    let done = model.run(&mut appender, &case.load).is_ok();
    let mut after = disk.crash(seed ^ cut.wrapping_mul(0x9e37_79b9) ^ (luck << 40));
    drop((appender, blobs));
    for again in 0..2 {
        let mut opened = open(Arc::new(after.clone()), Path::new(DIR), keys(), options())
            .map_err(|err| format!("not opened: {err:?}"))?;
        model.check(&opened)?;
        // It goes on from there, until the power fails again.
        let more = load::random(seed + cut + again, 6);
        model.run(&mut opened.appender, &more).map_err(|err| format!("does not go on: {err:?}"))?;
        after = after.crash(cut + again);
        drop(opened);
    }
    Ok(done)
}

/// Cuts at every call of the load. How many there were, or the first that goes wrong.
fn every_cut(case: &Case) -> Result<u64, (Case, String)> {
    for cut in 0.. {
        let case = Case { cut, ..case.clone() };
        match sim::outcome(|| run(&case)) {
            Ok(true) => return Ok(cut),
            Ok(false) => (),
            Err(why) => return Err((case, why)),
        }
    }
    unreachable!("because a load ends")
}

/// The shortest load of this one's calls that goes wrong at some cut, there. What a cut leaves
/// is another matter of luck for each load, so a few are tried.
fn shortest(case: &Case) -> (Case, String) {
    let wrong = |load: &[Op]| {
        let with = |luck| Case { load: load.to_vec(), luck, ..case.clone() };
        (0..8).find_map(|luck| every_cut(&with(luck)).err())
    };
    let load = sim::shrink(&case.load, |load| wrong(load).is_some());
    wrong(&load).expect("because it went wrong just now")
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

#[test]
#[allow(clippy::print_stderr, reason = "a long run says how far it went")]
fn a_power_cut_at_any_call_keeps_every_acknowledged_save_whole() {
    let first = number("CAIRNFS_CRASH_FIRST", 0);
    let seeds = number("CAIRNFS_CRASH_SEEDS", 24);
    let mut cuts = 0;
    for seed in first..first + seeds {
        cuts += every_cut(&case(seed, false)).unwrap_or_else(|(case, why)| {
            let (shortest, then) = shortest(&case);
            panic!("cut {} of seed {seed}: {why}\nshortest: {then}\n{shortest}", case.cut);
        });
        if seed % 1000 == 999 {
            eprintln!("{cuts} cuts");
        }
    }
    assert!(cuts > 40 * seeds, "{cuts} cuts");
}

#[test]
fn of_a_load_on_a_disk_that_lies_the_one_save_is_left_that_is_lost() {
    for seed in 0..8 {
        let (case, _) = every_cut(&case(seed, true)).unwrap_err();
        let (shortest, why) = shortest(&case);
        assert!(matches!(shortest.load[..], [Op::Save { .. }]), "{why}\n{shortest}");
    }
}

#[test]
fn a_power_cut_while_recovering_loses_nothing() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let (mut appender, _blobs) =
            create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
        let mut model = Model::default();
        disk.inject(Fault::PowerOff { after_calls: 30 + seed });
        model.run(&mut appender, &load::random(seed << 32, 200)).unwrap_err();
        let mut after = disk.crash(seed);
        for calls in 0..60 {
            after.inject(Fault::PowerOff { after_calls: calls });
            let opened = open(Arc::new(after.clone()), Path::new(DIR), keys(), options());
            let done = opened.is_ok();
            assert!(!matches!(opened, Err(Error::Damaged { .. })), "seed {seed}: {opened:?}");
            after = after.crash(seed + calls);
            drop(opened);
            if done {
                break;
            }
        }
        model.check(&open(Arc::new(after), Path::new(DIR), keys(), options()).unwrap()).unwrap();
    }
}

#[test]
fn a_lost_and_a_flipped_index_change_nothing() {
    let disk = SimDisk::new(3);
    let (mut appender, blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    let mut model = Model::default();
    model.run(&mut appender, &load::random(99, 120)).unwrap();
    drop((appender, blobs));
    let index = Path::new(DIR).join("index.redb");
    let bits = disk.content(&index).unwrap().len() as u64 * 8;
    for n in 0..150u64 {
        let disk = disk.kill();
        disk.flip_bit(&index, (n * 0x9e37_79b9_7f4a) % bits);
        let opened = open(Arc::new(disk), Path::new(DIR), keys(), options()).unwrap();
        assert_eq!(opened.appender.seq().0, model.saves() as u64);
        for (blob, content) in model.blobs() {
            // A wrong place is noticed: never wrong bytes.
            if let Ok(found) = opened.blobs.get(blob) {
                assert_eq!(found[..], content[..]);
            }
        }
    }
}

#[test]
fn one_flipped_bit_in_a_pack_hurts_one_blob_or_refuses_the_opening() {
    let disk = SimDisk::new(3);
    let (mut appender, blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    let mut model = Model::default();
    model.run(&mut appender, &load::random(7, 60)).unwrap();
    let seq = appender.seq();
    drop((appender, blobs));
    let packs: Vec<_> = disk
        .files()
        .into_iter()
        .filter(|(path, _)| path.extension().is_some_and(|ext| ext == "pack"))
        .collect();
    let mut refused = 0;
    for n in 0..600u64 {
        let rebuild = n % 2 == 0;
        let disk = disk.kill();
        let (path, len) = &packs[usize::try_from(n).unwrap() % packs.len()];
        disk.flip_bit(path, (n * 0x9e37_79b9_7f4a) % (len * 8));
        if rebuild {
            cairnfs_store::disk::Disk::remove(&disk, &Path::new(DIR).join("index.redb")).unwrap();
        }
        let opened = match open(Arc::new(disk), Path::new(DIR), keys(), options()) {
            Ok(opened) => opened,
            Err(Error::Damaged { .. }) => {
                refused += 1;
                continue;
            }
            Err(err) => panic!("{err:?}"),
        };
        assert_eq!(opened.appender.seq(), seq, "no save is dropped in silence, flip {n}");
        let mut hurt = 0;
        for (blob, content) in model.blobs() {
            match opened.blobs.get(blob) {
                Ok(found) => assert_eq!(found[..], content[..]),
                Err(Error::Corrupt { .. }) => hurt += 1,
                Err(err) => panic!("{err:?}"),
            }
        }
        assert!(hurt <= 1 && !(rebuild && hurt > 0), "{hurt} blobs hurt by one bit");
    }
    assert!(refused > 100, "{refused} refused");
}
