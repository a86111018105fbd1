//! The list of conflicts, from the state alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::entry::{ConflictKind, Entry};
use crate::groups::{Groups, claimants};
use crate::ids::{ContentId, DeviceId, NodeId, OpId};
use crate::name::{AttrKey, AttrValue, Name};
use crate::node::{Body, Node, Place, are_rivals};
use crate::reg::Reg;
use crate::render::join_path;
use crate::tree::{Tree, spots_in};
use crate::view::{Disputes, View};

/// One version that takes part in a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictVersion<B> {
    /// How it is shown.
    pub entry: Entry<B>,
    /// The latest operation behind it.
    pub op: OpId,
    /// Whether the peer that asks wrote it.
    pub local: bool,
}

impl<B> ConflictVersion<B> {
    /// Who wrote it.
    #[must_use]
    pub const fn author(&self) -> DeviceId {
        self.op.device
    }
}

/// What is disputed of something besides its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disputed {
    /// The path that it was moved to.
    Path(Vec<u8>),
    /// The value of an attribute; `None` if it was removed.
    Attr(AttrKey, Option<AttrValue>),
}

/// What one peer said of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Of what.
    pub node: NodeId,
    /// The operation that says so.
    pub op: OpId,
    /// What it says.
    pub what: Disputed,
    /// Whether that is what is shown.
    pub shown: bool,
}

/// Something that peers who did not know of each other changed in different ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict<B> {
    /// What kind of disagreement it is.
    pub kind: ConflictKind,
    /// The path of the contested name.
    pub path: Vec<u8>,
    /// The contested name.
    pub slot: Name,
    /// The united directories it is in.
    pub dirs: Vec<NodeId>,
    /// What is shown for it, the winner first. Empty where the winner is only reported under
    /// another name.
    pub versions: Vec<ConflictVersion<B>>,
    /// Of [`ConflictKind::Rename`] and [`ConflictKind::Meta`], what each has said, the latest last.
    pub said: Vec<Statement>,
    /// The latest content that all versions come from, if their histories still say so.
    pub hist_base: Option<ContentId>,
}

/// All conflicts of a tree, sorted by path and kind; equal on all peers with equal knowledge.
///
/// Costs what the contested names cost; nothing in peace.
///
/// # Errors
///
/// Whatever the tree answers.
pub fn conflicts<B: Body, T: Tree<B>>(view: &View<'_, B, T>) -> Result<Vec<Conflict<B>>, T::Error> {
    let mut groups = Groups::new(view.tree());
    let mut done = BTreeSet::new();
    let mut found = Vec::new();
    let dirs = if view.is_portable() { view.all_dirs()? } else { view.tree().contested_dirs()? };
    for dir in dirs {
        let group = groups.of(&dir)?;
        if done.insert(group.clone()) {
            found.append(&mut in_directory(view, &group)?);
        }
    }
    found.sort_by(|a, b| (&a.path, a.kind).cmp(&(&b.path, b.kind)));
    Ok(found)
}

/// The conflicts in one directory.
///
/// # Errors
///
/// Whatever the tree answers.
pub fn in_directory<B: Body, T: Tree<B>>(
    view: &View<'_, B, T>,
    dirs: &[NodeId],
) -> Result<Vec<Conflict<B>>, T::Error> {
    listed(view, dirs, &view.disputes(dirs)?)
}

/// The conflicts of the contested name `name`, or of that of which it shows a copy.
///
/// Costs what that name costs, however many others are contested.
///
/// # Errors
///
/// Whatever the tree answers.
pub fn at_name<B: Body, T: Tree<B>>(
    view: &View<'_, B, T>,
    dirs: &[NodeId],
    name: &Name,
) -> Result<Vec<Conflict<B>>, T::Error> {
    let mut found = listed(view, dirs, &view.dispute(dirs, name)?)?;
    if let Some(entry) = view.lookup(dirs, name)?.filter(Entry::is_copy) {
        found.append(&mut listed(view, dirs, &view.dispute(dirs, entry.slot())?)?);
    }
    Ok(found)
}

