//! What the program waits for, and what that takes: at full speed, on the disk itself.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::usage;
use crate::{
    interrupt,
    jobs::Kind,
    noise::Noise,
    plain::{Form, Plain},
    rounds::Subject,
    sample::{Samples, Spread},
    systems::{Place, Which},
    tree::Tree,
    ui::Progress,
};

/// How much of each kind of work.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Amount {
    /// Rounds.
    pub rounds: usize,
    /// Steps of an editor or a database in each.
    pub saves: usize,
    /// Bytes of the file copied in each.
    pub copied_bytes: u64,
    /// Units compiled in each.
    pub units: usize,
}

impl Amount {
    pub(super) const fn steps(&self, kind: Kind) -> usize {
        match kind {
            // The last one closes it.
            Kind::Copy => (self.copied_bytes >> 17) as usize + 1,
            Kind::Build => self.units,
            _ => self.saves,
        }
    }
}

/// What was measured of one kind of work in one place.
#[derive(Debug)]
pub(super) struct Timed {
    pub(super) name: String,
    pub(super) waits: Samples,
    pub(super) steps_per_s: Spread,
    pub(super) mib_s: Spread,
    /// Of the daemon's.
    pub(super) daemon: Option<Daemon>,
}

/// What the daemon took for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Daemon {
    pub(super) barriers_per_s: f64,
    pub(super) cpu_us_per_step: f64,
    pub(super) peak_kib: u64,
}

/// What comes in while the rounds go on.
#[derive(Debug, Default)]
struct Tally {
    waits: Samples,
    steps_per_s: Vec<f64>,
    mib_s: Vec<f64>,
    barriers: u64,
    cpu_ns: u64,
    steps: u64,
    time: Duration,
}

/// The limit, the plain file system, and cairnfs under each policy, mounted.
pub(super) struct Field {
    limit: PathBuf,
    places: Vec<Place>,
}

impl Field {
    pub(super) fn new(dir: &Path, binary: &Path, policies: &[&'static str]) -> Result<Self> {
        let limit = dir.join("limit");
        fs::create_dir(&limit)?;
        let all = std::iter::once(Which::Plain).chain(policies.iter().map(|p| Which::Cairnfs(p)));
        let mut places = Vec::new();
        for which in all {
            interrupt::check()?;
            let base = dir.join(which.to_string().replace([' ', ':'], "-"));
            fs::create_dir(&base)?;
            places.push(Place::new(which, binary, &base)?);
        }
        Ok(Self { limit, places })
    }

    /// One kind of work everywhere, in turn, in an order drawn anew each round. The limit comes
    /// first, then the plain file system.
    pub(super) fn measure(
        &self,
        kind: Kind,
        amount: &Amount,
        tree: &Tree,
        progress: &Progress,
    ) -> Result<Vec<Timed>> {
        let steps = amount.steps(kind);
        let mut tallies: Vec<Tally> = self.places.iter().map(|_| Tally::default()).collect();
        let mut limit = Tally::default();
        let mut noise = Noise::new(21);
        let mut order: Vec<usize> = (0..self.places.len()).collect();
        for process in self.places.iter().filter_map(Place::process) {
            usage::forget_peak(process.pid())?;
        }
        let mut step_bytes = 4096;
        for round in 0..amount.rounds {
            noise.shuffle(&mut order);
            for &at in &order {
                interrupt::check()?;
                let (place, tally) = (&self.places[at], &mut tallies[at]);
                progress.step(&format!("{kind} on {}", place.which()));
                let root = place.root().join(format!("{kind:?}-{round}"));
                let bytes = tally.round(place, kind, steps, &root, amount, tree);
                let bytes = bytes.with_context(|| format!("{kind} on {}", place.which()))?;
                step_bytes = usize::try_from(bytes / steps as u64)?.max(1);
            }
            progress.step(&format!("{kind}: the limit"));
            limit.limit(&self.limit, step_bytes, steps, kind.syncs())?;
        }
        let when = if kind.syncs() { "" } else { " at the end" };
        let name = format!("limit: {step_bytes} B + fdatasync{when}");
        let mut all = vec![limit.timed(name, None)?];
        for (tally, place) in tallies.into_iter().zip(&self.places) {
            all.push(tally.timed(place.which().to_string(), Some(place))?);
        }
        Ok(all)
    }
}

impl Tally {
    /// One round in one place; how many bytes were saved.
    fn round(
        &mut self,
        place: &Place,
        kind: Kind,
        steps: usize,
        root: &Path,
        amount: &Amount,
        tree: &Tree,
    ) -> Result<u64> {
        fs::create_dir(root)?;
        let mut job = kind.begin(root, tree, amount.copied_bytes)?;
        place.settle()?;
        let (barriers, cpu) = (barriers(place)?, cpu(place)?);
        let (mut bytes, mut waited) = (0, Duration::ZERO);
        self.waits.begin_round();
        let start = Instant::now();
        for _ in 0..steps {
            let step = job.step()?;
            self.waits.push(step.waited);
            bytes += step.bytes;
            waited += step.waited;
        }
        self.time += start.elapsed();
        self.barriers += self::barriers(place)? - barriers;
        self.steps += steps as u64;
        // What is done later belongs to it too.
        place.settle()?;
        self.cpu_ns += self::cpu(place)?.saturating_sub(cpu);
        self.rates(steps, bytes, waited);
        drop(job);
        fs::remove_dir_all(root)?;
        place.settle()?;
        Ok(bytes)
    }

    fn limit(&mut self, dir: &Path, bytes: usize, steps: usize, each: bool) -> Result<()> {
        let mut plain = Plain::new(dir, Form::Append, 4096)?;
        let data = Noise::new(22).bytes(bytes);
        let mut waited = Duration::ZERO;
        self.waits.begin_round();
        for n in 1..=steps {
            let time = if each || n == steps { plain.run(&data)? } else { plain.write(&data)? };
            self.waits.push(time);
            waited += time;
        }
        self.rates(steps, (bytes * steps) as u64, waited);
        Ok(())
    }

    fn rates(&mut self, steps: usize, bytes: u64, waited: Duration) {
        self.steps_per_s.push(steps as f64 / waited.as_secs_f64());
        self.mib_s.push(bytes as f64 / f64::from(1 << 20) / waited.as_secs_f64());
    }

    fn timed(self, name: String, place: Option<&Place>) -> Result<Timed> {
        let process = place.and_then(Place::process);
        let daemon = match process {
            None => None,
            Some(process) => Some(Daemon {
                barriers_per_s: self.barriers as f64 / self.time.as_secs_f64(),
                cpu_us_per_step: self.cpu_ns as f64 / 1e3 / self.steps as f64,
                peak_kib: usage::peak_kib(process.pid())?,
            }),
        };
        Ok(Timed {
            name,
            waits: self.waits,
            steps_per_s: Spread::of(self.steps_per_s),
            mib_s: Spread::of(self.mib_s),
            daemon,
        })
    }
}

fn cpu(place: &Place) -> Result<u64> {
    place.process().map_or(Ok(0), |process| usage::cpu_ns(process.pid()))
}

/// What `cairnfs status --json` says of its only bucket.
#[derive(Deserialize)]
struct Status {
    buckets: Vec<Bucket>,
}

#[derive(Deserialize)]
struct Bucket {
    barriers: Option<u64>,
}

fn barriers(place: &Place) -> Result<u64> {
    if place.process().is_none() {
        return Ok(0);
    }
    let status: Status = serde_json::from_slice(&place.ask(&["status", "--json"])?)?;
    status.buckets.first().and_then(|bucket| bucket.barriers).context("barriers in the status")
}
