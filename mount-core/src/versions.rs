//! How versions descend from one another, and what of a peer's cannot be, seen from our own.

mod agreement;

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    sync::Arc,
};

use cairnfs_merge::{DeviceId, VersionVector};
use cairnfs_store::BlobId;

pub(crate) use self::agreement::{Untold, disagreements, holds, untold};
use crate::{Result, charter::Charter, manifest::Manifest, vault::Vault};

/// The versions from some heads back that are here, each once, a version before those it follows
/// from alone. Nothing is kept of them but their names.
pub(crate) struct Ancestry<'a> {
    vault: &'a Vault,
    todo: VecDeque<BlobId>,
    seen: HashSet<BlobId>,
    /// What is covered by this is left out, and what comes before it.
    until: Option<&'a VersionVector>,
    /// How many heads come before all else in `todo`: they are not left out.
    heads: usize,
}

impl<'a> Ancestry<'a> {
    pub(crate) fn of(head: BlobId, vault: &'a Vault) -> Self {
        Self::of_all(vec![head], None, vault)
    }

    /// Only `heads`, which are not named twice, and what of the rest is not covered by `known`.
    pub(crate) fn beyond(heads: Vec<BlobId>, known: &'a VersionVector, vault: &'a Vault) -> Self {
        Self::of_all(heads, Some(known), vault)
    }

    fn of_all(heads: Vec<BlobId>, until: Option<&'a VersionVector>, vault: &'a Vault) -> Self {
        let (count, seen) = (heads.len(), heads.iter().copied().collect());
        Self { vault, todo: heads.into(), seen, until, heads: count }
    }

    fn find_next(&mut self) -> Result<Option<(BlobId, Arc<Manifest>)>> {
        while let Some(id) = self.todo.pop_front() {
            let is_head = self.heads > 0;
            self.heads = self.heads.saturating_sub(1);
            let Some(manifest) = self.vault.manifest(&id)? else { continue };
            let is_covered = self.until.is_some_and(|known| known.dominates(&manifest.vv));
            if is_covered && !is_head {
                continue;
            }
            let unseen = manifest.parents.iter().filter(|parent| self.seen.insert(**parent));
            self.todo.extend(unseen);
            return Ok(Some((id, manifest)));
        }
        Ok(None)
    }
}

impl Iterator for Ancestry<'_> {
    type Item = Result<(BlobId, Arc<Manifest>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.find_next().transpose()
    }
}

/// What of a peer's version cannot be, seen from our own.
pub(crate) struct Doubts {
    /// One of the versions that are new here was made by a device that did not know what is known
    /// here that it has done: it was put back to an older state.
    pub(crate) forgotten: bool,
    /// Devices by whose operations the two do not mean the same, see [`disagreements`]: this one,
    /// and those that made a version that is new here or one that a new one follows from. A version
    /// that seems to be known here, as all its operations are, may be one that was made after its
    /// device was put back.
    pub(crate) disagreed: BTreeSet<DeviceId>,
}

/// Compares the version `theirs` with ours, `ours` and what it knows, on the device `me`.
///
/// # Errors
///
/// Damage in the store.
pub(crate) fn doubts(
    me: &DeviceId,
    (ours, our_vv): (BlobId, &VersionVector),
    theirs: BlobId,
    vault: &Vault,
) -> Result<Doubts> {
    let mut forgotten = false;
    for version in Ancestry::beyond(vec![theirs], our_vv, vault) {
        forgotten = forgotten || forgets(&version?.1, our_vv, me, vault)?;
    }
    let devices = doubtful(me, our_vv, theirs, vault)?;
    let disagreed = disagreements(&devices, ours, theirs, vault)?;
    Ok(Doubts { forgotten, disagreed })
}

/// What of the past of `theirs` would have to come for [`doubts`] to be told.
///
/// # Errors
///
/// Damage in the store.
pub(crate) fn untold_past(
    me: &DeviceId,
    (ours, our_vv): (BlobId, &VersionVector),
    theirs: BlobId,
    vault: &Vault,
) -> Result<Untold> {
    untold(&doubtful(me, our_vv, theirs, vault)?, ours, theirs, vault)
}

/// The devices whose operations may mean something else to `theirs`, see [`Doubts::disagreed`].
fn doubtful(
    me: &DeviceId,
    our_vv: &VersionVector,
    theirs: BlobId,
    vault: &Vault,
) -> Result<BTreeSet<DeviceId>> {
    let mut devices = BTreeSet::from([*me]);
    for version in Ancestry::beyond(vec![theirs], our_vv, vault) {
        let (_, manifest) = version?;
        devices.insert(manifest.device());
        for parent in &manifest.parents {
            devices.extend(vault.manifest(parent)?.map(|parent| parent.device()));
        }
    }
    Ok(devices)
}

/// Whether the author of `manifest`, another than `me`, did not know what `ours` knows it has done.
fn forgets(
    manifest: &Manifest,
    ours: &VersionVector,
    me: &DeviceId,
    vault: &Vault,
) -> Result<bool> {
    let device = manifest.device();
    let done = ours.get(&device);
    if device == *me || manifest.ops == 0 || manifest.vv.get(&device) <= done {
        return Ok(false);
    }
    let before = known_to_parents(manifest, vault)?;
    Ok(before.is_some_and(|before| before.get(&device) < done))
}

/// The newest version that both `ours` and `theirs` follow from, if its like is still here.
///
/// # Errors
///
/// Damage in the store.
pub(crate) fn fork(
    ours: BlobId,
    theirs: BlobId,
    vault: &Vault,
) -> Result<Option<(BlobId, Arc<Manifest>)>> {
    let theirs = Ancestry::of(theirs, vault).map(|version| Ok(version?.0));
    let theirs: HashSet<BlobId> = theirs.collect::<Result<_>>()?;
    let mut newest: Option<(BlobId, Arc<Manifest>)> = None;
    for version in Ancestry::of(ours, vault) {
        let (id, manifest) = version?;
        let age = |id, it: &Manifest| (it.vv.max_lamport(), it.time, id);
        let is_newer =
            newest.as_ref().is_none_or(|(other, it)| age(id, &manifest) >= age(*other, it));
        if theirs.contains(&id) && is_newer {
            newest = Some((id, manifest));
        }
    }
    Ok(newest)
}

/// The charter of a version made of two.
pub(crate) fn joined(ours: &Charter, theirs: &Charter) -> Charter {
    let mut charter = ours.clone();
    charter.join(theirs);
    charter
}

/// What the parents of a version know together; `None` if one of them was given up.
///
/// # Errors
///
/// Damage in the store.
pub(crate) fn known_to_parents(
    manifest: &Manifest,
    vault: &Vault,
) -> Result<Option<VersionVector>> {
    let mut vv = VersionVector::new();
    for id in &manifest.parents {
        match vault.manifest(id)? {
            Some(parent) => vv.join(&parent.vv),
            None => return Ok(None),
        }
    }
    Ok(Some(vv))
}
