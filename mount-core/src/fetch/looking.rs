//! What is needed, looked at: whether it is lacking, and is to be asked for.

use std::collections::hash_map::Entry;

use cairnfs_store::{BlobId, Error as StoreError, map::Root};

use super::{
    Fetch, LACKING_VERSIONS_MAX, Phase, rejected,
    walk::{Need, Place, Under},
};
use crate::{Error, Result};

/// Why a version is rejected that says of something another length than it has.
pub(super) const OTHER_LENGTH: &str = "a blob of another length than the one referred to";

impl Fetch {
    /// Asks for what is needed, or if it is here for what that needs.
    pub(super) fn look_at(&mut self, need: Need) -> Result<()> {
        if self.is_passed_over(&need)? {
            return Ok(());
        }
        let id = need.id();
        if self.keeping.holds(&id) {
            if matches!(need, Need::Chunk(_)) {
                return Ok(());
            }
            // It is needed in two places.
            while self.keeping.holds(&id) {
                self.todo.extend(self.keeping.wait()?);
            }
        }
        if self.mends && !self.walked.insert(id) {
            return Ok(());
        }
        let mut is_here = self.shared.vault.blobs().contains(&id)?;
        if self.mends && !(is_here && self.is_readable(&id)?) {
            if is_here || !self.is_beyond_head {
                self.rotten.insert(id);
            }
            is_here = false;
        }
        if is_here {
            self.must_fit(&need)?;
            if self.expand(&need)? {
                return Ok(());
            }
            let is_first = self.rotten.insert(id);
            // Another need may have found it so, and have asked for it.
            if !is_first && !self.lacking.contains_key(&id) {
                return Err(rotten_again(&id));
            }
        }
        if self.phase == Phase::Versions && self.lacking.len() >= LACKING_VERSIONS_MAX {
            return Err(rejected("a version that follows from too many at once"));
        }
        match self.lacking.entry(id) {
            Entry::Occupied(needs) => needs.into_mut().push(need),
            Entry::Vacant(none) => {
                self.ready.push_back(id);
                none.insert(vec![need]);
            }
        }
        Ok(())
    }

    /// Whether nothing of it is lacking, as can be told without looking into it: invariant 2.
    fn is_passed_over(&mut self, need: &Need) -> Result<bool> {
        match need {
            Need::TreeNode(place) => self.is_ours(self.ours.root, place),
            Need::FileNode(place, ours) => {
                if self.walked.contains(&place.blob.id) {
                    // One that mends looks at what was believed.
                    if self.mends {
                        return Ok(true);
                    }
                    self.must_fit(need)?;
                    if self.fits_again(place, *ours)? {
                        return Ok(true);
                    }
                }
                self.is_ours(*ours, place)
            }
            Need::Version(_) | Need::LongNode(..) | Need::Chunk(_) => Ok(false),
        }
    }

    /// What is here must be as long as is said of it: who stands on what says otherwise finds it damaged
    /// at the next start.
    fn must_fit(&self, need: &Need) -> Result<()> {
        let Some(len) = need.len() else { return Ok(()) };
        match self.shared.vault.blobs().describe(&need.id()) {
            Ok((_, blob)) if blob.len != len => Err(rejected(OTHER_LENGTH)),
            // What is damaged is found to be when it is looked into.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Whether the blob can be read here and given to others, however long it takes to see that.
    fn is_readable(&self, id: &BlobId) -> Result<bool> {
        let blobs = self.shared.vault.blobs();
        let read =
            || blobs.get_sealed(id).and(blobs.describe(id)).and_then(|(_, blob)| blobs.get(&blob));
        match read() {
            Ok(_) => Ok(true),
            Err(StoreError::UnknownEpoch { epoch }) => Err(self.missing_secret(id, epoch)?),
            Err(err) => {
                let err = Error::from(err);
                if err.is_damage() { Ok(false) } else { Err(err) }
            }
        }
    }

    /// A blob that is here is sealed under a secret that is not.
    pub(super) fn missing_secret(&self, id: &BlobId, epoch: u16) -> Result<Error> {
        let record = self.shared.vault.blobs().get_sealed(id)?;
        Ok(Error::MissingSecret { epoch, record: Some(record.into()) })
    }

    /// Whether this node is a part of our own map `root`, which is whole, and reaches no further there.
    fn is_ours(&self, root: Root, place: &Place) -> Result<bool> {
        let Some(Under { level, first, end }) = &place.under else {
            return Ok(root.0 == Some(place.blob));
        };
        let maps = self.shared.vault.maps();
        Ok(maps.holds(&root, &place.blob, (*level, first), end.as_deref())?)
    }
}

/// What has just been stored anew cannot be read either.
pub(super) fn rotten_again(id: &BlobId) -> Error {
    Error::Damaged { what: format!("blob {id} cannot be read after it was stored anew") }
}
