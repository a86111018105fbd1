//! The derived indexes of changed nodes.
//!
//! # Invariant
//!
//! Deriving change by change gives the same indexes as deriving a whole state at once; so they
//! are a pure function of the nodes, and equal on all peers.

use std::collections::{BTreeMap, BTreeSet};

use crate::groups::{Groups, claimants, dirs_named};
use crate::ids::NodeId;
use crate::name::Name;
use crate::node::{Body, Node, Place, are_rivals};
use crate::overlay::{NodeEdits, Overlay};
use crate::placing;
use crate::reg::Reg;
use crate::tree::{Displaced, IndexEdits, Tree, hanging};

const PAGE: usize = 1024;

type Slots = BTreeSet<(NodeId, Name)>;

/// Computes how the indexes of `tree` change when `changes` are put in.
///
/// `tree` is the tree before; apply the nodes and the edits together. Costs in proportion to the
/// changed nodes, their depth and what hangs on them; to the children of a directory only where
/// directories become united or cease to be; and to the displaced nodes only where a directory lives
/// that did not.
///
/// # Errors
///
/// Whatever `tree` answers.
pub fn derive<B: Body, T: Tree<B>>(
    tree: &T,
    changes: &NodeEdits<B>,
) -> Result<IndexEdits, T::Error> {
    let mut new = Overlay::with(tree, changes.clone(), IndexEdits::default());
    let mut dirty = Dirty::default();
    for (id, displaced) in placing::place(&new)? {
        dirty.note(&mut new, &id, displaced)?;
    }
    if !dirty.is_empty() {
        regroup(tree, &new, &mut dirty)?;
        let contested = contested_edits(tree, &new, &dirty.slots)?;
        new.index.to_mut().contested = contested;
    }
    Ok(new.into_parts().1)
}

/// What has to be looked at again.
#[derive(Default)]
struct Dirty {
    /// Names whose claimants or versions changed.
    slots: Slots,
    /// Names under which directories came or went.
    dir_slots: Slots,
}

impl Dirty {
    fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Records the index edits of one node in `new`, and what they make dirty.
    fn note<B: Body, T: Tree<B>>(
        &mut self,
        new: &mut Overlay<'_, B, T>,
        id: &NodeId,
        displaced: Displaced,
    ) -> Result<(), T::Error> {
        if *id == NodeId::Root {
            return Ok(());
        }
        let displaced = Some(displaced).filter(|displaced| !displaced.is_empty());
        let was_displaced = new.base().displaced(id)?;
        let (before, after) = (new.base().node(id)?, new.node(id)?);
        let in_peace = was_displaced.is_none() && displaced.is_none();
        let stepped = match (&before, &after) {
            (Some(before), Some(after)) if in_peace => steps(new.base(), id, before, after)?,
            _ => None,
        };
        let marked = stepped.is_none()
            && (!in_peace || before.iter().chain(&after).any(|node| node.is_marked()));
        let (before_slots, after_slots) = stepped.unwrap_or_else(|| {
            let before = slots_of(before.as_deref(), was_displaced.as_ref());
            (before, slots_of(after.as_deref(), displaced.as_ref()))
        });
        for slot in before_slots.difference(&after_slots) {
            new.index.to_mut().children.insert((slot.0, slot.1.clone(), *id), None);
        }
        for slot in after_slots.difference(&before_slots) {
            let kind = after.as_ref().map(|node| node.kind);
            new.index.to_mut().children.insert((slot.0, slot.1.clone(), *id), kind);
        }
        let moved = before_slots != after_slots;
        if was_displaced != displaced {
            new.index.to_mut().displaced.insert(*id, displaced);
        }
        if moved && before.iter().chain(&after).any(|node| node.kind.is_dir()) {
            self.dir_slots.extend(before_slots.iter().chain(&after_slots).cloned());
        }
        if moved || marked {
            self.slots.extend(before_slots);
            self.slots.extend(after_slots);
        }
        Ok(())
    }
}

fn slots_of<B>(node: Option<&Node<B>>, displaced: Option<&Displaced>) -> Slots {
    let hanging = node.into_iter().flat_map(|node| hanging(node, displaced));
    hanging.map(|(_, parent, name)| (parent, name.clone())).collect()
}

