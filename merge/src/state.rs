//! A whole state in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::ids::{NodeId, VersionVector};
use crate::node::Node;

/// What a peer knows: the operations it has seen, and the nodes they left.
///
/// Canonical: equal knowledge is an equal state, and equal states have equal bytes. A state read
/// from foreign bytes must pass `verify::state` before it is joined.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(bound(deserialize = "B: Ord + Deserialize<'de>"))]
pub struct State<B> {
    /// The operations seen.
    pub vv: VersionVector,
    /// The nodes alive.
    #[serde(deserialize_with = "ascending")]
    pub nodes: BTreeMap<NodeId, Arc<Node<B>>>,
}

impl<B> Default for State<B> {
    fn default() -> Self {
        Self { vv: VersionVector::new(), nodes: BTreeMap::new() }
    }
}

type Nodes<B> = BTreeMap<NodeId, Arc<Node<B>>>;

/// Reads nodes in the order of their ids, each once.
fn ascending<'de, B, D>(deserializer: D) -> Result<Nodes<B>, D::Error>
where
    B: Ord + Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Ascending<B>(PhantomData<B>);

    impl<'de, B: Ord + Deserialize<'de>> Visitor<'de> for Ascending<B> {
        type Value = Nodes<B>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("nodes, sorted, each once")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Nodes<B>, M::Error> {
            let mut nodes = Nodes::new();
            while let Some((id, node)) = map.next_entry()? {
                if nodes.last_key_value().is_some_and(|(last, _)| *last >= id) {
                    return Err(M::Error::custom("a node is out of order or there twice"));
                }
                nodes.insert(id, node);
            }
            Ok(nodes)
        }
    }

    deserializer.deserialize_map(Ascending(PhantomData))
}
