//! What is checked of versions before they are believed, and how they descend from one another.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
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
/// see [`agree_on`].
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

/// Whether two versions mean the same by the operations of the device `of` that both know: both
/// follow from one version that knows the last of them.
///
/// If not, that device wrote one operation twice: it was put back to an older state and went on from
/// there. What one side has of it would look as if the other had removed it. Where versions were
/// given up for space nobody can tell, and it is taken to be so.
///
/// Costs the versions that are newer than the one both follow from; where there is none, all that
/// know the operation.
///
/// # Errors
///
/// Damage in the store.
pub(crate) fn agree_on(
    of: &DeviceId,
    ours: BlobId,
    theirs: BlobId,
    known: &Known<'_>,
) -> Result<bool> {
    let (Some(our), Some(their)) = (known.find(&ours)?, known.find(&theirs)?) else {
        return Ok(true);
    };
    let lamport = our.vv.get(of).min(their.vv.get(of));
    if lamport == 0 || ours == theirs {
        return Ok(true);
    }
    let mut histories = [History::default(), History::default()];
    // Each stays here from when it is found until those that it follows from are.
    let mut todo = BTreeMap::from([
        ((newness(&our), ours), (our, 0)),
        ((newness(&their), theirs), (their, 1)),
    ]);
    let mut reached = HashMap::from([(ours, 0), (theirs, 1)]);
    while let Some((_, (manifest, side))) = todo.pop_last() {
        let (mut brought, mut given_up) = (manifest.vv.get(of) == lamport, false);
        for parent in &manifest.parents {
            let Some(found) = known.find(parent)? else {
                given_up = true;
                continue;
            };
            if found.vv.get(of) < lamport {
                continue;
            }
            brought = false;
            match reached.insert(*parent, side) {
                None => drop(todo.insert((newness(&found), *parent), (found, side))),
                Some(other) if other != side => return Ok(true),
                Some(_) => (),
            }
        }
        histories[side].brought |= brought && !given_up;
        histories[side].given_up |= given_up;
    }
    Ok(histories.iter().any(|history| history.given_up && !history.brought))
}

/// As [`agree_on`], by the operations of every device that made one of the new versions or one that
/// a new one follows from: a version that seems to be known here, as all its operations are, may be
/// one that was made after its device was put back.
///
/// # Errors
///
/// Damage in the store.
pub(crate) fn agree_on_all(ours: BlobId, theirs: BlobId, known: &Known<'_>) -> Result<bool> {
    let mut devices = BTreeSet::new();
    for manifest in known.new.values() {
        devices.insert(manifest.device());
        for parent in &manifest.parents {
            devices.extend(known.find(parent)?.map(|parent| parent.device()));
        }
    }
    for device in &devices {
        if !agree_on(device, ours, theirs, known)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What was seen of one side's versions that know an operation.
#[derive(Default)]
struct History {
    /// The version that brought it: its parents do not know it.
    brought: bool,
    /// That versions are not here that might have brought it.
    given_up: bool,
}

/// Greater for a version than for those it follows from, or the same.
fn newness(manifest: &Manifest) -> u64 {
    manifest.vv.max_lamport()
}

/// Whether one of the new versions was made by a device that did not know what `ours` knows it has
/// done: it was put back to an older state.
///
/// # Errors
///
/// Damage in the store.
pub(crate) fn any_forgot(ours: &VersionVector, me: &DeviceId, known: &Known<'_>) -> Result<bool> {
    for manifest in known.new.values() {
        let device = manifest.device();
        let done = ours.get(&device);
        if device == *me || manifest.ops == 0 || manifest.vv.get(&device) <= done {
            continue;
        }
        if known_to_parents(manifest, known)?.is_some_and(|before| before.get(&device) < done) {
            return Ok(true);
        }
    }
    Ok(false)
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
    device's bucket was put back to an older state and changed since. Once it has merged it goes on \
    under another name, and nothing is lost; if it cannot, it has to be brought anew ('cairnfs \
    rejoin'), and so has whoever merged what it did since";

/// Said on a device that cannot go on under another name. What is to be typed instead of `NAME` only
/// whoever shows it knows.
pub(crate) const CANNOT_GO_ON: &str = "this device's bucket was put back to an older state, and \
    what was changed here since cannot be told from what others did: copy out what only this device \
    has, then have it brought anew with 'cairnfs rejoin NAME --force'";

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
