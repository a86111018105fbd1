//! Changes on top of a tree, read as if they were part of it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::ids::NodeId;
use crate::name::Name;
use crate::node::Kind;
use crate::tree::{Child, Displaced, Found, IndexEdits, Tree};

/// Changed nodes by id; `None` for one that is gone.
pub type NodeEdits<B> = BTreeMap<NodeId, Found<B>>;

/// A tree with changed nodes and indexes laid over it.
#[derive(Debug)]
pub struct Overlay<'t, B, T> {
    base: &'t T,
    pub(crate) nodes: Cow<'t, NodeEdits<B>>,
    pub(crate) index: Cow<'t, IndexEdits>,
}

impl<'t, B, T> Overlay<'t, B, T> {
    /// Nothing changed yet.
    #[must_use]
    pub fn new(base: &'t T) -> Self {
        Self::with(base, NodeEdits::new(), IndexEdits::default())
    }

    /// Shows `nodes` and `index` instead of what `base` has.
    #[must_use]
    pub const fn with(base: &'t T, nodes: NodeEdits<B>, index: IndexEdits) -> Self {
        Self { base, nodes: Cow::Owned(nodes), index: Cow::Owned(index) }
    }

    /// As [`Self::with`], for changes that the caller keeps.
    #[must_use]
    pub const fn over(base: &'t T, nodes: &'t NodeEdits<B>, index: &'t IndexEdits) -> Self {
        Self { base, nodes: Cow::Borrowed(nodes), index: Cow::Borrowed(index) }
    }

    /// The changes.
    #[must_use]
    pub fn into_parts(self) -> (NodeEdits<B>, IndexEdits) {
        (self.nodes.into_owned(), self.index.into_owned())
    }

    pub(crate) const fn base(&self) -> &'t T {
        self.base
    }
}

