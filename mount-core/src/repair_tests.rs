//! What a repair has left out of the log: what was saved behind it makes no bytes that never were, and
//! the bucket goes on from there.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cairnfs_store::{DeviceKey, sim::SimDisk};

use crate::{
    DirEntry, Error, Ino, Kind, Mount, OpenFlags, SetAttr,
    random_load::{
        ME, Op, Possible, bucket_on, fresh, mount_publishing, read_back, repair_on, save, step,
        write_all,
    },
};

const HOUR: Duration = Duration::from_secs(3600);

/// Mounted by somebody who publishes only if told to.
fn mount(disk: &SimDisk, device: &Arc<DeviceKey>) -> Mount {
    mount_publishing(disk, device, HOUR, HOUR).unwrap()
}

/// A record in the log (FORMAT.md).
#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) pack: PathBuf,
    pub(crate) at: usize,
    pub(crate) len: usize,
    pub(crate) kind: u8,
    pub(crate) is_checkpoint: bool,
    pub(crate) name: [u8; 32],
    pub(crate) is_intact: bool,
}

impl Record {
    pub(crate) fn is_manifest(&self) -> bool {
        self.kind == 3
    }

    /// Turns a bit in its midst.
    pub(crate) fn rot(&self, disk: &SimDisk) {
        disk.flip_bit(&self.pack, (self.at + self.len / 2) as u64 * 8);
    }
}

/// All records, in the order of the log.
pub(crate) fn records(disk: &SimDisk) -> Vec<Record> {
    let mut found = Vec::new();
    for number in 1..1000 {
        let pack = Path::new("/bucket/packs").join(format!("{number:08}.pack"));
        let Some(bytes) = disk.content(&pack) else { continue };
        let mut at = 88;
        while let Some([b'c', b'r', b'n', b'1', len @ ..]) = bytes.get(at..at + 8) {
            let len = 68 + u32::from_le_bytes(len.try_into().unwrap()) as usize + 16;
            let record = &bytes[at..at + len];
            let (content, checksum) = record.split_at(len - 16);
            found.push(Record {
                pack: pack.clone(),
                at,
                len,
                kind: record[8],
                is_checkpoint: record[8] == 0x80 && record[9] & 4 != 0,
                name: record[16..48].try_into().unwrap(),
                is_intact: blake3::hash(content).as_bytes()[..16] == *checksum,
            });
            at += len;
        }
    }
    found
}

/// All save records, in the order of the log.
fn saves(disk: &SimDisk) -> Vec<Record> {
    records(disk).into_iter().filter(|record| record.kind == 0x80).collect()
}

/// Turns a bit of a save record, and has a repair make the bucket open again.
fn lose(disk: &SimDisk, device: &Arc<DeviceKey>, save: &Record) {
    save.rot(disk);
    let refused = bucket_on(Arc::new(disk.clone()), device);
    assert!(matches!(refused, Err(Error::LogDamaged { .. })), "{refused:?}");
    assert_eq!(repair_on(disk).damage.len(), 1);
}

pub(crate) fn named(mounted: &Mount) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    let mut found = |path: Option<&[u8]>, _what: &str| {
        named.extend(path.map(|path| String::from_utf8_lossy(path).into_owned()));
    };
    mounted.check(&mut |_, _| true, &mut found).unwrap();
    named
}

