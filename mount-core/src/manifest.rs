//! A published version: what the tree was, what its author knew, and the author's word for it.
//!
//! # Invariants
//!
//! 1. A manifest is announced only after the barrier that made it durable.
//! 2. It is believed only after its signature and its bounds were checked.

use cairnfs_merge::{DeviceId, VersionVector};
use cairnfs_store::{BlobId, DeviceKey, DevicePublicKey, keys, map::Root};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::{
    BucketId, Error, Result, Time,
    charter::{Charter, Founding},
};

/// The format that this program writes.
pub(crate) const FORMAT: u32 = 3;
/// The format of the versions that knew of each member the last change only, which is read still.
const FORMAT_LAST: u32 = 2;
/// The format of the versions that knew members but no settings, which is read still.
const FORMAT_MEMBERS: u32 = 1;
/// More parents than any merge has.
const PARENTS_MAX: usize = 64;
/// More devices, incarnations included, than ever wrote to a bucket.
pub(crate) const DEVICES_MAX: usize = 4096;

/// How often a device may begin anew: for all others it is one more device each time.
pub const INCARNATIONS_MAX: u32 = 256;

/// A later time than any bucket comes to; what adds some to it need not fear the end.
const LAMPORT_MAX: u64 = 1 << 62;

/// What a member may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Fetches and reads.
    Reader,
    /// Also publishes.
    Writer,
    /// Also invites and removes.
    Owner,
}

/// A device that has the bucket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Its public key.
    pub key: DevicePublicKey,
    /// What it may do.
    pub role: Role,
    /// What its owner calls it.
    pub name: String,
}

/// One version of a bucket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) bucket: BucketId,
    /// The author's public key.
    pub(crate) author: DevicePublicKey,
    /// How often the author began anew after losing its memory; part of its [`DeviceId`].
    pub(crate) incarnation: u32,
    /// Sorted.
    pub(crate) parents: Vec<BlobId>,
    /// What the author knew.
    pub(crate) vv: VersionVector,
    pub(crate) root: Root,
    /// How many operations of the author's this version adds.
    pub(crate) ops: u64,
    pub(crate) time: Time,
    pub(crate) charter: Charter,
}

/// The body of an older format, with what it has for a charter.
#[derive(Deserialize)]
struct Older<C> {
    bucket: BucketId,
    author: DevicePublicKey,
    incarnation: u32,
    parents: Vec<BlobId>,
    vv: VersionVector,
    root: Root,
    ops: u64,
    time: Time,
    charter: C,
}

/// A manifest as it is stored and sent.
#[derive(Serialize, Deserialize)]
struct Signed {
    format: u32,
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
    signature: ByteArray<64>,
}

