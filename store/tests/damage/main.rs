//! Damage on the disk: what is noticed, what a repair brings back, and that nothing intact is lost.

#![allow(clippy::unwrap_used, reason = "tests")]

mod checkpoints;
mod headers;
mod interrupted;
mod repair;
mod scrub;
#[path = "../support/mod.rs"]
mod support;
mod unreadable;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairnfs_store::SaveKind;
use cairnfs_store::sim::SimDisk;
use cairnfs_store::{Appender, Blobs, Kind, Options, create};

use support::{DIR, keys, noise, small};

const SECTOR: u64 = 512;

/// Small packs, and no room kept in reserve.
fn options() -> Options {
    small(64 << 10, 0)
}

fn pack(number: u32) -> PathBuf {
    Path::new(DIR).join(format!("packs/{number:08}.pack"))
}

/// A store of so many saves, each with a blob: about seven of them in a pack.
fn store(saves: u64) -> SimDisk {
    opened(saves, 9_000, options()).0
}

/// The same, open still, with blobs of so many bytes.
fn opened(saves: u64, len: usize, options: Options) -> (SimDisk, Appender, Arc<Blobs>) {
    let disk = SimDisk::new(1);
    let (mut appender, blobs) =
        create(Arc::new(disk.clone()), Path::new(DIR), keys(), options).unwrap();
    for n in 0..saves {
        appender.put(Kind::Chunk, &noise(n, len)).unwrap();
        appender.save(&n.to_le_bytes(), SaveKind::checkpoint_if(n == 0)).unwrap();
    }
    (disk, appender, blobs)
}
