//! Measures the hot path on a real disk, beside a plain file:
//! `cargo run --release -p cairnfs-store --example measure -- DIR`

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement, run by hand")]
#![allow(clippy::disallowed_methods, reason = "the barrier to compare with")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairnfs_store::disk::RealDisk;
use cairnfs_store::map::{MapReader, Root, apply};
use cairnfs_store::{KeyRing, Kind, Options, create, open};

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn timed(act: impl FnOnce()) -> Duration {
    let start = Instant::now();
    act();
    start.elapsed()
}

fn show(what: &str, mut times: Vec<Duration>) -> f64 {
    times.sort();
    let at =
        |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1e6;
    println!("{what:44} p50 {:9.1} us  p90 {:9.1}  p99 {:9.1}", at(50), at(90), at(99));
    at(50)
}

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn main() {
    let base: PathBuf = std::env::args_os().nth(1).expect("a directory to measure in").into();
    let dir = base.join(format!("measure-{}", std::process::id()));
    let keys = KeyRing::generate().unwrap();
    println!("rss at start {} KiB", rss_kib());
    let disk = Arc::new(RealDisk);
    let (mut appender, blobs) =
        create(disk.clone(), &dir, keys.clone(), Options::default()).unwrap();
    println!("rss with an empty store {} KiB", rss_kib());
    let plain =
        File::options().create(true).truncate(true).write(true).open(dir.join("plain")).unwrap();
    // Interleaved, so that whatever else the disk does hits both alike.
    let (mut files, mut saves, mut puts) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..2000u64 {
        let data = noise(n, 4096);
        files.push(timed(|| {
            plain.write_all_at(&data, n * 4096).unwrap();
            plain.sync_data().unwrap();
        }));
        puts.push(timed(|| assert!(appender.put(Kind::Chunk, &data).is_ok())));
        saves.push(timed(|| assert!(appender.save(&data[..100], false).is_ok())));
    }
    let file = show("plain append of 4 KiB + fdatasync", files);
    let put = show("put of 4 KiB", puts);
    let save = show("save (barrier)", saves);
    println!("ratio of put + save to the plain file {:.2}", (put + save) / file);
    let tight: Vec<Vec<u8>> = (0..500).map(|n| noise((1 << 40) | n, 4096)).collect();
    let mut puts = Vec::new();
    for data in &tight {
        puts.push(timed(|| assert!(appender.put(Kind::Chunk, data).is_ok())));
    }
    show("put of 4 KiB, one after another", puts);
    let big: Vec<Vec<u8>> = (0..1500).map(|n| noise(1 << 20 | n, 65536)).collect();
    let mut refs = Vec::new();
    show(
        "put of 64 KiB, no compression gained",
        big.iter()
            .map(|data| timed(|| refs.push(appender.put(Kind::Chunk, data).unwrap())))
            .collect(),
    );
    appender.save(b"", false).unwrap();
    appender.flush_index().unwrap();
    show(
        "get of 64 KiB, warm, indexed",
        refs.iter().map(|blob| timed(|| drop(blobs.get(blob).unwrap()))).collect(),
    );
    let small: Vec<_> =
        (0..2000u64).map(|n| appender.put(Kind::Chunk, &noise(n, 4096)).unwrap()).collect();
    show(
        "get of 4 KiB, warm, indexed",
        small.iter().map(|blob| timed(|| drop(blobs.get(blob).unwrap()))).collect(),
    );
    let many: Vec<Vec<u8>> = (0..1024).map(|n| noise(1 << 30 | n, 65536)).collect();
    let took = timed(|| drop(appender.put_all(Kind::Chunk, &many).unwrap()));
    println!("put_all of 64 MiB {:.0} MiB/s", 64.0 / took.as_secs_f64());
    let took = timed(|| assert!(appender.save(b"", true).is_ok()));
    println!("its save {:.1} ms", took.as_secs_f64() * 1e3);
    let reader = MapReader::new(blobs.clone(), 16 << 20);
    let entries =
        (0..200_000u32).map(|n| (format!("{n:08}").into_bytes(), Some(noise(u64::from(n), 40))));
    let mut root = Root::EMPTY;
    let took = timed(|| root = apply(&reader, &mut appender, &Root::EMPTY, entries).unwrap());
    println!("map of 200,000 entries built in {:.0} ms", took.as_secs_f64() * 1e3);
    show(
        "map get",
        (0..20_000u32)
            .map(|n| {
                let key = format!("{:08}", n * 7919 % 200_000);
                timed(|| drop(reader.get(&root, key.as_bytes()).unwrap()))
            })
            .collect(),
    );
    show(
        "map apply of one edit",
        (0..1000u32)
            .map(|n| {
                let key = format!("{:08}", n * 7919 % 200_000).into_bytes();
                timed(|| {
                    root = apply(
                        &reader,
                        &mut appender,
                        &root,
                        [(key, Some(noise(u64::from(n) << 32, 40)))],
                    )
                    .unwrap();
                })
            })
            .collect(),
    );
    appender.save(b"", true).unwrap();
    println!("rss {} KiB, {:?}", rss_kib(), blobs.stats().unwrap());
    drop((appender, blobs, reader));
    let took = timed(|| drop(open(disk.clone(), &dir, keys.clone(), Options::default()).unwrap()));
    println!("open after a clean end {:.1} ms", took.as_secs_f64() * 1e3);
    std::fs::remove_file(dir.join("index.redb")).unwrap();
    let took = timed(|| {
        println!(
            "{:?}",
            open(disk.clone(), &dir, keys.clone(), Options::default()).unwrap().report
        );
    });
    println!("open without an index {:.1} ms", took.as_secs_f64() * 1e3);
    std::fs::remove_dir_all(dir).unwrap();
}
