//! What a crash would have lost: the work goes on at its own pace over a simulated disk, whose power
//! is cut at many moments.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::losses::{self, Cut, Log, Logged};
use crate::{
    interrupt,
    jobs::Kind,
    noise::Noise,
    sim::{Image, Sim},
    systems::{Place, Which},
    tree::Tree,
};

/// How long, and how often.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Cuts {
    /// How long each kind of work goes on under each policy.
    pub time: Duration,
    /// How often the power is cut meanwhile.
    pub count: usize,
}

/// What one kind of work under one policy did, and what the cuts left of it.
pub(super) struct Crashed {
    pub(super) cuts: Vec<Cut>,
    /// Bytes that were handed to the disk, the version at the end included.
    pub(super) written_bytes: u64,
    /// Bytes that the work saved meanwhile.
    pub(super) saved_bytes: u64,
}

/// A large file here: so that several are copied within the time.
const LARGE_BYTES: u64 = 8 << 20;

/// Lets `kind` go on under every policy at once, each with a disk of its own.
pub(super) fn run(
    kind: Kind,
    policies: &[&'static str],
    binary: &Path,
    dir: &Path,
    tree: &Tree,
    cuts: Cuts,
) -> Result<Vec<Crashed>> {
    thread::scope(|scope| {
        let mut running = Vec::new();
        for (policy, seed) in policies.iter().zip(1..) {
            let base = dir.join(format!("sim-{kind:?}-{seed}"));
            let name = format!("sim-{seed}");
            let run = move || one(kind, policy, binary, &base, tree, cuts, seed);
            running.push(thread::Builder::new().name(name).spawn_scoped(scope, run)?);
        }
        // All are waited for, whatever became of the first.
        let results: Vec<_> = running.into_iter().map(thread::ScopedJoinHandle::join).collect();
        let flat = |result: thread::Result<Result<Crashed>>| {
            result.unwrap_or_else(|_panic| bail!("a simulation panicked"))
        };
        results.into_iter().map(flat).collect()
    })
}

fn one(
    kind: Kind,
    policy: &'static str,
    binary: &Path,
    base: &Path,
    tree: &Tree,
    cuts: Cuts,
    seed: u64,
) -> Result<Crashed> {
    fs::create_dir(base)?;
    let place = Place::create(Which::Cairnfs(policy), binary, base)?;
    let device = losses::device(place.store())?;
    let sim = Sim::over(&place.store().join("buckets/b"), seed)?;
    let mut rig = Rig { place, sim };
    let done = worked(kind, &mut rig, tree, cuts, seed);
    drop(rig);
    let Worked { log, images, written_bytes } =
        done.with_context(|| format!("{kind} under {policy}"))?;
    let mut found = Vec::new();
    for (at, image) in images {
        interrupt::check()?;
        let cut = losses::judge(&log, at, &image, &device);
        found.push(cut.with_context(|| format!("{kind} under {policy}, cut at {at:?}"))?);
    }
    let saved_bytes = log.iter().skip(1).map(|step| step.bytes).sum();
    Ok(Crashed { cuts: found, written_bytes, saved_bytes })
}

/// cairnfs over a simulated disk.
struct Rig {
    // Field order is drop order: it is unmounted before its disk goes.
    place: Place,
    sim: Sim,
}

/// What was done, and what the cuts found.
struct Worked {
    log: Log,
    images: Vec<(Duration, Image)>,
    written_bytes: u64,
}

/// Works for the time, in one thread, while another one cuts.
fn worked(
    kind: Kind,
    Rig { place, sim }: &mut Rig,
    tree: &Tree,
    cuts: Cuts,
    seed: u64,
) -> Result<Worked> {
    place.mount()?;
    let root = place.root().join("work");
    fs::create_dir(&root)?;
    let mut job = kind.begin(&root, tree, LARGE_BYTES)?;
    // One step that lasts: whatever a cut finds after it was left by some step.
    let mut log = vec![Logged::new(Duration::ZERO, Duration::ZERO, job.step()?)];
    place.settle()?;
    let sim = &*sim;
    let before = sim.counters().written_bytes;
    let start = Instant::now();
    let images = thread::scope(|scope| -> Result<_> {
        let cutting =
            thread::Builder::new().name("cut".to_owned()).spawn_scoped(scope, move || {
                let mut noise = Noise::new(seed);
                let millis = u64::try_from(cuts.time.as_millis()).unwrap_or(u64::MAX);
                let mut moments: Vec<_> = (0..cuts.count)
                    .map(|_| {
                        Duration::from_millis(500 + noise.below(millis.saturating_sub(500).max(1)))
                    })
                    .collect();
                moments.sort();
                let mut images: Vec<(Duration, Image)> = Vec::new();
                for (moment, seed) in moments.into_iter().zip(1..) {
                    thread::sleep(moment.saturating_sub(start.elapsed()));
                    if interrupt::came() {
                        break;
                    }
                    // Taken before: what is acknowledged while the image is made is not in question.
                    let at = start.elapsed();
                    let before = images.last().map(|(_, image)| image);
                    images.push((at, sim.cut(seed, before)));
                }
                images
            })?;
        let mut worked = || -> Result<()> {
            while start.elapsed() < cuts.time {
                interrupt::check()?;
                let began = start.elapsed();
                let step = job.step()?;
                log.push(Logged::new(began, start.elapsed(), step));
                thread::sleep(kind.pause(log.len() as u64));
            }
            Ok(())
        };
        let result = worked();
        let Ok(images) = cutting.join() else { bail!("cutting panicked") };
        drop(job);
        result.map(|()| images)
    })?;
    place.settle()?;
    Ok(Worked { log, images, written_bytes: sim.counters().written_bytes - before })
}
