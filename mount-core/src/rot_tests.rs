//! One bit of the stored bytes turns, anywhere: nothing changes, or exactly the files that need it
//! are errors and a check names them, or the bucket is refused. Never wrong bytes, never a panic.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use cairnfs_store::{DeviceKey, sim};

use crate::{
    Bucket, Error, Ino, Kind, Limits, Mount, OpenFlags, Options, Protection, Result, SetAttr,
    Unlock,
    random_load::{
        ME, Model, Op, Possible, Rng, bucket_on, fresh, mount, number, save, step, write_all,
    },
};

/// A bucket that was left in good order, and what is in it.
struct Rested {
    disk: sim::SimDisk,
    device: Arc<DeviceKey>,
    model: Model,
}

fn rested(seed: u64) -> Rested {
    let (disk, device, mut rng) = fresh(seed);
    let mut states = Possible::empty();
    for _ in 0..3 {
        let mounted = mount(&disk, &device).unwrap();
        for _ in 0..25 {
            if let Some(op) = Op::random(&mut rng, states.now()) {
                step(&mounted, &mut states, &op).unwrap();
            }
            if rng.below(3) == 0 {
                step(&mounted, &mut states, &Op::Save).unwrap();
            }
        }
        mounted.stop().unwrap();
    }
    Rested { disk: disk.kill(), device, model: states.now().clone() }
}

/// Turns a bit: of any byte in two cases of three, else of any file.
fn flip(disk: &sim::SimDisk, rng: &mut Rng) -> String {
    let files: Vec<_> = disk.files().into_iter().filter(|(_, len)| *len > 0).collect();
    let total: u64 = files.iter().map(|(_, len)| len).sum();
    let mut at = rng.below(total);
    let mut chosen = &files[usize::try_from(rng.below(files.len() as u64)).unwrap()];
    if rng.below(3) > 0 {
        chosen = files
            .iter()
            .find(|(_, len)| {
                let here = at < *len;
                at = at.saturating_sub(*len);
                here
            })
            .unwrap();
    }
    let bit = rng.below(chosen.1 * 8);
    disk.flip_bit(&chosen.0, bit);
    format!("bit {bit} of {}", chosen.0.display())
}

/// What became of a flip.
#[derive(Default, Debug)]
struct Outcomes {
    unchanged: u32,
    refused: u32,
    errors: u32,
}

fn one_flip(rested: &Rested, rng: &mut Rng, outcomes: &mut Outcomes) {
    let disk = rested.disk.kill();
    let what = flip(&disk, rng);
    let mounted = match mount(&disk, &rested.device) {
        Ok(mounted) => mounted,
        Err(err) if err.is_damage() || matches!(err, Error::Newer { .. }) => {
            outcomes.refused += 1;
            return;
        }
        Err(err) => panic!("{what}: refused, but not as damaged: {err}"),
    };
    let (found, broken) = read_all(&mounted, &what);
    for (name, content) in &rested.model {
        let shown = String::from_utf8_lossy(name);
        match found.get(name) {
            Some(found) => assert!(found == content, "{what}: wrong bytes in {shown}"),
            None => assert!(
                broken.is_none() || broken.as_ref().is_some_and(|all| all.contains(name)),
                "{what}: {shown} is not there"
            ),
        }
    }
    assert!(
        found.keys().all(|name| rested.model.contains_key(name)),
        "{what}: names out of nothing"
    );
    let mut named = BTreeSet::new();
    let mut nameless = Vec::new();
    let checked = mounted.check(&mut |_, _| true, &mut |path, damage| match path {
        Some(path) => drop(named.insert(path.to_vec())),
        None => nameless.push(damage.to_owned()),
    });
    match broken {
        Some(broken) if broken.is_empty() => {
            // A bit of the checksum by which peers are served hurts no reader here.
            let files: BTreeSet<_> = named.iter().map(|name| rested.model.get(name)).collect();
            assert!(files.len() <= 1, "{what}: named, but readable: {named:?}");
            outcomes.unchanged += 1;
        }
        Some(broken) => {
            assert!(checked.is_ok(), "{what}: {checked:?}");
            assert_eq!(named, broken, "{what}, besides {nameless:?}");
            outcomes.errors += 1;
        }
        // Not even the names can be read.
        None => {
            assert!(checked.is_err() || !nameless.is_empty(), "{what}: a check finds nothing");
            outcomes.errors += 1;
        }
    }
    // It may be unable to publish; it must end.
    drop(mounted.stop());
}

