//! A whole state in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ascending;
use crate::ids::{NodeId, VersionVector};
use crate::node::Node;

/// What a peer knows: the operations it has seen, and the nodes they left.
///
/// Canonical: equal knowledge is an equal state, and equal states have equal bytes. A state read
/// from foreign bytes must pass [`verify::state`](crate::verify::state()) before anything is done with
/// it, and [`verify`](crate::verify) says what else before it is joined.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(bound(serialize = "B: Serialize", deserialize = "B: Ord + Deserialize<'de>"))]
pub struct State<B> {
    /// The operations seen.
    pub vv: VersionVector,
    /// The nodes alive.
    #[serde(with = "ascending")]
    pub nodes: BTreeMap<NodeId, Arc<Node<B>>>,
}

impl<B> Default for State<B> {
    fn default() -> Self {
        Self { vv: VersionVector::new(), nodes: BTreeMap::new() }
    }
}
