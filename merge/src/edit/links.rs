//! The other names of a file with several hard links, and what an action at one name owes them.
//!
//! A contested file shows its versions under each of its names, and is rarely alone there. An
//! action at one name takes versions out of the file, or writes to it under a later operation;
//! either would show at the others. So [`Edit::shield`] goes first: a name that the file has lost
//! it leaves, and its versions stay there as files of their own; where it holds a name, those of
//! its versions that are copies there become files of their own too. What is shown does not
//! change by that. In peace nothing is done, and nothing but an index is read.
//!
//! # Invariant
//!
//! After `shield` a file with several names holds all its contested ones, that of the action
//! included; at the others it shows nothing but the version that holds the name, or what a file
//! of its own shows as well. So it may lose versions and be written to.

use std::collections::btree_map::Entry as MapEntry;
use std::collections::{BTreeMap, BTreeSet};

use super::{Edit, EditError, EditResult};
use crate::copies::{could_be_copy, may_be_called};
use crate::entry::Entry;
use crate::groups::united;
use crate::ids::{LinkId, NodeId, OpId};
use crate::name::Name;
use crate::node::{Body, Content, Node};
use crate::tree::{Tree, hanging};
use crate::versions::{Version, merged_versions};

impl<B: Body, T: Tree<B>> Edit<'_, B, T> {
    /// Makes the other names of all files that an action on `entries` may change safe from it, and
    /// returns the entries as they are now.
    pub(super) fn shield<const N: usize>(
        &mut self,
        entries: [&Entry<B>; N],
    ) -> EditResult<[Entry<B>; N], T::Error> {
        let mut prepared = false;
        for entry in entries {
            let rivals = self.rivals(entry)?;
            for at in rivals.copies.iter().chain(&rivals.absorbed).chain([entry]) {
                for id in at.owners.keys() {
                    prepared |= self.shield_from(id, at)?;
                }
            }
        }
        let mut now = entries.map(Clone::clone);
        for entry in now.iter_mut().filter(|_| prepared) {
            let found = self.view().lookup(&entry.dirs, &entry.name)?;
            *entry = found.ok_or(EditError::NotFound)?;
        }
        Ok(now)
    }

    /// Makes the names of node `id` safe from an action on `entry`; says whether that took any
    /// change.
    fn shield_from(&mut self, id: &NodeId, entry: &Entry<B>) -> EditResult<bool, T::Error> {
        let mut prepared = false;
        let mut lost = Vec::new();
        for (dirs, slot) in self.names_where(id, <[Name]>::contains)? {
            let now = self.view().slot(&dirs, &slot)?;
            let alone = now.dir.is_none() && now.leaves.len() == 1;
            let holds = now.into_winner().is_some_and(|winner| winner.id() == *id);
            let here = slot == *entry.slot() && dirs == entry.dirs;
            if holds && (alone || here) {
                continue;
            }
            let links = self.links_at(id, &dirs, &slot)?;
            for copy in self.view().copies(&dirs, &slot)? {
                if copy.id() == *id {
                    self.split_off(id, &copy, &links)?;
                    prepared = true;
                }
            }
            if !holds {
                lost.extend(links);
            }
        }
        if !lost.is_empty() {
            self.drop_links(id, &lost)?;
        } else if !prepared {
            return Ok(false);
        }
        self.commit_part()?;
        Ok(true)
    }

    /// The names of node `id`, if it has several, that `wanted` says yes to, given the contested
    /// names of its directory.
    pub(super) fn names_where(
        &self,
        id: &NodeId,
        wanted: impl Fn(&[Name], &Name) -> bool,
    ) -> Result<BTreeSet<(Vec<NodeId>, Name)>, T::Error> {
        let mut found = BTreeSet::new();
        let Some(node) = self.node(id)?.filter(|node| node.link_count() > 1) else {
            return Ok(found);
        };
        let mut contested: BTreeMap<NodeId, Vec<Name>> = BTreeMap::new();
        let displaced = self.displaced(id)?;
        for (_, parent, name) in hanging(&node, displaced.as_ref()) {
            let names = match contested.entry(parent) {
                MapEntry::Occupied(known) => known.into_mut(),
                MapEntry::Vacant(unread) => unread.insert(self.tree.contested(&parent)?),
            };
            if wanted(names, name) {
                found.insert((united::<B, _>(&self.tree, &parent)?, name.clone()));
            }
        }
        Ok(found)
    }

    /// Drops what else has the bytes that the other names of a file show: a write through the file
    /// replaces them there too.
    pub(super) fn drop_twins(&mut self, id: &NodeId, entry: &Entry<B>) -> EditResult<(), T::Error> {
        for (dirs, slot) in self.names_where(id, |names, name| {
            names.contains(name) || (!names.is_empty() && could_be_copy(name))
        })? {
            if slot == *entry.slot() && dirs == entry.dirs {
                continue;
            }
            let Some(mut winner) = self.view().lookup(&dirs, &slot)? else { continue };
            let mut prepared = false;
            for twin in winner.owners.keys().filter(|twin| *twin != id) {
                prepared |= self.shield_from(twin, &winner)?;
            }
            if prepared {
                let now = self.view().lookup(&dirs, &slot)?;
                winner = now.ok_or(EditError::NotFound)?;
            }
            self.drop_owners(&winner, Some(id))?;
        }
        Ok(())
    }

    /// Makes the version that `copy` shows of node `id` a file of its own; the node keeps it too.
    fn split_off(
        &mut self,
        id: &NodeId,
        copy: &Entry<B>,
        links: &[LinkId],
    ) -> EditResult<(), T::Error> {
        let (Some(link), Some(node)) = (links.first(), self.node(id)?) else { return Ok(()) };
        let content = copy.content.clone().ok_or(EditError::IsADirectory)?;
        let dir = self.home(&copy.dirs)?;
        self.split(copy, &node, *link, (dir, &copy.name), content.in_hand())?;
        Ok(())
    }

    /// The links of a node under the names for which `entry` shows a version of it.
    pub(super) fn links(&self, id: &NodeId, entry: &Entry<B>) -> Result<Vec<LinkId>, T::Error> {
        let mut links = Vec::new();
        for slot in self.slots_of(id, entry)? {
            links.extend(self.links_at(id, &entry.dirs, &slot)?);
        }
        Ok(links)
    }

    pub(super) fn links_at(
        &self,
        id: &NodeId,
        dirs: &[NodeId],
        name: &Name,
    ) -> Result<Vec<LinkId>, T::Error> {
        let Some(node) = self.node(id)? else { return Ok(Vec::new()) };
        let displaced = self.displaced(id)?;
        let hanging = hanging(&node, displaced.as_ref());
        let here = hanging.filter(|(_, parent, at)| dirs.contains(parent) && *at == name);
        Ok(here.map(|(claim, ..)| claim.link).collect())
    }

    /// The names for which `entry` shows a version of node `id`: that of the entry, and those
    /// of copies that it stands for.
    fn slots_of(&self, id: &NodeId, entry: &Entry<B>) -> Result<Vec<Name>, T::Error> {
        let committed = self.tree.node(id)?;
        let nodes = [committed.clone(), self.node(id)?];
        let several = nodes.iter().flatten().any(|node| node.link_count() > 1);
        let mut contested = BTreeSet::new();
        for dir in entry.dirs.iter().filter(|_| several) {
            contested.extend(self.tree.contested(dir)?);
        }
        let may_show = |name: &Name| name == entry.slot() || contested.contains(name);
        let mut names = BTreeSet::new();
        if let Some(node) = &committed {
            let displaced = self.tree.displaced(id)?;
            let hanging = hanging(node, displaced.as_ref());
            let here = hanging
                .filter(|(_, dir, at)| (!several || may_show(at)) && entry.dirs.contains(dir));
            names.extend(here.map(|(.., name)| name.clone()));
        }
        if names.len() == 1 && !several {
            return Ok(names.into_iter().collect());
        }
        names.retain(may_show);
        let mut slots = Vec::new();
        for name in names {
            let mut slot = self.view().slot(&entry.dirs, &name)?;
            let losers = slot.take_losers();
            let shows = |leaf: &Entry<B>| leaf.owners.contains_key(id) && leaf.same_bytes(entry);
            let copy = |leaf: &Entry<B>| shows(leaf) && may_be_called(leaf, &entry.name);
            let wins = name == entry.name && slot.into_winner().is_some_and(|leaf| shows(&leaf));
            if wins || losers.iter().any(copy) {
                slots.push(name);
            }
        }
        if slots.is_empty() {
            slots.push(entry.slot().clone());
        }
        Ok(slots)
    }

    /// Makes the other copies of a node files of their own, where taking the version of `entry`
    /// out of it, or `new` in its place, would change what they show: one of them might come to
    /// hide another, or to merge with it.
    pub(super) fn pin_stirred(
        &mut self,
        entry: &Entry<B>,
        new: Option<&Content<B>>,
    ) -> EditResult<(), T::Error> {
        for (id, ops) in &entry.owners {
            let Some(node) = self.node(id)?.filter(|node| node.content.len() > 1) else { continue };
            let new = new.filter(|_| !entry.is_copy() && *id == entry.id());
            if self.stirs(&node, ops, entry, new) {
                for slot in self.slots_of(id, entry)? {
                    for copy in self.view().copies(&entry.dirs, &slot)? {
                        if copy.id() == *id && !copy.same_bytes(entry) {
                            self.detach_in_place(&copy, None)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether `node` without `ops`, and with `new` in their place, shows other versions than
    /// before besides that of `entry` and `new`.
    fn stirs(
        &self,
        node: &Node<B>,
        ops: &BTreeSet<OpId>,
        entry: &Entry<B>,
        new: Option<&Content<B>>,
    ) -> bool {
        let shown = |node: &Node<B>| merged_versions(node, self.policy.text);
        let id = |version: Version<B>| version.content.id;
        let mut expected: BTreeSet<_> = shown(node).into_iter().map(id).collect();
        if let Some(content) = &entry.content {
            expected.remove(&content.id);
        }
        let mut rest = node.clone();
        rest.content.retain(|op, _| !ops.contains(op));
        if let Some(content) = new {
            rest.content.set(self.op, content.clone());
            expected.insert(content.id);
        }
        if rest.content.is_empty() {
            return false;
        }
        shown(&rest).into_iter().map(id).collect::<BTreeSet<_>>() != expected
    }
}
