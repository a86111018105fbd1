//! A state in memory together with its indexes.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::Bound;

use crate::derive::derive;
use crate::ids::NodeId;
use crate::name::Name;
use crate::node::{Body, Kind};
use crate::overlay::NodeEdits;
use crate::state::State;
use crate::tree::{Child, Displaced, Found, IndexEdits, Tree};

/// A [`State`] with its derived indexes: the [`Tree`] for those who have no store of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indexed<B> {
    state: State<B>,
    children: BTreeMap<NodeId, BTreeMap<(Name, NodeId), Kind>>,
    contested: BTreeMap<NodeId, BTreeSet<Name>>,
    displaced: BTreeMap<NodeId, Displaced>,
    /// Of each directory what hangs there and once was a copy: its stem, its name, itself.
    once_copies: BTreeMap<NodeId, BTreeSet<(Name, Name, NodeId)>>,
}

impl<B> Default for Indexed<B> {
    fn default() -> Self {
        Self {
            state: State::default(),
            children: BTreeMap::new(),
            contested: BTreeMap::new(),
            displaced: BTreeMap::new(),
            once_copies: BTreeMap::new(),
        }
    }
}

impl<B: Body> Indexed<B> {
    /// Derives the indexes of `state`: a pure function of it.
    #[must_use]
    pub fn new(state: State<B>) -> Self {
        let mut tree = Self::default();
        let nodes = state.nodes.into_iter().map(|(id, node)| (id, Some(node))).collect();
        tree.apply(nodes);
        tree.state.vv = state.vv;
        tree
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> &State<B> {
        &self.state
    }

    /// The state, without the indexes: what is to be kept, as [`Self::new`] derives them again.
    #[must_use]
    pub fn into_state(self) -> State<B> {
        self.state
    }

    /// The version vector, to add what was done or merged.
    pub const fn vv_mut(&mut self) -> &mut crate::ids::VersionVector {
        &mut self.state.vv
    }

    /// Puts changed nodes in and brings the indexes up to date.
    ///
    /// Costs as much as [`derive()`]; nothing in proportion to the whole state.
    pub fn apply(&mut self, nodes: NodeEdits<B>) {
        let index = match derive(&*self, &nodes) {
            Ok(index) => index,
            Err(never) => match never {},
        };
        self.apply_derived(nodes, index);
    }

    /// Puts changed nodes and their derived indexes in.
    pub fn apply_derived(&mut self, nodes: NodeEdits<B>, index: IndexEdits) {
        self.forget_once_copies(&index);
        for (id, node) in nodes {
            match node {
                Some(node) => drop(self.state.nodes.insert(id, node)),
                None => drop(self.state.nodes.remove(&id)),
            }
        }
        self.note_once_copies(&index);
        for ((dir, name, id), kind) in index.children {
            let children = self.children.entry(dir).or_default();
            match kind {
                Some(kind) => drop(children.insert((name, id), kind)),
                None => drop(children.remove(&(name, id))),
            }
            if children.is_empty() {
                self.children.remove(&dir);
            }
        }
        for ((dir, name), on) in index.contested {
            let names = self.contested.entry(dir).or_default();
            let _changed = if on { names.insert(name) } else { names.remove(&name) };
            if names.is_empty() {
                self.contested.remove(&dir);
            }
        }
        for (id, displaced) in index.displaced {
            match displaced {
                Some(displaced) => drop(self.displaced.insert(id, displaced)),
                None => drop(self.displaced.remove(&id)),
            }
        }
    }

    fn forget_once_copies(&mut self, index: &IndexEdits) {
        for (dir, name, id) in index.children.keys() {
            if let Some(origin) = self.state.nodes.get(id).and_then(|node| node.origin.clone())
                && let Some(known) = self.once_copies.get_mut(dir)
            {
                known.remove(&(origin, name.clone(), *id));
                if known.is_empty() {
                    self.once_copies.remove(dir);
                }
            }
        }
    }

    fn note_once_copies(&mut self, index: &IndexEdits) {
        for ((dir, name, id), kind) in &index.children {
            if kind.is_some()
                && let Some(origin) = self.state.nodes.get(id).and_then(|node| node.origin.clone())
            {
                self.once_copies.entry(*dir).or_default().insert((origin, name.clone(), *id));
            }
        }
    }
}

impl<B> Tree<B> for Indexed<B> {
    type Error = Infallible;

    fn node(&self, id: &NodeId) -> Result<Found<B>, Infallible> {
        Ok(self.state.nodes.get(id).cloned())
    }

    fn named(&self, dir: &NodeId, name: &Name) -> Result<Vec<(NodeId, Kind)>, Infallible> {
        let Some(children) = self.children.get(dir) else { return Ok(Vec::new()) };
        let from = (name.clone(), NodeId::Root);
        let same = children.range(from..).take_while(|((other, _), _)| other == name);
        Ok(same.map(|((_, id), kind)| (*id, *kind)).collect())
    }

    fn children(
        &self,
        dir: &NodeId,
        after: Option<(&Name, &NodeId)>,
        limit: usize,
    ) -> Result<Vec<Child>, Infallible> {
        let Some(children) = self.children.get(dir) else { return Ok(Vec::new()) };
        let low = after.map_or(Bound::Unbounded, |(name, id)| Bound::Excluded((name.clone(), *id)));
        let page = children.range((low, Bound::Unbounded)).take(limit);
        Ok(page.map(|((name, id), kind)| (name.clone(), *id, *kind)).collect())
    }

    fn contested(&self, dir: &NodeId) -> Result<Vec<Name>, Infallible> {
        Ok(self.contested.get(dir).into_iter().flatten().cloned().collect())
    }

    fn is_contested(&self, dir: &NodeId, name: &Name) -> Result<bool, Infallible> {
        Ok(self.contested.get(dir).is_some_and(|names| names.contains(name)))
    }

    fn once_copies(&self, dir: &NodeId, stem: &Name) -> Result<Vec<Name>, Infallible> {
        let Some(known) = self.once_copies.get(dir) else { return Ok(Vec::new()) };
        let from = (stem.clone(), Name::least(), NodeId::Root);
        let same = known.range(from..).take_while(|(other, ..)| other == stem);
        Ok(same.map(|(_, name, _)| name.clone()).collect())
    }

    fn is_at_peace(&self) -> Result<bool, Infallible> {
        Ok(self.contested.is_empty())
    }

    fn contested_dirs(&self) -> Result<Vec<NodeId>, Infallible> {
        Ok(self.contested.keys().copied().collect())
    }

    fn displaced(&self, id: &NodeId) -> Result<Option<Displaced>, Infallible> {
        Ok(self.displaced.get(id).cloned())
    }

    fn all_displaced(&self) -> Result<Vec<NodeId>, Infallible> {
        Ok(self.displaced.keys().copied().collect())
    }
}
