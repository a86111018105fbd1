//! Makes the nodes of one level out of a stream of entries.

use super::boundary::{FULL_BYTES, entry_bytes};
use super::node::VERSION;
use crate::bytes::{len32, put_varint};

/// One node on its way.
#[derive(Debug)]
pub(super) struct NodeWriter {
    level: u8,
    out: Vec<u8>,
    first_key: Vec<u8>,
    last_key: Vec<u8>,
    bytes: usize,
}

/// A node, encoded.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) first_key: Vec<u8>,
    pub(super) plain: Vec<u8>,
}

impl NodeWriter {
    pub(super) const fn new(level: u8) -> Self {
        Self { level, out: Vec::new(), first_key: Vec::new(), last_key: Vec::new(), bytes: 0 }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether the next entry begins another node for no other reason than length.
    pub(super) const fn is_full(&self) -> bool {
        self.bytes >= FULL_BYTES
    }

    /// Adds an entry, whose key is greater than the last one's.
    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) {
        if self.is_empty() {
            self.out.extend_from_slice(&[VERSION, self.level]);
            self.first_key.extend_from_slice(key);
        }
        debug_assert!(self.is_empty() || self.last_key.as_slice() < key, "ascending");
        let shared = self.last_key.iter().zip(key).take_while(|(a, b)| a == b).count();
        put_varint(&mut self.out, len32(shared));
        put_varint(&mut self.out, len32(key.len() - shared));
        self.out.extend_from_slice(&key[shared..]);
        if self.level == 0 {
            put_varint(&mut self.out, len32(value.len()));
        }
        self.out.extend_from_slice(value);
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(&key[shared..]);
        self.bytes += entry_bytes(key, value);
    }

    /// The node so far; the writer is empty then. `None` if it was.
    pub(super) fn take(&mut self) -> Option<Encoded> {
        if self.is_empty() {
            return None;
        }
        self.bytes = 0;
        self.last_key.clear();
        Some(Encoded {
            first_key: std::mem::take(&mut self.first_key),
            plain: std::mem::take(&mut self.out),
        })
    }
}
