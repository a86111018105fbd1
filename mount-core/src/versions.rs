//! How versions descend from one another, and what of a peer's cannot be, seen from our own.

use std::{
    collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use cairnfs_merge::{DeviceId, VersionVector};
use cairnfs_store::BlobId;

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
    let mut devices = BTreeSet::from([*me]);
    let mut forgotten = false;
    for version in Ancestry::beyond(vec![theirs], our_vv, vault) {
        let (_, manifest) = version?;
        devices.insert(manifest.device());
        for parent in &manifest.parents {
            devices.extend(vault.manifest(parent)?.map(|parent| parent.device()));
        }
        forgotten = forgotten || forgets(&manifest, our_vv, me, vault)?;
    }
    let disagreed = disagreements(&devices, ours, theirs, vault)?;
    Ok(Doubts { forgotten, disagreed })
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

/// The devices among `devices` by whose operations, as far as both know them, two versions do not
/// mean the same: there is no version that both follow from and that knows the last of them.
///
/// Such a device wrote one operation twice: it was put back to an older state and went on from
/// there. What one side has of it would look as if the other had removed it. Where versions were
/// given up for space nobody can tell, and the two are taken to agree.
///
/// Costs the versions that are newer than the one both follow from; where there is none, all that
/// know the operations. Of each its name is kept meanwhile.
///
/// # Errors
///
/// Damage in the store.
pub(crate) fn disagreements(
    devices: &BTreeSet<DeviceId>,
    ours: BlobId,
    theirs: BlobId,
    vault: &Vault,
) -> Result<BTreeSet<DeviceId>> {
    let (Some(our), Some(their)) = (vault.manifest(&ours)?, vault.manifest(&theirs)?) else {
        return Ok(BTreeSet::new());
    };
    if ours == theirs {
        return Ok(BTreeSet::new());
    }
    let mut open: Vec<Question> = devices
        .iter()
        .map(|of| Question::new(*of, our.vv.get(of).min(their.vv.get(of))))
        .filter(|question| question.lamport > 0)
        .collect();
    let mut todo = BinaryHeap::from([(newness(&our), ours), (newness(&their), theirs)]);
    let mut reached = HashMap::from([(ours, Reached::Ours), (theirs, Reached::Theirs)]);
    while let Some((_, id)) = todo.pop().filter(|_| !open.is_empty()) {
        let Some(side) = reached.get(&id).copied().filter(|side| *side != Reached::Both) else {
            continue;
        };
        let Some(manifest) = vault.manifest(&id)? else { continue };
        let mut parents = Vec::with_capacity(manifest.parents.len());
        for parent in &manifest.parents {
            parents.push((*parent, vault.manifest(parent)?));
        }
        let vvs: Vec<_> = parents.iter().map(|(_, found)| Some(&found.as_ref()?.vv)).collect();
        open.iter_mut().for_each(|question| question.note(side, &manifest.vv, &vvs));
        for (parent, found) in parents {
            let Some(found) = found else { continue };
            if !open.iter().any(|question| question.is_known_to(&found.vv)) {
                continue;
            }
            match reached.insert(parent, side) {
                None => todo.push((newness(&found), parent)),
                Some(before) if before == side => (),
                Some(_) => {
                    // Those before it know no more than it does.
                    reached.insert(parent, Reached::Both);
                    open.retain(|question| !question.is_known_to(&found.vv));
                }
            }
        }
    }
    Ok(open.into_iter().filter(|it| !it.may_be_given_up()).map(|it| it.of).collect())
}

/// From which of two versions another was reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    Ours,
    Theirs,
    Both,
}

/// Whether two versions follow from one that knows an operation.
struct Question {
    of: DeviceId,
    lamport: u64,
    ours: History,
    theirs: History,
}

/// What was seen of one side's versions that know an operation.
#[derive(Default)]
struct History {
    /// The version that brought it: its parents do not know it.
    brought: bool,
    /// That versions are not here that might have brought it.
    given_up: bool,
}

impl Question {
    fn new(of: DeviceId, lamport: u64) -> Self {
        Self { of, lamport, ours: History::default(), theirs: History::default() }
    }

    fn is_known_to(&self, vv: &VersionVector) -> bool {
        vv.get(&self.of) >= self.lamport
    }

    /// Takes note of a version that knows `vv`; of a parent that is not here there is nothing.
    fn note(&mut self, side: Reached, vv: &VersionVector, parents: &[Option<&VersionVector>]) {
        if !self.is_known_to(vv) {
            return;
        }
        let given_up = parents.iter().any(Option::is_none);
        let was_known = parents.iter().flatten().any(|vv| self.is_known_to(vv));
        let brought = vv.get(&self.of) == self.lamport && !was_known && !given_up;
        let history = if side == Reached::Ours { &mut self.ours } else { &mut self.theirs };
        history.brought |= brought;
        history.given_up |= given_up;
    }

    fn may_be_given_up(&self) -> bool {
        [&self.ours, &self.theirs].iter().any(|history| history.given_up && !history.brought)
    }
}

/// Greater for a version than for those it follows from, or the same.
fn newness(manifest: &Manifest) -> u64 {
    manifest.vv.max_lamport()
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
