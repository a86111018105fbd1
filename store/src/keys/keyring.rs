//! The bucket's secrets and what is derived from them.
//!
//! # Invariants
//!
//! 1. What names things (blob ids, map boundaries, the callers' keys) derives from epoch 0 and
//!    never changes, so equal content has equal names for as long as the bucket lives.
//! 2. What seals things derives from a secret of the epoch that the record names.
//! 3. A secret that is learnt opens; it seals only once the ring's owner says so. Secrets come from
//!    peers, and one who makes some up must not choose what others seal under.
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

/// Secrets that there are at the most when one is taken from a peer: far more than a bucket has, as
/// its members can be changed some hundred times only. Those that are begun here have more room, so
/// that no peer can use it up.
const LEARNT_MAX: usize = 4096;

/// Every secret of one bucket, and the keys derived from them. Clones share them.
#[derive(Clone, Debug)]
pub struct KeyRing {
    keys: Arc<Keys>,
}

#[derive(Debug)]
struct Keys {
    /// The secret of epoch 0, from which everything that names derives.
    root: Secret,
    epochs: RwLock<Epochs, order::Epochs>,
    name: Secret,
    hash: Secret,
    tag: [u8; 16],
}

#[derive(Debug)]
struct Epochs {
    /// The secrets of each, ascending.
    all: BTreeMap<u16, Vec<Sealing>>,
    /// The one of them that seals what is new.
    current: (u16, Sealing),
}

