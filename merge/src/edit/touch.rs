//! Protecting what a change needs.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Edit;
use crate::ids::{LinkId, NodeId, OpId};
use crate::mutants::{self, Mutant};
use crate::node::{Body, Carry, Node, Place};
use crate::reg::Reg;
use crate::tree::{Displaced, Tree, hanging};

impl<B: Body, T: Tree<B>> Edit<'_, B, T> {
    /// Puts the operation into `live` of the node and of all directories above it.
    pub(super) fn touch(&mut self, id: &NodeId) -> Result<(), T::Error> {
        self.settle(id)?;
        self.climb_from(id)
    }

    /// Touches all directories above a node.
    pub(super) fn climb_from(&mut self, id: &NodeId) -> Result<(), T::Error> {
        for parent in self.parents(id)? {
            self.climb(parent)?;
        }
        Ok(())
    }

    /// The directories that the links of a node hang on, each once.
    fn parents(&self, id: &NodeId) -> Result<BTreeSet<NodeId>, T::Error> {
        let Some(node) = self.node(id)? else { return Ok(BTreeSet::new()) };
        let displaced = self.displaced(id)?;
        let mut parents = BTreeSet::new();
        let mut last = None;
        for (_, parent, _) in hanging(&node, displaced.as_ref()) {
            // Most names of a file with many lie together.
            if last.replace(parent) != Some(parent) {
                parents.insert(parent);
            }
        }
        Ok(parents)
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
            self.settle(&at)?;
            match self.parents(&at)?.first() {
                Some(parent) => at = *parent,
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
    /// and a displaced link stays where it was displaced to.
    pub(super) fn settle(&mut self, id: &NodeId) -> Result<(), T::Error> {
        let Some(node) = self.node(id)? else { return Ok(()) };
        let displaced = self.displaced(id)?;
        if displaced.is_some() || !is_settled(&node, &self.op) {
            let mut node = Arc::unwrap_or_clone(node);
            settle(&mut node, self.op, displaced.as_ref());
            self.put(*id, node);
            self.moved.insert(*id);
        }
        Ok(())
    }
}

fn is_settled<B: Body>(node: &Node<B>, op: &OpId) -> bool {
    matches!(node.live.as_slice(), [(only, Carry::Same)] if only == op)
}

fn settle<B: Body>(node: &mut Node<B>, op: OpId, displaced: Option<&Displaced>) {
    // In peace all hang where they say.
    let stirred = displaced.is_some() || node.is_weak();
    let settled = if stirred { unsettled_places(node, displaced) } else { Vec::new() };
    if let Some((_, carried)) = node.carried() {
        let carried = carried.clone();
        if let (true, Some(content)) = (node.content.is_empty(), carried.content) {
            node.content = Reg::one(op, content.in_hand());
        }
        for (key, value) in carried.attrs.iter() {
            if node.attrs.get(key).is_none() {
                node.attrs.insert(key.clone(), Reg::one(op, Some(value.clone())));
            }
        }
    }
    for (link, place) in settled {
        node.places.insert(link, Reg::one(op, place));
        node.take_in_hand(&op);
    }
    node.live = Reg::one(op, Carry::Same);
}

/// Where the links of a node hang that are written nowhere in it, or elsewhere.
fn unsettled_places<B>(node: &Node<B>, displaced: Option<&Displaced>) -> Vec<(LinkId, Place)> {
    let unsettled = hanging(node, displaced).filter_map(|(claim, parent, name)| {
        let misplaced = claim.place.parent != parent || claim.place.name != *name;
        let place = if misplaced { Place::new(parent, name.clone()) } else { claim.place.clone() };
        (misplaced || node.is_weak()).then_some((claim.link, place))
    });
    unsettled.collect()
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
            for parent in self.parents(&id)? {
                self.climb_from_revived(parent)?;
            }
        }
        self.commit()
    }

    /// As [`Self::climb`], but passes nodes that were just revived, whose parents may not be
    /// touched yet.
    fn climb_from_revived(&mut self, dir: NodeId) -> Result<(), T::Error> {
        let mut at = dir;
        while at != NodeId::Root {
            self.settle(&at)?;
            match self.parents(&at)?.first() {
                Some(parent) => at = *parent,
                None => return Ok(()),
            }
        }
        Ok(())
    }
}
