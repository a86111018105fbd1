//! `mount-core` without FUSE: what `flush` takes, by bytes changed and by writers.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use cairnfs_bench::{
    bucket::{self, Ask, CoreFile},
    noise::Noise,
    workplace,
};
use cairnfs_mount_core::{Ino, Mount, Options, SavePolicy};
use criterion::{BenchmarkId, Criterion, Throughput};

const FILE_BYTES: usize = 4 << 20;

fn file(mount: &Mount, name: &str, len: usize, ask: Ask) -> CoreFile {
    let ino = bucket::put(mount, Ino::ROOT, name, &Noise::new(9).bytes(len)).unwrap();
    CoreFile::open(name, mount, ino, len as u64, ask).unwrap()
}

pub(crate) fn by_bytes(c: &mut Criterion) {
    let dir = workplace::new(None).unwrap();
    let mut noise = Noise::new(1);
    for (policy, ask) in [
        (SavePolicy::Flush, Ask::Close),
        (SavePolicy::Release, Ask::Fsync),
        (SavePolicy::Interval(Duration::from_secs(10)), Ask::Fsync),
    ] {
        let options = Options { policy, ..Options::default() };
        let (mount, _) = bucket::create(&dir.path().join(policy.to_string()), options).unwrap();
        let mut file = file(&mount, "measured", FILE_BYTES, ask);
        mount.publish().unwrap();
        let mut group = c.benchmark_group(format!("mount-core/{policy}, bytes changed"));
        group.sample_size(30);
        for len in [0, 100, 4 << 10, 64 << 10, 1 << 20] {
            if len > 0 {
                group.throughput(Throughput::Bytes(len as u64));
            }
            group.bench_function(BenchmarkId::from_parameter(len), |b| {
                b.iter_custom(|count| {
                    (0..count).map(|_| file.save(&noise.bytes(len)).unwrap()).sum()
                });
            });
        }
        group.finish();
        drop(file);
        mount.stop().unwrap();
    }
}

/// The time for one save of each of so many writers.
pub(crate) fn by_writers(c: &mut Criterion) {
    let dir = workplace::new(None).unwrap();
    let (mount, _) = bucket::create(&dir.path().join("bucket"), Options::default()).unwrap();
    let mut group = c.benchmark_group("mount-core/flush of 4 KiB, writers");
    group.sample_size(20);
    for writers in [1, 4, 16, 64] {
        let mut files: Vec<_> = (0..writers)
            .map(|n| file(&mount, &format!("{writers}-{n}"), 4096, Ask::Close))
            .collect();
        group.throughput(Throughput::Elements(writers));
        group.bench_function(BenchmarkId::from_parameter(writers), |b| {
            b.iter_custom(|count| together(&mut files, count));
        });
    }
    group.finish();
    mount.stop().unwrap();
}

/// Has each of `files` saved `count` times by a thread of its own; how long that took.
fn together(files: &mut [CoreFile], count: u64) -> Duration {
    let gate = Barrier::new(files.len() + 1);
    thread::scope(|scope| {
        for (file, seed) in files.iter_mut().zip(1..) {
            let gate = &gate;
            let writer = thread::Builder::new().name(format!("bench-{seed}"));
            let run = move || {
                let mut noise = Noise::new(seed);
                gate.wait();
                for _ in 0..count {
                    file.save(&noise.bytes(4096)).unwrap();
                }
                gate.wait();
            };
            writer.spawn_scoped(scope, run).unwrap();
        }
        gate.wait();
        let start = Instant::now();
        gate.wait();
        start.elapsed()
    })
}
