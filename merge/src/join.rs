//! The merge: a join of registers under version vectors.
//!
//! No common ancestor, no tombstones, no log, no new operation. A value stays if both sides have
//! it, or if the side that lacks it has not seen it. So joining is commutative, associative and
//! idempotent (Cox and Josephson, "file synchronization with vector time pairs", 2005; Almeida
//! et al., "delta state replicated data types", 2018).

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ids::{LinkId, NodeId, VersionVector};
use crate::mutants::{self, Mutant};
use crate::name::AttrKey;
use crate::node::{Body, Node};
use crate::reg::Reg;
use crate::small_map::SmallMap;
use crate::state::State;
use crate::tree::Found;

/// How the knowledge of two states compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Both know the same: they are equal.
    Same,
    /// Ours covers theirs: nothing to do.
    Ahead,
    /// Theirs covers ours: take it as it is.
    Behind,
    /// Each knows something the other does not: join.
    Concurrent,
}

impl Relation {
    /// Compares two version vectors, without a look at any node.
    #[must_use]
    pub fn of(ours: &VersionVector, theirs: &VersionVector) -> Self {
        match (ours.dominates(theirs), theirs.dominates(ours)) {
            (true, true) => Self::Same,
            (true, false) => Self::Ahead,
            (false, true) => Self::Behind,
            (false, false) => Self::Concurrent,
        }
    }
}

/// Joins two states as a stream of the nodes in which they differ.
///
/// A node that is equal on both sides is equal in the result, so only the others need to be shown
/// to it, in any order.
#[derive(Clone, Debug)]
pub struct Joiner {
    ours: VersionVector,
    theirs: VersionVector,
}

impl Joiner {
    /// Joins states with this knowledge.
    #[must_use]
    pub const fn new(ours: VersionVector, theirs: VersionVector) -> Self {
        Self { ours, theirs }
    }

    /// What the joined state knows.
    #[must_use]
    pub fn vv(&self) -> VersionVector {
        let mut vv = self.ours.clone();
        vv.join(&self.theirs);
        vv
    }

    /// Joins one node; `None` if it is gone.
    #[must_use]
    pub fn node<B: Body>(
        &self,
        ours: Option<&Node<B>>,
        theirs: Option<&Node<B>>,
    ) -> Option<Node<B>> {
        if ours == theirs {
            return ours.cloned();
        }
        if mutants::is(Mutant::DeleteWins) && (ours.is_none() || theirs.is_none()) {
            return self.delete_wins(ours, theirs);
        }
        let empty = Node::empty(ours.or(theirs)?.kind);
        let (a, b) = (ours.unwrap_or(&empty), theirs.unwrap_or(&empty));
        // A carry is spelled out from its own side's registers before these change.
        let live = a.spelled_live().join(&self.ours, &b.spelled_live(), &self.theirs);
        if live.is_empty() {
            return None;
        }
        let mut content = a.content.join(&self.ours, &b.content, &self.theirs);
        if mutants::is(Mutant::LastWriterWins) {
            let last = content.last().map(|(op, _)| *op);
            content.retain(|op, _| Some(*op) == last);
        }
        let mut node = Node {
            // Equal on both sides, unless a peer lies; then any fixed choice will do.
            kind: ours.map_or(b.kind, |ours| theirs.map_or(ours.kind, |b| ours.kind.min(b.kind))),
            origin: a.origin.clone().max(b.origin.clone()),
            live,
            places: self.registers::<LinkId, _>(&a.places, &b.places),
            content,
            attrs: self.registers::<AttrKey, _>(&a.attrs, &b.attrs),
        };
        node.fold_live();
        Some(node)
    }

    fn registers<K: Ord + Clone, V: Ord + Clone>(
        &self,
        ours: &SmallMap<K, Reg<V>>,
        theirs: &SmallMap<K, Reg<V>>,
    ) -> SmallMap<K, Reg<V>> {
        let none = Reg::default();
        let keys: BTreeSet<&K> = ours.keys().chain(theirs.keys()).collect();
        let joined = keys.into_iter().map(|key| {
            let (a, b) = (ours.get(key).unwrap_or(&none), theirs.get(key).unwrap_or(&none));
            (key.clone(), a.join(&self.ours, b, &self.theirs))
        });
        joined.filter(|(_, reg)| !reg.is_empty()).collect()
    }

    fn delete_wins<B: Body>(
        &self,
        ours: Option<&Node<B>>,
        theirs: Option<&Node<B>>,
    ) -> Option<Node<B>> {
        let (node, other) = match (ours, theirs) {
            (Some(node), _) => (node, &self.theirs),
            (None, node) => (node?, &self.ours),
        };
        let first = node.live.ops().chain(node.content.ops()).next()?;
        let seen = node.places.values().flat_map(Reg::ops).chain([first]).any(|op| other.knows(op));
        (!seen).then(|| node.clone())
    }
}

/// Joins two states in memory, without the restore rule of [`merge`](crate::merge()): what was removed
/// with a directory that the other side moved is gone.
///
/// Linear in the size of both; see [`Joiner`] for a cost in proportion to what differs.
#[must_use]
pub fn join<B: Body>(ours: &State<B>, theirs: &State<B>) -> State<B> {
    let joiner = Joiner::new(ours.vv.clone(), theirs.vv.clone());
    let mut joined = State { vv: joiner.vv(), nodes: ours.nodes.clone() };
    for (id, node) in differing(ours, theirs, &joiner) {
        match node {
            Some(node) => drop(joined.nodes.insert(id, node)),
            None => drop(joined.nodes.remove(&id)),
        }
    }
    joined
}

/// The nodes that the join of `theirs` into `ours` changes.
pub(crate) fn differing<B: Body>(
    ours: &State<B>,
    theirs: &State<B>,
    joiner: &Joiner,
) -> Vec<(NodeId, Found<B>)> {
    let ids: BTreeSet<&NodeId> = ours.nodes.keys().chain(theirs.nodes.keys()).collect();
    let mut changed = Vec::new();
    for id in ids {
        let (a, b) = (ours.nodes.get(id), theirs.nodes.get(id));
        let same = matches!((a, b), (Some(a), Some(b)) if Arc::ptr_eq(a, b));
        if !same {
            let node = joiner.node(a.map(AsRef::as_ref), b.map(AsRef::as_ref));
            if node.as_ref() != a.map(AsRef::as_ref) {
                changed.push((*id, node.map(Arc::new)));
            }
        }
    }
    changed
}
