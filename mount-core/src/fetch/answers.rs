//! What becomes of a peer's answers: each blob is opened and checked, and then put by the writer; what
//! takes the place of something damaged at once, the rest while more is received.

use cairnfs_store::{CheckedBlob, Error as StoreError, SealedBlob};
use crossbeam_channel::bounded;

use super::{
    BlobId, Fetch, Need,
    looking::{OTHER_LENGTH, rotten_again},
    rejected,
};
use crate::{
    Error, Result,
    writer::{Command, Errand},
};

impl Fetch {
    /// Takes blobs that the peer sent, in any order. They are put while more is received: that they
    /// cannot be stored may be told only by a later call of this or of [`Fetch::wanted`].
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] for what was not asked for, is not what it claims, or makes no sense;
    /// [`Error::MissingSecret`] if it is sealed under a secret that is not here: ask for it, and
    /// begin again; [`Error::NoSpace`], [`Error::Io`], [`Error::Stopped`].
    pub fn supply(&mut self, blobs: Vec<Vec<u8>>) -> Result<()> {
        let (count, bytes) = (blobs.len(), blobs.iter().map(Vec::len).sum::<usize>());
        let checked: Vec<CheckedBlob> =
            blobs.into_iter().map(|bytes| self.check(bytes)).collect::<Result<_>>()?;
        let (heals, keeps): (Vec<_>, Vec<_>) = checked
            .into_iter()
            .partition(|blob| self.mends || self.rotten.contains(&blob.blob().id));
        let absent = heals.iter().filter(|blob| !self.rotten.contains(&blob.blob().id)).count();
        let needs = self.needs_of(&keeps);
        self.keeping.hand(keeps, needs);
        while self.keeping.is_full() {
            self.todo.extend(self.keeping.wait()?);
        }
        self.heal(heals)?;
        self.progress.blobs += count as u64;
        self.progress.absent += absent as u64;
        self.progress.bytes += bytes as u64;
        self.progress.lacking = self.lacking.len() as u64;
        Ok(())
    }

    /// Invariant 1, and that it was asked for. Here rather than by the writer, which has enough to do.
    fn check(&self, bytes: Vec<u8>) -> Result<CheckedBlob> {
        let blob = SealedBlob::from_bytes(bytes)
            .map_err(|_source| rejected("a blob that is no intact record"))?;
        let claims = blob.claims();
        let Some(needs) = self.lacking.get(&claims.id) else {
            return Err(rejected("a blob that was not asked for"));
        };
        if needs.iter().filter_map(Need::len).any(|len| len != claims.len) {
            return Err(rejected(OTHER_LENGTH));
        }
        self.shared.vault.blobs().check(blob).map_err(|err| match err {
            StoreError::Forged { .. } => rejected("a blob that is not what its name says"),
            err => err.into(),
        })
    }

    /// What blobs that came are needed for, but for chunks: nothing follows from those.
    fn needs_of(&mut self, came: &[CheckedBlob]) -> Vec<Need> {
        let needs = came.iter().filter_map(|blob| self.lacking.remove(&blob.blob().id)).flatten();
        needs.filter(|need| !matches!(need, Need::Chunk(_))).collect()
    }

    /// Has blobs that came take the place of what is damaged here.
    fn heal(&mut self, blobs: Vec<CheckedBlob>) -> Result<()> {
        if blobs.is_empty() {
            return Ok(());
        }
        let needs = self.needs_of(&blobs);
        let (reply, answer) = bounded(1);
        self.inbox.send(Command::Errand(Errand::Heal(blobs, reply)));
        answer.recv().unwrap_or(Err(Error::Stopped))?;
        for need in needs {
            if !self.mends {
                self.todo.push(need);
            } else if !self.expand(&need)? {
                // It has been looked at before; what lies below it has not.
                return Err(rotten_again(&need.id()));
            }
        }
        Ok(())
    }

    /// The peer does not have these. Versions long past may be lacking, nothing else.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] if the version cannot be had without.
    pub fn unavailable(&mut self, ids: &[[u8; 32]]) -> Result<()> {
        for id in ids {
            let id = BlobId(*id);
            match self.lacking.remove(&id).as_deref() {
                Some(_) if self.mends => {
                    self.progress.unavailable += u64::from(self.rotten.contains(&id));
                }
                Some([Need::Version(_), ..]) if id != self.head => (),
                Some(_) => return Err(rejected("its peer does not have all of it")),
                None => return Err(rejected("an answer to what was not asked")),
            }
        }
        Ok(())
    }
}
