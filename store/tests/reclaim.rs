//! Space comes back, a crash anywhere in it loses nothing, and damage is found and passed over.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use cairnfs_store::SaveKind::{Checkpoint, OnTop};
use cairnfs_store::disk::Disk;
use cairnfs_store::sim::{Fault, SimDisk};
use cairnfs_store::{
    Appender, BlobId, BlobRef, Blobs, Error, Kind, Options, Reclaimed, check, create, open, repair,
};

use support::{DIR, keys, noise, small};

fn options() -> Options {
    small(64 << 10, 0)
}

struct Filled {
    disk: SimDisk,
    keep: Vec<(BlobRef, Vec<u8>)>,
    drop: Vec<BlobRef>,
}

/// A store of ten packs or so, of which every fourth blob is alive.
fn filled() -> Filled {
    fill().0
}

/// As [`filled`], and still open.
fn fill() -> (Filled, Appender, Arc<Blobs>) {
    let disk = SimDisk::new(1);
    let (mut appender, blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    let (mut keep, mut drop) = (Vec::new(), Vec::new());
    for n in 0..400 {
        let content = noise(n, 1500);
        let blob = appender.put(Kind::Chunk, &content).unwrap();
        if n % 4 == 0 {
            keep.push((blob, content));
        } else {
            drop.push(blob);
        }
        if n % 10 == 9 {
            appender.save(b"x", OnTop).unwrap();
        }
    }
    appender.save(b"checkpoint", Checkpoint).unwrap();
    (Filled { disk, keep, drop }, appender, blobs)
}

fn assert_kept(blobs: &Blobs, keep: &[(BlobRef, Vec<u8>)]) {
    for (blob, content) in keep {
        assert_eq!(blobs.get(blob).unwrap()[..], content[..]);
    }
}

/// Puts what is alive into the batch, out of every pack that is mostly dead.
fn reclaim(appender: &mut Appender, live: &HashSet<BlobId>) -> Result<Reclaimed, Error> {
    let packs = appender.survey()?;
    appender.reclaim(&|id| live.contains(id), &packs)
}

#[test]
fn what_is_put_during_a_survey_stays_though_nobody_knew_that_it_is_alive() {
    let (Filled { keep, drop: dead, .. }, mut appender, blobs) = fill();
    let live: HashSet<_> = keep.iter().map(|(blob, _)| blob.id).collect();
    let packs = appender.survey().unwrap();
    let worth: Vec<u32> = packs
        .into_iter()
        .filter(|&pack| {
            let found = blobs.survey(pack, &|id| Some(live.contains(id))).unwrap();
            found.is_some_and(|found| found.is_mostly_dead())
        })
        .collect();
    assert!(worth.len() >= 7, "{worth:?}");
    // It is here, and so is not stored again.
    let again = appender.put(Kind::Chunk, &noise(1, 1500)).unwrap();
    assert_eq!(again, dead[0]);
    appender.save(b"of use again", OnTop).unwrap();
    for pack in worth {
        appender.reclaim(&|id| live.contains(id), &[pack]).unwrap();
        appender.save(b"copies", OnTop).unwrap();
        assert_eq!(appender.reclaim_finish().unwrap().packs, 1);
    }
    assert_eq!(blobs.get(&again).unwrap()[..], noise(1, 1500));
    assert!(matches!(blobs.get(&dead[1]), Err(Error::Missing { .. })));
    assert_kept(&blobs, &keep);
}

#[test]
fn a_survey_ends_in_the_middle_of_a_pack_if_nobody_wants_it() {
    let (_filled, mut appender, blobs) = fill();
    let pack = appender.survey().unwrap()[0];
    let asked = std::cell::Cell::new(0);
    let count = |enough| {
        asked.set(0);
        let found = blobs.survey(pack, &|_| {
            asked.set(asked.get() + 1);
            (asked.get() < enough).then_some(true)
        });
        (found.unwrap().is_some(), asked.get())
    };
    let (is_known, all) = count(usize::MAX);
    assert!(is_known && all > 10, "{all} blobs");
    assert_eq!(count(3), (false, 3));
}

#[test]
fn what_was_copied_is_found_where_it_was_if_the_copies_are_dropped() {
    // The index knows nothing of it yet.
    let (Filled { keep, .. }, mut appender, blobs) = fill();
    let live: HashSet<_> = keep.iter().map(|(blob, _)| blob.id).collect();
    let plan = reclaim(&mut appender, &live).unwrap();
    assert!(plan.packs > 0);
    // As after a save that found no room.
    appender.discard_batch().unwrap();
    assert_kept(&blobs, &keep);
    appender.save(b"goes on", OnTop).unwrap();
    appender.flush_index().unwrap();
    assert_kept(&blobs, &keep);
}

#[test]
fn dead_packs_give_their_space_back() {
    let Filled { disk, keep, drop: dead } = filled();
    let opened = open(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    let (mut appender, blobs) = (opened.appender, opened.blobs);
    let live: HashSet<_> = keep.iter().map(|(blob, _)| blob.id).collect();
    let before = blobs.stats().unwrap();
    let plan = reclaim(&mut appender, &live).unwrap();
    assert!(plan.packs >= 7, "{plan:?}");
    assert_eq!(appender.reclaim_finish().unwrap().packs, 0, "not before a save");
    // Somebody puts a dead blob again, just now: it must not go with its pack.
    let again = appender.put(Kind::Chunk, &noise(1, 1500)).unwrap();
    assert_eq!(again, dead[0]);
    assert_kept(&blobs, &keep);
    appender.save(b"copies", OnTop).unwrap();
    assert_eq!(appender.reclaim_finish().unwrap(), plan);
    let after = blobs.stats().unwrap();
    assert!(after.pack_bytes < before.pack_bytes / 2, "{before:?} {after:?}");
    assert_eq!(blobs.get(&again).unwrap()[..], noise(1, 1500));
    assert!(matches!(blobs.get(&dead[1]), Err(Error::Missing { .. })));
    assert_kept(&blobs, &keep);
    drop((appender, blobs));
    for lose_index in [false, true] {
        let disk = disk.kill();
        if lose_index {
            disk.remove(&Path::new(DIR).join("index.redb")).unwrap();
        }
        let opened = open(Arc::new(disk), Path::new(DIR), keys(), options()).unwrap();
        assert_eq!(opened.saves, [b"checkpoint".to_vec(), b"copies".to_vec()]);
        assert_kept(&opened.blobs, &keep);
        assert_eq!(opened.blobs.get(&again).unwrap()[..], noise(1, 1500));
    }
}

/// Gives redundant save records up as the writer does, one pack after the other.
fn reclaim_all_spent(appender: &mut Appender) -> Result<u64, Error> {
    let mut packs = 0;
    while appender.reclaim_spent()?.packs > 0 {
        appender.save(b"copies", OnTop)?;
        packs += appender.reclaim_finish()?.packs;
    }
    Ok(packs)
}

/// Many long save records with a blob among them now and then, then a checkpoint.
fn save_a_lot(appender: &mut Appender) -> Result<Vec<(BlobRef, Vec<u8>)>, Error> {
    let mut keep = Vec::new();
    for n in 0..120 {
        if n % 8 == 0 {
            let content = noise(n, 1500);
            keep.push((appender.put(Kind::Chunk, &content)?, content));
        }
        appender.save(&noise(n, 5000), OnTop)?;
    }
    appender.save(b"checkpoint", Checkpoint)?;
    Ok(keep)
}

#[test]
fn save_records_that_a_checkpoint_made_redundant_give_their_space_back_and_no_blob_goes() {
    let disk = SimDisk::new(1);
    let (mut appender, blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    let keep = save_a_lot(&mut appender).unwrap();
    let before = blobs.stats().unwrap();
    assert!(reclaim_all_spent(&mut appender).unwrap() >= 8);
    let after = blobs.stats().unwrap();
    assert!(after.pack_bytes < before.pack_bytes / 4, "{before:?} {after:?}");
    assert_kept(&blobs, &keep);
    // What is needed still is not redundant.
    for n in 0..60 {
        appender.save(&noise(n, 5000), OnTop).unwrap();
    }
    assert_eq!(reclaim_all_spent(&mut appender).unwrap(), 0);
    drop((appender, blobs));
    for lose_index in [false, true] {
        let disk = disk.kill();
        if lose_index {
            disk.remove(&Path::new(DIR).join("index.redb")).unwrap();
        }
        let opened = open(Arc::new(disk), Path::new(DIR), keys(), options()).unwrap();
        assert_eq!(opened.saves[0], b"checkpoint");
        assert_eq!(opened.saves.last().unwrap(), &noise(59, 5000));
        assert_kept(&opened.blobs, &keep);
    }
}

#[test]
fn a_power_cut_while_redundant_save_records_go_loses_nothing() {
    let mut calls = 0;
    loop {
        let disk = SimDisk::new(1);
        let (mut appender, blobs) =
            create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
        let keep = save_a_lot(&mut appender).unwrap();
        disk.inject(Fault::PowerOff { after_calls: calls });
        let done = reclaim_all_spent(&mut appender).is_ok();
        drop((appender, blobs));
        let after = disk.crash(calls);
        let opened = open(Arc::new(after), Path::new(DIR), keys(), options()).unwrap();
        assert_eq!(opened.saves[0], b"checkpoint", "cut {calls}");
        assert_kept(&opened.blobs, &keep);
        if done {
            break;
        }
        calls += 1;
    }
    assert!(calls > 40, "{calls} cuts");
}

#[test]
fn a_power_cut_anywhere_in_a_reclaim_loses_nothing() {
    let Filled { disk, keep, .. } = filled();
    let live: HashSet<_> = keep.iter().map(|(blob, _)| blob.id).collect();
    let mut calls = 0;
    loop {
        let disk = disk.kill();
        let opened = open(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
        let mut appender = opened.appender;
        disk.inject(Fault::PowerOff { after_calls: calls });
        let done = reclaim(&mut appender, &live)
            .and_then(|_| appender.save(b"copies", OnTop))
            .and_then(|_| appender.reclaim_finish())
            .is_ok();
        for (seed, lose_index) in [(calls, false), (calls + 1000, true)] {
            let after = disk.crash(seed);
            if lose_index {
                after.remove(&Path::new(DIR).join("index.redb")).unwrap();
            }
            let opened = open(Arc::new(after), Path::new(DIR), keys(), options()).unwrap();
            assert_eq!(opened.saves[0], b"checkpoint");
            assert_kept(&opened.blobs, &keep);
        }
        if done {
            break;
        }
        calls += 1;
    }
    assert!(calls > 15, "{calls}");
}

#[test]
fn a_check_names_what_is_damaged_and_a_repair_makes_the_rest_readable() {
    let Filled { disk, keep, .. } = filled();
    let clean: Arc<dyn Disk> = Arc::new(disk.kill());
    let mut last = 0;
    let report = check(&clean, Path::new(DIR), Some(&keys()), &mut |progress| {
        assert!(progress.done_bytes >= last && progress.done_bytes <= progress.total_bytes);
        last = progress.done_bytes;
    })
    .unwrap();
    assert!(report.is_clean() && report.records == 441, "{report:?}");
    for n in 0..60u64 {
        let disk = disk.kill();
        let path = Path::new(DIR).join("packs/00000003.pack");
        let bits = disk.content(&path).unwrap().len() as u64 * 8;
        disk.flip_bit(&path, (n * 0x9e37_79b9_7f4a) % bits);
        let disk: Arc<dyn Disk> = Arc::new(disk);
        for keys in [Some(keys()), None] {
            let report = check(&disk, Path::new(DIR), keys.as_ref(), &mut |_| ()).unwrap();
            assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
            assert_eq!(report.damage[0].pack, path);
        }
        let damage = repair(&disk, Path::new(DIR), keys(), options()).unwrap().damage;
        assert_eq!(damage.len(), 1);
        let opened = open(disk, Path::new(DIR), keys(), options()).unwrap();
        assert_eq!(opened.saves, [b"checkpoint"]);
        let hurt = keep.iter().filter(|(blob, _)| opened.blobs.get(blob).is_err()).count();
        assert!(hurt <= 1);
        let mut appender = opened.appender;
        appender.save(b"it goes on", OnTop).unwrap();
    }
}

/// Space is got back by itself when the disk runs low, also while somebody checks.
#[test]
fn a_check_of_a_store_in_use_passes_over_packs_that_are_removed_meanwhile() {
    let Filled { disk, keep, .. } = filled();
    let live: HashSet<_> = keep.iter().map(|(blob, _)| blob.id).collect();
    let last = Path::new(DIR).join("packs/00000006.pack");
    for remove_at in 0..40 {
        let disk = disk.kill();
        let opened = open(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
        let (mut appender, blobs) = (opened.appender, opened.blobs);
        reclaim(&mut appender, &live).unwrap();
        appender.save(b"copies", OnTop).unwrap();
        let mut step = 0;
        let report = blobs
            .scrub(&mut |_| {
                if step == remove_at * 10 {
                    assert!(appender.reclaim_finish().unwrap().packs >= 7);
                    assert!(disk.content(&last).is_none());
                }
                step += 1;
                true
            })
            .unwrap();
        assert!(report.is_clean(), "removed at {remove_at}: {report:?}");
    }
}

#[test]
fn a_damaged_blob_is_healed_by_a_peers_copy() {
    let Filled { disk, keep, .. } = filled();
    let opened = open(Arc::new(disk.kill()), Path::new(DIR), keys(), options()).unwrap();
    let (victim, content) = &keep[0];
    let copy = opened.blobs.get_sealed(&victim.id).unwrap();
    drop(opened);
    disk.flip_bit(&Path::new(DIR).join("packs/00000001.pack"), (88 + 68 + 40) * 8);
    let opened = open(Arc::new(disk.kill()), Path::new(DIR), keys(), options()).unwrap();
    let mut appender = opened.appender;
    let copy = opened.blobs.check(copy).unwrap();
    assert_eq!(appender.put_sealed(&copy).unwrap(), *victim);
    let read = opened.blobs.get(victim);
    assert!(matches!(read, Err(Error::Corrupt { .. })), "put_sealed does not look at what it has");
    appender.heal(&copy).unwrap();
    appender.save(b"", OnTop).unwrap();
    assert_eq!(opened.blobs.get(victim).unwrap()[..], content[..]);
    let scrub = opened.blobs.scrub(&mut |_| true).unwrap();
    assert!(scrub.is_clean(), "{scrub:?}");
}

/// As when somebody copies a file from a backup over the one that cannot be read.
#[test]
fn a_damaged_blob_that_is_put_again_is_stored_again() {
    let Filled { disk, keep, .. } = filled();
    let (victim, content) = &keep[0];
    disk.flip_bit(&Path::new(DIR).join("packs/00000001.pack"), (88 + 68 + 40) * 8);
    let opened = open(Arc::new(disk.kill()), Path::new(DIR), keys(), options()).unwrap();
    assert!(matches!(opened.blobs.get(victim), Err(Error::Corrupt { .. })));
    let mut appender = opened.appender;
    let written = |appender: &mut Appender| {
        let before = opened.blobs.stats().unwrap().pack_bytes;
        assert_eq!(appender.put(Kind::Chunk, content).unwrap(), *victim);
        appender.save(b"", OnTop).unwrap();
        assert_eq!(opened.blobs.get(victim).unwrap()[..], content[..]);
        opened.blobs.stats().unwrap().pack_bytes - before
    };
    let first = written(&mut appender);
    assert!(
        first > written(&mut appender) + 1000,
        "it is whole again, and not stored a third time"
    );
}
