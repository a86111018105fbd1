//! The power is cut at random calls of a disk that forgets what no barrier covered: what a save
//! acknowledged is there, each save is whole or absent, and nothing is there that never was.

use std::time::Duration;

use cairnfs_store::sim;

use crate::{
    Ino,
    random_load::{
        ME, Model, Possible, fresh, mount, mount_publishing, read_back, save, sizes, step,
        write_all,
    },
};

/// Runs until the power goes off after `calls` calls, and compares what is left; says how many
/// saves were acknowledged.
fn one_cut(seed: u64) -> usize {
    let (disk, device, mut rng) = fresh(seed);
    let mounted = mount(&disk, &device).unwrap();
    disk.inject(sim::Fault::PowerOff { after_calls: 1 + rng.below(400) });
    let mut states = Possible(vec![Model::new()]);
    let mut acknowledged = 0;
    for _ in 0..120 {
        if step(&mounted, &mut states, &mut rng).is_err() {
            break;
        }
        let dirs = states.now().values().filter(|content| content.is_none()).count();
        // It may have to be read, and the power may be off by now.
        if let Ok(attr) = mounted.getattr(Ino::ROOT, None) {
            assert_eq!(usize::try_from(attr.nlink).unwrap(), 2 + dirs, "seed {seed}");
        }
        if rng.below(3) == 0 {
            if save(&mounted).is_err() {
                break;
            }
            states.saved();
            acknowledged += 1;
        }
    }
    let after = disk.crash(seed ^ 0x5eed);
    // The one that lost its power may end as it likes.
    mounted.stop().ok();
    let again = mount(&after, &device).unwrap_or_else(|err| panic!("seed {seed}: {err}"));
    let found = read_back(&again).unwrap_or_else(|err| panic!("seed {seed}: {err}"));
    assert!(
        states.0.contains(&found),
        "seed {seed}: after {acknowledged} saves found {:?}, none of {} states, the last {:?}",
        sizes(&found),
        states.0.len(),
        sizes(states.now())
    );
    // And it goes on from there.
    again.mkdir(ME, Ino::ROOT, b"after", 0o755).unwrap();
    save(&again).unwrap();
    again.stop().unwrap();
    acknowledged
}

#[test]
fn what_was_acknowledged_survives_every_cut() {
    let count = std::env::var("CAIRNFS_CRASH_SEEDS").ok().and_then(|text| text.parse().ok());
    let first = std::env::var("CAIRNFS_CRASH_FIRST").ok().and_then(|text| text.parse().ok());
    let first: u64 = first.unwrap_or(1);
    let saves: usize = (first..first + count.unwrap_or(300)).map(one_cut).sum();
    assert!(count.is_some() || saves > 1_000, "{saves}");
}

#[test]
fn publishing_fails_where_saving_did() {
    let (disk, device, _) = fresh(1);
    let mounted = mount(&disk, &device).unwrap();
    mounted.mkdir(ME, Ino::ROOT, b"d", 0o755).unwrap();
    disk.inject(sim::Fault::PowerOff { after_calls: 0 });
    assert!(mounted.publish().is_err());
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
    while mounted.status().stored_bytes > 600_000 {
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
