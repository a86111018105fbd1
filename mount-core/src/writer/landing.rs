//! Landing: the live state is put on a version that a merge made.
//!
//! Under the lock of `core`, so that no call sees half of it. What is open goes on, see
//! [`follow`](crate::follow).

use std::collections::BTreeSet;

use cairnfs_merge::{DeviceId, IndexEdits, NodeEdits, NodeId, OpId, Side, Spot, Tree, merge};

use super::stale::Stale;
use crate::{
    Outdated, Result,
    file::Data,
    follow::open_versions,
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
    pub(super) stale: Stale,
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
        // Nothing fails from here on.
        core.tree = next;
        core.head = landing.head;
        core.op = op;
        core.unsaved = changed.into_iter().collect();
        self.follow(core, open, &mut outdated);
        self.room.account_tree(core.tree.held_bytes());
        self.note_rights(core);
        // Whoever opens something once the lock is let go must find that said.
        self.tell_outdated(&outdated);
        Ok(())
    }
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
