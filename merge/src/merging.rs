//! Merging two trees: the join, and the one rule that makes an operation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::derive::derive;
use crate::edit::Edit;
use crate::ids::{ClockExhausted, DeviceId, NodeId, OpId, VersionVector};
use crate::join::{Joiner, differing};
use crate::memory::Indexed;
use crate::node::{Body, Carry, Node, Place};
use crate::overlay::{NodeEdits, Overlay};
use crate::reg::Reg;
use crate::tree::{Found, IndexEdits, Tree, spots_in};
use crate::versions::versions;

/// Why two trees could not be merged; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError<E: std::error::Error + 'static> {
    /// One of the trees could not be read.
    #[error("a tree cannot be read")]
    Tree(#[source] E),
    /// Something has to be restored, and the clock has no time left for it.
    #[error(transparent)]
    Clock(#[from] ClockExhausted),
}

/// One side of a merge.
#[derive(Debug)]
pub struct Side<'a, T> {
    /// Its tree.
    pub tree: &'a T,
    /// What it knows.
    pub vv: &'a VersionVector,
}

impl<T> Clone for Side<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Side<'_, T> {}

/// What a merge changes on our side.
#[derive(Clone, Debug)]
pub struct Merged<B> {
    /// Changed nodes.
    pub nodes: NodeEdits<B>,
    /// The index edits that belong to them.
    pub index: IndexEdits,
    /// What the result knows.
    pub vv: VersionVector,
    /// The operation of the restore rule, and what it brought back.
    pub restored: Option<(OpId, Vec<NodeId>)>,
}

/// One node in which two trees differ.
pub type Differing<B> = (NodeId, Found<B>, Found<B>);

/// Merges `theirs` into `ours`, given the nodes in which they differ, in any order: each id under
/// which the two do not have the same node, with what each has.
///
/// **The restore rule.** If one side removed a directory that the other side meanwhile moved, the
/// directory survives, but what was removed with it would not. The merging peer brings it back
/// under one new operation. Two peers that do so write equal values, which is no conflict.
///
/// `device` is who makes an operation should the restore rule need one. Loads what is passed in,
/// and for the indexes what hangs on it; nothing in proportion to the trees.
///
/// # Errors
///
/// [`MergeError::Tree`] if a read fails, [`MergeError::Clock`] if the clock is exhausted.
pub fn merge<B: Body, O: Tree<B>, T: Tree<B, Error = O::Error>>(
    ours: Side<'_, O>,
    theirs: Side<'_, T>,
    differing: impl IntoIterator<Item = Result<Differing<B>, O::Error>>,
    device: DeviceId,
) -> Result<Merged<B>, MergeError<O::Error>> {
    let joiner = Joiner::new(ours.vv.clone(), theirs.vv.clone());
    let mut nodes = NodeEdits::new();
    let (mut lost_here, mut lost_there) = (Lost::default(), Lost::default());
    for item in differing {
        let (id, a, b) = item.map_err(MergeError::Tree)?;
        let joined = joiner.node(a.as_deref(), b.as_deref()).map(Arc::new);
        lost_here.note(id, a.as_deref(), b.as_deref(), joined.is_some(), ours.vv);
        lost_there.note(id, b.as_deref(), a.as_deref(), joined.is_some(), theirs.vv);
        if joined != a {
            nodes.insert(id, joined);
        }
    }
    let index = derive(ours.tree, &nodes).map_err(MergeError::Tree)?;
    let mut merged = Merged { nodes, index, vv: joiner.vv(), restored: None };
    let mut back = lost_here.to_restore(theirs.tree).map_err(MergeError::Tree)?;
    back.extend(lost_there.to_restore(ours.tree).map_err(MergeError::Tree)?);
    if !back.is_empty() {
        restore(ours.tree, &mut merged, back, device)?;
    }
    Ok(merged)
}

/// What one side removed while the other side kept it.
#[derive(Default)]
struct Lost {
    /// Directories that it removed and the other moved: they survive.
    rescued: BTreeSet<NodeId>,
    /// Nodes that it removed and that stay removed.
    gone: BTreeSet<NodeId>,
}

impl Lost {
    fn note<B>(
        &mut self,
        id: NodeId,
        remover: Option<&Node<B>>,
        keeper: Option<&Node<B>>,
        survives: bool,
        remover_knows: &VersionVector,
    ) {
        let Some(kept) = keeper else { return };
        if remover.is_none() && !survives {
            self.gone.insert(id);
        }
        // A weak one was removed too, and only others' work below keeps it there.
        let removed = remover.is_none_or(Node::is_weak) && kept.kind.is_dir();
        if removed && survives && id.born().is_some_and(|op| remover_knows.knows(&op)) {
            let mut moves = kept.places.values().flat_map(Reg::ops);
            if moves.any(|op| !remover_knows.knows(op)) {
                self.rescued.insert(id);
            }
        }
    }