impl<B, T: Tree<B>> Tree<B> for Overlay<'_, B, T> {
    type Error = T::Error;

    fn node(&self, id: &NodeId) -> Result<Found<B>, T::Error> {
        self.nodes.get(id).map_or_else(|| self.base.node(id), |node| Ok(node.clone()))
    }

    fn nodes(&self, ids: &[NodeId]) -> Result<Vec<Found<B>>, T::Error> {
        let missing: Vec<_> =
            ids.iter().filter(|id| !self.nodes.contains_key(id)).copied().collect();
        let mut fetched = self.base.nodes(&missing)?.into_iter();
        let pick = |id| match self.nodes.get(id) {
            Some(node) => node.clone(),
            None => fetched.next().flatten(),
        };
        Ok(ids.iter().map(pick).collect())
    }

    fn named(&self, dir: &NodeId, name: &Name) -> Result<Vec<(NodeId, Kind)>, T::Error> {
        let low = (*dir, name.clone(), NodeId::Root);
        let edits = self.index.children.range(low..);
        let mut edits = edits.take_while(|((parent, other, _), _)| (parent, other) == (dir, name));
        let Some(first) = edits.next() else { return self.base.named(dir, name) };
        let mut found: BTreeMap<NodeId, Kind> = self.base.named(dir, name)?.into_iter().collect();
        for ((.., id), kind) in std::iter::once(first).chain(edits) {
            match kind {
                Some(kind) => drop(found.insert(*id, *kind)),
                None => drop(found.remove(id)),
            }
        }
        Ok(found.into_iter().collect())
    }

    fn children(
        &self,
        dir: &NodeId,
        after: Option<(&Name, &NodeId)>,
        limit: usize,
    ) -> Result<Vec<Child>, T::Error> {
        let changed: BTreeMap<(&Name, &NodeId), Option<Kind>> = self.changed_children(dir, after);
        if changed.is_empty() {
            return self.base.children(dir, after, limit);
        }
        // Removed children leave gaps, so a few more are read than are asked for.
        let gaps = changed.values().filter(|kind| kind.is_none()).count();
        let wanted = limit.saturating_add(gaps);
        let page = self.base.children(dir, after, wanted)?;
        let complete = page.len() < wanted;
        let end = page.last().map(|(name, id, _)| (name.clone(), *id));
        let mut merged: BTreeMap<(Name, NodeId), Kind> =
            page.into_iter().map(|(name, id, kind)| ((name, id), kind)).collect();
        for ((name, id), kind) in changed {
            let key = (name.clone(), *id);
            if !complete && end.as_ref().is_some_and(|end| key > *end) {
                break;
            }
            match kind {
                Some(kind) => drop(merged.insert(key, kind)),
                None => drop(merged.remove(&key)),
            }
        }
        Ok(merged.into_iter().take(limit).map(|((name, id), kind)| (name, id, kind)).collect())
    }

    fn contested(&self, dir: &NodeId) -> Result<Vec<Name>, T::Error> {
        let mut names: BTreeSet<Name> = self.base.contested(dir)?.into_iter().collect();
        for (name, on) in self.changed_contested(dir) {
            if on {
                names.insert(name.clone());
            } else {
                names.remove(name);
            }
        }
        Ok(names.into_iter().collect())
    }

    fn is_contested(&self, dir: &NodeId, name: &Name) -> Result<bool, T::Error> {
        match self.index.contested.get(&(*dir, name.clone())) {
            Some(on) => Ok(*on),
            None => self.base.is_contested(dir, name),
        }
    }

    fn once_copies(&self, dir: &NodeId, stem: &Name) -> Result<Vec<Name>, T::Error> {
        let mut names: BTreeSet<Name> = self.base.once_copies(dir, stem)?.into_iter().collect();
        let once_copy =
            |id: &NodeId| Ok(self.node(id)?.is_some_and(|it| it.origin.as_ref() == Some(stem)));
        for ((name, id), kind) in self.changed_children(dir, None) {
            if kind.is_some() && once_copy(id)? {
                names.insert(name.clone());
            }
        }
        for (name, _) in self.changed_contested(dir).filter(|(_, on)| *on) {
            for (id, _) in self.named(dir, name)? {
                if once_copy(&id)? {
                    names.insert(name.clone());
                }
            }
        }
        Ok(names.into_iter().collect())
    }

    fn is_at_peace(&self) -> Result<bool, T::Error> {
        Ok(!self.index.contested.values().any(|on| *on) && self.base.is_at_peace()?)
    }

    fn contested_dirs(&self) -> Result<Vec<NodeId>, T::Error> {
        let mut dirs: BTreeSet<NodeId> = self.base.contested_dirs()?.into_iter().collect();
        let changed: BTreeSet<&NodeId> = self.index.contested.keys().map(|(dir, _)| dir).collect();
        for dir in changed {
            if self.contested(dir)?.is_empty() {
                dirs.remove(dir);
            } else {
                dirs.insert(*dir);
            }
        }
        Ok(dirs.into_iter().collect())
    }

    fn displaced(&self, id: &NodeId) -> Result<Option<Displaced>, T::Error> {
        self.index
            .displaced
            .get(id)
            .map_or_else(|| self.base.displaced(id), |displaced| Ok(displaced.clone()))
    }

    fn all_displaced(&self) -> Result<Vec<NodeId>, T::Error> {
        let mut ids: BTreeSet<NodeId> = self.base.all_displaced()?.into_iter().collect();
        for (id, displaced) in &self.index.displaced {
            if displaced.is_some() {
                ids.insert(*id);
            } else {
                ids.remove(id);
            }
        }
        Ok(ids.into_iter().collect())
    }
}

impl<B, T> Overlay<'_, B, T> {
    fn changed_contested(&self, dir: &NodeId) -> impl Iterator<Item = (&Name, bool)> {
        let dir = *dir;
        let edits = self.index.contested.range((dir, Name::least())..);
        edits.take_while(move |((parent, _), _)| *parent == dir).map(|((_, name), on)| (name, *on))
    }

    fn changed_children(
        &self,
        dir: &NodeId,
        after: Option<(&Name, &NodeId)>,
    ) -> BTreeMap<(&Name, &NodeId), Option<Kind>> {
        let low = match after {
            Some((name, id)) => Bound::Excluded((*dir, name.clone(), *id)),
            None => Bound::Included((*dir, Name::least(), NodeId::Root)),
        };
        let edits = self.index.children.range((low, Bound::Unbounded));
        edits
            .take_while(|((parent, ..), _)| parent == dir)
            .map(|((_, name, id), kind)| ((name, id), *kind))
            .collect()
    }
}
