//! One file of 4 KiB, changed and saved again and again.

use std::path::Path;

use anyhow::Result;
use cairnfs_mount_core::{Ino, Options, SavePolicy};

use super::{CHANGE_BYTES, Extent, Group};
use crate::{
    bucket::{self, Ask, CoreFile},
    plain::{Form, Plain},
    rounds::{Plan, Subject, interleave},
    sample::Samples,
    served::{Home, MountedFile},
    ui,
};

/// The policies, and what a program does to know that its bytes are saved; under the last two also
/// what it does when it leaves that to the policy.
const WAYS: [(&str, Ask); 5] = [
    ("flush", Ask::Close),
    ("release", Ask::Fsync),
    ("interval:10s", Ask::Fsync),
    ("release", Ask::Close),
    ("interval:10s", Ask::Close),
];

pub(super) fn measure(binary: &Path, dir: &Path, extent: Extent) -> Result<Vec<Group>> {
    ui::progress("latency: 4 KiB under each policy, beside the limit");
    let mut subjects: Vec<Box<dyn Subject>> = vec![
        Box::new(Plain::new(dir, Form::Overwrite, CHANGE_BYTES)?),
        Box::new(Plain::new(dir, Form::Append, CHANGE_BYTES)?),
        Box::new(Plain::new(dir, Form::Log, CHANGE_BYTES)?),
    ];
    let data = vec![1; CHANGE_BYTES];
    let mut cores = Vec::new();
    let homes: Vec<Home> = (0..WAYS.len())
        .map(|n| Home::new(binary, dir, &format!("home-{n}")))
        .collect::<Result<_>>()?;
    let mut mounts = Vec::new();
    for (n, ((policy, ask), home)) in WAYS.into_iter().zip(&homes).enumerate() {
        let options = Options { policy: policy.parse::<SavePolicy>()?, ..Options::default() };
        let (mount, _) = bucket::create(&dir.join(format!("core-{n}")), options)?;
        let ino = bucket::put(&mount, Ino::ROOT, "measured", &data)?;
        let name = format!("core, {policy}: {}", what(ask));
        let len = CHANGE_BYTES as u64;
        subjects.push(Box::new(CoreFile::open(name, &mount, ino, len, ask)?));
        cores.push(mount);
        let served = home.mount(&["--save", policy])?;
        let name = format!("mount, {policy}: {}", what(ask));
        let path = served.point().join("measured");
        subjects.push(Box::new(MountedFile::new(name, path, len, ask)?));
        mounts.push(served);
    }
    let alone = interleave(extent.plan(), &mut subjects)?;
    let plan = Plan { burst: 20, ..extent.plan() };
    let together = interleave(plan, &mut subjects)?;
    let names: Vec<String> = subjects.iter().map(|subject| subject.name().to_owned()).collect();
    drop(subjects);
    drop(mounts);
    for core in cores {
        core.stop()?;
    }
    let group = |title: &str, samples: &[Samples]| {
        let bases = |at| if at < 3 { Vec::new() } else { vec![0, 1, 2] };
        let group = Group::new(title, &names, samples, bases);
        group.print(&["x overwrite (spread)", "x append", "x log", "p99 x overwrite"]);
        group
    };
    Ok(vec![
        group("A changed 4 KiB file, saved now and then", &alone),
        group("A changed 4 KiB file, saved 20 times without a pause", &together),
    ])
}

const fn what(ask: Ask) -> &'static str {
    match ask {
        Ask::Close => "write + close",
        Ask::Fsync => "write + fsync",
    }
}
