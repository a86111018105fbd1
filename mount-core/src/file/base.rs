//! Sealed content: where a file's bytes lie when nothing is dirty.

use cairnfs_store::{BlobRef, map::Root};
use serde::{Deserialize, Serialize};

use crate::{Result, vault::Vault};

/// Longest content kept inside the node itself, in bytes.
pub(crate) const INLINE_BYTES_MAX: u64 = 2048;

/// The body of a content value, as it stands in the tree.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) enum Data {
    /// A short file, or the target of a symbolic link.
    Inline(#[serde(with = "serde_bytes")] Vec<u8>),
    /// One chunk holds it all.
    Chunk(BlobRef),
    /// A map from offset to chunk; what no chunk covers is a hole.
    Map {
        root: Root,
        /// Sum of the chunks' lengths in bytes.
        stored_bytes: u64,
    },
    /// The number of a character or block device.
    Device(u32),
}

impl Data {
    pub(crate) const EMPTY: Self = Self::Inline(Vec::new());

    /// Bytes that are not in holes.
    pub(crate) fn stored_bytes(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Chunk(chunk) => u64::from(chunk.len),
            Self::Map { stored_bytes, .. } => *stored_bytes,
            Self::Device(_) => 0,
        }
    }
}

/// One chunk in its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Extent {
    pub(crate) start: u64,
    pub(crate) blob: BlobRef,
}

impl Extent {
    pub(crate) fn end(&self) -> u64 {
        self.start + u64::from(self.blob.len)
    }
}

/// Sealed content under dirty pieces: what lies beyond `visible` was cut off since.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Base {
    pub(crate) data: Data,
    /// Length of the sealed content in bytes.
    pub(crate) sealed_len: u64,
    /// How much of it may still be seen: at most `sealed_len`.
    pub(crate) visible: u64,
}

impl Base {
    pub(crate) fn new(data: Data, len: u64) -> Self {
        Self { data, sealed_len: len, visible: len }
    }

    pub(crate) fn empty() -> Self {
        Self::new(Data::EMPTY, 0)
    }

    /// The bytes, if they lie in the node.
    pub(crate) fn inline(&self) -> Option<&[u8]> {
        match &self.data {
            Data::Inline(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The first chunk that starts below `visible` and ends after `pos`.
    pub(crate) fn chunk_after(&self, vault: &Vault, pos: u64) -> Result<Option<Extent>> {
        if pos >= self.visible {
            return Ok(None);
        }
        let found = match &self.data {
            Data::Inline(_) | Data::Device(_) => None,
            Data::Chunk(blob) => Some(Extent { start: 0, blob: *blob }),
            Data::Map { root, .. } => vault.extent_after(*root, pos)?,
        };
        Ok(found.filter(|extent| extent.start < self.visible && extent.end() > pos))
    }

    /// The first range of sealed bytes at or after `pos`, within what is visible.
    pub(crate) fn data_after(&self, vault: &Vault, pos: u64) -> Result<Option<(u64, u64)>> {
        if pos >= self.visible {
            return Ok(None);
        }
        if self.inline().is_some() {
            return Ok(Some((pos, self.visible)));
        }
        let chunk = self.chunk_after(vault, pos)?;
        Ok(chunk.map(|extent| (extent.start.max(pos), extent.end().min(self.visible))))
    }
}
