//! What `flush` takes in mount-core and through a real mount: by policy and bytes changed, by
//! writers, by the size of the directory and of the file. (The store alone: see `store.rs`.)

use std::{
    cell::{LazyCell, OnceCell},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use cairnfs_bench::{
    bucket::{self, Ask},
    noise::Noise,
    rounds::Subject,
    workplace,
};
use cairnfs_mount_core::{Ino, SavePolicy};
use criterion::{BenchmarkId, Criterion, Throughput};

use crate::level::{LEVELS, Opened, POLICIES, home};

/// What a file has unless its size is what matters.
const FILE_BYTES: u64 = 4 << 20;
const CHANGE_BYTES: usize = 4096;
/// For each bench: a save takes a fraction of a millisecond.
const TIME: Duration = Duration::from_secs(3);

/// A file's name with its length.
type Sized = (String, u64);

/// Saves of `file`, a change of `len` bytes each.
fn saves(file: &mut dyn Subject, noise: &mut Noise, len: usize, count: u64) -> Duration {
    (0..count).map(|_| file.run(&noise.bytes(len)).unwrap()).sum()
}

pub(crate) fn by_bytes(c: &mut Criterion) {
    let dir = workplace::new(None).unwrap();
    let mut noise = Noise::new(1);
    let home = LazyCell::new(|| {
        home(dir.path(), "home", |mount| {
            let content = Noise::new(9).bytes(FILE_BYTES.try_into().unwrap());
            bucket::put(mount, Ino::ROOT, "measured", &content).unwrap();
        })
    });
    for level in LEVELS {
        for (policy, ask) in POLICIES {
            let opened = OnceCell::new();
            let name = format!("{}/{policy}, bytes changed", level.name());
            let mut group = c.benchmark_group(name);
            group.sample_size(30).measurement_time(TIME);
            for len in [0, 100, 4 << 10, 64 << 10, 1 << 20] {
                if len > 0 {
                    group.throughput(Throughput::Bytes(len as u64));
                }
                group.bench_function(BenchmarkId::from_parameter(len), |b| {
                    let opened = opened.get_or_init(|| Opened::new(&home, level, policy));
                    let mut file = opened.file("measured", FILE_BYTES, ask);
                    b.iter_custom(|count| saves(file.as_mut(), &mut noise, len, count));
                });
            }
            group.finish();
            opened.into_inner().into_iter().for_each(Opened::end);
        }
    }
}

/// The time for one save of each of so many writers, to a file each or all to the same.
pub(crate) fn by_writers(c: &mut Criterion) {
    let dir = workplace::new(None).unwrap();
    let home = LazyCell::new(|| {
        home(dir.path(), "home", |mount| {
            for n in 0..64 {
                let content = [1; CHANGE_BYTES];
                bucket::put(mount, Ino::ROOT, &format!("file-{n}"), &content).unwrap();
            }
        })
    });
    for level in LEVELS {
        let opened = OnceCell::new();
        for (what, same) in [("writers to a file each", false), ("writers to one file", true)] {
            let name = format!("{}/flush of 4 KiB, {what}", level.name());
            let mut group = c.benchmark_group(name);
            group.sample_size(20).measurement_time(TIME);
            for writers in [1, 4, 16, 64] {
                group.throughput(Throughput::Elements(writers));
                group.bench_function(BenchmarkId::from_parameter(writers), |b| {
                    let opened =
                        opened.get_or_init(|| Opened::new(&home, level, SavePolicy::Flush));
                    let mut files: Vec<_> = (0..writers)
                        .map(|n| {
                            let name = format!("file-{}", if same { 0 } else { n });
                            opened.file(&name, CHANGE_BYTES as u64, Ask::Close)
                        })
                        .collect();
                    b.iter_custom(|count| together(&mut files, count));
                });
            }
            group.finish();
        }
        opened.into_inner().into_iter().for_each(Opened::end);
    }
}

/// A changed 4 KiB file in a directory of so many, and 4 KiB changed in a file of so many bytes.
pub(crate) fn by_size(c: &mut Criterion) {
    let dir = workplace::new(None).unwrap();
    let counts = [10_u32, 1_000, 10_000];
    let lens = [1_u64 << 20, 16 << 20, 256 << 20];
    let home = LazyCell::new(|| {
        home(dir.path(), "home", |mount| {
            for count in counts {
                bucket::directory(mount, &format!("d{count}"), count, CHANGE_BYTES).unwrap();
            }
            for len in lens {
                let content = Noise::new(len).bytes(len.try_into().unwrap());
                bucket::put(mount, Ino::ROOT, &format!("f{len}"), &content).unwrap();
            }
        })
    });
    let dirs = counts.map(|count| (count.to_string(), (format!("d{count}/measured"), 4096)));
    let files = lens.map(|len| (format!("{} MiB", len >> 20), (format!("f{len}"), len)));
    for level in LEVELS {
        let opened = OnceCell::new();
        let groups: [(&str, &[(String, Sized)]); 2] =
            [("files in the directory", &dirs), ("of a file of", &files)];
        for (what, sizes) in groups {
            let name = format!("{}/flush of 4 KiB, {what}", level.name());
            let mut group = c.benchmark_group(name);
            group.sample_size(30).measurement_time(TIME);
            for (size, (path, len)) in sizes {
                let mut noise = Noise::new(*len);
                group.bench_function(BenchmarkId::from_parameter(size), |b| {
                    let opened =
                        opened.get_or_init(|| Opened::new(&home, level, SavePolicy::Flush));
                    let mut file = opened.file(path, *len, Ask::Close);
                    b.iter_custom(|count| saves(file.as_mut(), &mut noise, CHANGE_BYTES, count));
                });
            }
            group.finish();
        }
        opened.into_inner().into_iter().for_each(Opened::end);
    }
}

/// Has each of `files` saved `count` times by a thread of its own; how long that took.
fn together(files: &mut [Box<dyn Subject + Send>], count: u64) -> Duration {
    let gate = Barrier::new(files.len() + 1);
    thread::scope(|scope| {
        for (file, seed) in files.iter_mut().zip(1..) {
            let gate = &gate;
            let writer = thread::Builder::new().name(format!("bench-{seed}"));
            let run = move || {
                let mut noise = Noise::new(seed);
                gate.wait();
                saves(file.as_mut(), &mut noise, CHANGE_BYTES, count);
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
