//! One node of a map, decoded and checked.
//!
//! ```text
//! version   1   1
//! level     1   0 for a leaf, at most 15
//! entries, ascending by key, at least one:
//!   shared  varint   bytes that the key shares with the key before it
//!   rest    varint   length of the rest of the key
//!   rest of the key
//!   leaf:   length of the value (varint), value
//!   else:   name of the child 32, length of its plaintext 4
//! ```
//!
//! Varints are LEB128 in their shortest form and `shared` is as long as it can be, so that a node
//! has one encoding.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::ops::Deref;
use std::sync::Arc;

use super::boundary::entry_bytes;
use crate::bytes::Reader;
use crate::{BlobId, BlobRef};

/// The longest key.
pub const KEY_BYTES_MAX: usize = 1024;
/// The longest value.
pub const VALUE_BYTES_MAX: usize = 32 << 10;
/// The highest level a root can have.
pub const LEVEL_MAX: u8 = 15;
/// The longest encoding of a node: one that is just not full, and one more entry.
pub const NODE_BYTES_MAX: usize = 128 << 10;
pub(super) const VERSION: u8 = 1;
/// A child's name and length.
pub(super) const CHILD_BYTES: usize = 36;

/// A node, decoded. What it holds was checked: order, bounds, lengths.
#[derive(Debug, PartialEq, Eq)]
pub struct MapNode {
    level: u8,
    /// All keys in full, one after another.
    keys: Vec<u8>,
    /// The node as it was stored; the values are read from here.
    plain: Arc<[u8]>,
    entries: Vec<Entry>,
    /// What the entries count for together.
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    key_start: u32,
    key_end: u32,
    value_start: u32,
    value_end: u32,
}

impl MapNode {
    /// Decodes and checks a node.
    ///
    /// # Errors
    ///
    /// Which rule of the format it breaks.
    pub fn decode(plain: Arc<[u8]>) -> Result<Self, &'static str> {
        if plain.len() > NODE_BYTES_MAX {
            return Err("too long");
        }
        let total = plain.len();
        let mut reader = Reader::new(&plain);
        if reader.u8() != Some(VERSION) {
            return Err("unknown version");
        }
        let level = reader.u8().filter(|&level| level <= LEVEL_MAX).ok_or("level")?;
        let mut keys = Vec::with_capacity(total);
        let mut entries = Vec::new();
        let mut bytes = 0usize;
        let mut last = 0..0;
        while !reader.rest().is_empty() {
            let key_start = keys.len();
            read_key(&mut reader, &mut keys, last.clone(), entries.is_empty())?;
            let key = keys.get(key_start..).unwrap_or_default();
            let value_len = if level > 0 {
                CHILD_BYTES
            } else {
                let len = reader.varint().ok_or("value length")?;
                usize::try_from(len)
                    .ok()
                    .filter(|&len| len <= VALUE_BYTES_MAX)
                    .ok_or("long value")?
            };
            let value_start = total.saturating_sub(reader.rest().len());
            let value = reader.take(value_len).ok_or("cut short")?;
            bytes = bytes.saturating_add(entry_bytes(key, value));
            last = key_start..keys.len();
            entries.push(Entry {
                key_start: offset(key_start)?,
                key_end: offset(keys.len())?,
                value_start: offset(value_start)?,
                value_end: offset(value_start.saturating_add(value_len))?,
            });
        }
        if entries.is_empty() {
            return Err("no entries");
        }
        keys.shrink_to_fit();
        Ok(Self { level, keys, plain, entries, bytes })
    }

    /// 0 for a leaf.
    #[must_use]
    pub const fn level(&self) -> u8 {
        self.level
    }

    /// How many entries there are; at least one.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "no node is empty")]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// The key of an entry.
    ///
    /// # Panics
    ///
    /// If there is no such entry.
    #[must_use]
    pub fn key(&self, index: usize) -> &[u8] {
        let entry = self.entry(index);
        self.keys
            .get(entry.key_start as usize..entry.key_end as usize)
            .expect("because decoding made the bounds")
    }

    /// The value of an entry; in a node above the leaves its child, see [`Self::child`].
    ///
    /// # Panics
    ///
    /// If there is no such entry.
    #[must_use]
    pub fn value(&self, index: usize) -> &[u8] {
        let entry = self.entry(index);
        self.plain
            .get(entry.value_start as usize..entry.value_end as usize)
            .expect("because decoding made the bounds")
    }

    /// The child of an entry; `None` in a leaf.
    ///
    /// # Panics
    ///
    /// If there is no such entry.
    #[must_use]
    pub fn child(&self, index: usize) -> Option<BlobRef> {
        if self.level == 0 {
            return None;
        }
        let mut reader = Reader::new(self.value(index));
        Some(BlobRef { id: BlobId(reader.array()?), len: reader.u32()? })
    }

    /// The index of an entry with this key, or the index it would have.
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| {
            self.keys
                .get(entry.key_start as usize..entry.key_end as usize)
                .unwrap_or_default()
                .cmp(key)
        })
    }

    /// What the entries count for together, as boundaries are decided.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Memory taken, roughly.
    pub(super) fn weight(&self) -> u64 {
        let entries = self.entries.len().saturating_mul(size_of::<Entry>());
        let bytes = self.keys.len().saturating_add(self.plain.len()).saturating_add(entries);
        (bytes as u64).saturating_add(128)
    }

    fn entry(&self, index: usize) -> Entry {
        *self.entries.get(index).expect("because callers stay below `len`")
    }
}

