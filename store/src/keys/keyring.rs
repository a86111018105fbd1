//! The bucket's secrets and what is derived from them.
//!
//! # Invariants
//!
//! 1. What names things (blob ids, map boundaries, the callers' keys) derives from epoch 0 and
//!    never changes, so equal content has equal names for as long as the bucket lives.
//! 2. What seals things derives from the epoch that the record names.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Secret;
use crate::order::{self, RwLock};
use crate::{BlobId, Error, Result};

/// Derives the key that seals from an epoch's secret.
const SEAL: &str = "cairnfs 2026-11 seal";
/// Derives the key that names blobs.
const NAME: &str = "cairnfs 2026-11 blob name";
/// Derives the mark of the bucket that stands in every pack.
const TAG: &str = "cairnfs 2026-11 bucket tag";
/// Derives the key of [`KeyRing::hash`].
const HASH: &str = "cairnfs 2026-11 keyed hash";
/// Goes before the caller's context, so that no caller can ask for one of the keys above.
const CALLER: &str = "cairnfs 2026-11 caller: ";

/// Every secret of one bucket, and the keys derived from them. Clones share them.
#[derive(Clone, Debug)]
pub struct KeyRing {
    keys: Arc<Keys>,
}

#[derive(Debug)]
struct Keys {
    /// The secret of epoch 0, from which everything that names derives.
    root: Secret,
    epochs: RwLock<BTreeMap<u16, Epoch>, order::Epochs>,
    name: Secret,
    hash: Secret,
    tag: [u8; 16],
}

#[derive(Debug)]
struct Epoch {
    /// The bucket's own secret, as it goes into the key file.
    secret: Secret,
    /// What seals.
    seal: Secret,
}

impl From<Secret> for Epoch {
    fn from(secret: Secret) -> Self {
        Self { seal: derive(SEAL, &secret), secret }
    }
}

impl KeyRing {
    /// Builds the ring from the bucket's secrets; the highest epoch seals what is new.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownEpoch`] if epoch 0, which names everything, is missing.
    pub fn new(secrets: impl IntoIterator<Item = (u16, Secret)>) -> Result<Self> {
        let epochs = secrets.into_iter().map(|(epoch, secret)| (epoch, Epoch::from(secret)));
        let epochs: BTreeMap<u16, Epoch> = epochs.collect();
        let root = epochs.get(&0).ok_or(Error::UnknownEpoch { epoch: 0 })?.secret.clone();
        let mut tag = [0; 16];
        tag.copy_from_slice(&derive(TAG, &root).expose()[..16]);
        let keys = Keys {
            name: derive(NAME, &root),
            hash: derive(HASH, &root),
            tag,
            epochs: RwLock::new(epochs),
            root,
        };
        Ok(Self { keys: Arc::new(keys) })
    }

    /// A ring with one fresh secret, for a new bucket.
    ///
    /// # Errors
    ///
    /// [`Error::Random`] if the system gives no random numbers.
    pub fn generate() -> Result<Self> {
        Self::new([(0, Secret::random()?)])
    }

    /// The epoch that seals what is new.
    #[must_use]
    pub fn current_epoch(&self) -> u16 {
        self.keys.epochs.read().keys().next_back().copied().unwrap_or(0)
    }

    /// The secrets by epoch, for the key file and for a device that joins.
    #[must_use]
    pub fn secrets(&self) -> Vec<(u16, Secret)> {
        let epochs = self.keys.epochs.read();
        epochs.iter().map(|(&number, epoch)| (number, epoch.secret.clone())).collect()
    }

