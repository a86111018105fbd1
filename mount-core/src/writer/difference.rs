//! In what a version of a peer's differs from our own, and whether that can stand beside what is here.
//!
//! Each node by itself was checked when it was fetched; here it is held against ours.

use std::collections::BTreeMap;

use cairnfs_merge::{IndexEdits, Node, NodeEdits, NodeId, derive, verify};

use crate::{
    Result,
    fetch::{distrust, rejected},
    file::Data,
    tree::{BaseTree, Layer, keys, map_edits},
};

/// What differs between our version and theirs.
pub(super) struct Difference {
    pub(super) nodes: Vec<cairnfs_merge::Differing<Data>>,
    /// The entries of the indexes.
    others: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Difference {
    pub(super) fn none() -> Self {
        Self { nodes: Vec::new(), others: BTreeMap::new() }
    }

    pub(super) fn edits(&self) -> NodeEdits<Data> {
        self.nodes.iter().map(|(id, _, theirs)| (*id, theirs.clone())).collect()
    }

    /// That their nodes can be joined with ours, and with what is changed here meanwhile. Each by
    /// itself was checked when it was fetched.
    pub(super) fn verify_nodes(&self) -> Result<()> {
        for (id, ours, theirs) in &self.nodes {
            let Some(theirs) = theirs else { continue };
            must_be_joinable(id, ours.as_deref(), theirs)?;
        }
        Ok(())
    }

    /// That their indexes are those of their nodes: given that ours are, what differs must be what
    /// follows from the nodes that differ.
    pub(super) fn verify_indexes(&self, base: &BaseTree) -> Result<IndexEdits> {
        let index = derive(base, &self.edits())?;
        let layer = Layer { nodes: NodeEdits::new(), index };
        let expected = map_edits(&layer, |_| Err(rejected("a node among the indexes")))?;
        let wrong = || rejected("its indexes are not those of its nodes");
        for (key, value) in &expected {
            let is_there = match self.others.get(key) {
                Some(theirs) => theirs == value,
                None => base.vault.get(base.root, key)?.as_deref() == value.as_deref(),
            };
            if !is_there {
                return Err(wrong());
            }
        }
        if self.others.keys().any(|key| !expected.contains_key(key)) {
            return Err(wrong());
        }
        Ok(layer.index)
    }
}

/// That a node can be joined with ours, and with what is changed here meanwhile.
pub(super) fn must_be_joinable(
    id: &NodeId,
    ours: Option<&Node<Data>>,
    node: &Node<Data>,
) -> Result<()> {
    verify::joinable(id, ours, node).map_err(|reject| rejected(&reject.to_string()))
}

/// Every entry in which two trees differ.
pub(super) fn difference(ours: &BaseTree, theirs: &BaseTree) -> Result<Difference> {
    let nodes = keys::all_nodes();
    let mut difference = Difference::none();
    for change in ours.vault.maps().diff(&ours.root, &theirs.root) {
        let change = change?;
        if !change.key.starts_with(&nodes) {
            difference.others.insert(change.key.to_vec(), change.new.map(|value| value.to_vec()));
            continue;
        }
        let id = keys::parse_only_node(&change.key);
        let id = id.ok_or_else(|| rejected("a key of the tree makes no sense"))?;
        let was = change.old.as_deref().map(|value| ours.decode(value)).transpose()?;
        let is = change.new.as_deref().map(|value| theirs.decode(value)).transpose();
        difference.nodes.push((id, was, is.map_err(distrust)?));
    }
    Ok(difference)
}
