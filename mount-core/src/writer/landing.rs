//! Landing: the live state is put on a version that a merge made.
//!
//! Under the lock of `core`, so that no call sees half of it. What is open goes on, see
//! [`follow`](crate::follow).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cairnfs_merge::{DeviceId, IndexEdits, Node, NodeEdits, NodeId, OpId, Side, Spot, Tree, merge};

use super::stale::Stale;
use crate::{
    Outdated, Result,
    file::Data,
    follow::open_versions,
    inodes::{Bound, Shown},
    places,
    shared::{Core, HeadState, Shared},
    tree::{BaseTree, Layer, LiveTree, attrs},
};

/// A version to land on, and how it differs from the one before.
pub(super) struct Landing {
    pub(super) head: HeadState,
    pub(super) base: BaseTree,
    pub(super) nodes: NodeEdits<Data>,
    pub(super) index: IndexEdits,
    pub(super) stale: Stale,
    /// What is left of directories that it has removed.
    pub(super) removed_dirs: BTreeMap<NodeId, Arc<Node<Data>>>,
    /// The first version of a device that has joined: nobody can have looked at anything yet.
    pub(super) first: bool,
}

impl Shared {
    /// Puts the live state on the new version, and says what the kernel must no longer believe.
    ///
    /// # Errors
    ///
    /// Damage in the trees: the live state stands on the old version then, as it did, while the disk
    /// stands on the new one.
    pub(super) fn land(&self, landing: Landing, me: DeviceId) -> Result<()> {
        let mut guard = self.core.write();
        let core = &mut *guard;
        let (live, op) = rebase(core, &landing, me)?;
        let changed: Vec<NodeId> = live.nodes.keys().copied().collect();
        let next = LiveTree::over(landing.base, live);
        let open = open_versions(core, |id, spots| {
            if landing.nodes.contains_key(id) {
                return Ok(true);
            }
            for Spot { parent, name, .. } in spots {
                // A name that was contested before may show another version by a change of that one.
                if next.live().index.contested.contains_key(&(*parent, name.clone()))
                    || landing.stale.has(&places::group(&core.tree, parent)?, name)
                {
                    return Ok(true);
                }
            }
            Ok(false)
        })?;
        let mut outdated = if landing.first {
            vec![Outdated::Inode(crate::Ino::ROOT)]
        } else {
            let stale = landing.stale.with_live(&core.tree, &next, &landing.index)?;
            stale.outdated(&self.inodes.lock())
        };
        let open_dirs = self.open_dirs_that_go(core, &next, &landing.nodes);
        // Nothing fails from here on.
        core.tree = next;
        core.head = landing.head;
        core.op = op;
        core.unsaved = changed.into_iter().collect();
        self.follow(core, open, &mut outdated);
        self.leave_dirs(core, open_dirs, landing.removed_dirs);
        self.room.account_tree(core.tree.held_bytes());
        self.note_rights(core);
        // Whoever opens something once the lock is let go must find that said.
        self.tell_outdated(&outdated);
        Ok(())
    }
}

impl Shared {
    /// What is left of the directories that are open and not in `next` any more. One that cannot be read
    /// is as if it were not open.
    fn open_dirs_that_go(
        &self,
        core: &Core,
        next: &LiveTree,
        nodes: &NodeEdits<Data>,
    ) -> Vec<(NodeId, Arc<Node<Data>>)> {
        let mut going = Vec::new();
        for ino in self.handles.open_dirs() {
            let Some(Bound::Shown(shown)) = self.inodes.lock().resolve(ino) else { continue };
            if !is_removed(next, nodes, &shown.node) {
                continue;
            }
            match core.tree.node(&shown.node) {
                Ok(Some(node)) => going.push((shown.node, Arc::new(attrs::remains(&node)))),
                Ok(None) => (),
                Err(err) => log::warn!("land dir={} reason={err}", shown.node),
            }
        }
        going
    }

    /// Directories that have gone stay for who is in them: those that are `open`, and of `removed`,
    /// in which somebody may stand, as many as are remembered.
    fn leave_dirs(
        &self,
        core: &Core,
        open: Vec<(NodeId, Arc<Node<Data>>)>,
        mut removed: BTreeMap<NodeId, Arc<Node<Data>>>,
    ) {
        let mut inodes = self.inodes.lock();
        for (id, node) in open {
            removed.remove(&id);
            inodes.removed_dir(Shown::node(id), node);
        }
        // What was done here meanwhile may have brought one back.
        let gone = removed.into_iter().filter(|(id, _)| !is_alive(&core.tree, id));
        inodes.gone_dirs(gone.collect());
    }
}

/// Whether `nodes` removes `id`, and what is live on `next` does not bring it back.
fn is_removed(next: &LiveTree, nodes: &NodeEdits<Data>, id: &NodeId) -> bool {
    matches!(nodes.get(id), Some(None)) && !is_alive(next, id)
}

/// Whether a node that the version below lacks is alive.
fn is_alive(tree: &LiveTree, id: &NodeId) -> bool {
    matches!(tree.changed(id), Some(Some(_)))
}

/// The changes since the last version, joined with the new one: what is live on it from now on.
fn rebase(core: &Core, landing: &Landing, me: DeviceId) -> Result<(Layer, OpId)> {
    let live = &core.tree.live().nodes;
    if live.is_empty() {
        return Ok((Layer::default(), core.op));
    }
    // Without the present operation, which is later than those that the merge made for this device: whoever
    // knows it would seem to have seen what they wrote, and to have removed it.
    let vv = &core.head.vv;
    // The new version has what it differs in from the one before, but for what it removed: of that
    // the join must know, for what was moved here meanwhile is to keep what was in it.
    let removed = landing.nodes.iter().filter(|(_, node)| node.is_none()).map(|(id, _)| id);
    let ids: BTreeSet<&NodeId> = live.keys().chain(removed).collect();
    let differing =
        ids.into_iter().map(|id| Ok((*id, landing.base.node(id)?, core.tree.node(id)?)));
    let merged = merge(
        Side { tree: &landing.base, vv: &landing.head.vv },
        Side { tree: &core.tree, vv },
        differing,
        me,
    )?;
    let op = merged.restored.map_or(core.op, |(op, _)| op.max(core.op));
    Ok((Layer { nodes: merged.nodes, index: merged.index }, op))
}