/// What can be read, and the names that cannot; `None` if the list of names cannot.
fn read_all(mounted: &Mount, what: &str) -> (Model, Option<BTreeSet<Vec<u8>>>) {
    let damaged = |err: Error| assert!(err.is_damage(), "{what}: not an error of damage: {err}");
    let mut names = Vec::new();
    let listed = mounted.opendir(Ino::ROOT).and_then(|fh| {
        mounted.readdir(Ino::ROOT, fh, 0, false, &mut |entry| {
            names.push(entry);
            true
        })
    });
    if let Err(err) = listed {
        damaged(err);
        return (Model::new(), None);
    }
    let (mut found, mut broken) = (Model::new(), BTreeSet::new());
    for entry in names.into_iter().skip(2) {
        match read(mounted, &entry.name) {
            Ok(content) => drop(found.insert(entry.name, content)),
            Err(err) => {
                damaged(err);
                broken.insert(entry.name);
            }
        }
    }
    (found, Some(broken))
}

fn read(mounted: &Mount, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let attr = mounted.lookup(Ino::ROOT, name)?;
    if attr.kind == Kind::Dir {
        return Ok(None);
    }
    let fh = mounted.open(attr.ino, OpenFlags::default())?;
    mounted.read(fh, 0, u32::try_from(attr.size).unwrap()).map(Some)
}

#[test]
fn a_bit_that_turns_is_noticed_or_harmless() {
    let count = number("CAIRNFS_FLIPS", 1_000);
    let mut outcomes = Outcomes::default();
    for seed in 0..count.div_ceil(100) {
        let rested = rested(seed + 1);
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..100.min(count) {
            one_flip(&rested, &mut rng, &mut outcomes);
        }
    }
    let Outcomes { unchanged, refused, errors } = outcomes;
    // What is refused is rare: a log that was left in good order is not read again when it is opened.
    assert!(unchanged > 20 && refused + errors > 20, "{outcomes:?}");
}

/// Where the first long chunk lies in a pack (FORMAT.md).
fn first_chunk(pack: &[u8]) -> usize {
    let mut at = 88;
    loop {
        let len = u32::from_le_bytes(pack[at + 4..at + 8].try_into().unwrap()) as usize;
        if pack[at + 8] == 1 && len > 10_000 {
            return at;
        }
        at += 68 + len + 16;
    }
}

#[test]
fn a_sector_that_cannot_be_read_keeps_no_other_file_from_being_saved_and_published() {
    // A version cuts what a save has journaled; a save cuts what is long.
    for len in [1, 400_000] {
        let (disk, device, mut rng) = fresh(len);
        let create = |mounted: &Mount, name: &[u8], content: &[u8]| {
            let ino = mounted.mknod(ME, Ino::ROOT, name, Kind::File, 0o644, 0).unwrap().ino;
            write_all(mounted, ino, 0, content).unwrap();
        };
        let start = |disk: &sim::SimDisk| {
            let bucket = bucket_on(Arc::new(disk.clone()), &device).unwrap();
            Mount::start(bucket, Options::default()).unwrap()
        };
        let mounted = start(&disk);
        create(&mounted, b"old", &rng.bytes(60_000));
        mounted.stop().unwrap();
        let disk = disk.kill();
        let pack = Path::new("/bucket/packs/00000001.pack");
        disk.spoil_sector(pack, first_chunk(&disk.content(pack).unwrap()) + 1000);
        let mounted = start(&disk);
        let written = rng.bytes(len);
        let old = mounted.lookup(Ino::ROOT, b"old").unwrap().ino;
        write_all(&mounted, old, 100, &written).unwrap();
        create(&mounted, b"new", b"saved");
        save(&mounted).unwrap();
        mounted.publish().unwrap();
        assert!(mounted.status().unpublished, "of the old file it has what it had");
        assert_eq!(mounted.rot().map(|rot| rot.blobs), Some(1), "who asks is told");
        mounted.stop().unwrap();
        let mounted = start(&disk.crash(len));
        assert_eq!(read(&mounted, b"new").unwrap(), Some(b"saved".to_vec()));
        let fh = mounted.open(old, OpenFlags::default()).unwrap();
        let found = mounted.read(fh, 100, u32::try_from(len).unwrap()).unwrap();
        assert!(found == written, "what was written over it is lost");
        mounted.stop().unwrap();
    }
}

