//! What is checked of versions before they are believed, and how they descend from one another.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use cairnfs_merge::{DeviceId, OpId, VersionVector, verify as rules};
use cairnfs_store::BlobId;

use crate::{Result, Role, charter::Charter, fetch::rejected, manifest::Manifest, shared::Shared};

/// Where versions are found: those just fetched, and those in the store.
pub(crate) struct Known<'a> {
    pub(crate) new: &'a HashMap<BlobId, Arc<Manifest>>,
    pub(crate) shared: &'a Shared,
}

impl Known<'_> {
    /// The version `id`, if it is here.
    pub(crate) fn find(&self, id: &BlobId) -> Result<Option<Arc<Manifest>>> {
        if let Some(manifest) = self.new.get(id) {
            return Ok(Some(Arc::clone(manifest)));
        }
        let blobs = self.shared.vault.blobs();
        if !blobs.contains(id)? {
            return Ok(None);
        }
        let (_, blob) = blobs.describe(id)?;
        Ok(Some(Arc::new(Manifest::open(&blobs.get(&blob)?)?)))
    }
}

/// Checks a version against its parents: what it claims to know, and whether its author might make
/// it.
///
/// Where a parent was given up for space, only its author's right to write is checked: a member
/// with that right could then claim to know what it does not. It cannot claim that of this device,
/// see [`of_this_device`].
///
/// # Errors
///
/// [`Error::Rejected`], damage in the store.
pub(crate) fn verify(manifest: &Manifest, known: &Known<'_>) -> Result<()> {
    let author = manifest.device();
    let mut parents = Vec::with_capacity(manifest.parents.len());
    for id in &manifest.parents {
        match known.find(id)? {
            Some(parent) => parents.push(parent),
            None => return verify_alone(manifest),
        }
    }
    let Some((first, others)) = parents.split_first() else {
        return Err(rejected("a first version of a bucket that has one"));
    };
    let mut charter = first.charter.clone();
    let mut before = first.vv.clone();
    for parent in others {
        charter.join(&parent.charter);
        before.join(&parent.vv);
    }
    let vvs: Vec<&VersionVector> = parents.iter().map(|parent| &parent.vv).collect();
    rules::knowledge(author, &manifest.vv, manifest.ops, &vvs)
        .map_err(|reject| rejected(&reject.to_string()))?;
    let is_new = |op: &OpId| {
        op.device == author && op.lamport > before.get(&author) && manifest.vv.knows(op)
    };
    manifest.charter.follows(&charter, &manifest.author, is_new).map_err(rejected)
}

fn verify_alone(manifest: &Manifest) -> Result<()> {
    match manifest.charter.role(&manifest.author) {
        Some(Role::Writer | Role::Owner) => Ok(()),
        _ => Err(rejected("its author may not write")),
    }
}

/// Checks the first version that a device sees which was just invited: whoever invited it is
/// believed.
///
/// # Errors
///
/// [`Error::Rejected`] if this device, named by `key`, has not been made a member.
pub(crate) fn verify_first(manifest: &Manifest, key: &[u8; 32]) -> Result<()> {
    match manifest.charter.role(key) {
        Some(_) => Ok(()),
        None => Err(rejected("this device is no member in it")),
    }
}

/// Whether the version `head` knows of this device, `me`, only what this device has done.
///
/// `own` is the newest version here that `me` wrote, and `lamport` its last operation in that.
/// Whoever knows that operation has that version among its ancestors; if not, this device wrote one
/// operation twice: it was put back to an older state and went on from there. What it has written
/// since would look as if it had been removed.
///
/// # Errors
///
/// Damage in the store.
pub(crate) fn of_this_device(
    head: BlobId,
    me: &DeviceId,
    own: Option<(BlobId, u64)>,
    known: &Known<'_>,
) -> Result<bool> {
    let Some((own, lamport)) = own else { return Ok(true) };
    let mut todo = vec![head];
    let mut seen = HashSet::new();
    let mut is_past = false;
    while let Some(id) = todo.pop() {
        if id == own {
            return Ok(true);
        }
        if !seen.insert(id) {
            continue;
        }
        let Some(manifest) = known.find(&id)? else {
            // Given up for space: its descendants were verified.
            is_past = true;
            continue;
        };
        if manifest.vv.get(me) >= lamport {
            todo.extend(&manifest.parents);
        } else if id == head {
            return Ok(true);
        }
    }
    Ok(is_past)
}

/// The newest version that both `ours` and `theirs` follow from, if its like is still here.
///
/// # Errors
///
/// Damage in the store.
pub(crate) fn fork(
    ours: BlobId,
    theirs: BlobId,
    known: &Known<'_>,
) -> Result<Option<(BlobId, Arc<Manifest>)>> {
    let theirs: HashSet<BlobId> = ancestors(theirs, known)?.into_iter().map(|(id, _)| id).collect();
    let mut common = ancestors(ours, known)?;
    common.retain(|(id, _)| theirs.contains(id));
    Ok(common.into_iter().max_by_key(|(id, it)| (it.vv.max_lamport(), it.time, *id)))
}

/// A version and all before it that are here.
fn ancestors(head: BlobId, known: &Known<'_>) -> Result<Vec<(BlobId, Arc<Manifest>)>> {
    let mut todo = vec![head];
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    while let Some(id) = todo.pop() {
        if seen.insert(id)
            && let Some(manifest) = known.find(&id)?
        {
            todo.extend(&manifest.parents);
            found.push((id, manifest));
        }
    }
    Ok(found)
}

/// Said where two versions know the same operations and hold different things.
pub(crate) const WRITTEN_TWICE: &str = "one operation was used for two different changes: a \
    device's bucket was put back to an older state and changed since. It must merge first: then it \
    goes on under another name, and nothing is lost";

/// The charter of a version made of two.
pub(crate) fn joined(ours: &Charter, theirs: &Charter) -> Charter {
    let mut charter = ours.clone();
    charter.join(theirs);
    charter
}

/// The newest version among `head` and its ancestors that the device `me` wrote with operations of
/// its own, and the last of these; `None` if it wrote none that is here.
///
/// Looks at versions only that know as much of it as `head` does.
///
/// # Errors
///
/// Damage in the store.
pub(crate) fn own(
    head: BlobId,
    key: &[u8; 32],
    me: &DeviceId,
    known: &Known<'_>,
) -> Result<Option<(BlobId, u64)>> {
    let mut todo = vec![head];
    let mut seen = HashSet::new();
    let mut last = None;
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            continue;
        }
        let Some(manifest) = known.find(&id)? else { continue };
        let lamport = manifest.vv.get(me);
        if lamport == 0 || lamport < *last.get_or_insert(lamport) {
            continue;
        }
        if manifest.author == *key && manifest.device() == *me && manifest.ops > 0 {
            return Ok(Some((id, lamport)));
        }
        todo.extend(&manifest.parents);
    }
    Ok(None)
}

/// What the parents of a version know together; `None` if one of them was given up.
///
/// # Errors
///
/// Damage in the store.
pub(crate) fn known_to_parents(
    manifest: &Manifest,
    known: &Known<'_>,
) -> Result<Option<VersionVector>> {
    let mut vv = VersionVector::new();
    for id in &manifest.parents {
        match known.find(id)? {
            Some(parent) => vv.join(&parent.vv),
            None => return Ok(None),
        }
    }
    Ok(Some(vv))
}
