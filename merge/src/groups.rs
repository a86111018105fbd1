//! United directories: all directories of one name in one directory are one.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::NodeId;
use crate::name::Name;
use crate::tree::{Tree, spots_in};

/// Finds with which others a directory is united, and remembers it.
pub(crate) struct Groups<'t, T> {
    tree: &'t T,
    known: BTreeMap<NodeId, Vec<NodeId>>,
}

impl<'t, T> Groups<'t, T> {
    pub(crate) fn new(tree: &'t T) -> Self {
        Self { tree, known: BTreeMap::from([(NodeId::Root, vec![NodeId::Root])]) }
    }

    /// The directories united with `dir`, itself included, sorted. One that is gone is alone.
    ///
    /// Costs one index read per level that is not known yet.
    pub(crate) fn of<B>(&mut self, dir: &NodeId) -> Result<Vec<NodeId>, T::Error>
    where
        T: Tree<B>,
    {
        let mut chain: Vec<(NodeId, Name)> = Vec::new();
        let mut passed = BTreeSet::new();
        let mut at = *dir;
        while !self.known.contains_key(&at) && passed.insert(at) {
            let Some(spot) = spots_in(self.tree, &at)?.into_iter().next() else { break };
            chain.push((at, spot.name));
            at = spot.parent;
        }
        let mut group = self.known.get(&at).cloned().unwrap_or_else(|| vec![at]);
        for (id, name) in chain.into_iter().rev() {
            group = dirs_named(self.tree, &group, &name)?;
            self.known.insert(id, group.clone());
        }
        Ok(group)
    }
}

/// The directories that are shown as one with `dir`, itself included, sorted. One that is gone is
/// alone.
///
/// Costs one index read per level.
///
/// # Errors
///
/// Whatever `tree` answers.
pub fn united<B, T: Tree<B>>(tree: &T, dir: &NodeId) -> Result<Vec<NodeId>, T::Error> {
    Groups::new(tree).of(dir)
}

/// The directories under `name` in the united directories `dirs`, sorted.
pub(crate) fn dirs_named<B, T: Tree<B>>(
    tree: &T,
    dirs: &[NodeId],
    name: &Name,
) -> Result<Vec<NodeId>, T::Error> {
    let claimants = claimants(tree, dirs, name)?.into_iter();
    Ok(claimants.filter(|(_, is_dir)| *is_dir).map(|(id, _)| id).collect())
}

/// All nodes under `name` in the united directories `dirs`, sorted, each once, and whether they
/// are directories.
pub(crate) fn claimants<B, T: Tree<B>>(
    tree: &T,
    dirs: &[NodeId],
    name: &Name,
) -> Result<Vec<(NodeId, bool)>, T::Error> {
    let mut found = Vec::new();
    for dir in dirs {
        found.extend(tree.named(dir, name)?.into_iter().map(|(id, kind)| (id, kind.is_dir())));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
