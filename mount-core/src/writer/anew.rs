//! Beginning anew after this device was put back to an older state.
//!
//! What it has changed since bears operations that others know with another meaning. They are given
//! a name that nobody has used, that of the next incarnation; from then on they are what they are:
//! changes that the others do not know of.

use std::{sync::Arc, time::Instant};

use cairnfs_merge::{NodeEdits, OpId, derive};
use cairnfs_store::{BlobId, Kind as BlobKind};

use super::{Writer, landing::Landing, merge::difference};
use crate::{
    Error, Result, Time,
    fetch::{Fetch, rejected},
    file::Data,
    manifest::{Manifest, device_id},
    shared::HeadState,
    tree::{BaseTree, Layer, map_edits},
    vault::Sealer,
    versions::{self, Known, WRITTEN_TWICE},
};

/// How often it is tried while something is changed all the time.
const ROUNDS_MAX: usize = 8;

impl Writer {
    /// Gives all that this device has done since it and `fetched` were one to its next incarnation:
    /// a version of that, and nothing else, follows from where they parted.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] if that place is not here any more, or others' changes were merged since;
    /// a full disk, a failed write or barrier. Nothing has changed then.
    pub(super) fn begin_anew(&mut self, fetched: &Fetch) -> Result<()> {
        let started = Instant::now();
        let mut result = Err(Error::Busy);
        for _ in 0..ROUNDS_MAX {
            let clock = self.shared.core.read().op.lamport;
            self.settle_local(clock)?;
            result = self.try_anew(fetched);
            if !matches!(result, Err(Error::Busy)) {
                break;
            }
        }
        if result.is_err() {
            self.drop_batch();
        }
        result?;
        let incarnation = self.shared.core.read().head.incarnation;
        log::warn!("anew incarnation={incarnation} us={}", started.elapsed().as_micros());
        Ok(())
    }

    fn try_anew(&mut self, fetched: &Fetch) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let (ours, base) = {
            let core = shared.core.read();
            (core.head.clone(), core.tree.base().clone())
        };
        let known = Known { new: fetched.versions(), shared: &shared };
        let fork = versions::fork(ours.manifest.id, BlobId(fetched.head()), &known)?;
        let (fork_id, fork) = fork.ok_or_else(|| rejected(WRITTEN_TWICE))?;
        let (me, incarnation) = (self.device_id(&ours), ours.incarnation.saturating_add(1));
        let anew = device_id(&self.device.public(), incarnation);
        let mut vv = fork.vv.clone();
        vv.learn(&OpId { lamport: ours.vv.get(&me), device: me });
        if vv != ours.vv {
            // Somebody else's changes were merged since: they cannot be told apart from here.
            return Err(rejected(WRITTEN_TWICE));
        }
        let known_before = fork.vv.get(&me);
        let rename = |op: OpId| {
            let is_ours = op.device == me && op.lamport > known_before;
            if is_ours { OpId { device: anew, ..op } } else { op }
        };
        let nodes =
            renamed(&BaseTree::open(Arc::clone(&shared.vault), fork.root)?, &base, &rename)?;
        let index = derive(&base, &nodes)?;
        let layer = Layer { nodes, index };
        let mut sealer = Sealer::new(&mut self.appender, &shared.vault);
        let edits = map_edits(&layer, |long| sealer.put_node(long))?;
        let root = sealer.apply(base.root, edits)?;
        // All that is newer in it is this device's own, or others' would be known.
        let charter = ours.charter.retagged(&rename);
        let last = OpId { lamport: ours.vv.get(&me), device: anew };
        let mut vv = fork.vv.clone();
        vv.learn(&last);
        let manifest = Manifest {
            bucket: shared.bucket,
            author: self.device.public(),
            incarnation,
            parents: vec![fork_id],
            vv: vv.clone(),
            root,
            ops: last.lamport.saturating_sub(fork.vv.max_lamport()),
            time: Time::now(),
            charter: charter.clone(),
        };
        let blob = self.appender.put(BlobKind::Manifest, &manifest.seal(&self.device))?;
        let head = HeadState { manifest: blob, vv, charter, incarnation };
        let op = OpId { lamport: last.lamport.saturating_add(1), device: anew };
        let carried = self.write_head(&head, Some(op))?;
        shared.carried(carried);
        let Layer { nodes, index } = layer;
        let base = BaseTree::open(Arc::clone(&shared.vault), root)?;
        let landing = Landing { head, base, nodes, index, first: false, op: Some(op) };
        let outdated = shared.land(landing, anew)?;
        shared.tell_outdated(&outdated);
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