    /// Takes in a secret for this ring and all its clones; from then on the highest epoch seals
    /// what is new. Says whether it was new: a secret that is known is never replaced.
    ///
    /// Whoever seals under it must have written it to the key file before.
    #[must_use = "a known epoch keeps the secret it had"]
    pub fn learn(&self, epoch: u16, secret: Secret) -> bool {
        match self.keys.epochs.write().entry(epoch) {
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(Epoch::from(secret));
                true
            }
            std::collections::btree_map::Entry::Occupied(_) => false,
        }
    }

    /// The name of this plaintext. Costs one pass of BLAKE3.
    #[must_use]
    pub fn name(&self, plain: &[u8]) -> BlobId {
        BlobId(*blake3::keyed_hash(self.keys.name.expose(), plain).as_bytes())
    }

    /// A key for a purpose of the caller, the same on every device and in every epoch.
    #[must_use]
    pub fn derive(&self, context: &str) -> Secret {
        derive(&format!("{CALLER}{context}"), &self.keys.root)
    }

    /// A keyed hash of `bytes` that means nothing outside of `domain` and of this bucket.
    #[must_use]
    pub fn hash(&self, domain: &str, bytes: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(self.keys.hash.expose());
        hasher.update(&(domain.len() as u64).to_le_bytes());
        hasher.update(domain.as_bytes());
        hasher.update(bytes);
        *hasher.finalize().as_bytes()
    }

    /// What every pack of the bucket bears, to tell it from another bucket's.
    pub(crate) fn tag(&self) -> [u8; 16] {
        self.keys.tag
    }

    /// The key that seals exactly one piece of content: from the epoch, the name and the cipher.
    pub(crate) fn seal_key(&self, epoch: u16, id: &BlobId, purpose: u8) -> Result<Secret> {
        let epochs = self.keys.epochs.read();
        let seal = &epochs.get(&epoch).ok_or(Error::UnknownEpoch { epoch })?.seal;
        let mut input = [0; 33];
        input[..32].copy_from_slice(&id.0);
        input[32] = purpose;
        Ok(Secret::new(*blake3::keyed_hash(seal.expose(), &input).as_bytes()))
    }
}

fn derive(context: &str, secret: &Secret) -> Secret {
    Secret::new(blake3::derive_key(context, secret.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outlive_a_rotation_and_seals_do_not() {
        let first = KeyRing::new([(0, Secret::new([1; 32]))]).unwrap();
        let rotated = KeyRing::new([(0, Secret::new([1; 32])), (7, Secret::new([2; 32]))]).unwrap();
        assert_eq!(first.name(b"x"), rotated.name(b"x"));
        assert_eq!(first.derive("a"), rotated.derive("a"));
        assert_eq!(first.hash("a", b"x"), rotated.hash("a", b"x"));
        assert_eq!(rotated.current_epoch(), 7);
        let id = first.name(b"x");
        assert_eq!(first.seal_key(0, &id, 0).unwrap(), rotated.seal_key(0, &id, 0).unwrap());
        assert_ne!(rotated.seal_key(0, &id, 0).unwrap(), rotated.seal_key(7, &id, 0).unwrap());
        assert_ne!(rotated.seal_key(0, &id, 0).unwrap(), rotated.seal_key(0, &id, 1).unwrap());
        assert!(matches!(first.seal_key(7, &id, 0), Err(Error::UnknownEpoch { epoch: 7 })));
    }

    #[test]
    fn a_secret_that_is_learnt_seals_from_then_on_in_all_clones() {
        let ring = KeyRing::new([(0, Secret::new([1; 32]))]).unwrap();
        let clone = ring.clone();
        assert!(ring.learn(9, Secret::new([2; 32])));
        assert!(!ring.learn(9, Secret::new([3; 32])), "a known secret stays");
        assert_eq!(clone.current_epoch(), 9);
        assert_eq!(clone.secrets(), [(0, Secret::new([1; 32])), (9, Secret::new([2; 32]))]);
    }

    #[test]
    fn another_bucket_has_other_names() {
        let [a, b] = [1, 2].map(|n| KeyRing::new([(0, Secret::new([n; 32]))]).unwrap());
        assert_ne!(a.name(b"x"), b.name(b"x"));
        assert_ne!(a.tag(), b.tag());
        assert_ne!(a.hash("d", b"x"), a.hash("e", b"x"));
    }

    #[test]
    fn debug_prints_no_secret() {
        let ring = KeyRing::new([(0, Secret::new([0xab; 32]))]).unwrap();
        let shown = format!("{ring:?}");
        assert!(!shown.contains("171") && !shown.contains("ab, "), "{shown}");
    }
}
