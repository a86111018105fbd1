//! What the tests of a store on a simulated disk have in common.

#![allow(dead_code, reason = "no test program uses all of it")]

use cairnfs_store::{KeyRing, Options, Secret};

pub(crate) const DIR: &str = "/bucket";

pub(crate) fn keys() -> KeyRing {
    KeyRing::new([(0, Secret::new([5; 32]))]).unwrap()
}

/// A store of small packs, without a thread of its own: what it does is the same every time.
pub(crate) fn small(pack_bytes: u64, reserve_bytes: u64) -> Options {
    Options { pack_bytes, reserve_bytes, index_thread: false, ..Options::default() }
}

/// Bytes that do not compress, the same for one seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}
