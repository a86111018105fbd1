//! The visible names of a directory.

use std::collections::{BTreeMap, BTreeSet};

use crate::copies::{allocate, could_be_copy, is_whole_stem, stem_of};
use crate::entry::{ConflictKind, Entry, Listed};
use crate::ids::NodeId;
use crate::name::{AttrKey, AttrValue, Name};
use crate::node::Body;
use crate::portable;
use crate::slot::{Slot, slot};
use crate::small_map::SmallMap;
use crate::tree::Tree;
use crate::versions::MergeContent;

/// What all peers of a volume have agreed on beyond the rules.
pub struct Policy<'p, B> {
    /// Of files whose names are equal on systems that fold case or normalise one keeps its name, and
    /// the others are shown as its copies. Directories keep their names, and so do copies.
    ///
    /// Costs a scan of the directory for each lookup in it.
    pub portable: bool,
    /// Merges the versions of one file where it can.
    pub text: Option<&'p dyn MergeContent<B>>,
}

impl<B> Default for Policy<'_, B> {
    fn default() -> Self {
        Self { portable: false, text: None }
    }
}

impl<B> Clone for Policy<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Policy<'_, B> {}

impl<B> std::fmt::Debug for Policy<'_, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.text.is_some();
        f.debug_struct("Policy").field("portable", &self.portable).field("text", &text).finish()
    }
}

/// Reads the visible tree.
///
/// A directory is named by *all* united ids, as [`Entry::ids`] has them; the root is
/// `&[NodeId::Root]`.
#[derive(Debug)]
pub struct View<'t, B, T> {
    tree: &'t T,
    policy: Policy<'t, B>,
}

impl<B, T> Clone for View<'_, B, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B, T> Copy for View<'_, B, T> {}

/// Looks `name` up in the united directories `dirs`, without any policy; see [`View::lookup`].
///
/// # Errors
///
/// Whatever `tree` answers.
pub fn lookup<B: Body, T: Tree<B>>(
    tree: &T,
    dirs: &[NodeId],
    name: &Name,
) -> Result<Option<Entry<B>>, T::Error> {
    View::new(tree).lookup(dirs, name)
}

/// Lists the united directories `dirs`, without any policy; see [`View::list`].
///
/// # Errors
///
/// Whatever `tree` answers.
pub fn list<B: Body, T: Tree<B>>(
    tree: &T,
    dirs: &[NodeId],
    after: Option<&Name>,
    limit: usize,
) -> Result<Vec<Listed>, T::Error> {
    View::new(tree).list(dirs, after, limit)
}

impl<'t, B: Body, T: Tree<B>> View<'t, B, T> {
    /// Shows `tree` without any policy.
    #[must_use]
    pub fn new(tree: &'t T) -> Self {
        Self { tree, policy: Policy::default() }
    }

    /// Shows `tree` under the policy of its volume.
    #[must_use]
    pub const fn with_policy(tree: &'t T, policy: Policy<'t, B>) -> Self {
        Self { tree, policy }
    }

    /// The entry shown as `name`.
    ///
    /// Costs one index read and the nodes that claim the name, of each a walk along its links. A name
    /// that looks like that of a copy costs as much for each name whose copies may be called so: see
    /// [`Tree::once_copies`].
    ///
    /// # Errors
    ///
    /// Whatever the tree answers.
    pub fn lookup(&self, dirs: &[NodeId], name: &Name) -> Result<Option<Entry<B>>, T::Error> {
        if self.policy.portable {
            let mut disputes = self.disputes(dirs)?;
            if let Some(entry) = disputes.shown.remove(name) {
                return Ok(Some(entry));
            }
            if disputes.names.contains(name) {
                return Ok(None);
            }
        } else if let Some(stem) = stem_of(name)
            && let Some(entry) = self.called_after(dirs, &stem)?.remove(name)
        {
            return Ok(Some(entry));
        }
        Ok(self.slot(dirs, name)?.into_winner())
    }

