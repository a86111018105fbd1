//! What the version we stand on knows, and how a merge keeps ahead of it.

use cairnfs_merge::{OpId, Relation, View, conflicts};
use cairnfs_store::BlobId;

use crate::{MergeOutcome, MergeStep, Result, manifest::Manifest, shared::Shared, versions};

impl Shared {
    /// Sees to it that changes are made under an operation of at least `clock`; `false` if there
    /// are changes under an earlier one.
    pub(super) fn raise_clock(&self, clock: u64) -> bool {
        let mut core = self.core.write();
        if core.op.lamport >= clock {
            return true;
        }
        if core.tree.changed_count() > 0 {
            return false;
        }
        core.op = OpId { lamport: clock, ..core.op };
        core.next_n = 0;
        true
    }

    /// Whether the version we stand on knows all operations that `theirs` does.
    pub(super) fn knows_all_of(&self, theirs: &Manifest) -> bool {
        let core = self.core.read();
        match Relation::of(&core.head.vv, &theirs.vv) {
            // Where the same is known but something else is shown, somebody wrote one operation
            // twice: never to be taken for agreement.
            Relation::Same => core.tree.base().root == theirs.root,
            Relation::Ahead => true,
            Relation::Behind | Relation::Concurrent => false,
        }
    }

    /// Whether the version we stand on holds all that the version `id`, `theirs`, does: it knows the
    /// same operations, and means the same by them. `false` if that cannot be told.
    pub(crate) fn holds_all_of(&self, id: BlobId, theirs: &Manifest) -> Result<bool> {
        if !self.knows_all_of(theirs) {
            return Ok(false);
        }
        let ours = self.core.read().head.clone();
        // Of what is equal it does not matter how either came to it.
        let is_equal = ours.vv == theirs.vv && ours.charter == theirs.charter;
        Ok(is_equal || versions::holds(ours.manifest.id, id, &self.vault)?)
    }

    /// What a merge has come to, as `step` says: the version we stand on, and how much conflicts there.
    ///
    /// # Errors
    ///
    /// Damage in the store.
    pub(super) fn outcome(&self, step: MergeStep) -> Result<MergeOutcome> {
        let (head, base) = {
            let core = self.core.read();
            (core.head.manifest.id.0, core.tree.base().clone())
        };
        // Without the lock: there may be many, and nobody changes a version.
        let conflicts = conflicts(&View::new(&base))?.len() as u64;
        Ok(MergeOutcome { head, step, conflicts })
    }
}
