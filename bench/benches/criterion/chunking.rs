//! Cutting content into chunks, alone and on the way of a large file into a bucket.

use std::hint::black_box;

use cairnfs_bench::{
    bucket::{self, CALLER, WRITING, wait},
    noise::Noise,
    workplace,
};
use cairnfs_mount_core::{Ino, Options};
use criterion::{Criterion, Throughput};
use fastcdc::v2020::{FastCDC, Normalization};

const LEN: usize = 16 << 20;

/// As the format has it (mount-core, `file/cut.rs`): 16, 64 and 256 KiB, level 1.
pub(crate) fn cutting(c: &mut Criterion) {
    let data = Noise::new(1).bytes(LEN);
    let mut group = c.benchmark_group("chunking");
    group.throughput(Throughput::Bytes(LEN as u64));
    group.bench_function("FastCDC of 16 MiB", |b| {
        b.iter(|| {
            let cut = FastCDC::with_level_and_seed(
                black_box(&data),
                16 << 10,
                64 << 10,
                256 << 10,
                Normalization::Level1,
                7,
            );
            cut.count()
        });
    });
    let dir = workplace::in_memory().unwrap();
    let (mount, _) = bucket::create(&dir.path().join("bucket"), Options::default()).unwrap();
    let mut noise = Noise::new(2);
    let (attr, fh) = mount.create(CALLER, Ino::ROOT, b"large", 0o644, WRITING).unwrap();
    group.sample_size(20);
    group.bench_function("write 16 MiB and fsync, in memory: cut, seal, append", |b| {
        b.iter_batched(
            || noise.bytes(LEN),
            |data| {
                for (at, piece) in (0..).step_by(1 << 20).zip(data.chunks(1 << 20)) {
                    wait(|done| mount.write(attr.ino, fh, at, piece, false, done)).unwrap();
                }
                wait(|done| mount.fsync(fh, done)).unwrap();
            },
            criterion::BatchSize::PerIteration,
        );
    });
    group.finish();
    mount.stop().unwrap();
}
