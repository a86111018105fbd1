//! What the changes since the last version take of memory: an estimate, as cheap as a change itself.

use std::sync::Arc;

use cairnfs_merge::Node;

use super::{Data, Layer, contents};

/// What a changed node takes without names and attributes, with its places in the lists of what is
/// changed, unsaved and known to the kernel.
const NODE_BYTES: u64 = 512;
/// A name in a node, its directory and where it was before.
const LINK_BYTES: u64 = 256;
/// Of more names than this a node shares most with what it was before the change
/// ([`SmallMap`](cairnfs_merge::SmallMap)).
const LINKS_OWN_MAX: u64 = 64;
/// An attribute without key and value.
const ATTR_BYTES: u64 = 80;
/// An entry of the indexes.
const ENTRY_BYTES: u64 = 160;

impl Layer {
    /// The memory that its nodes take, in bytes. Costs a look at each.
    pub(super) fn node_bytes(&self) -> u64 {
        self.nodes.values().map(node_bytes).sum()
    }

    /// The memory that its indexes take, in bytes.
    pub(super) fn index_bytes(&self) -> u64 {
        let index = &self.index;
        let entries = index.children.len() + index.contested.len() + index.displaced.len();
        entries as u64 * ENTRY_BYTES
    }
}

/// The memory that a changed node takes, or that it is gone.
pub(super) fn node_bytes(node: &Option<Arc<Node<Data>>>) -> u64 {
    let Some(node) = node else { return NODE_BYTES };
    let attrs = node.attrs.iter().map(|(key, reg)| {
        let values = reg.iter().filter_map(|(_, value)| value.as_ref());
        let bytes = values.map(|value| value.as_bytes().len()).sum::<usize>();
        ATTR_BYTES + (key.as_bytes().len() + bytes) as u64
    });
    let inline = contents(node).map(|content| match &content.body {
        Data::Inline(bytes) => bytes.len() as u64,
        Data::Chunk(_) | Data::Map { .. } | Data::Device(_) => 0,
    });
    let links = LINKS_OWN_MAX.min(node.link_count() as u64) * LINK_BYTES;
    NODE_BYTES + links + attrs.sum::<u64>() + inline.sum::<u64>()
}
