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
    /// Epoch to the bucket's own secret, as it goes into the key file.
    secrets: BTreeMap<u16, Secret>,
    /// Epoch to the key that seals.
    seal: BTreeMap<u16, Secret>,
    current: u16,
    name: Secret,
    hash: Secret,
    tag: [u8; 16],
}

impl KeyRing {
    /// Builds the ring from the bucket's secrets; the highest epoch seals what is new.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownEpoch`] if epoch 0, which names everything, is missing.
    pub fn new(secrets: impl IntoIterator<Item = (u16, Secret)>) -> Result<Self> {
        let secrets: BTreeMap<u16, Secret> = secrets.into_iter().collect();
        let root = secrets.get(&0).ok_or(Error::UnknownEpoch { epoch: 0 })?;
        let seal = secrets.iter().map(|(&epoch, secret)| (epoch, derive(SEAL, secret))).collect();
        let mut tag = [0; 16];
        tag.copy_from_slice(&derive(TAG, root).expose()[..16]);
        let keys = Keys {
            current: secrets.keys().next_back().copied().unwrap_or(0),
            name: derive(NAME, root),
            hash: derive(HASH, root),
            tag,
            seal,
            secrets,
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
        self.keys.current
    }

    /// The secrets by epoch, for the key file and for a device that joins.
    #[must_use]
    pub fn secrets(&self) -> Vec<(u16, Secret)> {
        self.keys.secrets.iter().map(|(&epoch, secret)| (epoch, secret.clone())).collect()
    }

    /// The name of this plaintext. Costs one pass of BLAKE3.
    #[must_use]
    pub fn name(&self, plain: &[u8]) -> BlobId {
        BlobId(*blake3::keyed_hash(self.keys.name.expose(), plain).as_bytes())
    }

    /// A key for a purpose of the caller, the same on every device and in every epoch.
    ///
    /// # Panics
    ///
    /// Never: a ring without epoch 0 cannot be made.
    #[must_use]
    pub fn derive(&self, context: &str) -> Secret {
        let root = self.keys.secrets.get(&0).expect("because `new` refuses a ring without epoch 0");
        derive(&format!("{CALLER}{context}"), root)
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
        let epoch = self.keys.seal.get(&epoch).ok_or(Error::UnknownEpoch { epoch })?;
        let mut input = [0; 33];
        input[..32].copy_from_slice(&id.0);
        input[32] = purpose;
        Ok(Secret::new(*blake3::keyed_hash(epoch.expose(), &input).as_bytes()))
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
