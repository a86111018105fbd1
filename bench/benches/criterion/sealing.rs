//! Sealing, and what the cipher and the hash take of it on this CPU.

use std::{hint::black_box, sync::Arc};

use cairnfs_bench::{cipher::Cipher, noise::Noise, workplace};
use cairnfs_store::SaveKind::OnTop;
use cairnfs_store::{KeyRing, Kind, Options, create, disk::RealDisk};
use criterion::{BatchSize, Criterion, Throughput};

const LEN: usize = 64 << 10;

pub(crate) fn limits(c: &mut Criterion) {
    let mut group = c.benchmark_group("sealing/limit, 64 KiB");
    group.throughput(Throughput::Bytes(LEN as u64));
    let mut data = Noise::new(1).bytes(LEN);
    let (aes, chacha) = (Cipher::aes().unwrap(), Cipher::chacha().unwrap());
    group.bench_function("AES-256-GCM", |b| b.iter(|| aes.seal(&mut data).unwrap()));
    group.bench_function("ChaCha20-Poly1305", |b| b.iter(|| chacha.seal(&mut data).unwrap()));
    group.bench_function("BLAKE3", |b| b.iter(|| blake3::hash(black_box(&data))));
    group.finish();
}

/// Through the store's own door, without a barrier: name, try to compress, encrypt, checksum,
/// buffer, and hand over to the kernel.
pub(crate) fn sealing(c: &mut Criterion) {
    let dir = workplace::in_memory().unwrap();
    let keys = KeyRing::generate().unwrap();
    let disk = Arc::new(RealDisk);
    let (mut appender, blobs) = create(disk, dir.path(), keys, Options::default()).unwrap();
    let mut noise = Noise::new(2);
    let mut group = c.benchmark_group("sealing");
    group.sample_size(30);
    group.throughput(Throughput::Bytes(LEN as u64));
    let text = |noise: &mut Noise| -> Vec<u8> {
        let words = ["the ", "quick ", "brown ", "fox ", "jumps ", "over ", "a ", "lazy ", "dog "];
        let mut out = Vec::new();
        while out.len() < LEN {
            let word = words[usize::try_from(noise.below(words.len() as u64)).unwrap()];
            out.extend_from_slice(word.as_bytes());
        }
        out
    };
    group.bench_function("seal 64 KiB that does not compress", |b| {
        b.iter_batched(
            || noise.bytes(LEN),
            |data| appender.put(Kind::Chunk, &data).unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("seal 64 KiB of text", |b| {
        b.iter_batched(
            || text(&mut noise),
            |data| appender.put(Kind::Chunk, &data).unwrap(),
            BatchSize::PerIteration,
        );
    });
    let blob = appender.put(Kind::Chunk, &noise.bytes(LEN)).unwrap();
    appender.save(b"", OnTop).unwrap();
    group.bench_function("open 64 KiB", |b| b.iter(|| blobs.get(&blob).unwrap()));
    let count = 64;
    group.throughput(Throughput::Bytes((count * LEN) as u64));
    group.bench_function("seal 4 MiB at once, all cores", |b| {
        b.iter_batched(
            || (0..count).map(|_| noise.bytes(LEN)).collect::<Vec<_>>(),
            |data| appender.put_all(Kind::Chunk, &data).unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}
