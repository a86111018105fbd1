//! Seals, packs, logs and finds blobs, and keeps the ordered Merkle map.
//!
//! The only crate that touches the disk and the keys. It knows bytes: no names, no inodes, no
//! peers.
//!
//! ```text
//!   Appender --- put, save --> log of packs --- index thread --> index.redb
//!      |                          |
//!      | (one, in the writer)     | pread
//!      v                          v
//!   one barrier per save       Blobs (shared by all) <-- MapReader <-- get, range, diff
//! ```
//!
//! # Invariants
//!
//! 1. When [`Appender::save`] has returned `Ok`, its payload and every blob put before it survive
//!    `kill -9` and a power cut.
//! 2. After a crash a save is there whole or not at all, and saves are there in their order
//!    without a gap.
//! 3. No byte is handed to a reader that is not what was put under that name.
//! 4. After one failed barrier, or a write that failed for another reason than a full disk,
//!    nothing more is written until the store is opened again.
//!
//! # Limitations
//!
//! - Somebody who can write to the directory can put back an older state of all of it; that is
//!   not noticed here.
//! - Kinds, lengths and times of blobs can be read without keys.

pub mod disk;
pub mod keys;
pub mod map;
pub mod order;
pub mod sim;

mod appender;
mod blobs;
mod bytes;
mod check;
#[doc(hidden)]
pub mod decoders;
mod error;
#[cfg(test)]
mod golden;
mod id;
mod index;
#[cfg(test)]
mod index_tests;
mod journal;
mod open;
mod reserve;
mod rotten;
#[cfg(test)]
mod rotten_tests;
mod seal;
mod sealed;

pub use appender::{Appender, Reclaimed, SaveKind, Surveyed};
pub use blobs::{Blobs, Stats};
pub use check::{CheckReport, Damage, LostEnd, Progress, Repaired, check, repair};
pub use error::{Error, Result};
pub use id::{BlobId, BlobRef, Kind, Seq};
pub use keys::{DeviceKey, DevicePublicKey, KeyRing, Secret};
pub use open::{LeftOut, Opened, Options, RecoveryReport, create, lock, open};
pub use rotten::Rot;
pub use seal::{BLOB_BYTES_MAX, Cipher};
pub use sealed::{CheckedBlob, SealedBlob};

/// A check against rot: the first 8 bytes of BLAKE3.
pub(crate) fn check8(bytes: &[u8]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(bytes).as_bytes();
    [a, b, c, d, e, f, g, h]
}

/// A check against rot: the first 16 bytes of BLAKE3.
pub(crate) fn check16(bytes: &[u8]) -> [u8; 16] {
    let hash = blake3::hash(bytes);
    let mut out = [0; 16];
    out.copy_from_slice(&hash.as_bytes()[..16]);
    out
}
