//! Giving a log that has lost all records that begin a version another one.
//!
//! Only such a record says on which version the bucket stood, and where packs or redundant saves were given
//! up there is but one. The versions themselves are there still, each with its manifest.
//!
//! # Invariants
//!
//! 1. No version is stood on but one that this device has made, or would take from a peer.
//! 2. No operation is used twice. What others know that this device did after that version nobody here can
//!    tell: so it goes on in an incarnation that nothing here knows of, as one that joins again does, and
//!    not with later times of the old one: a version that claims these would say that it knows, and has
//!    removed, what others have of this device's lost ones. Should even the manifests of an incarnation be
//!    lost, so that it is used twice, that shows when the two meet, as after a device was put back.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use cairnfs_merge::{DeviceId, NodeId, Relation, Tree};
use cairnfs_store::{BlobRef, DevicePublicKey, Kind as BlobKind, LeftOut, map::Root};

use super::{
    difference::difference,
    record::{Head, SaveRecord},
};
use crate::{
    Bucket, BucketId, Error, Options, Result, Time, VersionId,
    manifest::{INCARNATIONS_MAX, Manifest, device_id},
    mount::{Presence, seal_as},
    shared::HeadState,
    tree::BaseTree,
    vault::Vault,
    verify::{Verifier, verify_first},
    versions,
};

/// What took the place of what was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salvaged {
    /// The version that the bucket stands on now.
    pub version: VersionId,
    /// Saves with changes that are not in it: they are left out.
    pub saves: u64,
}

/// A version that can be read.
struct Candidate {
    blob: BlobRef,
    time: Time,
    /// Greater than that of all whose operations it knows.
    knowledge: u128,
    is_ours: bool,
}

impl Bucket {
    /// Has the log begin with a version again if no record is left that does, as after a repair. That is
    /// the newest of this device's own, or one of another device that follows from it and is all here.
    /// What was saved after that is left out. `former` is the last incarnation that this device is known
    /// to have begun with.
    ///
    /// Costs reading all packs. It is one save: a power cut leaves it whole or undone.
    ///
    /// Nothing has changed where no version can be read: the bucket does not [start](crate::Mount::start).
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if this device began anew too often; [`Error::Newer`], a full disk, a failed
    /// write or barrier.
    pub fn salvage(&mut self, former: u32) -> Result<Option<Salvaged>> {
        let saves = self.saves.iter().map(|save| SaveRecord::decode(save));
        let saves: Vec<_> = saves.collect::<Result<_>>()?;
        if saves.first().is_some_and(|save| save.head.is_some()) {
            return Ok(None);
        }
        let salvage = Salvage::new(self);
        let mut names = Names::of(&salvage.key);
        saves.iter().for_each(|save| names.note(&save.op.device));
        let found = salvage.candidates(&mut names)?;
        let Some(chosen) = salvage.choose(&found)? else { return Ok(None) };
        let manifest = salvage.manifest(chosen)?;
        let incarnation = names.last.max(former) + 1;
        if incarnation > INCARNATIONS_MAX {
            return Err(Error::Invalid("this device began anew too often in the bucket"));
        }
        let me = device_id(&salvage.key, incarnation);
        let op = manifest.vv.next_op(me)?;
        let head = Head { manifest: chosen.blob, devices: Vec::new(), incarnation, before: None };
        let record = SaveRecord { head: Some(head), op, nodes: Vec::new(), files: Vec::new() };
        let payload = record.encode();
        seal_as(&chosen.blob.id, &salvage.vault);
        self.appender.save(&payload, record.kind())?;
        let is_lost = |save: &&SaveRecord| {
            save.op.lamport >= op.lamport && !(save.nodes.is_empty() && save.files.is_empty())
        };
        let lost = saves.iter().filter(is_lost).count() as u64;
        (self.saves, self.left_out) = (vec![payload], LeftOut::default());
        let version = chosen.blob.id;
        log::warn!("salvage version={version} incarnation={incarnation} saves_left_out={lost}");
        Ok(Some(Salvaged { version: version.0, saves: lost }))
    }
}

/// What this device has been called.
struct Names {
    incarnations: HashMap<DeviceId, u32>,
    /// The last of those that were met.
    last: u32,
}

impl Names {
    fn of(key: &DevicePublicKey) -> Self {
        let all = (0..=INCARNATIONS_MAX).map(|nth| (device_id(key, nth), nth));
        Self { incarnations: all.collect(), last: 0 }
    }

    fn note(&mut self, device: &DeviceId) {
        self.last = self.last.max(self.incarnations.get(device).copied().unwrap_or(0));
    }
}

/// Looks for the version to stand on.
struct Salvage {
    vault: Arc<Vault>,
    bucket: BucketId,
    key: DevicePublicKey,
}

impl Salvage {
    fn new(bucket: &Bucket) -> Self {
        let cache_bytes = Options::default().limits.cache_bytes;
        let vault = Arc::new(Vault::new(Arc::clone(&bucket.blobs), cache_bytes));
        Self { vault, bucket: bucket.id, key: bucket.device.public() }
    }

