//! What all nodes that claim one name amount to: at most one directory, and versions of leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::entry::{ConflictKind, Entry, Role};
use crate::groups::claimants;
use crate::ids::{ContentId, NodeId, OpId};
use crate::mutants::{self, Mutant};
use crate::name::Name;
use crate::node::{Body, Kind, Node, are_rivals, merge_hist};
use crate::reg::Reg;
use crate::tree::{Displaced, Tree, Why, hanging};
use crate::versions::{MergeContent, Version, merged_versions};

/// One name and all that claim it.
#[derive(Debug)]
pub(crate) struct Slot<B> {
    /// The united directories, unless all of them are to be hidden.
    pub(crate) dir: Option<Entry<B>>,
    /// The different versions of leaves, the best first.
    pub(crate) leaves: Vec<Entry<B>>,
    /// What is to be reported.
    pub(crate) conflicts: BTreeSet<ConflictKind>,
}

/// Reads the slot `name` in the united directories `dirs`.
pub(crate) fn slot<B: Body, T: Tree<B>>(
    tree: &T,
    text: Option<&dyn MergeContent<B>>,
    dirs: &[NodeId],
    name: &Name,
) -> Result<Slot<B>, T::Error> {
    let ids: Vec<NodeId> = claimants(tree, dirs, name)?.into_iter().map(|(id, _)| id).collect();
    let mut nodes = Vec::with_capacity(ids.len());
    for (id, node) in ids.iter().zip(tree.nodes(&ids)?) {
        if let Some(node) = node {
            let displaced = tree.displaced(id)?;
            nodes.push(Claimant { id: *id, node, displaced });
        }
    }
    let mut slot = Slot { dir: None, leaves: Vec::new(), conflicts: BTreeSet::new() };
    slot.dir = directory(tree, &nodes, dirs, name)?;
    slot.leaves = leaves(&nodes, text, dirs, name);
    report(&mut slot, &nodes, dirs, name);
    Ok(slot)
}

struct Claimant<B> {
    id: NodeId,
    node: Arc<Node<B>>,
    displaced: Option<Displaced>,
}

impl<B: Body> Claimant<B> {
    /// The latest operation that put the node under `name`.
    fn placed_by(&self, dirs: &[NodeId], name: &Name) -> Option<OpId> {
        let hanging = hanging(&self.node, self.displaced.as_ref());
        let here = hanging.filter(|(_, parent, at)| dirs.contains(parent) && *at == name);
        here.map(|(claim, ..)| claim.op).max()
    }

    /// Whether the node was moved to different places, of which not all are `name` in `dirs`: two that were
    /// made apart may have become one directory.
    fn has_other_places(&self, dirs: &[NodeId], name: &Name) -> bool {
        let rivals = self.node.places.values().filter(|places| are_rivals(places));
        let mut places = rivals.flat_map(Reg::iter);
        places.any(|(_, place)| place.name != *name || !dirs.contains(&place.parent))
    }

    /// Whether `op`, which wrote a version of the node, also put it under `name`, where it hangs: an
    /// answer about this name does both, and who moves a file does not. Others may have put it there at
    /// the same time.
    fn is_answer(&self, op: &OpId, dirs: &[NodeId], name: &Name) -> bool {
        let is_displaced =
            |link| self.displaced.as_ref().is_some_and(|all| all.get(link).is_some());
        let mut places = self.node.places.iter().filter(|(link, _)| !is_displaced(link));
        places.any(|(_, reg)| {
            reg.last().is_some_and(|(_, at)| {
                let by_op = reg.iter().any(|(other, place)| other == op && place.same_spot(at));
                by_op && at.name == *name && dirs.contains(&at.parent)
            })
        })
    }
}

/// The united directories; none if all were removed and have nothing left to show.
fn directory<B: Body, T: Tree<B>>(
    tree: &T,
    nodes: &[Claimant<B>],
    dirs: &[NodeId],
    name: &Name,
) -> Result<Option<Entry<B>>, T::Error> {
    let united = nodes.iter().filter(|claimant| claimant.node.kind.is_dir());
    let ids: Vec<NodeId> = united.clone().map(|claimant| claimant.id).collect();
    let strong = united.clone().any(|claimant| !claimant.node.is_weak());
    if ids.is_empty() || (!strong && !has_visible(tree, &ids)?) {
        return Ok(None);
    }
    let placed = united.filter_map(|claimant| Some((claimant.placed_by(dirs, name)?, claimant.id)));
    let Some((op, id)) = placed.max() else { return Ok(None) };
    Ok(Some(Entry {
        name: name.clone(),
        dirs: dirs.to_vec(),
        kind: Kind::Dir,
        ids,
        content: None,
        role: Role::Winner,
        owners: BTreeMap::new(),
        weak: !strong,
        rank: (op, op, id),
        stem: name.clone(),
    }))
}

/// Whether something below `dirs` is shown, though all of them were removed.
fn has_visible<B: Body, T: Tree<B>>(tree: &T, dirs: &[NodeId]) -> Result<bool, T::Error> {
    const PAGE: usize = 64;
    let mut todo = dirs.to_vec();
    while let Some(dir) = todo.pop() {
        let mut after: Option<(Name, NodeId)> = None;
        loop {
            let page = tree.children(&dir, after.as_ref().map(|(name, id)| (name, id)), PAGE)?;
            for (_, id, kind) in &page {
                if !kind.is_dir() || tree.node(id)?.is_some_and(|node| !node.is_weak()) {
                    return Ok(true);
                }
                todo.push(*id);
            }
            match page.last().filter(|_| page.len() == PAGE) {
                Some((name, id, _)) => after = Some((name.clone(), *id)),
                None => break,
            }
        }
    }
    Ok(false)
}

