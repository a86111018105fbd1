//! What the kernel may believe that is no longer so on another version.
//!
//! Nearly all of it follows from the two versions, which nobody changes: [`Stale::between`] finds it
//! without a lock, however much it is. Only the names that live changes bear on have to be looked at
//! as they are when the mount lands: [`Stale::with_live`].
//!
//! A name too many does no harm, as the kernel looks it up again. A name too few is shown wrongly
//! until the kernel forgets it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cairnfs_merge::{IndexEdits, Name, NodeEdits, NodeId, Tree, View, spots};

use crate::{
    Outdated, Result,
    file::Data,
    inodes::{Inodes, Shown},
    mount::Mount,
    places,
    tree::{BaseTree, Layer, LiveTree},
};

/// A name in a directory.
type Slot = (NodeId, Name);

/// What differs from one tree to another, as far as the kernel may know the first.
#[derive(Default)]
pub(super) struct Stale {
    names: BTreeMap<Slot, Meaning>,
    /// Nodes that are not what they were.
    nodes: BTreeSet<NodeId>,
}

/// What a name shows.
struct Meaning {
    /// The directories that are or were shown as the one it is in.
    dirs: BTreeSet<NodeId>,
    before: Option<Shown>,
    after: Option<Shown>,
}

impl Stale {
    /// What differs from `old` to `new`, which `nodes` and `index` lead to. Costs some reads for each
    /// of them, and for each name in directories that become one with others, or cease to be.
    ///
    /// # Errors
    ///
    /// Damage in the trees.
    pub(super) fn between(
        old: &BaseTree,
        new: &BaseTree,
        nodes: &NodeEdits<Data>,
        index: &IndexEdits,
    ) -> Result<Self> {
        let (old, new) = (bare(old), bare(new));
        let regrouped = regrouped(&old, &new, nodes, index)?;
        let mut slots: BTreeSet<Slot> = slots_of(index).collect();
        for tree in [&old, &new] {
            slots.extend(disputed(tree, nodes.keys())?);
            slots.extend(names_in(tree, &regrouped)?);
        }
        Self::survey(&old, &new, slots, nodes.keys().copied().chain(regrouped))
    }

    /// The same, once changes that are in neither version lie on both: those of `old` were made
    /// on it, and `new` has them joined with the new version.
    ///
    /// Costs what the live changes touch, and all names in directories that they unite with others, or
    /// part from them.
    ///
    /// # Errors
    ///
    /// Damage in the trees.
    pub(super) fn with_live(
        mut self,
        old: &LiveTree,
        new: &LiveTree,
        index: &IndexEdits,
    ) -> Result<Self> {
        if old.live().nodes.is_empty() {
            return Ok(self);
        }
        let (mut regrouped_here, mut slots) = (BTreeSet::new(), BTreeSet::new());
        for tree in [old, new] {
            let Layer { nodes, index } = tree.live();
            regrouped_here.extend(regrouped(&bare(tree.base()), tree, nodes, index)?);
            slots.extend(slots_of(index));
        }
        slots.extend(slots_of(index).filter(|(dir, _)| regrouped_here.contains(dir)));
        let regrouped = grouped_otherwise(old, new, regrouped_here)?;
        slots.extend(names_in(old, &regrouped)?);
        slots.extend(names_in(new, &regrouped)?);
        let joined = new.live().nodes.iter();
        let joined = joined.filter(|(id, node)| old.live().nodes.get(id) != Some(node));
        let nodes = joined.map(|(id, _)| *id).chain(regrouped);
        let live = Self::survey(old, new, slots, nodes)?;
        for (slot, meaning) in live.names {
            // Most are changes that came through the kernel, and that the version knows nothing of.
            if meaning.before == meaning.after {
                self.names.remove(&slot);
            } else {
                self.names.insert(slot, meaning);
            }
        }
        self.nodes.extend(live.nodes);
        Ok(self)
    }

    /// Whether the name, in directories that are shown as one, may show something else.
    pub(super) fn has(&self, dirs: &[NodeId], name: &Name) -> bool {
        dirs.iter().any(|dir| self.names.contains_key(&(*dir, name.clone())))
    }

    fn survey(
        old: &LiveTree,
        new: &LiveTree,
        slots: BTreeSet<Slot>,
        nodes: impl Iterator<Item = NodeId>,
    ) -> Result<Self> {
        let (mut names, mut nodes) = (BTreeMap::new(), nodes.collect::<BTreeSet<_>>());
        let mut dirs = Dirs { old, new, groups: HashMap::new() };
        for (dir, name) in slots {
            let Pair { before, after } = dirs.find(&dir)?;
            // Nobody can have looked there.
            if before.is_empty() {
                continue;
            }
            let (then, now) = (View::new(old), View::new(new));
            let mut shown = BTreeSet::from([name.clone()]);
            if places::is_contested(old, before, &name)? || places::is_contested(new, after, &name)?
            {
                let claimed = then.claimed(before, &name)?.into_iter();
                for entry in claimed.chain(now.claimed(after, &name)?) {
                    // Who claims the name with it decides what it shows.
                    nodes.extend(entry.ids());
                    shown.insert(entry.name);
                }
            }
            let dirs: BTreeSet<NodeId> = before.iter().chain(after).copied().collect();
            nodes.extend(&dirs);
            for name in shown {
                let was = then.lookup(before, &name)?.map(|entry| Mount::shown(&entry));
                let is = now.lookup(after, &name)?.map(|entry| Mount::shown(&entry));
                let meaning = Meaning { dirs: dirs.clone(), before: was, after: is };
                names.insert((dir, name), meaning);
            }
        }
        let mut known = BTreeSet::new();
        for id in nodes {
            if id == NodeId::Root || old.node(&id)?.is_some() {
                known.insert(id);
            }
        }
        Ok(Self { names, nodes: known })
    }

