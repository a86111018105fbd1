//! An empty bucket beside one of many files: what opening it takes, and a save in it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use cairnfs_mount_core::{Ino, Mount, Options, SavePolicy};
use cairnfs_store::DeviceKey;

use super::{CHANGE_BYTES, Extent, Group, growth};
use crate::{
    bucket::{self, Ask, CoreFile},
    rounds::{Plan, Subject, interleave},
    ui,
};

/// Files in a directory.
const EACH: u32 = 1_000;

/// A bucket that was stopped in good order, to be opened.
#[derive(Clone)]
struct Opening {
    name: String,
    dir: PathBuf,
    device: Arc<DeviceKey>,
}

pub(super) fn measure(dir: &Path, extent: Extent) -> Result<Vec<Group>> {
    ui::progress("growth: buckets");
    let mut buckets = Vec::new();
    for count in extent.buckets() {
        buckets.push(Opening::fill(&dir.join(format!("b{count}")), count)?);
    }
    Ok(vec![opened(&buckets)?, saved(&buckets, dir, extent)?])
}

fn opened(buckets: &[Opening]) -> Result<Group> {
    let plan = Plan { rounds: 5, runs: 5, warm_up: 1, burst: 1, data_bytes: 0 };
    let mut subjects: Vec<Box<dyn Subject>> = Vec::new();
    for bucket in buckets {
        subjects.push(Box::new(bucket.clone()));
    }
    let samples = interleave(plan, &mut subjects)?;
    let names: Vec<String> = buckets.iter().map(|bucket| bucket.name.clone()).collect();
    let title = "A bucket opened after a clean stop, until its first directory can be listed";
    let group = Group::new(title, &names, &samples, |_| vec![0]);
    group.print(&["x empty", "p99 x empty"]);
    Ok(group)
}

fn saved(buckets: &[Opening], dir: &Path, extent: Extent) -> Result<Group> {
    let mut mounts = Vec::new();
    let mut core: Vec<Box<dyn Subject>> = Vec::new();
    for Opening { name, dir, device } in buckets {
        let mount = bucket::open(dir, device, Options::default())?;
        let ino = bucket::put(&mount, Ino::ROOT, "measured", &[1; CHANGE_BYTES])?;
        mount.publish()?;
        core.push(Box::new(CoreFile::open(name, &mount, ino, CHANGE_BYTES as u64, Ask::Close)?));
        mounts.push(mount);
    }
    let title = "A changed 4 KiB file, saved, in a bucket of many files";
    let group = growth::compare(title, dir, extent, vec![core])?;
    mounts.iter().try_for_each(Mount::stop)?;
    Ok(group)
}

impl Opening {
    /// Makes a bucket of `count` files of 100 bytes in the new directory `dir`.
    fn fill(dir: &Path, count: u32) -> Result<Self> {
        let seldom = Duration::from_secs(5);
        let options = Options { policy: SavePolicy::Interval(seldom), ..Options::default() };
        let (mount, device) = bucket::create(dir, options)?;
        for n in 0..count / EACH {
            bucket::directory(&mount, &format!("d{n}"), EACH, 100)?;
        }
        mount.publish()?;
        mount.stop()?;
        Ok(Self { name: format!("core: a bucket of {count} files"), dir: dir.to_owned(), device })
    }
}

impl Subject for Opening {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self, _: &[u8]) -> Result<Duration> {
        let start = Instant::now();
        let mount = bucket::open(&self.dir, &self.device, Options::default())?;
        let root = mount.opendir(Ino::ROOT)?;
        mount.readdir(Ino::ROOT, root, 0, true, &mut |_| true)?;
        let took = start.elapsed();
        mount.releasedir(root);
        mount.stop()?;
        Ok(took)
    }
}
