//! A call of the disk fails for want of space, anywhere in a load: who asked hears of it, nothing that
//! was saved is lost, and it goes on by itself once there is room. Whoever wants something else of
//! a full disk does not wait while space is looked for.

use std::{
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use cairnfs_store::{
    DeviceKey,
    sim::{Call, Fault, SimDisk},
};

use crate::{
    Error, Fallocate, Health, Ino, Kind, Mount, OpenFlags, Options, Result, SavePolicy, Which,
    peers::hex,
    random_load::{
        ME, Op, Possible, Rng, bucket_with_reserve, fresh, mount, mount_on, number, read_back,
        save, sizes, step, write_all,
    },
    slow_disk::SlowDisk,
    sync_tests::comes,
};

/// How often the faults of one load were heard of.
fn one_load(seed: u64) -> usize {
    let (disk, device, mut rng) = fresh(seed);
    let mounted = mount(&disk, &device).unwrap();
    let mut states = Possible::empty();
    let mut heard = 0;
    for _ in 0..60 {
        if rng.below(8) == 0 {
            // Not at the barrier of a directory: where a pack that was thrown away with its batch may
            // come back, the log is poisoned, whatever the reason.
            let call = if rng.below(3) == 0 { Call::Open } else { Call::Write };
            let nth = 1 + rng.below(30);
            disk.inject(Fault::Fail { call, nth, kind: ErrorKind::StorageFull });
        }
        let full = |err: Error| match err {
            Error::NoSpace => 1,
            err => panic!("seed {seed}: a full disk is said to be {err}"),
        };
        let op = Op::random(&mut rng, states.now());
        if let Some(Err(err)) = op.map(|op| step(&mounted, &mut states, &op)) {
            heard += full(err);
            // A refused call may have done its first half.
            let now = read_back(&mounted).unwrap_or_else(|err| panic!("seed {seed}: {err}"));
            assert!(states.must_be(&now), "seed {seed}: a refused call left what never was");
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
    again
        .check(&mut |_, _| true, &mut |path, what| panic!("seed {seed}: {path:?}: {what}"))
        .unwrap();
    again.stop().unwrap();
    heard
}

#[test]
fn a_full_disk_at_any_call_loses_nothing_and_it_goes_on() {
    let heard: usize = (1..=number("CAIRNFS_FULL_SEEDS", 150)).map(one_load).sum();
    assert!(heard > 20, "{heard}");
}

fn create(mount: &Mount, name: &[u8], content: &[u8]) -> Result<()> {
    let ino = mount.mknod(ME, Ino::ROOT, name, Kind::File, 0o644, 0)?.ino;
    write_all(mount, ino, 0, content)
}

/// What comes of `call`, which must not wait for what is held.
#[track_caller]
fn promptly<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    thread::Builder::new().spawn(move || tell.send(call())).unwrap();
    told.recv_timeout(Duration::from_secs(60)).expect("it waits for the search")
}

/// Saves files of 200 kB, called by numbers, until one is refused; says how many there are.
fn fill(mount: &Mount, rng: &mut Rng) -> u64 {
    (0..)
        .find(|n: &u64| {
            let name = n.to_string().into_bytes();
            let refused =
                create(mount, &name, &rng.bytes(200_000)).is_err() || save(mount).is_err();
            if refused {
                mount.unlink(Ino::ROOT, &name).ok();
            }
            refused
        })
        .unwrap()
}

#[test]
fn deletes_are_saved_and_writes_refused_while_space_is_looked_for() {
    let (disk, device, mut rng) = fresh(1);
    let (slow, gate) = SlowDisk::for_search(&disk);
    let long = Duration::from_secs(3600);
    let mounted = mount_on(slow, &device, long, long).unwrap();
    disk.set_capacity_bytes(disk.used_bytes() + (8 << 20));
    let held = gate.hold();
    let mount = mounted.clone();
    let filled = promptly(move || fill(&mount, &mut rng));
    assert!(filled > 10, "{filled}");
    assert!(comes(|| gate.is_waited_for()), "no space is looked for");
    let mount = mounted.clone();
    let refused = promptly(move || create(&mount, b"more", &[1; 200_000]));
    assert!(matches!(refused, Err(Error::NoSpace)), "{refused:?}");
    let mount = mounted.clone();
    promptly(move || mount.unlink(Ino::ROOT, b"0").and_then(|()| save(&mount))).unwrap();
    assert!(gate.is_waited_for(), "the search is over");
    drop(held);
    // What was deleted gives its space back, without a remount.
    for n in 1..filled {
        mounted.unlink(Ino::ROOT, n.to_string().as_bytes()).unwrap();
    }
    let begun = Instant::now();
    while create(&mounted, b"again", &[2; 200_000]).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the space does not come back");
        // Refused; the next look is allowed a little after the last.
        thread::sleep(Duration::from_millis(20));
        drop(mounted.unlink(Ino::ROOT, b"again"));
    }
    mounted.stop().unwrap();
}

#[test]
fn what_cannot_be_allocated_costs_no_older_version() {
    const MIB: u64 = 1 << 20;
    let (disk, device, mut rng) = fresh(5);
    disk.set_capacity_bytes(32 * MIB);
    let mounted = mount(&disk, &device).unwrap();
    create(&mounted, b"old", &rng.bytes(4 * MIB)).unwrap();
    let version = mounted.publish().unwrap();
    mounted.unlink(Ino::ROOT, b"old").unwrap();
    create(&mounted, b"new", &rng.bytes(MIB)).unwrap();
    mounted.publish().unwrap();
    let new = mounted.lookup(Ino::ROOT, b"new").unwrap().ino;
    let fh = mounted.open(new, OpenFlags { write: true, ..OpenFlags::default() }).unwrap();
    let allocate = |bytes: u64| {
        let (tell, told) = mpsc::channel();
        let mode = Fallocate::Allocate { keep_size: false };
        let done = Box::new(move |result| tell.send(result).unwrap());
        mounted.fallocate(new, fh, mode, (0, bytes), done);
        told.recv().unwrap()
    };
    assert!(matches!(allocate(100 << 40), Err(Error::NoSpace)));
    // Of what the file has nothing is new, however full the disk is.
    disk.set_capacity_bytes(disk.used_bytes() + 4 * MIB);
    allocate(MIB).unwrap();
    mounted.publish().unwrap();
    assert!(!matches!(mounted.status().health, Health::NoSpace));
    let old = mounted.past(&Which::Id(hex(&version))).unwrap().unwrap();
    assert!(old.is_whole().unwrap(), "it was given up");
    mounted.release(new, fh, Box::new(|_| ()));
    drop(old);
    mounted.stop().unwrap();
}

const HOUR: Duration = Duration::from_secs(3600);

/// A mount that saves and publishes only what it is told to.
fn start(disk: &SimDisk, device: &Arc<DeviceKey>, reserve_bytes: u64) -> Mount {
    let options = Options {
        policy: SavePolicy::Interval(HOUR),
        publish_quiet: HOUR,
        publish_max: HOUR,
        ..Options::default()
    };
    Mount::start(bucket_with_reserve(disk, device, reserve_bytes).unwrap(), options).unwrap()
}

/// That much was accepted when there was room, and waits to be saved with them.
#[test]
fn deletes_are_saved_on_a_full_disk_with_what_waits_if_half_of_the_reserve_holds_all() {
    let (disk, device, mut rng) = fresh(1);
    let mounted = start(&disk, &device, 1 << 20);
    let name = |n: u32| format!("file-{n}").into_bytes();
    for n in 0..1_000 {
        mounted.mknod(ME, Ino::ROOT, &name(n), Kind::File, 0o644, 0).unwrap();
    }
    mounted.publish().unwrap();
    create(&mounted, b"new", &rng.bytes(220_000)).unwrap();
    create(&mounted, b"too", &rng.bytes(180_000)).unwrap();
    disk.set_capacity_bytes(disk.used_bytes());
    for n in 0..1_000 {
        mounted.unlink(Ino::ROOT, &name(n)).unwrap();
    }
    save(&mounted).unwrap();
    let again = start(&disk.kill(), &device, 1 << 20);
    assert_eq!(sizes(&read_back(&again).unwrap()).len(), 2);
    again.stop().unwrap();
    disk.set_capacity_bytes(u64::MAX);
    mounted.stop().unwrap();
}

#[test]
fn what_was_kept_for_deleting_is_nobody_elses_once_some_of_it_was_used() {
    const RESERVE_BYTES: u64 = 4 << 20;
    let (disk, device, mut rng) = fresh(1);
    let mounted = start(&disk, &device, RESERVE_BYTES);
    create(&mounted, b"new", &rng.bytes(200_000)).unwrap();
    create(&mounted, b"too", &rng.bytes(200_000)).unwrap();
    disk.set_capacity_bytes(disk.used_bytes());
    save(&mounted).unwrap();
    let mut full = |mounted: &Mount| {
        let refused = create(mounted, b"more", &rng.bytes(500_000));
        assert!(matches!(refused, Err(Error::NoSpace)), "{refused:?}");
        mounted.unlink(Ino::ROOT, b"more").ok();
        save(mounted).unwrap();
    };
    full(&mounted);
    let killed = disk.kill();
    full(&start(&killed, &device, RESERVE_BYTES));
    disk.set_capacity_bytes(disk.used_bytes() + (8 << 20));
    create(&mounted, b"again", &rng.bytes(500_000)).unwrap();
    let lacks = |mounted: &Mount| mounted.shared().vault.blobs().reserve_lacks_bytes();
    assert_eq!(lacks(&mounted), RESERVE_BYTES);
    disk.set_capacity_bytes(disk.used_bytes() + 8 * RESERVE_BYTES);
    for n in 0..70 {
        create(&mounted, format!("small{n}").as_bytes(), b"x").unwrap();
        save(&mounted).unwrap();
    }
    assert_eq!(lacks(&mounted), 0, "it is not kept again");
    mounted.stop().unwrap();
}

#[test]
fn all_can_be_checked_on_a_full_disk() {
    let (disk, device, mut rng) = fresh(1);
    let mounted = start(&disk, &device, 64 << 10);
    create(&mounted, b"there", &rng.bytes(50_000)).unwrap();
    mounted.publish().unwrap();
    create(&mounted, b"new", &rng.bytes(200_000)).unwrap();
    disk.set_capacity_bytes(disk.used_bytes());
    assert!(matches!(mounted.publish(), Err(Error::NoSpace)));
    let mut read = 0;
    let check = |read: &mut u64| {
        let mut damage = 0;
        let progress = &mut |done, _| {
            *read = done;
            true
        };
        mounted.check(progress, &mut |_, _| damage += 1).map(|()| damage)
    };
    assert_eq!(check(&mut read).unwrap(), 0);
    assert!(read > 50_000, "{read}");
    disk.set_capacity_bytes(u64::MAX);
    mounted.stop().unwrap();
}

#[test]
fn a_barrier_that_fails_while_space_is_got_back_is_heard_of_at_once() {
    let (disk, device, mut rng) = fresh(1);
    let armed = Arc::new(AtomicBool::new(false));
    let (is_armed, at) = (Arc::clone(&armed), disk.clone());
    // It reads the pack that it is about to empty, and then writes what of it is to stay.
    let slow = SlowDisk::new(&disk, "writer", Call::Read, move || {
        if is_armed.swap(false, Ordering::SeqCst) {
            at.inject(Fault::Fail { call: Call::Barrier, nth: 1, kind: ErrorKind::Other });
        }
    });
    let mounted = mount_on(slow, &device, Duration::from_millis(300), HOUR).unwrap();
    let ino = mounted.mknod(ME, Ino::ROOT, b"file", Kind::File, 0o644, 0).unwrap().ino;
    for _ in 0..20 {
        write_all(&mounted, ino, 0, &rng.bytes(60_000)).unwrap();
        save(&mounted).unwrap();
    }
    mounted.publish().unwrap();
    armed.store(true, Ordering::SeqCst);
    assert!(comes(|| !armed.load(Ordering::SeqCst)), "nothing is emptied");
    assert!(comes(|| matches!(mounted.status().health, Health::Poisoned { .. })), "nobody is told");
    let refused = mounted.mkdir(ME, Ino::ROOT, b"more", 0o755);
    assert!(matches!(refused, Err(Error::ReadOnly { .. })), "{refused:?}");
    drop(mounted.stop());
}