#[test]
fn a_change_behind_a_save_that_is_lost_is_put_over_no_other_content() {
    let (disk, device, mut rng) = fresh(1);
    let mounted = mount(&disk, &device);
    let create = |name: &[u8], content: &[u8]| {
        let ino = mounted.mknod(ME, Ino::ROOT, name, Kind::File, 0o644, 0).unwrap().ino;
        write_all(&mounted, ino, 0, content).unwrap();
        ino
    };
    let cut = |ino| {
        let changes = SetAttr { size: Some(0), ..SetAttr::default() };
        mounted.setattr(ino, None, changes).unwrap();
    };
    let old = rng.bytes(5_000);
    let patched = create(b"patched", &old);
    let rewritten = create(b"rewritten", &old);
    let untouched = create(b"untouched", &old);
    mounted.publish().unwrap();
    // The one that will be lost.
    let dir = mounted.mkdir(ME, Ino::ROOT, b"dir", 0o755).unwrap().ino;
    cut(patched);
    for ino in [patched, rewritten, untouched] {
        write_all(&mounted, ino, 0, &rng.bytes(4_800)).unwrap();
    }
    save(&mounted).unwrap();
    let lost = saves(&disk).pop().unwrap();
    // And what was saved behind it.
    write_all(&mounted, patched, 100, b"CCCCCCCC").unwrap();
    cut(rewritten);
    write_all(&mounted, rewritten, 0, b"whole").unwrap();
    save(&mounted).unwrap();
    write_all(&mounted, rewritten, 5, b" again").unwrap();
    create(b"new", b"new");
    mounted.mknod(ME, dir, b"inside", Kind::File, 0o644, 0).unwrap();
    save(&mounted).unwrap();
    let disk = disk.kill();
    lose(&disk, &device, &lost);

    let is = |mounted: &Mount, patched: &[u8]| {
        let found = read_back(mounted).unwrap();
        let content = |name: &[u8]| found[name].clone().unwrap();
        assert!(content(b"patched") == patched, "bytes that never were");
        assert!(content(b"untouched") == old);
        assert_eq!(content(b"rewritten"), b"whole again");
        assert_eq!(content(b"new"), b"new");
    };
    let mounted = mount(&disk.kill(), &device);
    is(&mounted, &old);
    assert_eq!(named(&mounted), BTreeSet::from(["patched".to_owned()]));
    // What a check has had published is as it is.
    assert_eq!(named(&mounted), BTreeSet::new());
    mounted.stop().unwrap();

    // Who saves after the repair knows what there is.
    let mounted = mount(&disk, &device);
    let patched = mounted.lookup(Ino::ROOT, b"patched").unwrap().ino;
    write_all(&mounted, patched, 200, b"DDDD").unwrap();
    save(&mounted).unwrap();
    let disk = disk.kill();
    let mut then = old.clone();
    then[200..204].copy_from_slice(b"DDDD");
    for _ in 0..2 {
        let mounted = mount(&disk, &device);
        is(&mounted, &then);
        mounted.stop().unwrap();
    }
}

/// What all files hold. One that was removed by what is lost may be back, under another name.
fn contents(mounted: &Mount) -> BTreeSet<Option<Vec<u8>>> {
    let fh = mounted.opendir(Ino::ROOT).unwrap();
    let mut names = Vec::new();
    let mut list = |entry: DirEntry| {
        names.push(entry.name);
        true
    };
    mounted.readdir(Ino::ROOT, fh, 0, false, &mut list).unwrap();
    let content = |name: &Vec<u8>| {
        let attr = mounted.lookup(Ino::ROOT, name).unwrap();
        (attr.kind != Kind::Dir).then(|| {
            let fh = mounted.open(attr.ino, OpenFlags::default()).unwrap();
            mounted.read(fh, 0, u32::try_from(attr.size).unwrap()).unwrap()
        })
    };
    names.iter().skip(2).map(content).collect()
}

/// Loses one save of a bucket that was saved to at random; says whether it was one behind the version.
fn what_is_left_is_what_was(seed: u64) -> bool {
    let (disk, device, mut rng) = fresh(seed);
    let mounted = mount(&disk, &device);
    let mut states = Possible::empty();
    let mut ever = BTreeSet::from([None]);
    for n in 0..60 {
        if n == 20 {
            mounted.publish().unwrap();
        }
        let Some(op) = Op::random(&mut rng, states.now()) else { continue };
        step(&mounted, &mut states, &op).unwrap();
        ever.extend(states.all().flat_map(|state| state.values().cloned()));
        if rng.below(2) == 0 {
            step(&mounted, &mut states, &Op::Save).unwrap();
        }
    }
    let disk = disk.kill();
    let all = saves(&disk);
    let newest = all.iter().rposition(|save| save.is_checkpoint).unwrap();
    // Behind the last one nothing was saved.
    let behind = &all[newest..all.len() - 1];
    if behind.is_empty() {
        return false;
    }
    let lost = &behind[usize::try_from(rng.below(behind.len() as u64)).unwrap()];
    lose(&disk, &device, lost);
    let found = |mounted: &Mount| {
        let found = contents(mounted);
        let made_up = found.difference(&ever).flatten().map(Vec::len).next();
        assert_eq!(made_up, None, "seed {seed}: bytes that never were, so many");
        found
    };
    let mounted = mount(&disk, &device);
    // Also where all that was saved is left out, there is something for a version.
    mounted.mkdir(ME, Ino::ROOT, b"after", 0o755).unwrap();
    let shown = found(&mounted);
    mounted.publish().unwrap();
    assert!(!mounted.status().unpublished, "seed {seed}");
    let published = found(&mounted);
    assert!(shown == published, "seed {seed}");
    assert_eq!(named(&mounted), BTreeSet::new(), "seed {seed}");
    mounted.stop().unwrap();
    let mounted = mount(&disk.kill(), &device);
    assert!(found(&mounted) == published, "seed {seed}");
    mounted.stop().unwrap();
    !lost.is_checkpoint
}

#[test]
fn whatever_save_is_lost_no_bytes_are_shown_that_never_were() {
    let count = (1..=100).filter(|seed| what_is_left_is_what_was(*seed)).count();
    assert!(count > 50, "{count}");
}
