//! What is checked of versions before they are believed: what they claim to know, and whether their
//! authors might make them.
//!
//! # Invariants
//!
//! 1. A version gives nobody a right by its own word. Rights come from what our version says of its
//!    author; or from the versions that it follows from, back to a charter that our own version has, or
//!    one before it that this device or an owner made or stood on.
//! 2. Of what other devices did, a version that is no owner's knows only what some version here bears
//!    out. What it claims beyond that would make their next changes look as if they had been removed.
//!
//! Of a version whose past does not lead there (versions were given up for space, or the charter is
//! one that nobody here has met) it cannot be told what its author was allowed when it made it. Then
//! the present counts: see [`Verifier::verify_by_ours`]. What such a version says of former times is
//! not to be relied on, also not later, when it comes before our own.

use std::{collections::HashSet, sync::Arc};

use cairnfs_merge::{DeviceId, OpId, VersionVector, verify as rules};
use cairnfs_store::{BlobId, DevicePublicKey};

use crate::{
    Result, Role,
    charter::Charter,
    fetch::rejected,
    manifest::{Manifest, device_id},
    shared::HeadState,
    vault::Vault,
    versions::Ancestry,
};

/// By how much a version may be later than all that is known here. Where a hundred operations are made
/// each second that takes more than a year; and who is led on by so much at a time, with a merge each
/// time, does not come to the latest time there can be.
const AHEAD_MAX: u64 = 1 << 32;

/// Checks the versions that come with one that was fetched.
pub(crate) struct Verifier<'a> {
    ours: &'a HeadState,
    me: &'a DevicePublicKey,
    vault: &'a Vault,
    /// What comes before our version and was not looked at yet.
    history: Ancestry<'a>,
    /// Digests of the charters found there that can be relied on.
    charters: HashSet<[u8; 32]>,
}

impl<'a> Verifier<'a> {
    /// For the device `me` that stands on `ours`.
    pub(crate) fn new(ours: &'a HeadState, me: &'a DevicePublicKey, vault: &'a Vault) -> Self {
        let history = Ancestry::of(ours.manifest.id, vault);
        Self { ours, me, vault, history, charters: HashSet::new() }
    }

    /// Checks `head` and all that comes before it and is not covered by ours. Stops where
    /// `is_wanted` fails.
    ///
    /// Costs a look at each of them. Where others are met whose charter is not that of our version,
    /// all that comes before ours may be read, once.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`](crate::Error::Rejected), damage in the store, what `is_wanted` fails with.
    pub(crate) fn verify(mut self, head: BlobId, is_wanted: impl Fn() -> Result<()>) -> Result<()> {
        for version in self.new_from(head) {
            is_wanted()?;
            let (_, manifest) = version?;
            let ahead = manifest.vv.max_lamport().saturating_sub(self.ours.vv.max_lamport());
            if ahead > AHEAD_MAX {
                return Err(rejected("its time is far ahead of all that is known here"));
            }
            if !self.is_grounded(&manifest)? {
                return self.verify_by_ours(head, is_wanted);
            }
            follows(&manifest, self.vault)?;
        }
        Ok(())
    }

