//! Whether two versions mean the same by the operations that both know.
//!
//! A device that was put back to an older state and went on from there gave its next operations
//! numbers that it had used before: others know these with another meaning. So both must follow from
//! one version that knows the last operation of that device which both know. It is looked for from
//! both at once, newest first, so that only what is newer is read.
//!
//! Nobody takes a version of equal knowledge and another tree for agreement, or says that it has one
//! which knows less, unless both follow from versions that know all of that: what a device did after
//! it was put back may bear only numbers that are known. Where versions were given up this cannot be
//! told; then the other one has to merge ours first.

use std::{
    collections::{BTreeSet, BinaryHeap, HashMap},
    sync::Arc,
};

use cairnfs_merge::{DeviceId, OpId, VersionVector};
use cairnfs_store::BlobId;

use crate::{Result, manifest::Manifest, vault::Vault};

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
    let open = open_questions(devices, ours, theirs, vault)?.into_iter();
    Ok(open.filter(|it| it.ours.is_told() && it.theirs.is_told()).map(|it| it.of).collect())
}

/// Of which of `devices` the last operation that both versions know is in none that both follow from.
fn open_questions(
    devices: &BTreeSet<DeviceId>,
    ours: BlobId,
    theirs: BlobId,
    vault: &Vault,
) -> Result<Vec<Question>> {
    let (Some(our), Some(their)) = (vault.manifest(&ours)?, vault.manifest(&theirs)?) else {
        return Ok(Vec::new());
    };
    let both_know = devices.iter().map(|of| (*of, our.vv.get(of).min(their.vv.get(of))));
    let questions = both_know.map(|(of, lamport)| Question::new(of, lamport)).collect();
    unanswered(questions, (ours, &our), (theirs, &their), vault)
}

/// What is not here of the past of a version, so that [`disagreements`] cannot be told.
#[derive(Debug, Default)]
pub(crate) struct Untold {
    /// The operations that are in question.
    pub(crate) ops: Vec<OpId>,
    /// Versions that are not here, and might tell which version brought them.
    pub(crate) lacking: BTreeSet<BlobId>,
}

/// What of the past of `theirs` would have to come for [`disagreements`]. Nothing where it is our own
/// past that was given up.
///
/// Costs what [`disagreements`] does.
///
/// # Errors
///
/// Damage in the store.
pub(crate) fn untold(
    devices: &BTreeSet<DeviceId>,
    ours: BlobId,
    theirs: BlobId,
    vault: &Vault,
) -> Result<Untold> {
    let open = open_questions(devices, ours, theirs, vault)?;
    let mut untold = Untold::default();
    for question in open.into_iter().filter(|it| it.ours.is_told() && !it.theirs.is_told()) {
        untold.ops.push(OpId { lamport: question.lamport, device: question.of });
        untold.lacking.extend(question.theirs.lacking);
    }
    Ok(untold)
}

/// Whether `ours` is known to mean the same as `theirs` by all that `theirs` knows. `false` also
/// where that cannot be told, as versions were given up for space.
///
/// Costs what [`disagreements`] does.
///
/// # Errors
///
/// Damage in the store.
pub(crate) fn holds(ours: BlobId, theirs: BlobId, vault: &Vault) -> Result<bool> {
    let (Some(our), Some(their)) = (vault.manifest(&ours)?, vault.manifest(&theirs)?) else {
        return Ok(false);
    };
    if !our.vv.dominates(&their.vv) {
        return Ok(false);
    }
    let questions = their.vv.iter().map(|(of, lamport)| Question::new(*of, lamport)).collect();
    Ok(unanswered(questions, (ours, &our), (theirs, &their), vault)?.is_empty())
}

/// Those of `open` to which there is no version that both follow from and that knows the operation.
fn unanswered(
    mut open: Vec<Question>,
    (ours, our): (BlobId, &Manifest),
    (theirs, their): (BlobId, &Manifest),
    vault: &Vault,
) -> Result<Vec<Question>> {
    if ours == theirs {
        return Ok(Vec::new());
    }
    open.retain(|question| question.lamport > 0);
    let mut todo = BinaryHeap::from([(newness(our), ours), (newness(their), theirs)]);
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
        open.iter_mut().for_each(|question| question.note(side, &manifest.vv, &parents));
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
    Ok(open)
}

/// From which of two versions another was reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    Ours,
    Theirs,
    Both,
}

/// A version that another follows from, if it is here.
type Parent = (BlobId, Option<Arc<Manifest>>);

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
    /// Versions that are not here and might have brought it.
    lacking: Vec<BlobId>,
}

impl History {
    /// Whether no version that is not here could say anything else.
    fn is_told(&self) -> bool {
        self.brought || self.lacking.is_empty()
    }
}

impl Question {
    fn new(of: DeviceId, lamport: u64) -> Self {
        Self { of, lamport, ours: History::default(), theirs: History::default() }
    }

    fn is_known_to(&self, vv: &VersionVector) -> bool {
        vv.get(&self.of) >= self.lamport
    }

    /// Takes note of a version that knows `vv`; of a parent that is not here there is nothing.
    fn note(&mut self, side: Reached, vv: &VersionVector, parents: &[Parent]) {
        if !self.is_known_to(vv) {
            return;
        }
        let here = || parents.iter().filter_map(|(_, found)| found.as_ref());
        let are_all_here = here().count() == parents.len();
        let was_known = here().any(|parent| self.is_known_to(&parent.vv));
        let brought = vv.get(&self.of) == self.lamport && !was_known && are_all_here;
        let lacking = parents.iter().filter(|(_, found)| found.is_none()).map(|(id, _)| *id);
        let history = if side == Reached::Ours { &mut self.ours } else { &mut self.theirs };
        history.brought |= brought;
        history.lacking.extend(lacking);
    }
}

/// Greater for a version than for those it follows from, or the same.
fn newness(manifest: &Manifest) -> u64 {
    manifest.vv.max_lamport()
}