#[derive(Clone, Debug)]
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
    /// Secrets of one epoch at the most: more than there are owners who begin one at the same time.
    pub const OF_ONE_EPOCH_MAX: usize = 16;

    /// Builds the ring from the bucket's secrets; the highest epoch seals what is new, until another
    /// one is to.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownEpoch`] if epoch 0, which names everything, is missing.
    pub fn new(secrets: impl IntoIterator<Item = (u16, Secret)>) -> Result<Self> {
        let mut all = BTreeMap::new();
        for (epoch, secret) in secrets {
            add(&mut all, epoch, secret);
        }
        let first =
            |(epoch, secrets): (&u16, &Vec<Sealing>)| Some((*epoch, secrets.first()?.clone()));
        let root = all.first_key_value().filter(|(epoch, _)| **epoch == 0).and_then(first);
        let (_, Sealing { secret: root, .. }) = root.ok_or(Error::UnknownEpoch { epoch: 0 })?;
        let current = all.last_key_value().and_then(first);
        let current = current.ok_or(Error::UnknownEpoch { epoch: 0 })?;
        let mut tag = [0; 16];
        tag.copy_from_slice(&derive(TAG, &root).expose()[..16]);
        let keys = Keys {
            name: derive(NAME, &root),
            hash: derive(HASH, &root),
            tag,
            epochs: RwLock::new(Epochs { all, current }),
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

    /// What seals what is new: an epoch, and the one of its secrets.
    #[must_use]
    pub fn current(&self) -> (u16, Secret) {
        let epochs = self.keys.epochs.read();
        (epochs.current.0, epochs.current.1.secret.clone())
    }

    /// Has this secret seal what is new, for this ring and all its clones.
    ///
    /// # Panics
    ///
    /// If the ring does not have it: what it seals could not be opened again.
    pub fn seal_under(&self, epoch: u16, secret: &Secret) {
        let mut epochs = self.keys.epochs.write();
        let known = epochs.all.get(&epoch).into_iter().flatten();
        let known = known.into_iter().find(|it| it.secret == *secret).cloned();
        epochs.current = (epoch, known.expect("because what seals was learnt before"));
    }

    /// The highest epoch of which there is a secret.
    #[must_use]
    pub fn highest_epoch(&self) -> u16 {
        self.keys.epochs.read().all.keys().next_back().copied().unwrap_or(0)
    }

    /// The secrets by epoch, for the key file and for a device that joins.
    #[must_use]
    pub fn secrets(&self) -> Vec<(u16, Secret)> {
        let epochs = self.keys.epochs.read();
        let secrets = epochs.all.iter().flat_map(|(&number, secrets)| {
            secrets.iter().map(move |sealing| (number, sealing.secret.clone()))
        });
        secrets.collect()
    }

    /// Whether there is room for a secret that a peer gives.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.keys.epochs.read().all.values().map(Vec::len).sum::<usize>() < LEARNT_MAX
    }

    /// Whether [`KeyRing::learn`] would take this secret in.
    #[must_use]
    pub fn takes(&self, epoch: u16, secret: &Secret) -> bool {
        let epochs = self.keys.epochs.read();
        place_for(epoch, epochs.all.get(&epoch).map_or(&[], Vec::as_slice), secret).is_some()
    }

    /// What opens and names as this one does, but has no other secret than this besides that of
    /// epoch 0. `None` if it is to be another one of epoch 0, which never has two.
    pub(crate) fn with_only(&self, epoch: u16, secret: &Secret) -> Option<Self> {
        if epoch == 0 && *secret != self.keys.root {
            return None;
        }
        let secrets = [(0, self.keys.root.clone()), (epoch, secret.clone())];
        Some(Self::new(secrets).expect("because the secret of epoch 0 is among them"))
    }

    /// Takes in a secret for this ring and all its clones. Says whether it was new, and was taken: a
    /// secret that is known is never replaced but may get another one beside it.
    ///
    /// Whoever keeps what is sealed under it must have written it to the key file before.
    #[must_use = "a secret too many is not taken"]
    pub fn learn(&self, epoch: u16, secret: Secret) -> bool {
        add(&mut self.keys.epochs.write().all, epoch, secret)
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

    /// The key that seals exactly one piece of content, from the name and the cipher, and its epoch.
    pub(crate) fn seal_key(&self, id: &BlobId, purpose: u8) -> (u16, Secret) {
        let epochs = self.keys.epochs.read();
        let (epoch, sealing) = &epochs.current;
        (*epoch, sealing.key(id, purpose))
    }

    /// The keys that may open it, from the epoch besides; never none.
    pub(crate) fn open_keys(&self, epoch: u16, id: &BlobId, purpose: u8) -> Result<Vec<Secret>> {
        let epochs = self.keys.epochs.read();
        let secrets = epochs.all.get(&epoch).ok_or(Error::UnknownEpoch { epoch })?;
        Ok(secrets.iter().map(|it| it.key(id, purpose)).collect())
    }
}

impl Sealing {
    fn key(&self, id: &BlobId, purpose: u8) -> Secret {
        let mut input = [0; 33];
        input[..32].copy_from_slice(&id.0);
        input[32] = purpose;
        Secret::new(*blake3::keyed_hash(self.seal.expose(), &input).as_bytes())
    }
}

/// Where a secret goes among those of its epoch, if it is new and there is room. Of epoch 0, from which
/// everything that names derives, there is never more than one.
fn place_for(epoch: u16, secrets: &[Sealing], secret: &Secret) -> Option<usize> {
    let max = if epoch == 0 { 1 } else { KeyRing::OF_ONE_EPOCH_MAX };
    let found = secrets.binary_search_by(|it| it.secret.expose().cmp(secret.expose()));
    found.err().filter(|_| secrets.len() < max)
}

fn add(epochs: &mut BTreeMap<u16, Vec<Sealing>>, epoch: u16, secret: Secret) -> bool {
    let secrets = epochs.entry(epoch).or_default();
    let place = place_for(epoch, secrets, &secret);
    if let Some(place) = place {
        secrets.insert(place, Sealing::from(secret));
    }
    place.is_some()
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
        assert_eq!(rotated.current().0, 7);
        let id = first.name(b"x");
        assert_eq!(first.open_keys(0, &id, 0).unwrap(), rotated.open_keys(0, &id, 0).unwrap());
        assert_ne!(rotated.open_keys(0, &id, 0).unwrap(), rotated.open_keys(7, &id, 0).unwrap());
        assert_ne!(rotated.open_keys(0, &id, 0).unwrap(), rotated.open_keys(0, &id, 1).unwrap());
        assert!(matches!(first.open_keys(7, &id, 0), Err(Error::UnknownEpoch { epoch: 7 })));
    }

    #[test]
    fn a_secret_that_is_learnt_seals_only_once_it_is_to_in_all_clones() {
        let ring = KeyRing::new([(0, Secret::new([1; 32]))]).unwrap();
        let clone = ring.clone();
        assert!(ring.learn(9, Secret::new([2; 32])));
        assert!(!ring.learn(9, Secret::new([2; 32])), "it is known");
        assert!(!ring.learn(0, Secret::new([3; 32])), "what names never changes");
        assert_eq!((clone.current().0, clone.highest_epoch()), (0, 9));
        ring.seal_under(9, &Secret::new([2; 32]));
        assert_eq!(clone.current(), (9, Secret::new([2; 32])));
        assert!(ring.learn(9, Secret::new([1; 32])) && ring.learn(10, Secret::new([1; 32])));
        assert_eq!(clone.current(), (9, Secret::new([2; 32])));
        assert_eq!(clone.secrets().len(), 4);
    }

    #[test]
    fn two_secrets_of_one_epoch_are_kept_and_either_may_seal() {
        let id = BlobId([4; 32]);
        let [one, other] = [[2, 3], [3, 2]].map(|order| {
            let ring = KeyRing::new([(0, Secret::new([1; 32]))]).unwrap();
            assert!(order.into_iter().all(|n| ring.learn(9, Secret::new([n; 32]))));
            ring
        });
        assert_eq!(one.secrets(), other.secrets());
        assert_eq!(one.secrets().len(), 3);
        let keys = one.open_keys(9, &id, 0).unwrap();
        assert_eq!(keys, other.open_keys(9, &id, 0).unwrap());
        for (n, key) in [2, 3].into_iter().zip(keys) {
            one.seal_under(9, &Secret::new([n; 32]));
            assert_eq!(one.seal_key(&id, 0), (9, key));
        }
        let again = KeyRing::new(one.secrets()).unwrap();
        assert_eq!(again.secrets(), one.secrets());
        assert!((4..18).all(|n| one.learn(9, Secret::new([n; 32]))));
        assert!(!one.learn(9, Secret::new([18; 32])), "there is a bound");
    }

    #[test]
    fn a_ring_with_only_one_secret_names_as_the_whole_one_does() {
        let [root, late, other] = [1, 2, 3].map(|n| Secret::new([n; 32]));
        let ring = KeyRing::new([(0, root.clone()), (7, late.clone())]).unwrap();
        for (epoch, secret) in [(0, &root), (7, &late), (7, &other), (9, &other)] {
            let only = ring.with_only(epoch, secret).unwrap();
            assert_eq!((only.name(b"x"), only.tag()), (ring.name(b"x"), ring.tag()));
            assert_eq!(only.current(), (epoch, secret.clone()));
        }
        assert!(ring.with_only(0, &other).is_none(), "it would name things as another bucket does");
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
