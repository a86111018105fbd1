//! One place for every link: no orphan, no cycle.
//!
//! Latest moves count. What then hangs on a removed directory, and the latest move of every cycle
//! (Kleppmann et al. 2021, "later move is ignored", without a log), falls back to where it was
//! before, and if that does not help, into the root.
//!
//! Cycles of such a graph are disjoint, and breaking one does not change another, so the outcome
//! does not depend on the order in which they are found. Hence it is enough to reconsider what
//! changed and what a cycle had displaced before: every new cycle runs through one of them. Orphans
//! are left where they are, however many a peer has made, until one of their directories lives again.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{LinkId, NodeId, OpId};
use crate::mutants::{self, Mutant};
use crate::node::{Body, Claim, Node};
use crate::overlay::Overlay;
use crate::tree::{Displaced, Fallback, Found, Tree, Why, spot_of};

const PAGE: usize = 1024;

/// Which links are displaced, for all nodes that were reconsidered.
pub(crate) fn place<B: Body, T: Tree<B>>(
    tree: &Overlay<'_, B, T>,
) -> Result<BTreeMap<NodeId, Displaced>, T::Error> {
    let displaced: BTreeSet<NodeId> = tree.base().all_displaced()?.into_iter().collect();
    let dirs = if displaced.is_empty() { None } else { Some(Dirs::of(tree)?) };
    let mut stirred = left_behind(tree)?;
    if let Some(dirs) = &dirs {
        stirred.extend(displaced_by(tree, &displaced, dirs)?);
    }
    let mut placer = Placer { tree, placed: BTreeMap::new(), displaced };
    for id in stirred.iter().chain(tree.nodes.keys().filter(|id| !stirred.contains(id))) {
        placer.placed.insert(*id, Displaced::default());
        let Some(node) = tree.node(id)? else { continue };
        if node.kind.is_dir() && dirs.as_ref().is_some_and(|dirs| !dirs.changed) {
            // No directory went anywhere.
            let as_before = tree.base().displaced(id)?;
            placer.placed.insert(*id, as_before.unwrap_or_default());
            continue;
        }
        let unsettled = stirred.contains(id) || placer.displaced.contains(id);
        match hung_before(tree, id, &node, unsettled)? {
            None => placer.adopt_orphans(id, node.claims())?,
            // What hung where it hangs still does: its directories are alive.
            Some(before) => {
                let changed = before.places.changes(&node.places);
                let claims =
                    changed.into_iter().filter_map(|(link, _, reg)| Claim::of(*link, reg?));
                placer.adopt_orphans(id, claims)?;
            }
        }
    }
    if !mutants::is(Mutant::NoCycleBreak) && dirs.is_none_or(|dirs| dirs.changed) {
        placer.break_cycles()?;
    }
    Ok(placer.placed)
}

/// The node before it was changed, if all its links hung, and hang, where they say unless they
/// were changed. Only asked where there are many.
fn hung_before<B: Body, T: Tree<B>>(
    tree: &Overlay<'_, B, T>,
    id: &NodeId,
    node: &Node<B>,
    unsettled: bool,
) -> Result<Found<B>, T::Error> {
    if node.is_weak() || node.link_count() == 1 || unsettled {
        return Ok(None);
    }
    Ok(tree.base().node(id)?.filter(|before| !before.is_weak()))
}

/// What the changes do to directories.
#[derive(Default)]
struct Dirs {
    /// Whether one of them lives, is gone, or wants to hang elsewhere than before.
    changed: bool,
    /// Those that live and did not.
    alive: BTreeSet<NodeId>,
}

impl Dirs {
    fn of<B: Body, T: Tree<B>>(tree: &Overlay<'_, B, T>) -> Result<Self, T::Error> {
        let mut dirs = Self::default();
        for (id, after) in tree.nodes.iter().filter(|(id, _)| **id != NodeId::Root) {
            let after = after.as_ref().filter(|node| node.kind.is_dir());
            let before = tree.base().node(id)?.filter(|node| node.kind.is_dir());
            match (before, after) {
                (None, None) => (),
                (Some(before), Some(after)) => {
                    dirs.changed |= !before.claims().eq(after.claims());
                }
                (Some(_), None) => dirs.changed = true,
                (None, Some(_)) => {
                    dirs.changed = true;
                    dirs.alive.insert(*id);
                }
            }
        }
        Ok(dirs)
    }
}

/// Those of the `displaced` nodes that what became of directories can put elsewhere: what a cycle
/// displaced, and orphans of a directory that lives again.
fn displaced_by<B: Body, T: Tree<B>>(
    tree: &Overlay<'_, B, T>,
    displaced: &BTreeSet<NodeId>,
    dirs: &Dirs,
) -> Result<BTreeSet<NodeId>, T::Error> {
    let mut ids = BTreeSet::new();
    if !dirs.changed {
        return Ok(ids);
    }
    for id in displaced {
        let links = tree.base().displaced(id)?;
        let in_cycle = links.iter().flat_map(Displaced::values).any(|(_, why)| *why == Why::Cycle);
        if in_cycle || (!dirs.alive.is_empty() && wants_one_of(tree, id, &dirs.alive)?) {
            ids.insert(*id);
        }
    }
    Ok(ids)
}

/// Whether a link of `id` hangs, or hung, on one of `dirs` as far as it goes.
fn wants_one_of<B: Body, T: Tree<B>>(
    tree: &Overlay<'_, B, T>,
    id: &NodeId,
    dirs: &BTreeSet<NodeId>,
) -> Result<bool, T::Error> {
    let Some(node) = tree.base().node(id)? else { return Ok(false) };
    Ok(node.claims().any(|claim| {
        let prev = claim.place.prev.as_ref().map(|(parent, _)| parent);
        dirs.contains(&claim.place.parent) || prev.is_some_and(|parent| dirs.contains(parent))
    }))
}

