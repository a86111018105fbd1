//! Making a version of this device's own, to be stood on.

use std::sync::Arc;

use cairnfs_merge::VersionVector;
use cairnfs_store::{BlobId, Kind as BlobKind, Secret, map::Root};

use super::Writer;
use crate::{
    Error, Result, Time,
    charter::Charter,
    manifest::Manifest,
    shared::HeadState,
    tree::{BaseTree, Layer, map_edits},
    vault::Sealer,
};

/// What a version is to say besides its tree.
pub(super) struct VersionFacts {
    pub(super) incarnation: u32,
    /// The versions that it follows from.
    pub(super) parents: Vec<BlobId>,
    /// The time of the latest operation that those know.
    pub(super) before: u64,
    pub(super) vv: VersionVector,
    pub(super) charter: Charter,
    /// Those that its members are to have.
    pub(super) secrets: Arc<[(u16, Secret)]>,
}

/// A version that was put into the log. Nothing stands on it yet.
pub(super) struct NewVersion {
    pub(super) head: HeadState,
    pub(super) base: BaseTree,
    /// When it was made.
    pub(super) time: Time,
}

impl Writer {
    /// Makes a version of the tree that `on` becomes by `layer`: seals what it is made of, and signs it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if no device would take it, this one included; damage in the map, a full
    /// disk, a failed write.
    pub(super) fn make_version(
        &mut self,
        layer: &Layer,
        on: Root,
        facts: VersionFacts,
    ) -> Result<NewVersion> {
        let mut sealer = Sealer::new(&mut self.appender, &self.shared.vault);
        let edits = map_edits(layer, |long| sealer.put_node(long))?;
        let root = sealer.apply(on, edits)?;
        let VersionFacts { incarnation, mut parents, before, vv, charter, secrets } = facts;
        parents.sort_unstable();
        let manifest = Manifest {
            bucket: self.shared.bucket,
            author: self.device.public(),
            incarnation,
            parents,
            ops: vv.max_lamport().saturating_sub(before),
            vv,
            root,
            time: Time::now(),
            charter,
        };
        if !manifest.is_within_bounds() {
            return Err(Error::Invalid("a version can name no more devices, times or members"));
        }
        let blob = self.appender.put(BlobKind::Manifest, &manifest.sign(&self.device))?;
        let Manifest { vv, charter, time, .. } = manifest;
        let base = BaseTree::open(Arc::clone(&self.shared.vault), root)?;
        let head = HeadState { manifest: blob, vv, charter, incarnation, secrets };
        Ok(NewVersion { head, base, time })
    }
}
