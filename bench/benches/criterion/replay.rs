//! Opening a bucket: after a clean stop, and after a crash with saves that no version and no index
//! knows.

use std::{
    cell::LazyCell,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use cairnfs_bench::{
    bucket::{self, Ask, CoreFile},
    noise::Noise,
    workplace,
};
use cairnfs_mount_core::{Ino, Options};
use cairnfs_store::DeviceKey;
use criterion::{BenchmarkId, Criterion};

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

/// A bucket with `saves` saves of 100 bytes to 100 files, as a crash leaves it: no version holds
/// them.
fn crashed(dir: &Path, saves: u32) -> Arc<DeviceKey> {
    let hour = Duration::from_secs(3600);
    let options = Options { publish_quiet: hour, publish_max: hour, ..Options::default() };
    let live = dir.join("live");
    let (mount, device) = bucket::create(&live, options).unwrap();
    let mut noise = Noise::new(1);
    let mut files: Vec<_> = (0..100)
        .map(|n| {
            let ino = bucket::put(&mount, Ino::ROOT, &format!("file-{n}"), &noise.bytes(4096));
            CoreFile::open("file", &mount, ino.unwrap(), 4096, Ask::Close).unwrap()
        })
        .collect();
    for n in 0..saves as usize {
        let index = n % files.len();
        files[index].save(&noise.bytes(100)).unwrap();
    }
    copy(&live, &dir.join("crashed"));
    drop(files);
    mount.stop().unwrap();
    device
}

pub(crate) fn opening(c: &mut Criterion) {
    let dir = workplace::new(None).unwrap();
    let mut group = c.benchmark_group("replay");
    group.sample_size(10);
    // Ending it again is not timed.
    let start = |bucket: &Path, device: &Arc<DeviceKey>| {
        let options = Options { read_only: true, ..Options::default() };
        let start = Instant::now();
        let mount = bucket::open(bucket, device, options).unwrap();
        let took = start.elapsed();
        mount.stop().unwrap();
        took
    };
    for saves in [100, 1_000, 10_000] {
        let place = dir.path().join(saves.to_string());
        fs::create_dir(&place).unwrap();
        // Made when it is first needed: another bench may be what was asked for.
        let device = LazyCell::new(|| crashed(&place, saves));
        let mut n = 0;
        group.bench_function(BenchmarkId::new("clean stop after saves", saves), |b| {
            let device = &*device;
            b.iter_custom(|count| (0..count).map(|_| start(&place.join("live"), device)).sum());
        });
        for (what, index) in [("crash after saves", true), ("crash and no index, saves", false)] {
            group.bench_function(BenchmarkId::new(what, saves), |b| {
                let device = &*device;
                b.iter_custom(|count| {
                    let mut took = Duration::ZERO;
                    for _ in 0..count {
                        n += 1;
                        let copied = place.join(n.to_string());
                        copy(&place.join("crashed"), &copied);
                        if !index {
                            fs::remove_file(copied.join("index.redb")).unwrap();
                        }
                        took += start(&copied, device);
                        fs::remove_dir_all(copied).unwrap();
                    }
                    took
                });
            });
        }
    }
    group.finish();
}