    fn new_from(&self, head: BlobId) -> Ancestry<'a> {
        Ancestry::beyond(vec![head], &self.ours.vv, self.vault)
    }

    /// Whether each parent is here and is either new itself, so that it is verified with this one, or
    /// has a charter that can be relied on. An author who names such a parent could as well name the
    /// version which that charter is known from.
    fn is_grounded(&mut self, manifest: &Manifest) -> Result<bool> {
        for id in &manifest.parents {
            let Some(parent) = self.vault.manifest(id)? else { return Ok(false) };
            if self.ours.vv.dominates(&parent.vv) && !self.is_known(&parent.charter)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether it is the charter of our version, or was that of one before it which this device or
    /// an owner made or stood on. What others made may have been believed without its past.
    fn is_known(&mut self, charter: &Charter) -> Result<bool> {
        if *charter == self.ours.charter {
            return Ok(true);
        }
        let wanted = charter.digest();
        while !self.charters.contains(&wanted) {
            let Some(version) = self.history.next() else { return Ok(false) };
            let (_, manifest) = version?;
            if manifest.author != *self.me && !self.is_owner(&manifest.author) {
                continue;
            }
            self.charters.insert(manifest.charter.digest());
            // What its author stood on; of a merge it cannot be told which of the two that was.
            if let [before] = *manifest.parents {
                let before = self.vault.manifest(&before)?;
                self.charters.extend(before.map(|it| it.charter.digest()));
            }
        }
        Ok(true)
    }

    fn is_owner(&self, key: &DevicePublicKey) -> bool {
        self.ours.charter.role(key) == Some(Role::Owner)
    }

    /// Checks the same versions by what is known of their authors at present.
    ///
    /// What an owner made is believed, and so is what it follows from: the owner has verified that.
    /// Any other author must be one who may write now; what its version says of members and settings
    /// must be known here, be said by one of those owners, or be older than that, so that it changes
    /// nothing. It knows of each device no more than is known here, than one of those owners knows,
    /// or than that device itself says in one of these versions.
    fn verify_by_ours(&self, head: BlobId, is_wanted: impl Fn() -> Result<()>) -> Result<()> {
        let (mut by_owners, mut charter) = (Vec::new(), self.ours.charter.clone());
        let mut done = self.ours.vv.clone();
        for version in self.new_from(head) {
            is_wanted()?;
            let (id, manifest) = version?;
            let device = manifest.device();
            done.learn(&OpId { lamport: manifest.vv.get(&device), device });
            if self.is_owner(&manifest.author) {
                by_owners.push(id);
                charter.join(&manifest.charter);
                done.join(&manifest.vv);
            }
        }
        let vouched = Ancestry::beyond(by_owners, &self.ours.vv, self.vault);
        let vouched: HashSet<BlobId> =
            vouched.map(|version| Ok(version?.0)).collect::<Result<_>>()?;
        for version in self.new_from(head) {
            is_wanted()?;
            let (id, manifest) = version?;
            let parents = parents(&manifest, self.vault)?;
            check_knowledge(&manifest, &parents)?;
            if vouched.contains(&id) {
                continue;
            }
            let mut known = charter.clone();
            // The others need not be true.
            let new = parents.iter().flatten().filter(|it| !self.ours.vv.dominates(&it.vv));
            new.for_each(|parent| known.join(&parent.charter));
            manifest.charter.adds_to(&known, &manifest.author).map_err(|why| {
                rejected(&format!("{why}, by what is known without versions that are not here"))
            })?;
            check_claims(&manifest, &done)?;
        }
        Ok(())
    }
}

/// Checks a version against its parents, which are here and can be relied on.
///
/// # Errors
///
/// [`Error::Rejected`](crate::Error::Rejected), damage in the store.
pub(crate) fn follows(manifest: &Manifest, vault: &Vault) -> Result<()> {
    let parents = parents(manifest, vault)?;
    check_knowledge(manifest, &parents)?;
    let (mut charter, mut before) = (Charter::unknown(), VersionVector::new());
    for parent in parents.iter().flatten() {
        charter.join(&parent.charter);
        before.join(&parent.vv);
    }
    let author = manifest.device();
    let is_new = |op: &OpId| {
        op.device == author && op.lamport > before.get(&author) && manifest.vv.knows(op)
    };
    manifest.charter.follows(&charter, &manifest.author, is_new).map_err(rejected)
}

/// Checks the first version that a device sees which was just invited: whoever invited it is
/// believed.
///
/// # Errors
///
/// [`Error::Rejected`](crate::Error::Rejected) if this device, named by `key`, has not been made a
/// member.
pub(crate) fn verify_first(manifest: &Manifest, key: &DevicePublicKey) -> Result<()> {
    match manifest.charter.role(key) {
        Some(_) => Ok(()),
        None => Err(rejected("this device is no member in it")),
    }
}

/// Each parent; `None` for one that is not here.
fn parents(manifest: &Manifest, vault: &Vault) -> Result<Vec<Option<Arc<Manifest>>>> {
    manifest.parents.iter().map(|id| vault.manifest(id)).collect()
}

/// What a version claims to know against what its parents do, if all of these are here.
fn check_knowledge(manifest: &Manifest, parents: &[Option<Arc<Manifest>>]) -> Result<()> {
    let vvs: Option<Vec<_>> = parents.iter().map(|parent| Some(&parent.as_ref()?.vv)).collect();
    match vvs.as_deref() {
        None => Ok(()),
        Some([]) => Err(rejected("a first version of a bucket that has one")),
        Some(vvs) => rules::knowledge(manifest.device(), &manifest.vv, manifest.ops, vvs)
            .map_err(|reject| rejected(&reject.to_string())),
    }
}

/// Invariant 2: what a version claims to know of others, its parents here or not, against what these
/// have `done` as far as can be told.
fn check_claims(manifest: &Manifest, done: &VersionVector) -> Result<()> {
    let claims = manifest.vv.iter().filter(|(device, lamport)| *lamport > done.get(device));
    let mut beyond = claims.map(|(device, _)| *device).peekable();
    if beyond.peek().is_none() {
        return Ok(());
    }
    // What its author was called before it began anew is its own as well.
    let names = 0..=manifest.incarnation;
    let own: HashSet<DeviceId> = names.map(|nth| device_id(&manifest.author, nth)).collect();
    match beyond.find(|device| !own.contains(device)) {
        None => Ok(()),
        Some(device) => Err(rejected(&format!(
            "it knows what device {device} did, and neither that nor what it follows from is here"
        ))),
    }
}
