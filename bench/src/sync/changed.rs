//! Some small files changed among many: how long, and how many bytes for each that was changed.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Extent, device::Pair, poll, report, rsync, trees::Shape};
use crate::{
    interrupt,
    noise::Noise,
    sample::{Samples, Spread, Summary},
    ui::{self, Table},
};

/// What it took.
#[derive(Debug, Serialize)]
pub struct Changes {
    bucket: Shape,
    changed: u32,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    /// From the last `close` until all is readable there.
    #[serde(flatten)]
    times: Summary,
    /// Bytes sent, both ways, in each round.
    traffic_bytes: Spread,
    /// The same for each byte changed.
    per_changed_byte: Spread,
    to_rsync: Option<Spread>,
}

/// The times and the traffic of one of them.
#[derive(Default)]
struct Measured {
    times: Samples,
    traffic: Vec<f64>,
}

impl Measured {
    fn note(&mut self, (time, bytes): (Duration, u64)) {
        self.times.begin_round();
        self.times.push(time);
        self.traffic.push(report::count(bytes));
    }
}

pub(super) fn measure(binary: &Path, dir: &Path, extent: &Extent) -> Result<Changes> {
    let (shape, changed) = (extent.bucket, extent.changed);
    ui::progress(&format!("changes: {changed} files of {}", shape.files()));
    let pair = Pair::new(binary, dir, "b", &["--save", "flush"], |mount| shape.fill(mount))?;
    let (source, there) = (dir.join("source"), dir.join("there"));
    let rsync = if rsync::is_installed() {
        shape.make(&source)?;
        fs::create_dir(&there)?;
        let daemon = rsync::Daemon::start(dir, &source)?;
        daemon.fetch(&there)?;
        Some(daemon)
    } else {
        None
    };
    let (mut ours, mut theirs) = (Measured::default(), Measured::default());
    let mut all: Vec<u32> = (0..shape.files()).collect();
    let mut noise = Noise::new(3);
    for round in 1..=u32::try_from(extent.changed_rounds)? {
        interrupt::check()?;
        noise.shuffle(&mut all);
        let some = &all[..usize::try_from(changed)?];
        let rsync_first = noise.below(2) == 0;
        for rsync_now in [rsync_first, !rsync_first] {
            match &rsync {
                Some(daemon) if rsync_now => {
                    change(shape, &source, some, round)?;
                    let start = Instant::now();
                    let bytes = daemon.fetch(&there)?;
                    theirs.note((start.elapsed(), bytes));
                    verify(shape, &there, some, round)?;
                }
                None if rsync_now => (),
                _ => ours.note(through(&pair, shape, some, round)?),
            }
        }
    }
    let mut measured = vec![("cairnfs", ours)];
    if rsync.is_some() {
        measured.push(("rsync -a, not synced", theirs));
    }
    let bytes = f64::from(changed) * report::count(shape.file_bytes());
    let base = measured.get(1).map(|(_, base)| base.times.clone());
    let rows = measured.into_iter().map(|(name, own)| Row {
        name,
        times: own.times.summary(),
        traffic_bytes: Spread::of(own.traffic.clone()),
        per_changed_byte: Spread::of(own.traffic.iter().map(|sent| sent / bytes).collect()),
        to_rsync: base.as_ref().map(|base| own.times.ratio_to(base, 500)),
    });
    let changes = Changes { bucket: shape, changed, rows: rows.collect() };
    changes.print();
    Ok(changes)
}

/// Changes files on one device and waits for the last of them on the other.
fn through(pair: &Pair, shape: Shape, some: &[u32], round: u32) -> Result<(Duration, u64)> {
    pair.one.sync()?;
    let before = pair.one.connections()?;
    let there = pair.other.point();
    // Made before the clock starts.
    let last = some.last().context("something is changed")?;
    let (path, content) = (there.join(shape.path(*last)), shape.content(*last, round)?);
    change(shape, pair.one.point(), some, round)?;
    let start = Instant::now();
    poll::until("the changes on the other device", || Ok(fs::read(&path)? == content))?;
    let time = start.elapsed();
    verify(shape, there, some, round)?;
    // Until both know that they have met: that is traffic too.
    pair.one.sync()?;
    Ok((time, pair.one.connections()?.bytes_since(&before)?))
}

fn change(shape: Shape, root: &Path, some: &[u32], round: u32) -> Result<()> {
    some.iter().try_for_each(|n| shape.change(root, *n, round))
}

fn verify(shape: Shape, root: &Path, some: &[u32], round: u32) -> Result<()> {
    some.iter().try_for_each(|n| shape.check(root, *n, round))
}

impl Changes {
    fn print(&self) {
        let Self { bucket, changed, rows } = self;
        let file = ui::bytes(bucket.file_bytes());
        let files = bucket.files();
        ui::line(&format!("## {changed} changed files of {file} in a bucket of {files}\n"));
        let heads =
            ["", "median s", "max s", "KiB sent, both ways", "for each byte changed", "x rsync"];
        let mut table = Table::new(&heads);
        for row in rows {
            table.row([
                row.name.to_owned(),
                format!("{:.2}", row.times.median_us / 1e6),
                format!("{:.2}", row.times.max_us / 1e6),
                format!("{:.0}", row.traffic_bytes.median / 1024.0),
                row.per_changed_byte.to_string(),
                row.to_rsync.map_or_else(String::new, report::factor),
            ]);
        }
        table.print();
        ui::line("");
    }
}
