//! Where nodes begin.

use crate::keys::KeyRing;

use super::node::LEVEL_MAX;

/// Mean length of a node's entries, before prefixes are shared and before compression. A node
/// that a random entry lies in is twice as long, since the distances are geometric.
const TARGET_BYTES: u64 = 4096;
/// What an entry costs besides key and value.
const ENTRY_OVERHEAD: usize = 8;
/// A node that has got this long ends, boundary or not. By chance it never does; somebody who
/// holds the key could make it happen.
pub(super) const FULL_BYTES: usize = 64 << 10;

/// Decides, by a keyed hash of the keys, which entries begin a node.
///
/// A long entry is a boundary more often than a short one, in proportion: so nodes have the same
/// mean length whatever is in them, and still nothing but the entry itself decides.
#[derive(Clone, Debug)]
pub(super) struct Boundary {
    key: crate::Secret,
}

impl Boundary {
    pub(super) fn new(keys: &KeyRing) -> Self {
        Self { key: keys.derive("map boundary") }
    }

    /// Whether this entry begins a node of this level, unless it is the first of the map.
    pub(super) fn begins_node(&self, level: u8, key: &[u8], entry_bytes: usize) -> bool {
        let mut words = [0; 64];
        blake3::Hasher::new_keyed(self.key.expose()).update(key).finalize_xof().fill(&mut words);
        // One word of the hash per level: what begins a leaf says nothing of the level above.
        let (words, _rest) = words.as_chunks::<4>();
        let word = u32::from_le_bytes(words[usize::from(level.min(LEVEL_MAX))]);
        u64::from(word) < (entry_bytes as u64 * (1 << 32)) / TARGET_BYTES
    }
}

/// What an entry counts for in its node's length.
pub(super) const fn entry_bytes(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + ENTRY_OVERHEAD
}
