//! Reading maps, through a cache of decoded nodes.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::boundary::Boundary;
use super::cursor::{Cursor, Pick};
use super::node::{MapNode, NODE_BYTES_MAX, Slice};
use super::{Diff, Range, Root};
use crate::{BlobId, BlobRef, Blobs, Error, Result};

/// Reads any number of maps of one bucket, from any thread. Clones share the cache.
#[derive(Clone)]
pub struct MapReader {
    shared: Arc<Shared>,
}

struct Shared {
    blobs: Arc<Blobs>,
    boundary: Boundary,
    cache: Cache<BlobId, Arc<MapNode>, Weight>,
    /// Nodes that were not in the cache. A count for people: it orders nothing.
    reads: AtomicU64,
}

#[derive(Clone)]
struct Weight;

impl Weighter<BlobId, Arc<MapNode>> for Weight {
    fn weight(&self, _id: &BlobId, node: &Arc<MapNode>) -> u64 {
        node.weight()
    }
}

impl std::fmt::Debug for MapReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MapReader").field("cached_bytes", &self.cached_bytes()).finish()
    }
}

impl MapReader {
    /// A reader whose cache holds at most about `cache_bytes` of decoded nodes.
    #[must_use]
    pub fn new(blobs: Arc<Blobs>, cache_bytes: u64) -> Self {
        let boundary = Boundary::new(blobs.keys());
        let items = usize::try_from(cache_bytes / (8 << 10)).unwrap_or(usize::MAX).max(16);
        let cache = Cache::with_weighter(items, cache_bytes, Weight);
        Self { shared: Arc::new(Shared { blobs, boundary, cache, reads: AtomicU64::new(0) }) }
    }

    /// Bytes in the cache now.
    #[must_use]
    pub fn cached_bytes(&self) -> u64 {
        self.shared.cache.weight()
    }

    /// Nodes that had to be read from the store so far.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.shared.reads.load(Ordering::Relaxed)
    }

    /// The blobs beneath.
    #[must_use]
    pub fn blobs(&self) -> &Arc<Blobs> {
        &self.shared.blobs
    }

    /// One node, checked.
    ///
    /// # Errors
    ///
    /// As [`Blobs::get`]; [`Error::BadNode`] if it breaks the format.
    pub fn load(&self, node: &BlobRef) -> Result<Arc<MapNode>> {
        if let Some(found) = self.shared.cache.get(&node.id) {
            return Ok(found);
        }
        if node.len as usize > NODE_BYTES_MAX {
            return Err(Error::BadNode { id: node.id, reason: "too long" });
        }
        self.shared.reads.fetch_add(1, Ordering::Relaxed);
        let plain = self.shared.blobs.get(node)?;
        self.keep(node, plain)
    }

    /// Decodes a node and puts it into the cache.
    pub(super) fn keep(&self, node: &BlobRef, plain: Arc<[u8]>) -> Result<Arc<MapNode>> {
        let decoded =
            MapNode::decode(plain).map_err(|reason| Error::BadNode { id: node.id, reason })?;
        let decoded = Arc::new(decoded);
        self.shared.cache.insert(node.id, Arc::clone(&decoded));
        Ok(decoded)
    }

    pub(super) fn boundary(&self) -> &Boundary {
        &self.shared.boundary
    }

    /// The value under `key`. Costs one node per level, from the cache where they are there.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn get(&self, root: &Root, key: &[u8]) -> Result<Option<Slice>> {
        let found = self.floor(root, key)?;
        Ok(found.filter(|(at, _)| **at == *key).map(|(_, value)| value))
    }

    /// The entry with the greatest key that is at most `key`.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn floor(&self, root: &Root, key: &[u8]) -> Result<Option<(Slice, Slice)>> {
        let cursor = Cursor::open(self, root, 0, Pick::Floor(key))?;
        Ok(cursor.item().filter(|(at, _)| **at <= *key))
    }

    /// The entries from `from` to `to`, ascending. Reads as it goes.
    #[must_use]
    pub fn range(&self, root: &Root, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Range {
        Range::new(self.clone(), *root, from, to)
    }

    /// The entries whose keys begin with `prefix`, ascending.
    #[must_use]
    pub fn prefix(&self, root: &Root, prefix: &[u8]) -> Range {
        // The next key after all of them: the prefix with its last byte that is not 255 raised.
        let mut after = prefix.to_vec();
        while after.last() == Some(&0xff) {
            after.pop();
        }
        let to = match after.last_mut() {
            Some(last) => {
                *last += 1;
                Bound::Excluded(after.as_slice())
            }
            None => Bound::Unbounded,
        };
        self.range(root, Bound::Included(prefix), to)
    }

    /// Whether the node `node` is a part of the map `root` where it would have `level`, begin with the
    /// key `first` and end before the key `end`, if there is one. Of the root it says no. Costs one node
    /// per level above it.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn holds(
        &self,
        root: &Root,
        node: &BlobRef,
        (level, first): (u8, &[u8]),
        end: Option<&[u8]>,
    ) -> Result<bool> {
        let Some(mut at) = root.0 else { return Ok(false) };
        // All below it is less.
        let mut limit: Option<Vec<u8>> = None;
        loop {
            let loaded = self.load(&at)?;
            if loaded.level() <= level {
                return Ok(false);
            }
            let behind = (0..loaded.len()).find(|&index| loaded.key(index) > first);
            let Some(index) = behind.unwrap_or(loaded.len()).checked_sub(1) else {
                return Ok(false);
            };
            let Some(child) = loaded.child(index) else { return Ok(false) };
            limit = behind.map(|behind| loaded.key(behind).to_vec()).or(limit);
            if loaded.level() - 1 == level {
                let ends = end.is_none_or(|end| limit.is_some_and(|limit| *limit <= *end));
                return Ok(child == *node && loaded.key(index) == first && ends);
            }
            at = child;
        }
    }

    /// What differs from `old` to `new`, ascending by key. Reads only nodes that are not in both.
    #[must_use]
    pub fn diff(&self, old: &Root, new: &Root) -> Diff {
        Diff::new(self, *old, *new)
    }
}
