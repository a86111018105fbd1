//! Saves per second: one writer, and many that save a file each.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use cairnfs_mount_core::{Ino, Mount, Options};
use serde::Serialize;

use super::{CHANGE_BYTES, Extent};
use crate::{
    bucket::{self, Ask, CoreFile},
    interrupt,
    noise::Noise,
    plain::{Form, Plain},
    rounds::Subject,
    sample::Spread,
    served::{Home, MountedFile},
    ui::{self, Table},
};

/// Most writers at once.
const MANY: usize = 64;

/// Short, so that a disturbance of the machine hits neighbours alike.
const SLICE: Duration = Duration::from_millis(100);

/// Saves per second at one level.
#[derive(Debug, Serialize)]
pub struct Rate {
    /// Where.
    pub name: String,
    /// One writer.
    pub one: Spread,
    /// As many as there are, on a file each.
    pub many: Spread,
    /// How many times as many, in the same round.
    pub ratio: Spread,
    /// Saves for each barrier with many writers, where that can be told.
    pub saves_per_barrier: Option<f64>,
}

/// Those who write at one level; the first of them writes alone too.
struct Level {
    name: &'static str,
    writers: Vec<Box<dyn Subject + Send>>,
    one: Vec<f64>,
    many: Vec<f64>,
    counted: Option<Mount>,
    saves: u64,
    barriers: u64,
}

pub(super) fn measure(binary: &Path, dir: &Path, extent: Extent) -> Result<Vec<Rate>> {
    ui::progress("writers: one, and 64 with a file each");
    let len = CHANGE_BYTES as u64;
    let data = vec![1; CHANGE_BYTES];
    let (mount, _) = bucket::create(&dir.join("core"), Options::default())?;
    let home = Home::new(binary, dir, "home")?;
    let served = home.mount(&["--save", "flush"])?;
    let (mut plain, mut core, mut mounted) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..MANY {
        let own = dir.join(format!("plain-{n}"));
        std::fs::create_dir(&own)?;
        plain.push(boxed(Plain::new(&own, Form::Overwrite, CHANGE_BYTES)?));
        let ino = bucket::put(&mount, Ino::ROOT, &format!("file-{n}"), &data)?;
        core.push(boxed(CoreFile::open("core", &mount, ino, len, Ask::Close)?));
        let path = served.point().join(format!("file-{n}"));
        mounted.push(boxed(MountedFile::new("mount", path, len, Ask::Close)?));
    }
    let mut levels = [
        Level::new("plain files, fdatasync each", plain, None),
        Level::new("core, flush", core, Some(mount.clone())),
        Level::new("mount, flush", mounted, None),
    ];
    let (rounds, time) = match extent {
        Extent::Quick => (10, SLICE),
        Extent::Usual | Extent::Full => (50, SLICE),
    };
    for _ in 0..rounds {
        for level in &mut levels {
            interrupt::check()?;
            level.round(time)?;
        }
    }
    let rates: Vec<Rate> = levels.into_iter().map(Level::rate).collect();
    drop(served);
    mount.stop()?;
    print(&rates);
    Ok(rates)
}

fn boxed(subject: impl Subject + Send + 'static) -> Box<dyn Subject + Send> {
    Box::new(subject)
}

fn print(rates: &[Rate]) {
    ui::line("## Saves per second, 4 KiB each\n");
    let mut table = Table::new(&["", "1 writer", "64 writers", "ratio (spread)", "saves/barrier"]);
    for rate in rates {
        let per = rate.saves_per_barrier.map_or("-".to_owned(), |count| format!("{count:.1}"));
        table.row([
            rate.name.clone(),
            format!("{:.0}", rate.one.median),
            format!("{:.0}", rate.many.median),
            rate.ratio.to_string(),
            per,
        ]);
    }
    table.print();
    ui::line("");
}

impl Level {
    fn new(
        name: &'static str,
        writers: Vec<Box<dyn Subject + Send>>,
        counted: Option<Mount>,
    ) -> Self {
        let (one, many) = (Vec::new(), Vec::new());
        Self { name, writers, one, many, counted, saves: 0, barriers: 0 }
    }

    fn round(&mut self, time: Duration) -> Result<()> {
        self.one.push(rate(&mut self.writers[..1], time)?.1);
        let before = self.barriers();
        let (saves, many) = rate(&mut self.writers, time)?;
        self.saves += saves;
        self.barriers += self.barriers_since(before);
        self.many.push(many);
        Ok(())
    }

    fn barriers(&self) -> u64 {
        self.counted.as_ref().map_or(0, |mount| mount.status().barriers)
    }

    fn barriers_since(&self, before: u64) -> u64 {
        self.barriers() - before
    }

    fn rate(self) -> Rate {
        let ratio = self.one.iter().zip(&self.many).map(|(one, many)| many / one).collect();
        Rate {
            name: self.name.to_owned(),
            one: Spread::of(self.one),
            many: Spread::of(self.many),
            ratio: Spread::of(ratio),
            saves_per_barrier: (self.barriers > 0)
                .then(|| self.saves as f64 / self.barriers as f64),
        }
    }
}

/// Lets all of `writers` save as often as they can for `time`; how many saves, and how many a
/// second.
fn rate(writers: &mut [Box<dyn Subject + Send>], time: Duration) -> Result<(u64, f64)> {
    let enough = AtomicBool::new(false);
    let start = Instant::now();
    let saves = thread::scope(|scope| -> Result<u64> {
        let mut running = Vec::new();
        for (writer, seed) in writers.iter_mut().zip(1..) {
            let enough = &enough;
            let thread = thread::Builder::new().name(format!("bench-{seed}"));
            running.push(thread.spawn_scoped(scope, move || -> Result<u64> {
                let mut noise = Noise::new(seed);
                let mut data = vec![0; CHANGE_BYTES];
                let mut saves = 0;
                // Relaxed: nothing but the flag itself is passed on.
                while !enough.load(Ordering::Relaxed) {
                    noise.fill(&mut data);
                    writer.run(&data)?;
                    saves += 1;
                }
                Ok(saves)
            })?);
        }
        thread::sleep(time);
        enough.store(true, Ordering::Relaxed);
        let mut saves = 0;
        for thread in running {
            let Ok(result) = thread.join() else { bail!("a writer panicked") };
            saves += result.context("a writer")?;
        }
        Ok(saves)
    })?;
    Ok((saves, saves as f64 / start.elapsed().as_secs_f64()))
}
