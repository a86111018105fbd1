//! How the cost of a save grows with what it should not depend on.

use std::path::Path;

use anyhow::Result;
use cairnfs_mount_core::{Ino, Options};

use super::{CHANGE_BYTES, Extent, Group};
use crate::{
    bucket::{self, Ask, CoreFile},
    noise::Noise,
    plain::{Form, Plain},
    rounds::{Plan, Subject, interleave},
    sample::Samples,
    served::{Home, MountedDir, MountedFile},
    ui,
};

/// What a row is: the limit, or the nth size at a level.
struct Sizes {
    levels: usize,
    each: usize,
}

/// From 10 files in a directory on.
pub(super) fn directories(binary: &Path, dir: &Path, extent: Extent) -> Result<Group> {
    ui::progress("growth: directories");
    let sizes = extent.dirs();
    let (mount, _) = bucket::create(&dir.join("core"), Options::default())?;
    let mut core: Vec<Box<dyn Subject>> = Vec::new();
    for count in sizes {
        let ino = bucket::directory(&mount, &format!("d{count}"), count, CHANGE_BYTES)?;
        let name = format!("core: {count} files in the directory");
        core.push(Box::new(CoreFile::open(name, &mount, ino, CHANGE_BYTES as u64, Ask::Close)?));
    }
    mount.publish()?;
    let home = Home::new(binary, dir, "home")?;
    // Without FUSE, as making many files through it is a measurement of its own: see `making`.
    let filling = home.core(Options::default())?;
    for count in sizes {
        bucket::directory(&filling, &format!("d{count}"), count, CHANGE_BYTES)?;
    }
    filling.stop()?;
    drop(filling); // With it goes the lock of the bucket.
    let served = home.mount(&["--save", "flush"])?;
    let mut mounted: Vec<Box<dyn Subject>> = Vec::new();
    for count in sizes {
        let name = format!("mount: {count} files in the directory");
        let path = served.point().join(format!("d{count}")).join("measured");
        mounted.push(Box::new(MountedFile::new(name, path, CHANGE_BYTES as u64, Ask::Close)?));
    }
    let title = "A changed 4 KiB file, saved, in a directory of many";
    let group = compare(title, dir, extent, vec![core, mounted])?;
    drop(served);
    mount.stop()?;
    Ok(group)
}

/// From 1 MiB in a file on.
pub(super) fn files(binary: &Path, dir: &Path, extent: Extent) -> Result<Group> {
    ui::progress("growth: files");
    let sizes = extent.files();
    let (mount, _) = bucket::create(&dir.join("core"), Options::default())?;
    let mut core: Vec<Box<dyn Subject>> = Vec::new();
    for len in sizes {
        let name = format!("core: 4 KiB somewhere in {}", ui::bytes(len));
        let (attr, fh) =
            mount.create(bucket::CALLER, Ino::ROOT, name.as_bytes(), 0o644, bucket::WRITING)?;
        let mut noise = Noise::new(len);
        for at in (0..len).step_by(1 << 20) {
            let piece = noise.bytes(1 << 20);
            bucket::wait(|done| mount.write(attr.ino, fh, at, &piece, false, done))?;
        }
        bucket::wait(|done| mount.release(attr.ino, fh, done))?;
        core.push(Box::new(CoreFile::open(name, &mount, attr.ino, len, Ask::Close)?));
    }
    mount.publish()?;
    let home = Home::new(binary, dir, "home")?;
    let served = home.mount(&["--save", "flush"])?;
    let mut mounted: Vec<Box<dyn Subject>> = Vec::new();
    for len in sizes {
        let name = format!("mount: 4 KiB somewhere in {}", ui::bytes(len));
        let path = served.point().join(format!("f{len}"));
        mounted.push(Box::new(MountedFile::new(name, path, len, Ask::Close)?));
    }
    served.publish()?;
    let title = "4 KiB changed at random places of a file, saved";
    let group = compare(title, dir, extent, vec![core, mounted])?;
    drop(served);
    mount.stop()?;
    Ok(group)
}