    /// The removed nodes that were below a rescued directory, as `keeper` shows them.
    fn to_restore<B: Body, T: Tree<B>>(
        &self,
        keeper: &T,
    ) -> Result<BTreeMap<NodeId, Node<B>>, T::Error> {
        let mut back = BTreeMap::new();
        if self.rescued.is_empty() {
            return Ok(back);
        }
        for id in &self.gone {
            if self.hangs_on_rescued(keeper, id)?
                && let Some(node) = keeper.node(id)?
            {
                let mut node = Arc::unwrap_or_clone(node);
                for spot in spots_in(keeper, id)? {
                    // The operation is filled in when it is known.
                    let place = Place::new(spot.parent, spot.name);
                    node.places.insert(spot.link, Reg::one(NOBODY, place));
                }
                back.insert(*id, node);
            }
        }
        Ok(back)
    }

    fn hangs_on_rescued<B, T: Tree<B>>(&self, keeper: &T, id: &NodeId) -> Result<bool, T::Error> {
        let mut todo = vec![*id];
        let mut seen = BTreeSet::new();
        while let Some(at) = todo.pop() {
            for spot in spots_in(keeper, &at)? {
                if self.rescued.contains(&spot.parent) {
                    return Ok(true);
                }
                if seen.insert(spot.parent) {
                    todo.push(spot.parent);
                }
            }
        }
        Ok(false)
    }
}

const NOBODY: OpId = OpId { lamport: 0, device: DeviceId([0; 16]) };

fn restore<B: Body, T: Tree<B>>(
    ours: &T,
    merged: &mut Merged<B>,
    back: BTreeMap<NodeId, Node<B>>,
    device: DeviceId,
) -> Result<(), MergeError<T::Error>> {
    let op = merged.vv.next_op(device)?;
    let ids = back.keys().copied().collect();
    let back = back.into_iter().map(|(id, node)| (id, written_again(node, op))).collect();
    let nodes = std::mem::take(&mut merged.nodes);
    let joined = Overlay::with(ours, nodes, std::mem::take(&mut merged.index));
    let mut edit = Edit::new(&joined, op);
    edit.revive(back).map_err(MergeError::Tree)?;
    let edited = edit.finish();
    let (nodes, index) = joined.into_parts();
    merged.nodes = nodes;
    merged.nodes.extend(edited.nodes);
    merged.index = index;
    merged.index.then(edited.index);
    merged.vv.learn(&op);
    merged.restored = Some((op, ids));
    Ok(())
}

/// `node` as it was shown, all of it written by `op`.
fn written_again<B: Body>(mut node: Node<B>, op: OpId) -> Node<B> {
    let attrs = node.attrs_of(None).to_map();
    let best = versions(&node).into_iter().max_by_key(|version| version.op);
    node.content =
        best.map_or_else(Reg::default, |version| Reg::one(op, version.content.in_hand()));
    let attrs = attrs.iter().map(|(key, value)| (key.clone(), Reg::one(op, Some(value.clone()))));
    node.attrs = attrs.collect();
    let latest = |reg: &Reg<Place>| reg.last().map(|(_, place)| place.clone());
    let places = node.places.iter().filter_map(|(link, reg)| Some((*link, latest(reg)?)));
    node.places = places.map(|(link, place)| (link, Reg::one(op, place))).collect();
    node.live = Reg::one(op, Carry::Same);
    node
}

impl<B: Body> Indexed<B> {
    /// Merges `theirs` into this state. Returns what the restore rule brought back.
    ///
    /// # Errors
    ///
    /// [`ClockExhausted`] if something has to be restored and there is no time left for it; then
    /// nothing has changed.
    pub fn merge(
        &mut self,
        theirs: &Self,
        device: DeviceId,
    ) -> Result<Option<(OpId, Vec<NodeId>)>, ClockExhausted> {
        let joiner = Joiner::new(self.state().vv.clone(), theirs.state().vv.clone());
        let ids = differing(self.state(), theirs.state(), &joiner);
        let find = |tree: &Self, id: &NodeId| tree.state().nodes.get(id).cloned();
        // Nodes that only one side has matter to the restore rule, even where ours do not change.
        let (ours, others) = (&self.state().nodes, &theirs.state().nodes);
        let missing = others.keys().filter(|id| !ours.contains_key(id));
        let missing = missing.chain(ours.keys().filter(|id| !others.contains_key(id)));
        let ids: BTreeSet<NodeId> =
            ids.into_iter().map(|(id, _)| id).chain(missing.copied()).collect();
        let items: Vec<_> =
            ids.into_iter().map(|id| Ok((id, find(self, &id), find(theirs, &id)))).collect();
        let ours = Side { tree: &*self, vv: &self.state().vv };
        let theirs = Side { tree: theirs, vv: &theirs.state().vv };
        match merge(ours, theirs, items, device) {
            Ok(merged) => {
                self.apply_derived(merged.nodes, merged.index);
                *self.vv_mut() = merged.vv;
                Ok(merged.restored)
            }
            Err(MergeError::Clock(err)) => Err(err),
            Err(MergeError::Tree(never)) => match never {},
        }
    }
}
