//! Power cuts at every call on the disk: what was acknowledged is there, whole, and nothing else.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;

use cairnfs_store::sim::{Fault, SimDisk};
use cairnfs_store::{
    Appender, BlobRef, Error, KeyRing, Kind, Opened, Options, Secret, create, open,
};

const DIR: &str = "/bucket";

fn keys() -> KeyRing {
    KeyRing::new([(0, Secret::new([5; 32]))]).unwrap()
}

fn options() -> Options {
    Options { pack_bytes: 64 << 10, reserve_bytes: 4096, index_thread: false, ..Options::default() }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Deterministic chances.
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 += 1;
        u64::from_le_bytes(*blake3::hash(&self.0.to_le_bytes()).as_bytes().first_chunk().unwrap())
            % limit
    }
}

#[derive(Clone, Debug, Default)]
struct Save {
    payload: Vec<u8>,
    checkpoint: bool,
    blobs: Vec<(BlobRef, Vec<u8>)>,
}

/// What was promised, and what may be there besides.
#[derive(Default)]
struct Model {
    saved: Vec<Save>,
    /// The save whose call failed.
    doubtful: Option<Save>,
}

impl Model {
    fn run(&mut self, appender: &mut Appender, rng: &mut Rng, steps: u64) -> Result<(), Error> {
        let mut open = Save::default();
        for _ in 0..steps {
            match rng.below(20) {
                0..=9 => {
                    let content =
                        noise(rng.below(1 << 40), usize::try_from(rng.below(3000)).unwrap());
                    open.blobs.push((appender.put(Kind::Chunk, &content)?, content));
                }
                10 => {
                    let many: Vec<Vec<u8>> =
                        (0..rng.below(12)).map(|n| noise(rng.below(1 << 40) + n, 15_000)).collect();
                    let refs = appender.put_all(Kind::Node, &many)?;
                    open.blobs.extend(refs.into_iter().zip(many));
                }
                11 => appender.spill()?,
                12 => {
                    appender.discard_batch()?;
                    open = Save::default();
                }
                13 => appender.flush_index()?,
                // While a batch is open it must do nothing, and it is refused no room.
                14 => appender.write_ahead()?,
                _ => {
                    let size = if rng.below(8) == 0 { 30_000 } else { 200 };
                    open.payload =
                        noise(rng.below(1 << 40), usize::try_from(rng.below(size)).unwrap());
                    open.checkpoint = rng.below(6) == 0;
                    self.doubtful = Some(open.clone());
                    appender.save(&open.payload, open.checkpoint)?;
                    self.doubtful = None;
                    self.saved.push(std::mem::take(&mut open));
                }
            }
        }
        Ok(())
    }

    /// Checks what was found after a crash; takes over the doubtful save if it is there.
    fn check(&mut self, opened: &Opened) {
        let seq = usize::try_from(opened.appender.seq().0).unwrap();
        if seq == self.saved.len() + 1 {
            let doubtful = self.doubtful.take().expect("more saves than were ever begun");
            self.saved.push(doubtful);
        }
        assert_eq!(seq, self.saved.len(), "every acknowledged save is there");
        self.doubtful = None;
        let from = self.saved.iter().rposition(|save| save.checkpoint).unwrap_or(0);
        let payloads: Vec<&Vec<u8>> = self.saved[from..].iter().map(|save| &save.payload).collect();
        assert_eq!(opened.saves.iter().collect::<Vec<_>>(), payloads);
        for (blob, content) in self.saved.iter().flat_map(|save| &save.blobs) {
            assert_eq!(opened.blobs.get(blob).unwrap()[..], content[..]);
        }
    }
}

/// Runs a workload until the power goes at the `cut`th change of the disk, and reopens what is
/// left. True if the workload came to its end before.
fn cut(seed: u64, steps: u64, cut: u64) -> bool {
    let disk = SimDisk::new(seed);
    let (mut appender, blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    let mut model = Model::default();
    disk.inject(Fault::PowerOff { after_calls: cut });
    let done = model.run(&mut appender, &mut Rng(seed << 32), steps).is_ok();
    let mut after = disk.crash(seed ^ cut.wrapping_mul(0x9e37_79b9));
    drop((appender, blobs));
    for again in 0..2 {
        let mut opened = open(Arc::new(after.clone()), Path::new(DIR), keys(), options())
            .unwrap_or_else(|err| panic!("seed {seed} cut {cut}: {err:?}"));
        model.check(&opened);
        // It goes on from there, until the power fails again.
        model.run(&mut opened.appender, &mut Rng(seed + cut + again), 6).unwrap();
        after = after.crash(cut + again);
        drop(opened);
    }
    done
}

#[test]
fn a_power_cut_at_any_call_keeps_every_acknowledged_save_whole() {
    // More by hand: CAIRNFS_CRASH_SEEDS=1000 cargo test -p cairnfs-store --test crash
    let seeds = std::env::var("CAIRNFS_CRASH_SEEDS").map_or(24, |n| n.parse().unwrap());
    let mut cuts = 0;
    for seed in 0..seeds {
        let mut at = 0;
        while !cut(seed, 40, at) {
            at += 1;
            cuts += 1;
        }
    }
    assert!(cuts > 50 * seeds, "{cuts} cuts");
}

#[test]
fn a_power_cut_while_recovering_loses_nothing() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let (mut appender, _blobs) =
            create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
        let mut model = Model::default();
        disk.inject(Fault::PowerOff { after_calls: 30 + seed });
        model.run(&mut appender, &mut Rng(seed << 32), 200).unwrap_err();
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
        model.check(&open(Arc::new(after), Path::new(DIR), keys(), options()).unwrap());
    }
}

#[test]
fn a_lost_and_a_flipped_index_change_nothing() {
    let disk = SimDisk::new(3);
    let (mut appender, blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options()).unwrap();
    let mut model = Model::default();
    model.run(&mut appender, &mut Rng(99), 120).unwrap();
    drop((appender, blobs));
    let index = Path::new(DIR).join("index.redb");
    let bits = disk.content(&index).unwrap().len() as u64 * 8;
    for n in 0..150u64 {
        let disk = disk.kill();
        disk.flip_bit(&index, (n * 0x9e37_79b9_7f4a) % bits);
        let opened = open(Arc::new(disk), Path::new(DIR), keys(), options()).unwrap();
        assert_eq!(opened.appender.seq().0, model.saved.len() as u64);
        for (blob, content) in model.saved.iter().flat_map(|save| &save.blobs) {
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
    model.run(&mut appender, &mut Rng(7), 60).unwrap();
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
        for (blob, content) in model.saved.iter().flat_map(|save| &save.blobs) {
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