    /// Up to `limit` entries behind `after`, sorted by name; fewer means that there are no more.
    ///
    /// Loads no nodes but those of contested names; but all of those, however small `limit` is. Who
    /// wants a little at a time takes [pages](Self::page), and each contested name [by
    /// itself](Self::claimed).
    ///
    /// # Errors
    ///
    /// Whatever the tree answers.
    pub fn list(
        &self,
        dirs: &[NodeId],
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Listed>, T::Error> {
        let disputes = self.disputes(dirs)?;
        let mut out = Vec::new();
        let mut from = after.cloned();
        while out.len() < limit {
            let page = self.page(dirs, from.as_ref(), limit)?;
            let mut names = page.names;
            names.retain(|name, _| !disputes.names.contains(name));
            let behind = |name: &Name| from.as_ref().is_none_or(|from| name > from);
            let before = |name: &Name| page.end.as_ref().is_none_or(|end| name <= end);
            for (name, entry) in
                disputes.shown.iter().filter(|(name, _)| behind(name) && before(name))
            {
                let listed = Listed { name: name.clone(), kind: entry.kind, id: entry.id() };
                names.insert(name.clone(), listed);
            }
            out.extend(names.into_values());
            match page.end {
                Some(end) => from = Some(end),
                None => break,
            }
        }
        out.truncate(limit);
        Ok(out)
    }

    /// What is shown of all contested names in the united directories `dirs`, by visible name. Costs
    /// no more than looking one of the copies up may.
    ///
    /// # Errors
    ///
    /// Whatever the tree answers.
    pub fn contested(&self, dirs: &[NodeId]) -> Result<BTreeMap<Name, Entry<B>>, T::Error> {
        Ok(self.disputes(dirs)?.shown)
    }

    /// The copies of the name `slot`, by their visible names.
    ///
    /// Costs as much as looking one of them up.
    ///
    /// # Errors
    ///
    /// Whatever the tree answers.
    pub fn copies(&self, dirs: &[NodeId], slot: &Name) -> Result<Vec<Entry<B>>, T::Error> {
        let shown = if self.policy.portable {
            self.disputes(dirs)?.shown
        } else {
            let losers = self.slot(dirs, slot)?.take_losers();
            let stems: BTreeSet<Name> = losers.into_iter().map(|loser| loser.stem).collect();
            let mut shown = BTreeMap::new();
            for stem in &stems {
                shown.append(&mut self.called_after(dirs, stem)?);
            }
            shown
        };
        let of_slot = |entry: &Entry<B>| entry.is_copy() && entry.slot() == slot;
        Ok(shown.into_values().filter(of_slot).collect())
    }

    /// What is shown of all that claim the name `slot`: who has it, if anybody, and its copies.
    ///
    /// # Errors
    ///
    /// Whatever the tree answers.
    pub fn claimed(&self, dirs: &[NodeId], slot: &Name) -> Result<Vec<Entry<B>>, T::Error> {
        if !self.policy.portable && !could_be_copy(slot) {
            let mut claimants = self.slot(dirs, slot)?;
            let is_contested = !claimants.take_losers().is_empty();
            let mut shown: Vec<Entry<B>> = claimants.into_winner().into_iter().collect();
            if is_contested {
                shown.append(&mut self.copies(dirs, slot)?);
            }
            return Ok(shown);
        }
        let winner = self.lookup(dirs, slot)?.filter(|entry| !entry.is_copy());
        Ok(winner.into_iter().chain(self.copies(dirs, slot)?).collect())
    }

    /// The attributes of an entry: those of its version; of united directories those of all.
    ///
    /// # Errors
    ///
    /// Whatever the tree answers.
    pub fn attrs(&self, entry: &Entry<B>) -> Result<SmallMap<AttrKey, AttrValue>, T::Error> {
        let ids = if entry.kind.is_dir() { entry.ids.as_slice() } else { &entry.ids[..1] };
        let content = entry.content.as_ref().map(|content| &content.id);
        let mut all = SmallMap::default();
        for node in self.tree.nodes(ids)?.into_iter().flatten() {
            for (key, value) in node.attrs_of(content).to_map().iter() {
                all.insert(key.clone(), value.clone());
            }
        }
        Ok(all)
    }

    pub(crate) const fn tree(&self) -> &'t T {
        self.tree
    }

    pub(crate) const fn is_portable(&self) -> bool {
        self.policy.portable
    }

    /// Every directory of the tree.
    pub(crate) fn all_dirs(&self) -> Result<Vec<NodeId>, T::Error> {
        let mut dirs = vec![NodeId::Root];
        let mut next = 0;
        while let Some(dir) = dirs.get(next).copied() {
            next = next.saturating_add(1);
            for name in self.all_names(&dir)? {
                let named = self.tree.named(&dir, &name)?.into_iter();
                dirs.extend(named.filter(|(_, kind)| kind.is_dir()).map(|(id, _)| id));
            }
        }
        Ok(dirs)
    }

    pub(crate) fn slot(&self, dirs: &[NodeId], name: &Name) -> Result<Slot<B>, T::Error> {
        slot(self.tree, self.policy.text, dirs, name)
    }

    /// Everything about the contested names of a directory; nothing in peace.
    pub(crate) fn disputes(&self, dirs: &[NodeId]) -> Result<Disputes<B>, T::Error> {
        let mut disputes = Disputes::default();
        for dir in dirs {
            disputes.names.extend(self.tree.contested(dir)?);
            if self.policy.portable {
                disputes.names.extend(self.all_names(dir)?);
            }
        }
        let mut losers = Vec::new();
        for name in &disputes.names {
            let mut slot = self.slot(dirs, name)?;
            let kinds = std::mem::take(&mut slot.conflicts);
            disputes.conflicts.extend(kinds.into_iter().map(|kind| (name.clone(), kind)));
            losers.append(&mut slot.take_losers());
            if let Some(winner) = slot.into_winner() {
                disputes.shown.insert(name.clone(), winner);
            }
        }
        if self.policy.portable {
            for loser in portable::clashes(&mut disputes.shown) {
                disputes.conflicts.insert((loser.name.clone(), ConflictKind::Clash));
                losers.extend(loser.entry);
            }
        }
        let names = &disputes.names;
        allocate(losers, &mut disputes.shown, |name| {
            if names.contains(name) { Ok(None) } else { Ok(self.slot(dirs, name)?.into_winner()) }
        })?;
        Ok(disputes)
    }

