//! The store alone: put, save, get, and the ordered map.

use std::{hint::black_box, path::Path, sync::Arc};

use cairnfs_bench::{
    noise::Noise,
    plain::{Form, Plain},
    rounds::Subject,
    workplace,
};
use cairnfs_store::SaveKind::{Checkpoint, OnTop};
use cairnfs_store::{
    Appender, Blobs, KeyRing, Kind, Options, create,
    disk::RealDisk,
    map::{Edit, MapReader, Root, apply},
};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};

const ENTRIES: u64 = 100_000;

fn store(dir: &Path) -> (Appender, Arc<Blobs>) {
    create(Arc::new(RealDisk), dir, KeyRing::generate().unwrap(), Options::default()).unwrap()
}

/// What a save adds to the barrier: 4 KiB put and saved, beside the plain file.
pub(crate) fn saving(c: &mut Criterion) {
    let dir = workplace::new(None).unwrap();
    let (mut appender, _blobs) = store(&dir.path().join("store"));
    let mut noise = Noise::new(1);
    let mut group = c.benchmark_group("store/save");
    group.sample_size(50);
    group.throughput(Throughput::Bytes(4096));
    for form in [Form::Overwrite, Form::Append] {
        let mut plain = Plain::new(dir.path(), form, 4096).unwrap();
        group.bench_function(plain.name().to_owned(), |b| {
            b.iter_batched(
                || noise.bytes(4096),
                |data| plain.run(&data).unwrap(),
                BatchSize::PerIteration,
            );
        });
    }
    group.bench_function("put and save 4 KiB", |b| {
        b.iter_batched(
            || noise.bytes(4096),
            |data| {
                appender.put(Kind::Chunk, &data).unwrap();
                appender.save(b"", OnTop).unwrap()
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("save a record of 4 KiB", |b| {
        b.iter_batched(
            || noise.bytes(4096),
            |data| appender.save(&data, OnTop).unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// A save record of as many bytes as were changed: what `flush` comes down to.
pub(crate) fn by_bytes(c: &mut Criterion) {
    let dir = workplace::new(None).unwrap();
    let (mut appender, _blobs) = store(&dir.path().join("store"));
    let mut noise = Noise::new(6);
    let mut group = c.benchmark_group("store/save, bytes changed");
    group.sample_size(30);
    for len in [0, 100, 4 << 10, 64 << 10, 1 << 20] {
        if len > 0 {
            group.throughput(Throughput::Bytes(len as u64));
        }
        group.bench_function(BenchmarkId::from_parameter(len), |b| {
            b.iter_batched(
                || noise.bytes(len),
                |data| appender.save(&data, OnTop).unwrap(),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// Without a barrier: hash, compress, seal, checksum.
pub(crate) fn putting(c: &mut Criterion) {
    let dir = workplace::in_memory().unwrap();
    let (mut appender, blobs) = store(&dir.path().join("store"));
    let mut noise = Noise::new(2);
    let mut group = c.benchmark_group("store/put");
    for len in [4 << 10, 64 << 10, 256 << 10] {
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("new", len), |b| {
            b.iter_batched(
                || noise.bytes(len),
                |data| appender.put(Kind::Chunk, &data).unwrap(),
                BatchSize::PerIteration,
            );
        });
        // What was put is given up, so that the disk does not fill.
        appender.discard_batch().unwrap();
        let known = noise.bytes(len);
        appender.put(Kind::Chunk, &known).unwrap();
        appender.save(b"", OnTop).unwrap();
        group.bench_function(BenchmarkId::new("known", len), |b| {
            b.iter(|| appender.put(Kind::Chunk, black_box(&known)).unwrap());
        });
    }
    group.finish();
    let mut group = c.benchmark_group("store/get");
    for len in [4 << 10, 64 << 10] {
        let refs: Vec<_> =
            (0..500).map(|_| appender.put(Kind::Chunk, &noise.bytes(len)).unwrap()).collect();
        appender.save(b"", OnTop).unwrap();
        appender.flush_index().unwrap();
        let mut next = refs.iter().cycle();
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("indexed, in the page cache", len), |b| {
            b.iter(|| blobs.get(next.next().unwrap()).unwrap());
        });
    }
    group.finish();
}

fn key(n: u64) -> Vec<u8> {
    format!("{n:012}").into_bytes()
}

pub(crate) fn map(c: &mut Criterion) {
    let dir = workplace::in_memory().unwrap();
    let (mut appender, blobs) = store(&dir.path().join("store"));
    let reader = MapReader::new(blobs, 64 << 20);
    let mut noise = Noise::new(3);
    let edits: Vec<Edit> = (0..ENTRIES).map(|n| (key(n), Some(noise.bytes(100)))).collect();
    let root = apply(&reader, &mut appender, &Root::EMPTY, edits).unwrap();
    appender.save(b"", Checkpoint).unwrap();
    let mut group = c.benchmark_group("store/map of 100,000");
    group.bench_function("get, cached", |b| {
        b.iter_batched(
            || key(noise.below(ENTRIES)),
            |key| reader.get(&root, &key).unwrap(),
            BatchSize::SmallInput,
        );
    });
    for count in [1, 100, 10_000] {
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("apply edits", count), |b| {
            b.iter_batched(
                || {
                    let step = ENTRIES / count;
                    let first = noise.below(step);
                    (0..count).map(|n| (key(first + n * step), Some(noise.bytes(100)))).collect()
                },
                |edits: Vec<Edit>| apply(&reader, &mut appender, &root, edits).unwrap(),
                BatchSize::PerIteration,
            );
        });
        appender.save(b"", OnTop).unwrap();
        let step = ENTRIES / count;
        let edits = (0..count).map(|n| (key(n * step), Some(noise.bytes(100))));
        let other = apply(&reader, &mut appender, &root, edits).unwrap();
        group.bench_function(BenchmarkId::new("diff", count), |b| {
            b.iter(|| {
                let changes = reader
                    .diff(&root, &other)
                    .fold(0_u64, |count, change| count + u64::from(change.is_ok()));
                assert_eq!(changes as u64, count);
            });
        });
    }
    group.finish();
}
