//! The ordered Merkle map: key to value, both bytes, stored as blobs.
//!
//! A node holds entries in ascending order of their keys; the leaves hold the values, the nodes
//! above hold, under the first key of each child, the reference to it. Which entries begin a new
//! node is decided by a keyed hash of the key (and the entry's length), as in Merkle search trees
//! (Auvolat, Taiani, SRDS 2019) and prolly trees; see [`MapNode`] for the bytes.
//!
//! # Invariants
//!
//! 1. The shape depends on the content only: equal content has equal roots, whatever the order
//!    of the edits.
//! 2. Changing k keys writes O(k log n) nodes, and reads as many.
//! 3. A diff reads only nodes that are not in both maps, and those above them.
//! 4. Nothing in a stored node is believed: order, bounds, level and the place under its parent
//!    are checked, so a walk is never deeper than [`LEVEL_MAX`].
//!
//! # Limitations
//!
//! A node that breaks no rule of the format, but has its boundaries elsewhere, is accepted: a
//! peer with the keys can make a map whose root differs from ours for the same content.

mod apply;
mod boundary;
mod cursor;
mod diff;
mod node;
mod range;
mod reader;
mod walk;
mod writer;

pub use apply::{Edit, apply};
pub use diff::{Change, Diff};
pub use node::{KEY_BYTES_MAX, LEVEL_MAX, MapNode, NODE_BYTES_MAX, Slice, VALUE_BYTES_MAX};
pub use range::Range;
pub use reader::MapReader;

use serde::{Deserialize, Serialize};

use crate::BlobRef;

/// A map, by its root node; `None` is the empty one. Equal roots are equal maps.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Root(pub Option<BlobRef>);

impl Root {
    /// The map without entries.
    pub const EMPTY: Self = Self(None);
}