#[test]
fn what_cannot_be_cut_for_damage_takes_no_memory_without_bound_and_costs_other_saves_nothing() {
    const DIRTY_BYTES: u64 = 2 << 20;
    const MIB: u64 = 1 << 20;
    let (disk, device, mut rng) = fresh(3);
    let start = |disk: &sim::SimDisk| {
        let limits = Limits { dirty_bytes: DIRTY_BYTES, ..Limits::default() };
        let bucket = bucket_on(Arc::new(disk.clone()), &device).unwrap();
        Mount::start(bucket, Options { limits, ..Options::default() }).unwrap()
    };
    let mounted = start(&disk);
    let ino = mounted.mknod(ME, Ino::ROOT, b"old", Kind::File, 0o644, 0).unwrap().ino;
    write_all(&mounted, ino, 0, &rng.bytes(60_000)).unwrap();
    mounted.stop().unwrap();
    let disk = disk.kill();
    let pack = Path::new("/bucket/packs/00000001.pack");
    disk.spoil_sector(pack, first_chunk(&disk.content(pack).unwrap()) + 1000);
    let mounted = start(&disk);
    write_all(&mounted, ino, 100, b"x").unwrap();
    let mut written = 0;
    let refused = (1..64).find_map(|at| {
        let result = write_all(&mounted, ino, at * MIB, &rng.bytes(MIB));
        assert!(mounted.shared().room.held_bytes() < 12 * MIB, "{at}");
        written += MIB;
        result.err()
    });
    assert!(matches!(refused, Some(Error::Damaged { .. })), "{refused:?}");
    let log = |mounted: &Mount| mounted.shared().vault.blobs().stats().unwrap().pack_bytes;
    assert!(log(&mounted) < 8 * written, "{} for {written}", log(&mounted));
    let other = mounted.mknod(ME, Ino::ROOT, b"new", Kind::File, 0o644, 0).unwrap().ino;
    // The first one has the log made longer ahead.
    save(&mounted).unwrap();
    let (before, barriers) = (disk.used_bytes(), mounted.status().barriers);
    write_all(&mounted, other, 0, b"saved").unwrap();
    save(&mounted).unwrap();
    assert!(mounted.status().barriers <= barriers + 2, "the writer is at it again and again");
    assert!(disk.used_bytes() - before < 64 << 10, "{}", disk.used_bytes() - before);
    // Cut off before the damage, it goes on.
    mounted.setattr(ino, None, SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
    write_all(&mounted, ino, 0, b"whole").unwrap();
    mounted.publish().unwrap();
    assert_eq!(read(&mounted, b"old").unwrap(), Some(b"whole".to_vec()));
    mounted.stop().unwrap();
}

/// The key file and the id, which no log holds.
#[test]
fn a_bit_that_turns_in_the_key_or_the_id_is_refused_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let device = Arc::new(DeviceKey::generate().unwrap());
    let bucket = dir.path().join("b");
    let id = Bucket::create(&bucket, &device, Protection::KeyFile).unwrap();
    let mut rng = Rng(7);
    for name in ["key", "id"] {
        let path = bucket.join(name);
        let whole = std::fs::read(&path).unwrap();
        for _ in 0..150 {
            let mut bytes = whole.clone();
            let bit = usize::try_from(rng.below(whole.len() as u64 * 8)).unwrap();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).unwrap();
            match Bucket::open(&bucket, Arc::clone(&device), Unlock::KeyFile) {
                Ok(opened) => {
                    assert_eq!(name, "id", "bit {bit}");
                    // It was readable still, or has been written anew.
                    assert_eq!(Bucket::describe(&bucket).unwrap().id, Some(id), "bit {bit}");
                    drop(opened);
                }
                Err(err) => assert!(!matches!(err, Error::Io(_)), "bit {bit} of {name}: {err}"),
            }
        }
        std::fs::write(&path, &whole).unwrap();
    }
    let opened = Bucket::open(&bucket, device, Unlock::KeyFile).unwrap();
    Mount::start(opened, Options::default()).unwrap().stop().unwrap();
}

#[test]
fn a_lost_id_file_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let device = Arc::new(DeviceKey::generate().unwrap());
    let bucket = dir.path().join("b");
    let id = Bucket::create(&bucket, &device, Protection::KeyFile).unwrap();
    std::fs::remove_file(bucket.join("id")).unwrap();
    assert_eq!(Bucket::describe(&bucket).unwrap().id, None);
    Bucket::open(&bucket, device, Unlock::KeyFile).unwrap();
    assert_eq!(Bucket::describe(&bucket).unwrap().id, Some(id));
}
