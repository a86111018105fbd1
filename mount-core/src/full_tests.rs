//! A call of the disk fails for want of space, anywhere in a load: who asked hears of it, nothing that
//! was saved is lost, and it goes on by itself once there is room.

use std::io::ErrorKind;

use cairnfs_store::sim::{Call, Fault};

use crate::{
    Error,
    random_load::{Model, Possible, fresh, mount, read_back, save, sizes, step},
};

/// How often the faults of one load were heard of.
fn one_load(seed: u64) -> usize {
    let (disk, device, mut rng) = fresh(seed);
    let mounted = mount(&disk, &device).unwrap();
    let mut states = Possible(vec![Model::new()]);
    let mut heard = 0;
    for _ in 0..60 {
        if rng.below(8) == 0 {
            let call = if rng.below(3) == 0 { Call::Open } else { Call::Write };
            let nth = 1 + rng.below(30);
            disk.inject(Fault::Fail { call, nth, kind: ErrorKind::StorageFull });
        }
        let full = |err: Error| match err {
            Error::NoSpace => 1,
            err => panic!("seed {seed}: a full disk is said to be {err}"),
        };
        if let Err(err) = step(&mounted, &mut states, &mut rng) {
            heard += full(err);
            // A refused call may have done its first half.
            let now = read_back(&mounted).unwrap_or_else(|err| panic!("seed {seed}: {err}"));
            assert!(states.0.contains(&now), "seed {seed}: a refused call left what never was");
            states.0.push(now);
        }
        if rng.below(3) == 0 {
            match save(&mounted) {
                Ok(()) => states.saved(),
                Err(err) => heard += full(err),
            }
        }
    }
    // The faults that are left strike now; then there is room.
    let saved = (0..200).any(|_| save(&mounted).inspect_err(|_err| heard += 1).is_ok());
    assert!(saved, "seed {seed}: it does not go on");
    let found = read_back(&mounted).unwrap();
    assert!(
        found == *states.now(),
        "seed {seed}: before the cut {:?}, not {:?}",
        sizes(&found),
        sizes(states.now())
    );
    let after = disk.crash(seed ^ 0x5eed);
    drop(mounted.stop());
    let again = mount(&after, &device).unwrap_or_else(|err| panic!("seed {seed}: {err}"));
    assert!(read_back(&again).unwrap() == *states.now(), "seed {seed}: wrong after the cut");
    again.check(&mut |_, _| (), &mut |path, what| panic!("seed {seed}: {path:?}: {what}")).unwrap();
    again.stop().unwrap();
    heard
}

#[test]
fn a_full_disk_at_any_call_loses_nothing_and_it_goes_on() {
    let count = std::env::var("CAIRNFS_FULL_SEEDS").ok().and_then(|text| text.parse().ok());
    let heard: usize = (1..=count.unwrap_or(150)).map(one_load).sum();
    assert!(heard > 20, "{heard}");
}