/// The name under which a device writes operations.
pub(crate) fn device_id(key: &DevicePublicKey, incarnation: u32) -> DeviceId {
    let mut hasher = blake3::Hasher::new_derive_key("cairnfs 2026-11 device id");
    hasher.update(&key.0);
    hasher.update(&incarnation.to_le_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    DeviceId(id)
}

impl Manifest {
    /// The bytes to store, signed by the author's key.
    pub(crate) fn sign(&self, key: &DeviceKey) -> Vec<u8> {
        assert_eq!(self.author, key.public(), "a device signs only what it wrote itself");
        let body = postcard::to_stdvec(self).expect("because manifests always encode");
        let signature = ByteArray::new(key.sign(&signed_bytes(FORMAT, &body)));
        postcard::to_stdvec(&Signed { format: FORMAT, body, signature })
            .expect("because signed manifests always encode")
    }

    /// Reads and checks what [`Manifest::sign`] wrote.
    ///
    /// # Errors
    ///
    /// [`Error::Newer`]; [`Error::Damaged`] if it is malformed, out of bounds or not signed by its
    /// author. Whether the author may write is for the caller to decide.
    pub(crate) fn open(bytes: &[u8]) -> Result<Self> {
        let manifest = Self::open_ours(bytes)?;
        if manifest.is_within_bounds() { Ok(manifest) } else { Err(bad("out of bounds")) }
    }

    /// As [`Manifest::open`], for the version that this device stands on: whatever led there, to
    /// refuse it would be to refuse all that is in the bucket.
    ///
    /// # Errors
    ///
    /// As [`Manifest::open`], but for bounds.
    pub(crate) fn open_ours(bytes: &[u8]) -> Result<Self> {
        let signed: Signed = postcard::from_bytes(bytes).map_err(|err| bad(&err.to_string()))?;
        let body = &signed.body;
        let manifest = match signed.format {
            FORMAT => postcard::from_bytes(body),
            FORMAT_LAST => postcard::from_bytes::<Older<Founding>>(body).map(Self::from),
            FORMAT_MEMBERS => postcard::from_bytes::<Older<Vec<Member>>>(body).map(Self::from),
            found => return Err(Error::Newer { found, known: FORMAT }),
        };
        let manifest = manifest.map_err(|err| bad(&err.to_string()))?;
        let message = signed_bytes(signed.format, body);
        if !keys::verify(&manifest.author, &message, signed.signature.as_slice()) {
            return Err(bad("not signed by its author"));
        }
        Ok(manifest)
    }

    /// Whether others take it, and so may have been written.
    pub(crate) fn is_within_bounds(&self) -> bool {
        self.parents.len() <= PARENTS_MAX
            && self.parents.is_sorted_by(|one, next| one < next)
            && self.incarnation <= INCARNATIONS_MAX
            && is_within_bounds(&self.vv)
            && self.charter.is_sound()
    }

    /// The name under which its author wrote.
    pub(crate) fn device(&self) -> DeviceId {
        device_id(&self.author, self.incarnation)
    }
}

/// Whether a version may know this.
pub(crate) fn is_within_bounds(vv: &VersionVector) -> bool {
    vv.len() <= DEVICES_MAX && vv.max_lamport() <= LAMPORT_MAX
}

fn bad(what: &str) -> Error {
    Error::Damaged { what: format!("a version's manifest: {what}") }
}

impl<C: Into<Charter>> From<Older<C>> for Manifest {
    fn from(old: Older<C>) -> Self {
        Self {
            bucket: old.bucket,
            author: old.author,
            incarnation: old.incarnation,
            parents: old.parents,
            vv: old.vv,
            root: old.root,
            ops: old.ops,
            time: old.time,
            charter: old.charter.into(),
        }
    }
}

/// What is signed: with what it is for, so that a signature cannot be taken for one of another kind.
fn signed_bytes(format: u32, body: &[u8]) -> Vec<u8> {
    [format!("cairnfs manifest {format}\0").as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use cairnfs_merge::OpId;
    use cairnfs_store::{BlobRef, Secret};

    use super::*;
    use crate::Settings;

    /// Written by version 0.1.0, with the device key of `store/tests/format/device.bin`.
    const FORMAT_1: &[u8] = include_bytes!("../tests/format/manifest_1.bin");

    fn manifest(key: &DeviceKey) -> Manifest {
        Manifest {
            bucket: BucketId([1; 16]),
            author: key.public(),
            incarnation: 0,
            parents: vec![],
            vv: VersionVector::default(),
            root: Root::EMPTY,
            ops: 1,
            time: Time::default(),
            charter: Charter::begin(
                key.public(),
                OpId { lamport: 1, device: device_id(&key.public(), 0) },
            ),
        }
    }

    #[test]
    fn a_manifest_reads_back() {
        let key = DeviceKey::generate().unwrap();
        let manifest = manifest(&key);
        assert_eq!(Manifest::open(&manifest.sign(&key)).unwrap(), manifest);
    }

    #[test]
    fn a_time_that_nobody_could_go_on_from_is_refused() {
        let key = DeviceKey::generate().unwrap();
        let at = |lamport| {
            let vv = [(device_id(&key.public(), 0), lamport)].into_iter().collect();
            Manifest::open(&Manifest { vv, ..manifest(&key) }.sign(&key)).is_ok()
        };
        assert_eq!([at(LAMPORT_MAX), at(LAMPORT_MAX + 1), at(u64::MAX)], [true, false, false]);
    }

    #[test]
    fn a_device_that_began_anew_too_often_is_refused() {
        let key = DeviceKey::generate().unwrap();
        let nth = |incarnation| {
            Manifest::open(&Manifest { incarnation, ..manifest(&key) }.sign(&key)).is_ok()
        };
        assert_eq!([0, INCARNATIONS_MAX, INCARNATIONS_MAX + 1].map(nth), [true, true, false]);
    }

    #[test]
    fn no_changed_byte_is_believed() {
        let key = DeviceKey::generate().unwrap();
        let bytes = manifest(&key).sign(&key);
        for index in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[index] ^= 1;
            assert!(Manifest::open(&forged).is_err(), "byte {index}");
        }
    }

    #[test]
    fn a_manifest_of_format_1_is_read() {
        let author = DeviceKey::from_seed(&Secret::new([0x44; 32])).public();
        let member = Member { key: author, role: Role::Owner, name: "here".into() };
        let found = Manifest::open(FORMAT_1).unwrap();
        assert_eq!(found.charter.members(), std::slice::from_ref(&member));
        assert_eq!(*found.charter.settings(), Settings::default());
        let expected = Manifest {
            bucket: BucketId([1; 16]),
            author,
            incarnation: 0,
            parents: vec![BlobId([2; 32]), BlobId([3; 32])],
            vv: [(device_id(&author, 0), 300)].into_iter().collect(),
            root: Root(Some(BlobRef { id: BlobId([4; 32]), len: 1000 })),
            ops: 1,
            time: Time { seconds: 1_764_000_000, nanos: 5 },
            charter: vec![member].into(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn no_changed_byte_of_format_1_is_believed() {
        for index in 0..FORMAT_1.len() {
            let mut forged = FORMAT_1.to_vec();
            forged[index] ^= 1;
            assert!(Manifest::open(&forged).is_err(), "byte {index}");
        }
    }
}
