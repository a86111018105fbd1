//! A conflict copy becomes a file of its own: because its user touched it, or because the winner
//! of its name goes away and the copy's name must not change.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Edit, EditError, EditResult, Rivals};
use crate::entry::Entry;
use crate::groups::{claimants, united};
use crate::ids::{ContentId, LinkId, NodeId, OpId};
use crate::mutants::{self, Mutant};
use crate::name::Name;
use crate::node::{Body, Carry, Content, Node, Place};
use crate::reg::Reg;
use crate::small_map::SmallMap;
use crate::tree::{Tree, spots_in};

/// The links of a node, as seen from one name.
pub(super) struct Links {
    /// The name.
    pub(super) slot: Name,
    /// Those under that name.
    pub(super) here: Vec<LinkId>,
    /// The other names of the node, each with the united directories it is in.
    pub(super) elsewhere: Vec<(Vec<NodeId>, Name)>,
}

impl<B: Body, T: Tree<B>> Edit<'_, B, T> {
    /// Makes `copy` a file of its own under its visible name, and returns its node. A winner stays
    /// as it is.
    ///
    /// # Errors
    ///
    /// [`EditError::NotFound`] if it is gone.
    pub fn pin(&mut self, copy: &Entry<B>) -> EditResult<NodeId, T::Error> {
        self.act(
            |edit| {
                if copy.is_copy() { edit.detach_in_place(copy, None) } else { Ok(copy.id()) }
            },
        )
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
            edit.detach_to(copy, dir, name, None)
        })
    }

    /// Keeps what is shown when the winner of a name goes: its copies become files of their own.
    pub(super) fn pin_all(&mut self, rivals: &Rivals<B>) -> EditResult<(), T::Error> {
        if !mutants::is(Mutant::NoPinOnUnlink) {
            for copy in &rivals.copies {
                // A file that has parted with the name took its other versions along.
                if !self.links(&copy.id(), copy)?.here.is_empty() {
                    self.detach_in_place(copy, None)?;
                }
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
        let links = self.links(&id, entry)?;
        self.drop_owners(entry, Some(&id))?;
        let whole = node.content.ops().all(|op| owned.contains(op));
        // Moved with its link, it would take new bytes to the other names of the file.
        if whole && (content.is_none() || links.elsewhere.is_empty()) {
            self.settle(&id)?;
            let mut node = Arc::unwrap_or_clone(self.node(&id)?.ok_or(EditError::NotFound)?);
            match content {
                Some(content) => node.content = Reg::one(self.op, content),
                None if node.content.len() != 1 => node.content = Reg::one(self.op, shown),
                None => (),
            }
            self.put(id, node);
            self.place(&id, entry, dir, name)?;
            return Ok(id);
        }
        let link = links.here.first().copied().unwrap_or(LinkId::FIRST);
        let split = self.split(entry, &node, link, (dir, name), content.unwrap_or(shown))?;
        if links.elsewhere.is_empty() || self.wins_otherwise(&id, entry)? {
            self.forget(&id, &owned, &links)?;
        } else {
            self.part(&id, &links, entry)?;
        }
        Ok(split)
    }

    /// Makes a file of its own of the version that `entry` shows of `node`, which stays as it is.
    fn split(
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
        let attrs = node.effective_attrs();
        let attrs = attrs.iter().map(|(k, v)| (k.clone(), Reg::one(self.op, Some(v.clone()))));
        copy.attrs = attrs.collect();
        copy.live = Reg::one(self.op, Carry::Same);
        self.put(split, copy);
        self.climb(dir)?;
        Ok(split)
    }

    /// Takes a version out of a node. What its other names show of it becomes a file of its own
    /// there.
    fn forget(
        &mut self,
        id: &NodeId,
        ops: &BTreeSet<OpId>,
        links: &Links,
    ) -> EditResult<(), T::Error> {
        for (dirs, slot) in &links.elsewhere {
            for copy in self.view().copies(dirs, slot)? {
                let same = copy.owners.get(id).is_some_and(|own| !own.is_disjoint(ops));
                if same && copy.id() == *id {
                    self.split_in_place(id, &copy)?;
                }
            }
        }
        Ok(self.change(id, |node| node.content.retain(|op, _| !ops.contains(op)))?)
    }

    /// Takes the links under the slot of `entry` off a node that has others. What it shows there
    /// besides `entry` becomes files of their own.
    pub(super) fn part(
        &mut self,
        id: &NodeId,
        links: &Links,
        entry: &Entry<B>,
    ) -> EditResult<(), T::Error> {
        for copy in self.view().copies(&entry.dirs, &links.slot)? {
            if copy.id() == *id && copy.name != entry.name {
                self.split_in_place(id, &copy)?;
            }
        }
        Ok(self.drop_links(id, &links.here)?)
    }

    /// Makes the version that `copy` shows of node `id` a file of its own, the node keeps it too.
    fn split_in_place(&mut self, id: &NodeId, copy: &Entry<B>) -> EditResult<(), T::Error> {
        let links = self.links(id, copy)?;
        let (Some(link), Some(node)) = (links.here.first(), self.node(id)?) else { return Ok(()) };
        let content = copy.content.clone().ok_or(EditError::IsADirectory)?;
        let dir = self.home(&copy.dirs)?;
        self.drop_owners(copy, Some(id))?;
        self.split(copy, &node, *link, (dir, &copy.name), content)?;
        Ok(())
    }

    /// Whether the node holds the name of `entry` with another version than that.
    fn wins_otherwise(&self, id: &NodeId, entry: &Entry<B>) -> Result<bool, T::Error> {
        let winner = self.view().slot(&entry.dirs, entry.slot())?.into_winner();
        Ok(winner.is_some_and(|winner| winner.id() == *id && !winner.same_bytes(entry)))
    }

    /// The links of a node under the slot of `entry`, and where its others hang.
    pub(super) fn links(&self, id: &NodeId, entry: &Entry<B>) -> Result<Links, T::Error> {
        let slot = self.slot_of(id, entry)?;
        let mut links = Links { slot, here: Vec::new(), elsewhere: Vec::new() };
        let Some(node) = self.node(id)? else { return Ok(links) };
        for spot in self.spots(id, &node)? {
            if spot.name == links.slot && entry.dirs.contains(&spot.parent) {
                links.here.push(spot.link);
            } else {
                links.elsewhere.push((united::<B, _>(&self.tree, &spot.parent)?, spot.name));
            }
        }
        links.elsewhere.sort_unstable();
        links.elsewhere.dedup();
        Ok(links)
    }

    /// The name for which `entry` shows a version of node `id`: that of the entry, unless it
    /// stands for a copy that would have got its name.
    fn slot_of(&self, id: &NodeId, entry: &Entry<B>) -> Result<Name, T::Error> {
        let slot = entry.slot().clone();
        let claims = claimants(&self.tree, &entry.dirs, &slot)?;
        if entry.id() == *id || claims.iter().any(|(claimant, _)| claimant == id) {
            return Ok(slot);
        }
        for spot in spots_in(&self.tree, id)? {
            if entry.dirs.contains(&spot.parent) {
                let losers = self.view().slot(&entry.dirs, &spot.name)?.take_losers();
                if losers.iter().any(|l| l.owners.contains_key(id) && l.same_bytes(entry)) {
                    return Ok(spot.name);
                }
            }
        }
        Ok(slot)
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
        let mut spots = self.settle(id)?;
        spots.retain(|spot| spot.name == *entry.slot() && entry.dirs.contains(&spot.parent));
        let mut node = Arc::unwrap_or_clone(self.node(id)?.ok_or(EditError::NotFound)?);
        let mut spots = spots.into_iter();
        let first = spots.next().ok_or(EditError::NotFound)?;
        for other in spots {
            node.places.remove(&other.link);
        }
        let old = node.places.get(&first.link).filter(|reg| reg.is_only(&self.op));
        // Where it was before this operation: what is not published was never seen there.
        let prev = match old.and_then(Reg::last) {
            Some((_, place)) => place.prev.clone(),
            None => Some((first.parent, first.name)),
        };
        let place = Place { parent: dir, name: name.clone(), prev };
        node.places.insert(first.link, Reg::one(self.op, place));
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
        let links = self.links(id, entry)?;
        if links.here.is_empty() {
            return Ok(());
        }
        let rest = node.content.ops().any(|op| !ops.contains(op));
        if !rest && rival.is_none() {
            return Ok(self.drop_links(id, &links.here)?);
        }
        if !links.elsewhere.is_empty() && !self.wins_otherwise(id, entry)? {
            return self.part(id, &links, entry);
        }
        self.forget(id, &ops, &links)?;
        if let Some(content) = rival {
            let own = self.op;
            self.change(id, |node| node.content.set(own, content))?;
        }
        Ok(())
    }

    /// Takes links away, and with the last one the node.
    pub(super) fn drop_links(&mut self, id: &NodeId, links: &[LinkId]) -> Result<(), T::Error> {
        let Some(node) = self.node(id)? else { return Ok(()) };
        if self.spots(id, &node)?.len() <= links.len() {
            self.kill(*id);
            return Ok(());
        }
        // Touched, so that two peers who each remove the other's last link lose no bytes.
        self.settle(id)?;
        if let Some(node) = self.node(id)? {
            let mut node = Arc::unwrap_or_clone(node);
            node.places.retain(|link, _| !links.contains(link));
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