fn listed<B: Body, T: Tree<B>>(
    view: &View<'_, B, T>,
    dirs: &[NodeId],
    disputes: &Disputes<B>,
) -> Result<Vec<Conflict<B>>, T::Error> {
    if disputes.conflicts.is_empty() {
        return Ok(Vec::new());
    }
    let above = names_above(view.tree(), dirs)?;
    let mut shown: BTreeMap<&Name, Vec<&Entry<B>>> = BTreeMap::new();
    for entry in disputes.shown.values() {
        shown.entry(entry.slot()).or_default().push(entry);
    }
    let mut found = Vec::new();
    for (slot, kind) in &disputes.conflicts {
        let mut entries = shown.get(slot).cloned().unwrap_or_default();
        entries.sort_by_key(|entry| (entry.is_copy(), std::cmp::Reverse(entry.rank)));
        let version = |entry: &Entry<B>| {
            let written = entry.owners.values().flatten().max().copied();
            let op = written.unwrap_or(entry.rank.0);
            ConflictVersion { entry: entry.clone(), op, local: false }
        };
        let path: Vec<&Name> = above.iter().chain([slot]).collect();
        found.push(Conflict {
            kind: *kind,
            path: join_path(&path),
            dirs: dirs.to_vec(),
            said: said(view.tree(), dirs, slot, *kind)?,
            versions: entries.iter().map(|entry| version(entry)).collect(),
            hist_base: common_base(&entries),
            slot: slot.clone(),
        });
    }
    Ok(found)
}

/// What is said of the places or the attributes of what claims `slot`.
fn said<B: Body, T: Tree<B>>(
    tree: &T,
    dirs: &[NodeId],
    slot: &Name,
    kind: ConflictKind,
) -> Result<Vec<Statement>, T::Error> {
    let mut said = Vec::new();
    if !matches!(kind, ConflictKind::Rename | ConflictKind::Meta) {
        return Ok(said);
    }
    for (id, _) in claimants(tree, dirs, slot)? {
        let Some(node) = tree.node(&id)? else { continue };
        if kind == ConflictKind::Rename {
            said.extend(places_said(tree, &id, &node, |place| {
                dirs.contains(&place.parent) && place.name == *slot
            })?);
        } else {
            said.extend(attrs_said(&id, &node));
        }
    }
    said.sort_by_key(|statement| statement.op);
    Ok(said)
}

fn places_said<B: Body, T: Tree<B>>(
    tree: &T,
    id: &NodeId,
    node: &Node<B>,
    is_shown: impl Fn(&Place) -> bool,
) -> Result<Vec<Statement>, T::Error> {
    let rivals = node.places.values().filter(|places| are_rivals(places));
    let places = rivals.flat_map(Reg::iter).map(|(op, place)| {
        let above = names_above(tree, &[place.parent])?;
        let path: Vec<&Name> = above.iter().chain([&place.name]).collect();
        let what = Disputed::Path(join_path(&path));
        Ok(Statement { node: *id, op: *op, what, shown: is_shown(place) })
    });
    places.collect()
}

fn attrs_said<B: Body>(id: &NodeId, node: &Node<B>) -> Vec<Statement> {
    let shown = node.attrs_of(None);
    let mut said = Vec::new();
    for key in node.rival_attrs() {
        said.extend(node.said_of(key).map(|(op, value)| Statement {
            node: *id,
            op: *op,
            what: Disputed::Attr(key.clone(), value.clone()),
            shown: shown.get(key) == value.as_ref(),
        }));
    }
    said
}

fn common_base<B>(entries: &[&Entry<B>]) -> Option<ContentId> {
    let mut hists = entries.iter().map(|entry| entry.content.as_ref().map(|c| &c.hist));
    let first = hists.next()??;
    let rest: Option<Vec<_>> = hists.collect();
    let rest = rest?;
    first.iter().find(|id| rest.iter().all(|hist| hist.contains(id))).copied()
}

/// The names on the way from the root to `dirs`.
fn names_above<B, T: Tree<B>>(tree: &T, dirs: &[NodeId]) -> Result<Vec<Name>, T::Error> {
    let mut names = Vec::new();
    let mut seen = BTreeSet::new();
    let mut at = dirs.first().copied().unwrap_or(NodeId::Root);
    while seen.insert(at) {
        let Some(spot) = spots_in(tree, &at)?.into_iter().next() else { break };
        names.push(spot.name);
        at = spot.parent;
    }
    names.reverse();
    Ok(names)
}