/// The slots that a node with many names has left, and those it has taken, where nothing else
/// follows from its change; nothing if something may.
fn steps<B: Body, T: Tree<B>>(
    old: &T,
    id: &NodeId,
    before: &Node<B>,
    after: &Node<B>,
) -> Result<Option<(Slots, Slots)>, T::Error> {
    let few = before.link_count() == 1 && after.link_count() == 1;
    if few || after.is_marked_apart_from_places() || before.is_marked() {
        return Ok(None);
    }
    let changes = before.places.changes(&after.places);
    if changes.iter().filter_map(|(_, _, reg)| *reg).any(are_rivals) {
        return Ok(None);
    }
    let slot = |reg: &Reg<Place>| reg.last().map(|(_, place)| (place.parent, place.name.clone()));
    let mut left: Slots = changes.iter().filter_map(|(_, reg, _)| slot((*reg)?)).collect();
    let mut taken: Slots = changes.iter().filter_map(|(_, _, reg)| slot((*reg)?)).collect();
    // Two links may hang in one place.
    if !left.is_empty() {
        for (_, parent, name) in hanging(after, None) {
            left.retain(|slot| slot.0 != parent || slot.1 != *name);
        }
    }
    let mut already = Slots::new();
    for (parent, name) in &taken {
        if old.named(parent, name)?.iter().any(|(other, _)| other == id) {
            already.insert((*parent, name.clone()));
        }
    }
    taken.retain(|slot| !already.contains(slot));
    Ok(Some((left, taken)))
}

/// Adds to the dirty slots the names in directories that are united with others than before.
fn regroup<B: Body, T: Tree<B>>(
    old: &T,
    new: &Overlay<'_, B, T>,
    dirty: &mut Dirty,
) -> Result<(), T::Error> {
    let (mut was, mut is) = (Groups::new(old), Groups::new(new));
    let mut regrouped = BTreeSet::new();
    let mut slots: Vec<(NodeId, Name)> = std::mem::take(&mut dirty.dir_slots).into_iter().collect();
    while let Some((parent, name)) = slots.pop() {
        let before = dirs_named(old, &was.of(&parent)?, &name)?;
        let after = dirs_named(new, &is.of(&parent)?, &name)?;
        if before == after || (before.len() < 2 && after.len() < 2) {
            continue;
        }
        for dir in before.into_iter().chain(after) {
            if regrouped.insert(dir) {
                let names = old.contested(&dir)?;
                dirty.slots.extend(names.into_iter().map(|name| (dir, name)));
                let others = is.of(&dir)?;
                revisit(old, &dir, |name, is_dir| {
                    slots.extend(is_dir.then(|| (dir, name.clone())));
                    Ok(())
                })?;
                revisit(new, &dir, |name, is_dir| {
                    slots.extend(is_dir.then(|| (dir, name.clone())));
                    if claimants(new, &others, name)?.len() > 1 {
                        dirty.slots.insert((dir, name.clone()));
                    }
                    Ok(())
                })?;
            }
        }
    }
    Ok(())
}

/// Calls `visit` for every child of `dir`, with whether it is a directory.
fn revisit<B, T: Tree<B>>(
    tree: &T,
    dir: &NodeId,
    mut visit: impl FnMut(&Name, bool) -> Result<(), T::Error>,
) -> Result<(), T::Error> {
    let mut after: Option<(Name, NodeId)> = None;
    loop {
        let page = tree.children(dir, after.as_ref().map(|(name, id)| (name, id)), PAGE)?;
        for (name, _, kind) in &page {
            visit(name, kind.is_dir())?;
        }
        match page.last().filter(|_| page.len() == PAGE) {
            Some((name, id, _)) => after = Some((name.clone(), *id)),
            None => return Ok(()),
        }
    }
}

/// Decides again which of `slots` are contested, in all directories united with theirs.
fn contested_edits<B: Body, T: Tree<B>>(
    old: &T,
    new: &Overlay<'_, B, T>,
    slots: &Slots,
) -> Result<BTreeMap<(NodeId, Name), bool>, T::Error> {
    let mut groups = Groups::new(new);
    let mut edits = BTreeMap::new();
    for (dir, name) in slots {
        let mut group = groups.of(dir)?;
        if !group.contains(dir) {
            group.push(*dir);
        }
        let contested = is_contested(new, &group, name)?;
        for dir in group {
            let is = contested && !new.named(&dir, name)?.is_empty();
            if is == old.is_contested(&dir, name)? {
                edits.remove(&(dir, name.clone()));
            } else {
                edits.insert((dir, name.clone()), is);
            }
        }
    }
    Ok(edits)
}

/// Whether more than one node claims `name`, or the only one has something to report.
fn is_contested<B: Body, T: Tree<B>>(
    tree: &T,
    dirs: &[NodeId],
    name: &Name,
) -> Result<bool, T::Error> {
    Ok(match claimants(tree, dirs, name)?.as_slice() {
        [] => false,
        [(id, _)] => {
            tree.node(id)?.is_some_and(|node| node.is_marked()) || tree.displaced(id)?.is_some()
        }
        _ => true,
    })
}