/// With more and more files that were changed since the last version: what a burst of new files
/// costs those that come after them, until the next version, 10 s later at the latest.
pub(super) fn unpublished(dir: &Path, extent: Extent) -> Result<Group> {
    ui::progress("growth: files that no version holds yet");
    let hour = std::time::Duration::from_secs(3600);
    let options = Options { publish_quiet: hour, publish_max: hour, ..Options::default() };
    let mut mounts = Vec::new();
    let mut core: Vec<Box<dyn Subject>> = Vec::new();
    for count in extent.unpublished() {
        let (mount, _) = bucket::create(&dir.join(format!("core-{count}")), options)?;
        let ino = bucket::directory(&mount, "d", count, CHANGE_BYTES)?;
        bucket::wait(|done| mount.save(done))?;
        let name = format!("core: {count} files changed since the last version");
        core.push(Box::new(CoreFile::open(name, &mount, ino, CHANGE_BYTES as u64, Ask::Close)?));
        mounts.push(mount);
    }
    let title = "A changed 4 KiB file, saved, while no version holds the others yet";
    let group = compare(title, dir, extent, vec![core])?;
    for mount in mounts {
        mount.stop()?;
    }
    Ok(group)
}

/// With more and more places of one file that were changed since the last version: what a database
/// does to its own next commits.
pub(super) fn extents(dir: &Path, extent: Extent) -> Result<Group> {
    ui::progress("growth: places in a file that no version holds yet");
    let hour = std::time::Duration::from_secs(3600);
    let options = Options { publish_quiet: hour, publish_max: hour, ..Options::default() };
    let (mount, _) = bucket::create(&dir.join("core"), options)?;
    let mut core: Vec<Box<dyn Subject>> = Vec::new();
    for count in extent.unpublished() {
        let ino = bucket::put(&mount, Ino::ROOT, &format!("f{count}"), &[1; CHANGE_BYTES])?;
        let fh = mount.open(ino, bucket::WRITING)?;
        for n in 1..=u64::from(count) {
            bucket::wait(|done| mount.write(ino, fh, n * 8192, &[2; 100], false, done))?;
        }
        bucket::wait(|done| mount.release(ino, fh, done))?;
        let name = format!("core: {count} places changed since the last version");
        core.push(Box::new(CoreFile::open(name, &mount, ino, CHANGE_BYTES as u64, Ask::Close)?));
    }
    bucket::wait(|done| mount.save(done))?;
    let title = "4 KiB of a file, saved, while no version holds changes elsewhere in it yet";
    let group = compare(title, dir, extent, vec![core])?;
    mount.stop()?;
    Ok(group)
}

/// Making a file through a mount, with more and more others in the directory that no version holds
/// yet.
pub(super) fn making(binary: &Path, dir: &Path, extent: Extent) -> Result<Group> {
    ui::progress("growth: making files");
    let home = Home::new(binary, dir, "home")?;
    let rarely = ["--save", "interval:1h", "--publish-quiet", "1h", "--publish-max", "1h"];
    let served = home.mount(&rarely)?;
    let mut mounted: Vec<Box<dyn Subject>> = Vec::new();
    for count in extent.made() {
        let name = format!("mount: a new file beside {count}");
        let path = served.point().join(format!("d{count}"));
        mounted.push(Box::new(MountedDir::new(name, path, count)?));
    }
    let title = "An empty file made and closed (not saved), no version holding the others yet";
    let plan = Plan { runs: 50, ..extent.plan() };
    let group = compare_by(plan, title, dir, vec![mounted])?;
    drop(served);
    Ok(group)
}

/// Interleaves the limit and every size of every level; compares each with the smallest size of
/// its level, and with the limit.
pub(super) fn compare(
    title: &str,
    dir: &Path,
    extent: Extent,
    levels: Vec<Vec<Box<dyn Subject>>>,
) -> Result<Group> {
    compare_by(extent.plan(), title, dir, levels)
}

fn compare_by(
    plan: Plan,
    title: &str,
    dir: &Path,
    levels: Vec<Vec<Box<dyn Subject>>>,
) -> Result<Group> {
    let sizes = Sizes { levels: levels.len(), each: levels.first().map_or(0, Vec::len) };
    let limit: Box<dyn Subject> = Box::new(Plain::new(dir, Form::Overwrite, CHANGE_BYTES)?);
    let mut subjects: Vec<_> = std::iter::once(limit).chain(levels.into_iter().flatten()).collect();
    let samples: Vec<Samples> = interleave(plan, &mut subjects)?;
    let names: Vec<String> = subjects.iter().map(|subject| subject.name().to_owned()).collect();
    assert_eq!(names.len(), 1 + sizes.levels * sizes.each, "because each level has every size");
    let group = Group::new(title, &names, &samples, |at| match at {
        0 => Vec::new(),
        _ if (at - 1) % sizes.each == 0 => vec![0],
        _ => vec![0, 1 + (at - 1) / sizes.each * sizes.each],
    });
    group.print(&["x limit (spread)", "x smallest", "p99 x limit"]);
    Ok(group)
}
