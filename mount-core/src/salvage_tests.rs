//! The only record that begins a version is lost: a repair gives the log another one, and the bucket
//! goes on from there.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use cairnfs_store::{
    DeviceKey,
    sim::{Fault, SimDisk},
};

use crate::{
    Error, Ino, Kind, Mount, Options, Result,
    random_load::{
        ME, Model, Rng, bucket_on, fresh, read_back, repair_on, salvage_on, save, write_all,
    },
    repair_tests::{Record, named, records},
    writer::record::SaveRecord,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Mounted by somebody who publishes only if told to, however much was saved.
fn try_mount(disk: &SimDisk, device: &Arc<DeviceKey>) -> Result<Mount> {
    let options = Options { publish_quiet: HOUR, publish_max: HOUR, ..Options::default() };
    Mount::start(bucket_on(Arc::new(disk.clone()), device)?, options)
}

fn mount(disk: &SimDisk, device: &Arc<DeviceKey>) -> Mount {
    try_mount(disk, device).unwrap()
}

/// A bucket in whose log one record is left that begins a version.
struct Lonely {
    disk: SimDisk,
    device: Arc<DeviceKey>,
    checkpoint: Record,
    /// What its version holds.
    model: Model,
    /// How often something was saved since.
    saves: u64,
}

/// Saves files of 8 kB, until that fills more than a pack.
fn save_much(mounted: &Mount, rng: &mut Rng) {
    for n in 0..40_u8 {
        let name = [b'a' + n % 5];
        let ino = match mounted.lookup(Ino::ROOT, &name) {
            Ok(attr) => attr.ino,
            Err(_) => mounted.mknod(ME, Ino::ROOT, &name, Kind::File, 0o644, 0).unwrap().ino,
        };
        write_all(mounted, ino, 0, &rng.bytes(8_000)).unwrap();
        save(mounted).unwrap();
    }
}

fn lonely(saves: u64) -> Lonely {
    let (disk, device, mut rng) = fresh(1);
    let mounted = mount(&disk, &device);
    for _ in 0..3 {
        save_much(&mounted, &mut rng);
        mounted.publish().unwrap();
    }
    let model = read_back(&mounted).unwrap();
    for n in 0..saves {
        let name = n.to_string().into_bytes();
        mounted.mknod(ME, Ino::ROOT, &name, Kind::File, 0o644, 0).unwrap();
        save(&mounted).unwrap();
    }
    let disk = disk.kill();
    drop(mounted);
    give_up_old_saves(&disk, &device);
    let mut checkpoints = records(&disk).into_iter().filter(|record| record.is_checkpoint);
    let checkpoint = checkpoints.next().unwrap();
    assert!(checkpoints.next().is_none() && !checkpoint.pack.ends_with("00000001.pack"));
    Lonely { disk, device, checkpoint, model, saves }
}

/// As the writer does when it is quiet.
fn give_up_old_saves(disk: &SimDisk, device: &Arc<DeviceKey>) {
    let mut bucket = bucket_on(Arc::new(disk.clone()), device).unwrap();
    let op = SaveRecord::decode(bucket.saves.last().unwrap()).unwrap().op;
    let packs = bucket.appender.survey().unwrap();
    bucket.appender.survey_ends();
    assert!(bucket.appender.reclaim(&|_| true, &packs).unwrap().packs > 1);
    let nothing = SaveRecord { head: None, op, nodes: Vec::new(), files: Vec::new() };
    bucket.appender.save(&nothing.encode(), nothing.kind()).unwrap();
    bucket.appender.reclaim_finish().unwrap();
}

/// That the bucket holds `model`, and can be written to and opened again.
#[track_caller]
fn goes_on_with(disk: &SimDisk, device: &Arc<DeviceKey>, model: &Model, case: &str) {
    let mounted = mount(disk, device);
    assert!(read_back(&mounted).unwrap() == *model, "{case}");
    assert_eq!(named(&mounted), BTreeSet::new(), "{case}");
    assert_eq!(mounted.incarnation(), 1, "{case}");
    mounted.mkdir(ME, Ino::ROOT, b"after", 0o755).unwrap();
    mounted.publish().unwrap();
    let with_that = read_back(&mounted).unwrap();
    mounted.stop().unwrap();
    drop(mounted);
    let mounted = mount(disk, device);
    assert!(read_back(&mounted).unwrap() == with_that, "{case}");
    mounted.stop().unwrap();
}

#[test]
fn wherever_the_only_checkpoint_is_damaged_a_repair_goes_on_from_its_version() {
    let Lonely { disk, device, checkpoint, model, saves } = lonely(3);
    for byte in 0..checkpoint.len {
        let case = format!("byte {byte} of {}", checkpoint.len);
        let disk = disk.kill();
        disk.flip_bit(&checkpoint.pack, (checkpoint.at + byte) as u64 * 8 + byte as u64 % 8);
        // Who has the index needs no checksum.
        if byte < checkpoint.len - 16 {
            let refused = bucket_on(Arc::new(disk.clone()), &device).map(|_opened| ());
            assert!(matches!(refused, Err(Error::LogDamaged { .. })), "{case}: {refused:?}");
        }
        let salvaged = salvage_on(Arc::new(disk.clone()), &device).unwrap().unwrap();
        assert_eq!(salvaged.saves, saves, "{case}");
        // Nothing is lacking any more.
        assert_eq!(salvage_on(Arc::new(disk.clone()), &device).unwrap(), None, "{case}");
        goes_on_with(&disk, &device, &model, &case);
    }
}

#[test]
fn a_power_cut_in_a_repair_that_makes_a_checkpoint_loses_nothing() {
    let Lonely { disk, device, checkpoint, model, .. } = lonely(0);
    checkpoint.rot(&disk);
    let mut cuts = 0;
    for after_calls in 0.. {
        let cut = disk.kill();
        cut.inject(Fault::PowerOff { after_calls });
        let salvaged = salvage_on(Arc::new(cut.clone()), &device);
        let case = format!("cut after {after_calls} calls, {salvaged:?}");
        let after = cut.crash(after_calls);
        repair_on(&after);
        salvage_on(Arc::new(after.clone()), &device).unwrap();
        goes_on_with(&after, &device, &model, &case);
        if salvaged.is_ok() {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 10, "{cuts}");
}

#[test]
fn where_the_newest_manifest_is_lost_too_the_one_before_counts() {
    let Lonely { disk, device, checkpoint, .. } = lonely(0);
    let versions: Vec<_> = {
        let mounted = mount(&disk, &device);
        let log = mounted.log(None, 9, 9).unwrap();
        mounted.stop().unwrap();
        log.into_iter().map(|version| version.id).collect()
    };
    checkpoint.rot(&disk);
    let manifests: Vec<_> = records(&disk).into_iter().filter(Record::is_manifest).collect();
    for lost in 0..=versions.len() {
        let disk = disk.kill();
        let (gone, left) = versions.split_at(lost);
        manifests.iter().filter(|it| gone.contains(&it.name)).for_each(|it| it.rot(&disk));
        let salvaged = salvage_on(Arc::new(disk.clone()), &device).unwrap();
        assert_eq!(salvaged.map(|it| it.version), left.first().copied(), "{lost} are lost");
        let mounted = try_mount(&disk, &device);
        match left.first() {
            Some(newest) => assert_eq!(mounted.unwrap().status().head, *newest),
            None => assert!(matches!(mounted, Err(Error::LogDamaged { .. })), "{mounted:?}"),
        }
    }
}
