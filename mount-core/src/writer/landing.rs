//! Landing: the live state is put on a version that a merge made.
//!
//! Under the lock of `core`, so that no call sees half of it. What is open goes on, see
//! [`follow`](crate::follow).

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry as MapEntry};

use cairnfs_merge::{
    DeviceId, Entry, IndexEdits, Name, NodeEdits, NodeId, OpId, Side, Spot, Tree, View, derive,
    merge,
};

use crate::{
    Outdated, Result,
    file::Data,
    follow::open_versions,
    inodes::Shown,
    mount::Mount,
    places,
    shared::{Core, HeadState, Shared},
    tree::{BaseTree, Layer, LiveTree},
};

/// A version to land on, and how it differs from the one before.
pub(super) struct Landing {
    pub(super) head: HeadState,
    pub(super) base: BaseTree,
    pub(super) nodes: NodeEdits<Data>,
    pub(super) index: IndexEdits,
    /// The first version of a device that has joined: nobody can have looked at anything yet.
    pub(super) first: bool,
}

impl Shared {
    /// Puts the live state on the new version, and says what the kernel must no longer believe.
    ///
    /// # Errors
    ///
    /// Damage in the trees: the live state stands on the old version then, as it did, while the disk
    /// stands on the new one. Or changed contents could not be made files on the new one: the record
    /// that began it has them, and the next save would have them dropped.
    pub(super) fn land(&self, landing: Landing, me: DeviceId) -> Result<()> {
        let mut guard = self.core.write();
        let core = &mut *guard;
        let (live, op) = rebase(core, &landing, me)?;
        let changed: Vec<NodeId> = live.nodes.keys().copied().collect();
        let contested = contested(&landing.index, &live.index);
        let next = LiveTree::over(landing.base, live);
        let open = open_versions(core, |id, spots| {
            let here = |spot: &Spot| contested.contains(&(spot.parent, spot.name.clone()));
            landing.nodes.contains_key(id) || spots.iter().any(here)
        })?;
        let mut outdated = if landing.first {
            vec![Outdated::Inode(crate::Ino::ROOT)]
        } else {
            self.outdated(core, &next, &landing.nodes, &landing.index)?
        };
        // Whatever fails from here on, all of it is done.
        core.tree = next;
        core.head = landing.head;
        core.op = op;
        core.unsaved = changed.into_iter().collect();
        let followed = self.follow(core, open, &mut outdated);
        self.note_rights(core);
        // Whoever opens something once the lock is let go must find that said.
        self.tell_outdated(&outdated);
        followed
    }

    /// What the kernel may believe that is no longer so.
    fn outdated(
        &self,
        core: &Core,
        next: &LiveTree,
        nodes: &NodeEdits<Data>,
        index: &IndexEdits,
    ) -> Result<Vec<Outdated>> {
        let old = &core.tree;
        let mut outdated = Vec::new();
        let mut known = Dirs { old, next, groups: HashMap::new() };
        // What each name showed that may show another thing now.
        let mut names: BTreeMap<(NodeId, Name), Option<Entry<Data>>> = BTreeMap::new();
        for (dir, name) in index.contested.keys() {
            for entry in View::new(next).claimed(&known.after(dir)?, name)? {
                names.insert((*dir, entry.name), None);
            }
            for entry in View::new(old).claimed(&known.before(dir)?, name)? {
                names.insert((*dir, entry.name.clone()), Some(entry));
            }
        }
        let changed = index.children.keys().map(|(dir, name, _)| (dir, name));
        for (dir, name) in changed.chain(index.contested.keys().map(|(dir, name)| (dir, name))) {
            if let MapEntry::Vacant(unread) = names.entry((*dir, name.clone())) {
                unread.insert(View::new(old).lookup(&known.before(dir)?, name)?);
            }
        }
        let mut dirs_changed = BTreeSet::new();
        for ((dir, name), was) in names {
            let (before, after) = (known.before(&dir)?, known.after(&dir)?);
            if before.is_empty() {
                continue;
            }
            let gone = match was.and_then(|was| self.inodes.lock().known(&Mount::shown(&was))) {
                Some(ino) if View::new(next).lookup(&after, &name)?.is_none() => Some(ino),
                _ => None,
            };
            let inodes = self.inodes.lock();
            for id in before.iter().chain(&after).collect::<BTreeSet<_>>() {
                dirs_changed.insert(*id);
                let Some(dir) = inodes.known(&Shown::node(*id)) else { continue };
                let name = name.as_bytes().to_vec();
                outdated.push(match gone {
                    Some(ino) => Outdated::Gone { dir, name, ino },
                    None => Outdated::Name { dir, name },
                });
            }
        }
        let inodes = self.inodes.lock();
        for id in nodes.keys().copied().chain(dirs_changed).collect::<BTreeSet<_>>() {
            if id == NodeId::Root || old.node(&id)?.is_some() {
                outdated.extend(inodes.numbers_of(&id).into_iter().map(Outdated::Inode));
            }
        }
        Ok(outdated)
    }
}

/// The directories shown as one, before and after; none for one that was not there before.
struct Dirs<'a> {
    old: &'a LiveTree,
    next: &'a LiveTree,
    groups: HashMap<NodeId, (Vec<NodeId>, Vec<NodeId>)>,
}

impl Dirs<'_> {
    fn find(&mut self, dir: &NodeId) -> Result<&(Vec<NodeId>, Vec<NodeId>)> {
        if !self.groups.contains_key(dir) {
            let after = places::group(self.next, dir)?;
            // One that is new may be shown as one with another that the kernel knows.
            let mut before = Vec::new();
            for id in &after {
                if before.is_empty() && (*id == NodeId::Root || self.old.node(id)?.is_some()) {
                    before = places::group(self.old, id)?;
                }
            }
            self.groups.insert(*dir, (before, after));
        }
        Ok(&self.groups[dir])
    }

    fn before(&mut self, dir: &NodeId) -> Result<Vec<NodeId>> {
        Ok(self.find(dir)?.0.clone())
    }

    fn after(&mut self, dir: &NodeId) -> Result<Vec<NodeId>> {
        Ok(self.find(dir)?.1.clone())
    }
}

/// The changes since the last version, joined with the new one: what is live on it from now on.
fn rebase(core: &Core, landing: &Landing, me: DeviceId) -> Result<(Layer, OpId)> {
    let live = &core.tree.live().nodes;
    if live.is_empty() {
        return Ok((Layer::default(), core.op));
    }
    let mut vv = core.head.vv.clone();
    vv.learn(&core.op);
    let differing = live.keys().map(|id| Ok((*id, core.tree.node(id)?, landing.base.node(id)?)));
    let merged = merge(
        Side { tree: &core.tree, vv: &vv },
        Side { tree: &landing.base, vv: &landing.head.vv },
        differing,
        me,
    )?;
    let mut nodes: BTreeMap<_, _> = live.clone();
    nodes.extend(merged.nodes);
    let index = derive(&landing.base, &nodes)?;
    let op = merged.restored.map_or(core.op, |(op, _)| op);
    Ok((Layer { nodes, index }, op))
}

/// The names that were or are contested on either side.
fn contested(landed: &IndexEdits, live: &IndexEdits) -> BTreeSet<(NodeId, Name)> {
    landed.contested.keys().chain(live.contested.keys()).cloned().collect()
}