    /// The same in the kernel's words.
    pub(super) fn outdated(&self, inodes: &Inodes) -> Vec<Outdated> {
        let mut outdated = Vec::new();
        for ((_, name), Meaning { dirs, before, after }) in &self.names {
            let gone = before.filter(|_| after.is_none()).and_then(|shown| inodes.known(&shown));
            for dir in dirs.iter().filter_map(|dir| inodes.known(&Shown::node(*dir))) {
                let name = name.as_bytes().to_vec();
                outdated.push(match gone {
                    Some(ino) => Outdated::Gone { dir, name, ino },
                    None => Outdated::Name { dir, name },
                });
            }
        }
        let nodes = self.nodes.iter().flat_map(|id| inodes.numbers_of(id));
        outdated.extend(nodes.map(Outdated::Inode));
        outdated
    }
}

/// The directories that are shown as one; none for one that was not there before.
struct Pair {
    before: Vec<NodeId>,
    after: Vec<NodeId>,
}

/// What each directory is shown as one with, remembered.
struct Dirs<'a> {
    old: &'a LiveTree,
    new: &'a LiveTree,
    groups: HashMap<NodeId, Pair>,
}

impl Dirs<'_> {
    fn find(&mut self, dir: &NodeId) -> Result<&Pair> {
        if !self.groups.contains_key(dir) {
            let after = places::group(self.new, dir)?;
            // One that is new may be shown as one with another that the kernel knows.
            let mut before = Vec::new();
            for id in &after {
                if before.is_empty() && (*id == NodeId::Root || self.old.node(id)?.is_some()) {
                    before = places::group(self.old, id)?;
                }
            }
            self.groups.insert(*dir, Pair { before, after });
        }
        Ok(&self.groups[dir])
    }
}

fn slots_of(index: &IndexEdits) -> impl Iterator<Item = Slot> {
    let children = index.children.keys().map(|(dir, name, _)| (dir, name));
    let all = children.chain(index.contested.keys().map(|(dir, name)| (dir, name)));
    all.map(|(dir, name)| (*dir, name.clone()))
}

/// The contested names of `nodes`: the index may stay as it was while other versions are shown.
fn disputed<'n>(tree: &LiveTree, nodes: impl Iterator<Item = &'n NodeId>) -> Result<Vec<Slot>> {
    let mut slots = Vec::new();
    if tree.is_at_peace()? {
        return Ok(slots);
    }
    for id in nodes {
        let Some(node) = tree.node(id)? else { continue };
        for spot in spots(&node, tree.displaced(id)?.as_ref()) {
            if tree.is_contested(&spot.parent, &spot.name)? {
                slots.push((spot.parent, spot.name));
            }
        }
    }
    Ok(slots)
}

/// The tree of a version, without changes on it; it knows which copies are called after what, and
/// does not find that anew for each name.
fn bare(base: &BaseTree) -> LiveTree {
    LiveTree::over(base.clone(), Layer::default())
}

/// The directories that are shown as one with others in `new` than in `old`, to which `nodes` and
/// `index` lead.
fn regrouped(
    old: &LiveTree,
    new: &LiveTree,
    nodes: &NodeEdits<Data>,
    index: &IndexEdits,
) -> Result<BTreeSet<NodeId>> {
    if old.is_at_peace()? && new.is_at_peace()? {
        return Ok(BTreeSet::new());
    }
    let mut moved: BTreeSet<NodeId> = nodes.keys().chain(index.displaced.keys()).copied().collect();
    // What lies in directories that have become one, or ceased to be, has not moved itself.
    for (dir, name) in index.contested.keys() {
        let there = old.named(dir, name)?.into_iter().chain(new.named(dir, name)?);
        moved.extend(there.map(|(id, _)| id));
    }
    grouped_otherwise(old, new, moved)
}

/// The directories that those of `dirs` are shown as one with, where this is not the same in both.
fn grouped_otherwise(
    old: &LiveTree,
    new: &LiveTree,
    dirs: BTreeSet<NodeId>,
) -> Result<BTreeSet<NodeId>> {
    let mut grouped = BTreeSet::new();
    for id in dirs {
        let (before, after) = (places::group(old, &id)?, places::group(new, &id)?);
        if before != after {
            grouped.extend(before.into_iter().chain(after));
        }
    }
    Ok(grouped)
}

/// All names in `dirs`.
fn names_in(tree: &LiveTree, dirs: &BTreeSet<NodeId>) -> Result<Vec<Slot>> {
    let mut slots = Vec::new();
    for dir in dirs {
        let children = tree.children(dir, None, usize::MAX)?.into_iter();
        slots.extend(children.map(|(name, ..)| (*dir, name)));
    }
    Ok(slots)
}