/// What hung on a directory that is removed.
fn left_behind<B: Body, T: Tree<B>>(
    tree: &Overlay<'_, B, T>,
) -> Result<BTreeSet<NodeId>, T::Error> {
    let base = tree.base();
    let mut ids = BTreeSet::new();
    for (id, node) in tree.nodes.iter() {
        if node.is_none() {
            let mut after = None;
            loop {
                let from = after.as_ref().map(|(name, id)| (name, id));
                let page = base.children(id, from, PAGE)?;
                ids.extend(page.iter().map(|(_, child, _)| *child));
                let Some((name, child, _)) = page.last().filter(|_| page.len() == PAGE) else {
                    break;
                };
                after = Some((name.clone(), *child));
            }
        }
    }
    Ok(ids)
}

struct Placer<'a, 't, B, T> {
    tree: &'a Overlay<'t, B, T>,
    placed: BTreeMap<NodeId, Displaced>,
    /// The nodes that were displaced before; those not in `placed` still are, as they were.
    displaced: BTreeSet<NodeId>,
}

impl<B: Body, T: Tree<B>> Placer<'_, '_, B, T> {
    fn is_dir(&self, id: &NodeId) -> Result<bool, T::Error> {
        Ok(*id == NodeId::Root || self.tree.node(id)?.is_some_and(|node| node.kind.is_dir()))
    }

    /// Moves links of `id` on until each hangs on a directory that is alive.
    fn adopt_orphans<'c>(
        &mut self,
        id: &NodeId,
        claims: impl Iterator<Item = Claim<'c>>,
    ) -> Result<(), T::Error> {
        for claim in claims {
            while !self.is_dir(&spot_of(&claim, self.step(id, &claim.link)?).0)? {
                self.fall_back(id, claim.link, Why::Orphan)?;
            }
        }
        Ok(())
    }

    /// How a node is displaced that is not reconsidered.
    fn as_before(&self, id: &NodeId) -> Result<Option<Displaced>, T::Error> {
        if self.displaced.contains(id) { self.tree.base().displaced(id) } else { Ok(None) }
    }

    fn step(&self, id: &NodeId, link: &LinkId) -> Result<Option<Fallback>, T::Error> {
        let step = |displaced: &Displaced| displaced.get(link).map(|(step, _)| *step);
        match self.placed.get(id) {
            Some(displaced) => Ok(step(displaced)),
            None => Ok(self.as_before(id)?.as_ref().and_then(step)),
        }
    }

    fn fall_back(&mut self, id: &NodeId, link: LinkId, why: Why) -> Result<(), T::Error> {
        if !self.placed.contains_key(id) {
            let as_before = self.as_before(id)?.unwrap_or_default();
            self.placed.insert(*id, as_before);
        }
        let displaced = self.placed.entry(*id).or_default();
        let (step, why) = match displaced.get(&link) {
            None => (Fallback::Prev, why),
            Some((_, before)) => (Fallback::Root, why.max(*before)),
        };
        displaced.insert(link, (step, why));
        Ok(())
    }

    /// The directory that the directory `id` hangs on.
    fn parent(&self, id: &NodeId) -> Result<Option<NodeId>, T::Error> {
        let Some(node) = self.tree.node(id)? else { return Ok(None) };
        let Some(claim) = node.claims().next() else { return Ok(None) };
        Ok(Some(spot_of(&claim, self.step(id, &claim.link)?).0))
    }

    fn break_cycles(&mut self) -> Result<(), T::Error> {
        let mut todo = Vec::new();
        for id in self.placed.keys() {
            if self.tree.node(id)?.is_some_and(|node| node.kind.is_dir()) {
                todo.push(*id);
            }
        }
        let mut safe = BTreeSet::from([NodeId::Root]);
        while let Some(start) = todo.pop() {
            if let Some(cycle) = self.find_cycle(start, &mut safe)? {
                let (id, link) = self.latest_of(&cycle)?;
                self.fall_back(&id, link, Why::Cycle)?;
                if let Some(node) = self.tree.node(&id)? {
                    self.adopt_orphans(&id, node.claims())?;
                }
                todo.extend([id, start]);
            }
        }
        Ok(())
    }

    /// Walks up from `start`; all it passed is safe if it reaches what is safe.
    fn find_cycle(
        &self,
        start: NodeId,
        safe: &mut BTreeSet<NodeId>,
    ) -> Result<Option<Vec<NodeId>>, T::Error> {
        let mut path = Vec::new();
        let mut seen = BTreeMap::new();
        let mut at = start;
        while !safe.contains(&at) {
            if let Some(first) = seen.insert(at, path.len()) {
                return Ok(Some(path.split_off(first)));
            }
            path.push(at);
            match self.parent(&at)? {
                Some(parent) => at = parent,
                None => break,
            }
        }
        safe.extend(path);
        Ok(None)
    }

    /// The member of a cycle that was moved last and has a way back.
    fn latest_of(&self, cycle: &[NodeId]) -> Result<(NodeId, LinkId), T::Error> {
        let mut latest: Option<(OpId, NodeId, LinkId)> = None;
        for id in cycle {
            let Some(node) = self.tree.node(id)? else { continue };
            for claim in node.claims() {
                let candidate = (claim.op, *id, claim.link);
                let exhausted = self.step(id, &claim.link)? == Some(Fallback::Root);
                if !exhausted && latest.is_none_or(|best| best < candidate) {
                    latest = Some(candidate);
                }
            }
        }
        let (_, id, link) = latest.expect("because a node in the root is in no cycle");
        Ok((id, link))
    }
}
