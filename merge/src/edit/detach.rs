//! A conflict copy becomes a file of its own: because its user touched it, or because the winner
//! of its name goes away and the copy's name must not change.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Edit, EditError, EditResult, Rivals};
use crate::entry::Entry;
use crate::ids::{ContentId, LinkId, NodeId, OpId};
use crate::mutants::{self, Mutant};
use crate::name::Name;
use crate::node::{Body, Carry, Content, Node, Place};
use crate::reg::Reg;
use crate::small_map::SmallMap;
use crate::tree::Tree;

impl<B: Body, T: Tree<B>> Edit<'_, B, T> {
    /// Makes `copy` a file of its own under its visible name, and returns its node. A winner stays
    /// as it is.
    ///
    /// # Errors
    ///
    /// [`EditError::NotFound`] if it is gone.
    pub fn pin(&mut self, copy: &Entry<B>) -> EditResult<NodeId, T::Error> {
        self.act(|edit| {
            if !copy.is_copy() {
                return Ok(copy.id());
            }
            let [copy] = edit.shield([copy])?;
            edit.pin_stirred(&copy, None)?;
            edit.detach_in_place(&copy, None)
        })
    }

    /// Makes `copy` a file of its own as `name` in `dirs`, and returns its node.
    ///
    /// # Errors
    ///
    /// [`EditError::Exists`] if the name is taken, [`EditError::NotFound`] if something is gone.
    pub fn detach(
        &mut self,
        copy: &Entry<B>,
        dirs: &[NodeId],
        name: &Name,
    ) -> EditResult<NodeId, T::Error> {
        self.act(|edit| {
            let dir = edit.home(dirs)?;
            edit.must_be_free(dirs, name)?;
            let [copy] = edit.shield([copy])?;
            edit.pin_stirred(&copy, None)?;
            edit.detach_to(&copy, dir, name, None)
        })
    }

    /// Keeps what is shown when the winner of a name goes: its copies become files of their own.
    pub(super) fn pin_all(&mut self, rivals: &Rivals<B>) -> EditResult<(), T::Error> {
        if !mutants::is(Mutant::NoPinOnUnlink) {
            for copy in &rivals.copies {
                self.detach_in_place(copy, None)?;
            }
            for loser in &rivals.absorbed {
                self.drop_owners(loser, None)?;
            }
        }
        Ok(())
    }

    pub(super) fn detach_in_place(
        &mut self,
        copy: &Entry<B>,
        content: Option<Content<B>>,
    ) -> EditResult<NodeId, T::Error> {
        let dir = self.home(&copy.dirs)?;
        self.detach_to(copy, dir, &copy.name, content)
    }

    /// Moves the version of `entry` to `name` in `dir`, with new content if there is one.
    pub(super) fn detach_to(
        &mut self,
        entry: &Entry<B>,
        dir: NodeId,
        name: &Name,
        content: Option<Content<B>>,
    ) -> EditResult<NodeId, T::Error> {
        let id = entry.id();
        let node = self.node(&id)?.ok_or(EditError::NotFound)?;
        let owned = entry.owners.get(&id).cloned().unwrap_or_default();
        let shown = entry.content.clone().ok_or(EditError::IsADirectory)?;
        self.drop_owners(entry, Some(&id))?;
        if node.content.ops().all(|op| owned.contains(op)) {
            self.settle(&id)?;
            let mut node = Arc::unwrap_or_clone(self.node(&id)?.ok_or(EditError::NotFound)?);
            let heir = Some((self.op, shown.id));
            let again = (node.content.len() != 1).then(|| shown.clone().in_hand());
            if let Some(content) = content.or(again) {
                node.change_versions(heir, |versions| *versions = Reg::one(self.op, content));
            }
            self.put(id, node);
            self.place(&id, entry, dir, name)?;
            return Ok(id);
        }
        let link = self.links(&id, entry)?.first().copied().unwrap_or(LinkId::FIRST);
        let split =
            self.split(entry, &node, link, (dir, name), content.unwrap_or(shown.in_hand()))?;
        self.change(&id, |node| {
            node.change_versions(None, |versions| versions.retain(|op, _| !owned.contains(op)));
        })?;
        Ok(split)
    }

    /// Makes a file of its own of the version that `entry` shows of `node`, which stays as it is.
    pub(super) fn split(
        &mut self,
        entry: &Entry<B>,
        node: &Node<B>,
        link: LinkId,
        (dir, name): (NodeId, &Name),
        content: Content<B>,
    ) -> EditResult<NodeId, T::Error> {
        let shown = entry.content.as_ref().ok_or(EditError::IsADirectory)?;
        let split = self.split_id(&entry.id(), &shown.id, &entry.stem, link)?;
        let mut copy = Node::empty(entry.kind);
        copy.origin = Some(entry.stem.clone());
        let place = Place::new(dir, name.clone());
        copy.places = SmallMap::one(LinkId::FIRST, Reg::one(self.op, place));
        copy.content = Reg::one(self.op, content);
        let attrs = node.attrs_of(Some(&shown.id)).to_map();
        let attrs = attrs.iter().map(|(k, v)| (k.clone(), Reg::one(self.op, Some(v.clone()))));
        copy.attrs = attrs.collect();
        copy.live = Reg::one(self.op, Carry::Same);
        self.put(split, copy);
        self.climb(dir)?;
        Ok(split)
    }

    /// Hangs the links that `entry` has under its slot on `dir` as `name`: the first one; others
    /// of the same node under the same slot go.
    pub(super) fn place(
        &mut self,
        id: &NodeId,
        entry: &Entry<B>,
        dir: NodeId,
        name: &Name,
    ) -> EditResult<(), T::Error> {
        let mut here = self.links(id, entry)?;
        self.settle(id)?;
        let mut node = Arc::unwrap_or_clone(self.node(id)?.ok_or(EditError::NotFound)?);
        here.retain(|link| node.places.get(link).is_some());
        here.sort_unstable();
        let (&first, others) = here.split_first().ok_or(EditError::NotFound)?;
        for other in others {
            node.places.remove(other);
        }
        let reg = node.places.get(&first).ok_or(EditError::NotFound)?;
        let (_, old) = reg.last().ok_or(EditError::NotFound)?;
        // Where it was before this operation: what is not published was never seen there.
        let prev = if reg.is_only(&self.op) {
            old.prev.clone()
        } else {
            Some((old.parent, old.name.clone()))
        };
        let place = Place { parent: dir, name: name.clone(), prev };
        node.places.insert(first, Reg::one(self.op, place));
        node.take_in_hand(&self.op);
        self.put(*id, node);
        self.moved.insert(*id);
        Ok(self.climb(dir)?)
    }

    /// The id of a copy: the same on every peer that makes it of the same version.
    fn split_id(
        &self,
        id: &NodeId,
        content: &ContentId,
        stem: &Name,
        link: LinkId,
    ) -> Result<NodeId, T::Error> {
        // A copy that was made before and moved away since is another file by now.
        let mut round = 0_u32;
        loop {
            let split = split_id(id, content, stem, link, round);
            if self.node(&split)?.is_none() {
                return Ok(split);
            }
            round = round.wrapping_add(1);
        }
    }

    /// Takes `ops` out of the content of `id`; if nothing is left, takes away the link under the
    /// slot, and with the last link the node. The other names of the node show what they showed.
    pub(super) fn drop_owner(
        &mut self,
        id: &NodeId,
        ops: &BTreeSet<OpId>,
        entry: &Entry<B>,
    ) -> EditResult<(), T::Error> {
        let Some(node) = self.node(id)? else { return Ok(()) };
        let shown = entry.content.as_ref().map(|content| content.id);
        let mut ops = ops.clone();
        if ops.is_empty() && node.content.iter().any(|(_, content)| Some(content.id) == shown) {
            // It was carried, and this action has written it again.
            ops.insert(self.op);
        }
        // Another value under an operation of ours (a cloned key) is not ours to drop.
        let is_rival = |op: &OpId, content: &Content<B>| {
            let mut twins = node.content.iter().filter(|(other, _)| *other == op);
            Some(content.id) != shown && twins.any(|(_, twin)| Some(twin.id) == shown)
        };
        let rival = node.content.iter().find(|(op, content)| is_rival(op, content));
        let rival = rival.map(|(_, content)| content.clone());
        let rest = node.content.ops().any(|op| !ops.contains(op));
        if rest || rival.is_some() {
            let own = self.op;
            return Ok(self.change(id, |node| {
                node.change_versions(None, |versions| {
                    versions.retain(|op, _| !ops.contains(op));
                    if let Some(content) = rival {
                        versions.set(own, content);
                    }
                });
            })?);
        }
        let links = self.links(id, entry)?;
        Ok(self.drop_links(id, &links)?)
    }

    /// Takes links away, and with the last one the node.
    pub(super) fn drop_links(&mut self, id: &NodeId, links: &[LinkId]) -> Result<(), T::Error> {
        let Some(node) = self.node(id)? else { return Ok(()) };
        if node.link_count() <= links.len() {
            self.kill(*id);
            return Ok(());
        }
        // Touched, so that two peers who each remove the other's last link lose no bytes.
        self.settle(id)?;
        if let Some(node) = self.node(id)? {
            let mut node = Arc::unwrap_or_clone(node);
            for link in links {
                node.places.remove(link);
            }
            self.put(*id, node);
        }
        self.touch(id)
    }

    /// Drops the versions of all nodes that `entry` stands for, except those of `keep`.
    pub(super) fn drop_owners(
        &mut self,
        entry: &Entry<B>,
        keep: Option<&NodeId>,
    ) -> EditResult<(), T::Error> {
        for (id, ops) in entry.owners.iter().filter(|(id, _)| Some(*id) != keep) {
            self.drop_owner(id, ops, entry)?;
        }
        Ok(())
    }
}

/// Hashes a node, a content, a stem and a link: a copy of another stem, or made under another hard
/// link, is another file.
fn split_id(id: &NodeId, content: &ContentId, stem: &Name, link: LinkId, round: u32) -> NodeId {
    let mut hasher = blake3::Hasher::new_derive_key("cairnfs merge 2026 conflict copy");
    match id {
        NodeId::Root => drop(hasher.update(&[0])),
        NodeId::Born { op, n } => {
            hasher.update(&[1]).update(&op.lamport.to_le_bytes());
            hasher.update(&op.device.0).update(&n.to_le_bytes());
        }
        NodeId::Split(hash) => drop(hasher.update(&[2]).update(hash)),
    }
    hasher.update(&content.0).update(&round.to_le_bytes());
    if let LinkId::Later { op, n } = link {
        hasher.update(&op.lamport.to_le_bytes()).update(&op.device.0).update(&n.to_le_bytes());
    }
    if !mutants::is(Mutant::CopyIdWithoutStem) {
        hasher.update(stem.as_bytes());
    }
    let mut short = [0; 16];
    hasher.finalize_xof().fill(&mut short);
    NodeId::Split(short)
}