/// Appends the next key in full to `keys`, where the one before it lies at `last`.
fn read_key(
    reader: &mut Reader<'_>,
    keys: &mut Vec<u8>,
    last: std::ops::Range<usize>,
    first: bool,
) -> Result<(), &'static str> {
    let shared = reader.varint().and_then(|len| usize::try_from(len).ok()).ok_or("key length")?;
    let rest = reader.varint().and_then(|len| usize::try_from(len).ok()).ok_or("key length")?;
    let rest = reader.take(rest).ok_or("cut short")?;
    if shared > last.len() || shared.saturating_add(rest.len()) > KEY_BYTES_MAX {
        return Err("key length");
    }
    let key_start = keys.len();
    let split = last.start.saturating_add(shared);
    keys.extend_from_within(last.start..split);
    keys.extend_from_slice(rest);
    let before = keys.get(split..last.end).unwrap_or_default();
    // The shared part is as long as it can be, so the first bytes that differ decide the order.
    let ascending = match (before.first(), rest.first()) {
        (None, Some(_)) => true,
        (Some(before), Some(after)) => before < after,
        (_, None) => first,
    };
    debug_assert!(key_start <= keys.len(), "keys only grow");
    if ascending { Ok(()) } else { Err("keys are not ascending") }
}

fn offset(at: usize) -> Result<u32, &'static str> {
    u32::try_from(at).map_err(|_beyond| "too long")
}

/// Bytes of a node, shared with it: cheap to clone, never copied.
#[derive(Clone)]
pub struct Slice {
    node: Arc<MapNode>,
    index: u32,
    part: Part,
}

#[derive(Clone, Copy)]
enum Part {
    Key,
    Value,
}

impl Slice {
    pub(super) fn key(node: &Arc<MapNode>, index: usize) -> Self {
        Self { node: Arc::clone(node), index: crate::bytes::len32(index), part: Part::Key }
    }

    pub(super) fn value(node: &Arc<MapNode>, index: usize) -> Self {
        Self { node: Arc::clone(node), index: crate::bytes::len32(index), part: Part::Value }
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self.part {
            Part::Key => self.node.key(self.index as usize),
            Part::Value => self.node.value(self.index as usize),
        }
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for Slice {
    /// Keys and values are secrets: only the length is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slice({} bytes)", self.len())
    }
}
