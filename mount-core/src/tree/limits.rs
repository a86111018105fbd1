//! How much a node may hold: what a version can hold, and a peer believes.
//!
//! A node is one value, whatever it holds; if it is long, a blob. One that no blob can hold would
//! keep everything else in the bucket from being published.

use cairnfs_merge::{
    Node,
    verify::{ATTRS_MAX as ATTRS_BELIEVED, LINKS_MAX as LINKS_BELIEVED},
};
use cairnfs_store::BLOB_BYTES_MAX;

use crate::tree::Data;

/// As many names as other file systems allow a file.
pub(crate) const LINKS_MAX: usize = 65_000;
/// Longest target of a symbolic link in bytes (`PATH_MAX`, without its NUL).
pub(crate) const TARGET_BYTES_MAX: u64 = 4095;
/// As many attributes, those of every file included.
const ATTRS_MAX: usize = 1_024;
// Several devices may each have given a file as many, before they met.
const _: () = assert!(4 * LINKS_MAX <= LINKS_BELIEVED && 4 * ATTRS_MAX <= ATTRS_BELIEVED);

/// A link takes no more than this in a node, in bytes: two names, two directories, who and when.
const LINK_BYTES_MAX: usize = 700;
/// Left free for what is no name and no attribute, and for what a merge adds, in bytes.
const SPARE_BYTES: usize = 1 << 20;

/// Whether a version can hold `node`.
pub(crate) fn fits(node: &Node<Data>) -> bool {
    let attrs = node.attrs.iter().flat_map(|(key, reg)| {
        reg.iter().map(|(_, value)| {
            key.as_bytes().len() + value.as_ref().map_or(0, |value| value.as_bytes().len())
        })
    });
    let room = BLOB_BYTES_MAX - SPARE_BYTES;
    let bytes_max = node.link_count() * LINK_BYTES_MAX + attrs.sum::<usize>();
    node.attrs.len() <= ATTRS_MAX && (bytes_max <= room || encoded_bytes(node) <= room)
}

fn encoded_bytes(node: &Node<Data>) -> usize {
    let size = postcard::ser_flavors::Size::default();
    postcard::serialize_with_flavor(node, size).expect("because nodes always encode")
}