/// The versions of all leaves: equal ones are one, and of those that resolvers wrote in answer to
/// one conflict only the latest counts.
///
/// These are the versions of one node, and those of several nodes that were put here by the answer
/// itself. What was decided elsewhere and moved here since is another file, and nobody decided
/// between the two. Of directories that became one after an answer in each this cannot be told: who
/// answers may not know yet that they are one.
fn leaves<B: Body>(
    nodes: &[Claimant<B>],
    text: Option<&dyn MergeContent<B>>,
    dirs: &[NodeId],
    name: &Name,
) -> Vec<Entry<B>> {
    let mut found = Vec::new();
    let mut answers = Vec::new();
    for claimant in nodes.iter().filter(|claimant| !claimant.node.kind.is_dir()) {
        let Some(placed) = claimant.placed_by(dirs, name) else { continue };
        let own = merged_versions(&claimant.node, text).into_iter();
        let own = own.map(|version| leaf(claimant, version, placed, dirs, name));
        let is_auto = |entry: &Entry<B>| entry.content.as_ref().is_some_and(|it| it.auto);
        let (automatic, by_people): (Vec<_>, Vec<_>) = own.partition(is_auto);
        found.extend(by_people);
        let Some(latest) = latest_of(automatic) else { continue };
        let is_answer = claimant.is_answer(&latest.rank.1, dirs, name);
        if is_answer { &mut answers } else { &mut found }.push(latest);
    }
    found.extend(latest_of(answers));
    let mut distinct: BTreeMap<(Kind, Option<ContentId>), Entry<B>> = BTreeMap::new();
    for entry in found {
        let key = (entry.kind, entry.content.as_ref().map(|content| content.id));
        match distinct.remove(&key) {
            Some(other) => drop(distinct.insert(key, united(entry, other))),
            None => drop(distinct.insert(key, entry)),
        }
    }
    let mut leaves: Vec<_> = distinct.into_values().collect();
    leaves.sort_by_key(|entry| std::cmp::Reverse(entry.rank));
    if mutants::is(Mutant::WinnerIsLocal) && mutants::swaps_winner() {
        leaves.reverse();
    }
    leaves
}

fn leaf<B: Body>(
    claimant: &Claimant<B>,
    version: Version<B>,
    placed: OpId,
    dirs: &[NodeId],
    name: &Name,
) -> Entry<B> {
    let written = version.op.unwrap_or(placed);
    Entry {
        name: name.clone(),
        dirs: dirs.to_vec(),
        kind: claimant.node.kind,
        ids: vec![claimant.id],
        role: Role::Winner,
        owners: BTreeMap::from([(claimant.id, version.ops().collect())]),
        content: Some(version.content),
        weak: claimant.node.is_weak(),
        rank: (written.max(placed), written, claimant.id),
        stem: claimant.node.origin.clone().unwrap_or_else(|| name.clone()),
    }
}

/// Of answers to one conflict the latest stands for all.
fn latest_of<B: Body>(mut answers: Vec<Entry<B>>) -> Option<Entry<B>> {
    answers.sort_by_key(|entry| entry.rank);
    let mut latest = answers.pop()?;
    for other in &answers {
        latest.absorb(other);
    }
    Some(latest)
}

/// One entry for two of the same bytes; the better one leads.
fn united<B: Body>(a: Entry<B>, b: Entry<B>) -> Entry<B> {
    let (mut best, other) = if a.rank > b.rank { (a, b) } else { (b, a) };
    best.absorb(&other);
    if let (Some(content), Some(more)) = (&mut best.content, &other.content) {
        content.hist = merge_hist(&[&content.hist, &more.hist]);
    }
    best
}

fn report<B: Body>(slot: &mut Slot<B>, nodes: &[Claimant<B>], dirs: &[NodeId], name: &Name) {
    let mut kinds = BTreeSet::new();
    let mut add = |kind, when: bool| {
        if when {
            kinds.insert(kind);
        }
    };
    add(ConflictKind::DeleteAdd, slot.dir.as_ref().is_some_and(|dir| dir.weak));
    let dir = slot.dir.is_some();
    let holders: BTreeSet<_> = slot.leaves.iter().flat_map(|leaf| leaf.owners.keys()).collect();
    add(ConflictKind::Type, dir && !slot.leaves.is_empty());
    add(ConflictKind::Content, !dir && slot.leaves.len() > 1 && holders.len() == 1);
    add(ConflictKind::Name, !dir && slot.leaves.len() > 1 && holders.len() > 1);
    add(ConflictKind::DeleteModify, slot.leaves.iter().any(|leaf| leaf.weak));
    for claimant in nodes.iter().filter(|claimant| dir || !claimant.node.kind.is_dir()) {
        let displaced = claimant.displaced.iter().flat_map(Displaced::values);
        for (_, why) in displaced {
            add(ConflictKind::Orphan, *why == Why::Orphan);
            add(ConflictKind::Cycle, *why == Why::Cycle);
        }
        add(ConflictKind::Rename, claimant.has_other_places(dirs, name));
        add(ConflictKind::Meta, claimant.node.rival_attrs().next().is_some());
    }
    slot.conflicts = kinds;
}
