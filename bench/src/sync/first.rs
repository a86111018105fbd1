//! The first sync of a tree: to a device that has just been invited.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{device::Device, report, rsync, stream, trees::Shape};
use crate::{
    interrupt,
    noise::Noise,
    sample::{Samples, Spread, Summary},
    ui::{self, Table},
};

/// One tree.
#[derive(Debug, Serialize)]
pub struct First {
    name: String,
    shape: Shape,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    #[serde(flatten)]
    times: Summary,
    /// The median of what it takes without the sync at the end, if there is one.
    unsynced_us: Option<f64>,
    /// Of each round to the plain copy.
    to_copy: Spread,
    /// Of each round to rsync.
    to_rsync: Option<Spread>,
}

/// Who brings the tree.
enum Way {
    /// One TCP stream, and a sync at the end.
    Copy(PathBuf),
    /// The same sync at the end.
    Rsync(rsync::Daemon),
    /// Durable when `join` returns.
    Cairnfs(Box<Device>),
}

impl Way {
    const fn name(&self) -> &'static str {
        match self {
            Self::Copy(_) => "plain copy over TCP, synced",
            Self::Rsync(_) => "rsync -a, synced",
            Self::Cairnfs(_) => "cairnfs join",
        }
    }
}

pub(super) fn measure(
    binary: &Path,
    dir: &Path,
    name: &str,
    shape: Shape,
    rounds: usize,
) -> Result<First> {
    ui::progress(&format!("first sync: {}", title(shape)));
    let source = dir.join("source");
    shape.make(&source)?;
    let fill = |mount: &_| shape.fill(mount);
    let mut ways = vec![Way::Copy(source.clone())];
    if rsync::is_installed() {
        ways.push(Way::Rsync(rsync::Daemon::start(dir, &source)?));
    }
    let device = Device::with_bucket(binary, dir, "one", &["--save", "flush"], fill)?;
    ways.push(Way::Cairnfs(Box::new(device)));
    let mut samples = vec![Samples::default(); ways.len()];
    let mut unsynced = samples.clone();
    let mut order: Vec<usize> = (0..ways.len()).collect();
    let mut noise = Noise::new(2);
    for round in 0..rounds {
        samples.iter_mut().for_each(Samples::begin_round);
        noise.shuffle(&mut order);
        for &at in &order {
            interrupt::check()?;
            let there = dir.join(format!("there-{round}"));
            fs::create_dir(&there)?;
            let (before, time) = bring(&ways[at], binary, &there, shape)
                .with_context(|| ways[at].name().to_owned())?;
            samples[at].push(time);
            if let Some(before) = before {
                unsynced[at].push(before);
            }
            fs::remove_dir_all(&there)?;
        }
    }
    let of = |name: &str| ways.iter().position(|way| way.name().starts_with(name));
    let rsync = of("rsync").map(|at| &samples[at]);
    let rows = ways.iter().zip(&samples).zip(&unsynced).map(|((way, own), unsynced)| Row {
        name: way.name(),
        times: own.summary(),
        unsynced_us: Some(unsynced.summary()).filter(|it| it.count > 0).map(|it| it.median_us),
        to_copy: own.ratio_to(&samples[0], 500),
        to_rsync: rsync.map(|base| own.ratio_to(base, 500)),
    });
    Ok(First { name: name.to_owned(), shape, rows: rows.collect() })
}

/// Brings the tree into the new directory `there`, and sees that it came. Says how long it took
/// until all was written, where that is not the same, and until it was durable. What others left
/// unwritten before, removed trees among it, is synced first: it is not to be written while this is
/// timed, nor by the sync that is timed.
fn bring(
    way: &Way,
    binary: &Path,
    there: &Path,
    shape: Shape,
) -> Result<(Option<Duration>, Duration)> {
    let last = shape.files() - 1;
    match way {
        Way::Copy(_) | Way::Rsync(_) => {
            let place = File::open(there)?;
            rustix::fs::syncfs(&place)?;
            let start = Instant::now();
            match way {
                Way::Rsync(daemon) => daemon.fetch(there).map(drop)?,
                Way::Copy(source) => stream::copy(source, there)?,
                Way::Cairnfs(_) => (),
            }
            let written = start.elapsed();
            rustix::fs::syncfs(&place)?;
            let durable = start.elapsed();
            shape.check(there, last, 0)?;
            Ok((Some(written), durable))
        }
        Way::Cairnfs(one) => {
            let other = Device::new(binary, there, "other")?;
            let ticket = one.invite()?;
            rustix::fs::syncfs(File::open(there)?)?;
            let start = Instant::now();
            other.join(&ticket)?;
            let time = start.elapsed();
            other.mount(&[])?;
            for n in [0, last / 2, last] {
                shape.check(other.point(), n, 0)?;
            }
            Ok((None, time))
        }
    }
}

fn title(shape: Shape) -> String {
    format!("{} files of {}", shape.files(), ui::bytes(shape.file_bytes()))
}

pub(super) fn print(trees: &[First]) {
    ui::line("## The first sync of a tree\n");
    let heads = [
        "",
        "median s",
        "max s",
        "without the sync",
        "MiB/s",
        "files/s",
        "x copy (spread)",
        "x rsync",
    ];
    let mut table = Table::new(&heads);
    for First { shape, rows, .. } in trees {
        for Row { name, times, unsynced_us, to_copy, to_rsync } in rows {
            let seconds = times.median_us / 1e6;
            let mib = report::count(shape.bytes()) / f64::from(1 << 20);
            table.row([
                format!("{}: {name}", title(*shape)),
                format!("{seconds:.2}"),
                format!("{:.2}", times.max_us / 1e6),
                unsynced_us.map_or_else(String::new, |us| format!("{:.2}", us / 1e6)),
                format!("{:.0}", mib / seconds),
                format!("{:.0}", f64::from(shape.files()) / seconds),
                report::factor(*to_copy),
                to_rsync.map_or_else(String::new, report::factor),
            ]);
        }
    }
    table.print();
    ui::line("");
}
