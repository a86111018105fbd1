//! Protecting what a change needs.

use std::sync::Arc;

use super::Edit;
use crate::ids::{NodeId, OpId};
use crate::mutants::{self, Mutant};
use crate::node::{Body, Carry, Node, Place};
use crate::reg::Reg;
use crate::tree::{Spot, Tree};

impl<B: Body, T: Tree<B>> Edit<'_, B, T> {
    /// Puts the operation into `live` of the node and of all directories above it.
    pub(super) fn touch(&mut self, id: &NodeId) -> Result<(), T::Error> {
        for spot in self.settle(id)? {
            self.climb(spot.parent)?;
        }
        Ok(())
    }

    /// Touches `dir` and all directories above it.
    pub(super) fn climb(&mut self, dir: NodeId) -> Result<(), T::Error> {
        let mut at = dir;
        while at != NodeId::Root && !mutants::is(Mutant::NoAncestorTouch) {
            let Some(node) = self.node(&at)? else { return Ok(()) };
            // What only this operation keeps alive was touched before, and so was all above it.
            if is_settled(&node, &self.op) && self.tree.displaced(&at)?.is_none() {
                return Ok(());
            }
            match self.settle(&at)?.into_iter().next() {
                Some(spot) => at = spot.parent,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Keeps a directory that is shown only for what is in it, when something in it goes: it must
    /// not vanish under its user.
    pub(super) fn hold(&mut self, dirs: &[NodeId]) -> Result<(), T::Error> {
        for dir in dirs {
            let node = if *dir == NodeId::Root { None } else { self.node(dir)? };
            if node.is_none_or(|node| !node.is_weak()) {
                return Ok(());
            }
        }
        dirs.first().map_or(Ok(()), |dir| self.touch(dir))
    }

    /// Makes the node this operation's own, as it is shown: what others removed is written again,
    /// and a displaced link stays where it was displaced to. Returns where its links hang.
    pub(super) fn settle(&mut self, id: &NodeId) -> Result<Vec<Spot>, T::Error> {
        let Some(node) = self.node(id)? else { return Ok(Vec::new()) };
        let spots = self.spots(id, &node)?;
        let misplaced = node.claims().iter().zip(&spots).any(|(claim, spot)| {
            claim.place.parent != spot.parent || claim.place.name != spot.name
        });
        if misplaced || !is_settled(&node, &self.op) {
            let mut node = Arc::unwrap_or_clone(node);
            settle(&mut node, self.op, &spots);
            self.put(*id, node);
            self.moved.insert(*id);
        }
        Ok(spots)
    }
}

fn is_settled<B: Body>(node: &Node<B>, op: &OpId) -> bool {
    matches!(node.live.as_slice(), [(only, Carry::Same)] if only == op)
}

fn settle<B: Body>(node: &mut Node<B>, op: OpId, spots: &[Spot]) {
    let claims = node.claims();
    let settled = claims.iter().zip(spots).filter_map(|(claim, spot)| {
        let misplaced = claim.place.parent != spot.parent || claim.place.name != spot.name;
        let place = if misplaced {
            Place::new(spot.parent, spot.name.clone())
        } else {
            claim.place.clone()
        };
        (misplaced || node.is_weak()).then_some((claim.link, place))
    });
    let settled: Vec<_> = settled.collect();
    if let Some((_, carried)) = node.carried() {
        let carried = carried.clone();
        if let (true, Some(content)) = (node.content.is_empty(), carried.content) {
            node.content = Reg::one(op, content);
        }
        for (key, value) in carried.attrs.iter() {
            if node.attrs.get(key).is_none() {
                node.attrs.insert(key.clone(), Reg::one(op, Some(value.clone())));
            }
        }
    }
    for (link, place) in settled {
        node.places.insert(link, Reg::one(op, place));
    }
    node.live = Reg::one(op, Carry::Same);
}

impl<B: Body, T: Tree<B>> Edit<'_, B, T> {
    /// Puts nodes back that were removed, as the restore rule has them written.
    pub(crate) fn revive(
        &mut self,
        nodes: std::collections::BTreeMap<NodeId, Node<B>>,
    ) -> Result<(), T::Error> {
        let ids: Vec<NodeId> = nodes.keys().copied().collect();
        for (id, node) in nodes {
            self.put(id, node);
            self.moved.insert(id);
        }
        for id in ids {
            let Some(node) = self.node(&id)? else { continue };
            for spot in self.spots(&id, &node)? {
                self.climb_from_revived(spot.parent)?;
            }
        }
        self.commit()
    }

    /// As [`Self::climb`], but passes nodes that were just revived, whose parents may not be
    /// touched yet.
    fn climb_from_revived(&mut self, dir: NodeId) -> Result<(), T::Error> {
        let mut at = dir;
        while at != NodeId::Root {
            match self.settle(&at)?.into_iter().next() {
                Some(spot) => at = spot.parent,
                None => return Ok(()),
            }
        }
        Ok(())
    }
}
