//! The bucket's secrets and what is derived from them.
//!
//! # Invariants
//!
//! 1. What names things (blob ids, map boundaries, the callers' keys) derives from epoch 0 and
//!    never changes, so equal content has equal names for as long as the bucket lives.
//! 2. What seals things derives from a secret of the epoch that the record names.
//!
//! Two owners may each begin an epoch without knowing of the other, and give both the same number:
//! then it has two secrets, and what is sealed in it opens with one of them.

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

/// Secrets of one epoch at the most: more than there are owners who begin one at the same time.
const SECRETS_MAX: usize = 16;

/// Every secret of one bucket, and the keys derived from them. Clones share them.
#[derive(Clone, Debug)]
pub struct KeyRing {
    keys: Arc<Keys>,
}

#[derive(Debug)]
struct Keys {
    /// The secret of epoch 0, from which everything that names derives.
    root: Secret,
    /// The secrets of each, ascending, so that all devices seal with the same one: the first.
    epochs: RwLock<BTreeMap<u16, Vec<Sealing>>, order::Epochs>,
    name: Secret,
    hash: Secret,
    tag: [u8; 16],
}

#[derive(Debug)]
struct Sealing {
    /// The bucket's own secret, as it goes into the key file.
    secret: Secret,
    /// What seals.
    seal: Secret,
}

impl From<Secret> for Sealing {
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
        let mut epochs = BTreeMap::new();
        for (epoch, secret) in secrets {
            add(&mut epochs, epoch, secret);
        }
        let first = epochs.get(&0).and_then(|secrets| secrets.first());
        let root = first.ok_or(Error::UnknownEpoch { epoch: 0 })?.secret.clone();
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
        let secrets = epochs.iter().flat_map(|(&number, secrets)| {
            secrets.iter().map(move |sealing| (number, sealing.secret.clone()))
        });
        secrets.collect()
    }

    /// Takes in a secret for this ring and all its clones; from then on the highest epoch seals
    /// what is new. Says whether it was new, and was taken: a secret that is known is never replaced
    /// but may get another one beside it.
    ///
    /// Whoever seals under it must have written it to the key file before.
    #[must_use = "a secret too many is not taken"]
    pub fn learn(&self, epoch: u16, secret: Secret) -> bool {
        add(&mut self.keys.epochs.write(), epoch, secret)
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

    /// The keys that may open exactly one piece of content, from the epoch, the name and the cipher;
    /// never none. The first is the one that seals.
    pub(crate) fn seal_keys(&self, epoch: u16, id: &BlobId, purpose: u8) -> Result<Vec<Secret>> {
        let mut input = [0; 33];
        input[..32].copy_from_slice(&id.0);
        input[32] = purpose;
        let epochs = self.keys.epochs.read();
        let secrets = epochs.get(&epoch).ok_or(Error::UnknownEpoch { epoch })?;
        let key =
            |it: &Sealing| Secret::new(*blake3::keyed_hash(it.seal.expose(), &input).as_bytes());
        Ok(secrets.iter().map(key).collect())
    }
}

/// Takes a secret in if it is new; of epoch 0, from which everything that names derives, there is
/// never more than one.
fn add(epochs: &mut BTreeMap<u16, Vec<Sealing>>, epoch: u16, secret: Secret) -> bool {
    let secrets = epochs.entry(epoch).or_default();
    let max = if epoch == 0 { 1 } else { SECRETS_MAX };
    let Err(place) = secrets.binary_search_by(|it| it.secret.expose().cmp(secret.expose())) else {
        return false;
    };
    if secrets.len() >= max {
        return false;
    }
    secrets.insert(place, Sealing::from(secret));
    true
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
        assert_eq!(first.seal_keys(0, &id, 0).unwrap(), rotated.seal_keys(0, &id, 0).unwrap());
        assert_ne!(rotated.seal_keys(0, &id, 0).unwrap(), rotated.seal_keys(7, &id, 0).unwrap());
        assert_ne!(rotated.seal_keys(0, &id, 0).unwrap(), rotated.seal_keys(0, &id, 1).unwrap());
        assert!(matches!(first.seal_keys(7, &id, 0), Err(Error::UnknownEpoch { epoch: 7 })));
    }

    #[test]
    fn a_secret_that_is_learnt_seals_from_then_on_in_all_clones() {
        let ring = KeyRing::new([(0, Secret::new([1; 32]))]).unwrap();
        let clone = ring.clone();
        assert!(ring.learn(9, Secret::new([2; 32])));
        assert!(!ring.learn(9, Secret::new([2; 32])), "it is known");
        assert!(!ring.learn(0, Secret::new([3; 32])), "what names never changes");
        assert_eq!(clone.current_epoch(), 9);
        assert_eq!(clone.secrets(), [(0, Secret::new([1; 32])), (9, Secret::new([2; 32]))]);
    }

    #[test]
    fn two_secrets_of_one_epoch_are_kept_and_all_devices_seal_with_the_same() {
        let id = BlobId([4; 32]);
        let [one, other] = [[2, 3], [3, 2]].map(|order| {
            let ring = KeyRing::new([(0, Secret::new([1; 32]))]).unwrap();
            assert!(order.into_iter().all(|n| ring.learn(9, Secret::new([n; 32]))));
            ring
        });
        assert_eq!(one.secrets(), other.secrets());
        assert_eq!(one.secrets().len(), 3);
        assert_eq!(one.seal_keys(9, &id, 0).unwrap(), other.seal_keys(9, &id, 0).unwrap());
        let again = KeyRing::new(one.secrets()).unwrap();
        assert_eq!(again.secrets(), one.secrets());
        assert!((4..18).all(|n| one.learn(9, Secret::new([n; 32]))));
        assert!(!one.learn(9, Secret::new([18; 32])), "there is a bound");
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