    /// As [`Self::disputes`], of one contested name.
    pub(crate) fn dispute(&self, dirs: &[NodeId], name: &Name) -> Result<Disputes<B>, T::Error> {
        if self.policy.portable {
            let mut disputes = self.disputes(dirs)?;
            disputes.conflicts.retain(|(slot, _)| slot == name);
            return Ok(disputes);
        }
        let kinds = self.slot(dirs, name)?.conflicts.into_iter();
        let shown = self.claimed(dirs, name)?.into_iter();
        Ok(Disputes {
            names: BTreeSet::from([name.clone()]),
            shown: shown.map(|entry| (entry.name.clone(), entry)).collect(),
            conflicts: kinds.map(|kind| (name.clone(), kind)).collect(),
        })
    }

    /// The names made of `stem` because somebody lost the own one: copies, and entries that stand
    /// for one.
    fn called_after(
        &self,
        dirs: &[NodeId],
        stem: &Name,
    ) -> Result<BTreeMap<Name, Entry<B>>, T::Error> {
        if !is_whole_stem(stem) {
            // Stems that are not the same may be once they are cut.
            return Ok(self.disputes(dirs)?.shown);
        }
        let mut slots = BTreeSet::from([stem.clone()]);
        for dir in dirs {
            slots.extend(self.tree.once_copies(dir, stem)?);
        }
        let mut losers = Vec::new();
        for slot in &slots {
            let all = self.slot(dirs, slot)?.take_losers().into_iter();
            losers.extend(all.filter(|loser| loser.stem == *stem));
        }
        let mut shown = BTreeMap::new();
        allocate(losers, &mut shown, |name| Ok(self.slot(dirs, name)?.into_winner()))?;
        Ok(shown)
    }

    pub(crate) fn all_names(&self, dir: &NodeId) -> Result<BTreeSet<Name>, T::Error> {
        let mut names = BTreeSet::new();
        let mut from = None;
        loop {
            let page = self.page(&[*dir], from.as_ref(), usize::MAX)?;
            names.extend(page.names.into_keys());
            match page.end {
                Some(end) => from = Some(end),
                None => return Ok(names),
            }
        }
    }

    /// The names behind `after` in the children index of all of `dirs`, of each directory up to
    /// `limit`: without copies, and of a contested name one of those that claim it. Loads no nodes.
    ///
    /// # Errors
    ///
    /// Whatever the tree answers.
    pub fn page(
        &self,
        dirs: &[NodeId],
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Page, T::Error> {
        const LAST: NodeId = NodeId::Split([0xff; 16]);
        let limit = limit.clamp(1, 4096);
        let mut page = Page { names: BTreeMap::new(), end: None };
        for dir in dirs {
            let children = self.tree.children(dir, after.map(|name| (name, &LAST)), limit)?;
            if children.len() == limit {
                let end = children.last().map(|(name, ..)| name.clone());
                page.end = match (page.end, end) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
            }
            for (name, id, kind) in children {
                page.names.entry(name.clone()).or_insert(Listed { name, kind, id });
            }
        }
        if let Some(end) = &page.end {
            page.names.retain(|name, _| name <= end);
        }
        Ok(page)
    }
}

/// A stretch of a directory.
#[derive(Debug)]
pub struct Page {
    /// Each name with what claims it.
    pub names: BTreeMap<Name, Listed>,
    /// The last name that is surely covered; `None` at the end of the directory.
    pub end: Option<Name>,
}

/// The contested names of a directory, and what is shown for them.
#[derive(Debug)]
pub(crate) struct Disputes<B> {
    /// The contested names.
    pub(crate) names: BTreeSet<Name>,
    /// Winners of contested names, copies, and entries that stand for a copy.
    pub(crate) shown: BTreeMap<Name, Entry<B>>,
    /// What is to be reported.
    pub(crate) conflicts: BTreeSet<(Name, ConflictKind)>,
}

impl<B> Default for Disputes<B> {
    fn default() -> Self {
        Self { names: BTreeSet::new(), shown: BTreeMap::new(), conflicts: BTreeSet::new() }
    }
}

impl<B: Body> Slot<B> {
    /// Takes out the leaves that lose the name.
    pub(crate) fn take_losers(&mut self) -> Vec<Entry<B>> {
        let kept = usize::from(self.dir.is_none()).min(self.leaves.len());
        self.leaves.split_off(kept)
    }

    /// A directory wins, else the best leaf.
    pub(crate) fn into_winner(self) -> Option<Entry<B>> {
        self.dir.or_else(|| self.leaves.into_iter().next())
    }
}