    /// The versions whose manifest can be read, whoever made them; none before one whose operations it
    /// knows.
    fn candidates(&self, names: &mut Names) -> Result<Vec<Candidate>> {
        let mut found = Vec::new();
        for blob in self.vault.blobs().all_of(BlobKind::Manifest)? {
            let Some(manifest) = unless_damaged(self.vault.manifest(&blob.id))?.flatten() else {
                continue;
            };
            if manifest.bucket != self.bucket {
                continue;
            }
            names.note(&manifest.device());
            manifest.vv.iter().for_each(|(device, _)| names.note(device));
            found.push(Candidate {
                blob,
                time: manifest.time,
                knowledge: manifest.vv.iter().map(|(_, lamport)| u128::from(lamport)).sum(),
                is_ours: manifest.author == self.key,
            });
        }
        found.sort_by_key(|it| Reverse((it.knowledge, it.time, it.blob.id)));
        Ok(found)
    }

    /// The newest of ours, or a newer one of another's that we would take and that is all here. Where
    /// there is none of ours, one of which something is damaged will do.
    fn choose<'c>(&self, found: &'c [Candidate]) -> Result<Option<&'c Candidate>> {
        let mut ours = None;
        for one in found.iter().filter(|it| it.is_ours && it.knowledge > 0) {
            if self.can_be_stood_on(one)? {
                ours = Some(one);
                break;
            }
        }
        let is_newer = |it: &&Candidate| ours.is_none_or(|ours| it.knowledge > ours.knowledge);
        for theirs in found.iter().filter(|it| !it.is_ours).take_while(is_newer) {
            if self.would_take(theirs, ours)? && self.is_whole(theirs)? {
                return Ok(Some(theirs));
            }
        }
        if ours.is_some() {
            return Ok(ours);
        }
        for one in found {
            if (one.is_ours || self.would_take(one, None)?) && self.can_be_stood_on(one)? {
                return Ok(Some(one));
            }
        }
        Ok(None)
    }

    fn manifest(&self, of: &Candidate) -> Result<Arc<Manifest>> {
        let lost = || Error::Damaged { what: "a version's manifest".into() };
        self.vault.manifest(&of.blob.id)?.ok_or_else(lost)
    }

    fn tree(&self, manifest: &Manifest) -> Result<BaseTree> {
        BaseTree::open(Arc::clone(&self.vault), manifest.root)
    }

    /// Whether its tree can be read from the root on. Of a version of this device's own something may be
    /// damaged: a check says of what.
    fn can_be_stood_on(&self, one: &Candidate) -> Result<bool> {
        let manifest = self.manifest(one)?;
        let root = self.tree(&manifest).and_then(|tree| tree.node(&NodeId::Root));
        let root = unless_damaged(root)?.flatten();
        // Where a device has joined and got nothing yet there is no root.
        Ok(root.is_some() || manifest.vv.is_empty())
    }

    /// Whether all of it is here: of what came from others and was never merged, it may not be.
    fn is_whole(&self, one: &Candidate) -> Result<bool> {
        let root = self.manifest(one)?.root;
        let nothing = BaseTree::open(Arc::clone(&self.vault), Root::EMPTY)?;
        Ok(unless_damaged(Presence::beside(nothing).of_tree(root))?.unwrap_or(false))
    }

    /// Whether a device that stands on `ours`, or has just joined, takes a version of another's as it is.
    fn would_take(&self, theirs: &Candidate, ours: Option<&Candidate>) -> Result<bool> {
        let taken = match ours {
            Some(ours) => self.follows(theirs, ours),
            None => verify_first(&*self.manifest(theirs)?, &self.key).map(|()| true),
        };
        match taken {
            Err(Error::Rejected { .. }) => Ok(false),
            taken => Ok(unless_damaged(taken)?.unwrap_or(false)),
        }
    }

    /// Whether a merge of the two would be theirs as it is.
    fn follows(&self, theirs: &Candidate, ours: &Candidate) -> Result<bool> {
        let (id, theirs) = (theirs.blob.id, self.manifest(theirs)?);
        let (blob, ours) = (ours.blob, self.manifest(ours)?);
        if Relation::of(&ours.vv, &theirs.vv) != Relation::Behind
            || versions::joined(&ours.charter, &theirs.charter) != theirs.charter
        {
            return Ok(false);
        }
        let head = HeadState {
            manifest: blob,
            vv: ours.vv.clone(),
            charter: ours.charter.clone(),
            incarnation: ours.incarnation,
            secrets: [].into(),
        };
        Verifier::new(&head, &self.key, &self.vault).verify(id, || Ok(()))?;
        let known = (blob.id, &ours.vv);
        let doubts = versions::doubts(&ours.device(), known, id, &self.vault)?;
        // Where not all of ours is here any more, nobody can tell, as when a device joins.
        unless_damaged(verify_tree(&self.tree(&ours)?, &self.tree(&theirs)?))?;
        Ok(!doubts.forgotten && doubts.disagreed.is_empty())
    }
}

/// That the nodes and indexes of one tree may follow from another.
fn verify_tree(ours: &BaseTree, theirs: &BaseTree) -> Result<()> {
    let difference = difference(ours, theirs)?;
    difference.verify_nodes()?;
    difference.verify_indexes(ours).map(drop)
}

/// `None` where what was read is damaged, or not all here.
fn unless_damaged<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(err) if err.is_damage() => Ok(None),
        read => read.map(Some),
    }
}
