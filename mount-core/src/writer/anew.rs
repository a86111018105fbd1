//! Beginning anew after this device was put back to an older state.
//!
//! What it has changed since bears operations that others know with another meaning. They are given
//! a name that nobody has used, that of the next incarnation; from then on they are what they are:
//! changes that the others do not know of. They become a version that follows from where the two
//! parted, members and settings too, and that is merged as any other is.
//!
//! Whoever merges notices (`versions`). Any other device waits for that, and takes nothing, from
//! whomever, in which an operation means something else than here. If the version where they parted
//! is not here any more, or others' changes were merged since, what it did cannot be told from what
//! they did: it rejects what it is offered.

use std::{sync::Arc, time::Instant};

use cairnfs_merge::{DeviceId, NodeEdits, NodeId, OpId, derive};
use cairnfs_store::BlobId;

use super::{
    Writer,
    difference::difference,
    version::{NewVersion, VersionFacts},
};
use crate::{
    Error, Result,
    fetch::Fetch,
    file::Data,
    inodes::Shown,
    manifest::{INCARNATIONS_MAX, device_id},
    shared::{HeadState, Shared},
    tree::{BaseTree, Layer, LiveTree},
    versions,
};

/// What the operations of a device since a fork are called instead.
pub(super) struct Renaming {
    from: DeviceId,
    after: u64,
    to: DeviceId,
}

/// A version under new names.
struct Renamed {
    head: HeadState,
    base: BaseTree,
    renaming: Renaming,
    /// The nodes that it names anew, under the old names, and others.
    nodes: Vec<NodeId>,
}

impl Renaming {
    pub(super) fn of(&self, op: OpId) -> OpId {
        let is_since = op.device == self.from && op.lamport > self.after;
        if is_since { OpId { device: self.to, ..op } } else { op }
    }

    pub(super) fn of_node(&self, id: NodeId) -> NodeId {
        id.retagged(&|op| self.of(op))
    }
}

impl Writer {
    /// Gives all that this device has done since it and `fetched` were one to its next incarnation:
    /// a version of that, and nothing else, follows from where they parted.
    ///
    /// # Errors
    ///
    /// [`Error::PutBack`] if that place is not here any more, if others' changes were merged since,
    /// or if it began anew too often; a full disk, a failed write or barrier. Nothing has changed then.
    pub(super) fn begin_anew(&mut self, fetched: &Fetch) -> Result<()> {
        let started = Instant::now();
        let result = self.write_anew(fetched);
        if result.is_err() {
            self.drop_batch();
        }
        let renamed = self.shared.rename(result?);
        renamed.inspect_err(|err| self.part_from_disk(err))?;
        let incarnation = self.shared.core.read().head.incarnation;
        log::warn!("anew incarnation={incarnation} us={}", started.elapsed().as_micros());
        Ok(())
    }

    fn write_anew(&mut self, fetched: &Fetch) -> Result<Renamed> {
        let shared = Arc::clone(&self.shared);
        let (ours, base) = {
            let core = shared.core.read();
            (core.head.clone(), core.tree.base().clone())
        };
        let fork = versions::fork(ours.manifest.id, BlobId(fetched.head()), &shared.vault)?;
        let (fork_id, fork) = fork.ok_or(Error::PutBack)?;
        let me = self.device_id(&ours);
        let theirs = shared.vault.manifest(&BlobId(fetched.head()))?;
        // It may have begun anew before, which the state that it was put back to knows nothing of.
        let is_new = |device: &DeviceId| {
            ours.vv.get(device) == 0 && theirs.as_ref().is_none_or(|it| it.vv.get(device) == 0)
        };
        let (incarnation, anew) = (ours.incarnation.saturating_add(1)..=INCARNATIONS_MAX)
            .map(|incarnation| (incarnation, device_id(&self.device.public(), incarnation)))
            .find(|(_, device)| is_new(device))
            .ok_or(Error::PutBack)?;
        let mut vv = fork.vv.clone();
        vv.learn(&OpId { lamport: ours.vv.get(&me), device: me });
        if vv != ours.vv {
            // Somebody else's changes were merged since: they cannot be told apart from here.
            return Err(Error::PutBack);
        }
        let renaming = Renaming { from: me, after: fork.vv.get(&me), to: anew };
        let rename = |op| renaming.of(op);
        let nodes =
            renamed(&BaseTree::open(Arc::clone(&shared.vault), fork.root)?, &base, &rename)?;
        let index = derive(&base, &nodes)?;
        let layer = Layer { nodes, index };
        let mut vv = fork.vv.clone();
        vv.learn(&OpId { lamport: ours.vv.get(&me), device: anew });
        let facts = VersionFacts {
            incarnation,
            parents: vec![fork_id],
            before: fork.vv.max_lamport(),
            vv,
            // All that is newer in it is this device's own, or others' would be known.
            charter: ours.charter.retagged(&rename),
            secrets: ours.secrets_and(shared.vault.blobs().keys().current()),
        };
        let NewVersion { head, base, .. } = self.make_version(&layer, base.root, facts)?;
        self.write_head(&head, Some(&renaming))?;
        let nodes = layer.nodes.into_keys().collect();
        Ok(Renamed { head, base, renaming, nodes })
    }
}

impl Shared {
    /// Gives what is live its new names, on a version that has them. The kernel keeps the inode
    /// numbers that it knows.
    ///
    /// # Errors
    ///
    /// Damage in the tree: nothing has changed then.
    fn rename(&self, Renamed { head, base, renaming, nodes: mut known }: Renamed) -> Result<()> {
        let mut guard = self.core.write();
        let core = &mut *guard;
        let rename = |op| renaming.of(op);
        let live = core.tree.live().nodes.iter().map(|(id, node)| {
            let node = node.as_ref().map(|node| Arc::new(node.retagged(&rename)));
            (renaming.of_node(*id), node)
        });
        let nodes: NodeEdits<Data> = live.collect();
        let index = derive(&base, &nodes)?;
        // Nothing fails from here on.
        known.extend(core.tree.live().nodes.keys());
        core.unsaved = nodes.keys().copied().collect();
        core.tree = LiveTree::over(base, Layer { nodes, index });
        core.op = renaming.of(core.op);
        core.head = head;
        let renamed = |shown: &Shown| Shown { node: renaming.of_node(shown.node), ..*shown };
        let open: Vec<Shown> = core.files.keys().copied().collect();
        for shown in open.into_iter().filter(|shown| renamed(shown) != *shown) {
            core.files.rename(&shown, renamed(&shown));
        }
        self.inodes.lock().rename(known.into_iter().map(Shown::node), renamed);
        Ok(())
    }
}

/// The nodes that were changed since `fork`, under their new names.
fn renamed(
    fork: &BaseTree,
    base: &BaseTree,
    rename: &impl Fn(OpId) -> OpId,
) -> Result<NodeEdits<Data>> {
    let mut nodes = NodeEdits::new();
    for (id, _, is) in difference(fork, base)?.nodes {
        let Some(node) = is else { continue };
        let now = id.retagged(rename);
        if now != id {
            nodes.insert(id, None);
        }
        nodes.insert(now, Some(Arc::new(node.retagged(rename))));
    }
    Ok(nodes)
}
