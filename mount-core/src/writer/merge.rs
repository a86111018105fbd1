//! Merging: a version of a peer's becomes part of the live mount.
//!
//! ```text
//!   1  save and publish what was changed here       so that nothing of it can be lost
//!   2  join, verify, ask the resolver, sign, find   no lock; on the published tree, which nobody changes
//!      what the kernel must no longer believe
//!   3  one barrier
//!   4  land: the live changes since step 1 are put on the new version      lock, short
//!   5  save those changes where they are now; tell the peers                by those who observe
//! ```
//!
//! Changes that are made while step 2 runs are made under an operation later than all that the
//! merge knows (see [`Shared::raise_clock`]), so that joining them in step 4 is a merge like any
//! other, and small. What the kernel is to hear is handed over in step 4, before anybody can see what
//! has changed.

use std::{sync::Arc, time::Instant};

use cairnfs_merge::{DeviceId, Relation};
use cairnfs_store::BlobId;

use super::{Writer, joining::Sides, landing::Landing};
use crate::{
    Error, MergeOutcome, MergeStep, Result, Role, Time,
    fetch::{Fetch, rejected},
    manifest::{Manifest, device_id},
    shared::{HeadState, Shared},
    versions::{self, Doubts},
};

/// How often what was changed here is published before a merge, while it goes on changing.
const SETTLE_ROUNDS_MAX: usize = 4;
/// How much later than all that is known the live changes are made once a merge has begun: between lie
/// the operations that it may need itself, one to restore and one to resolve.
pub(super) const OWN_OPS: u64 = 3;

/// What is to become of a version that was fetched.
enum Verdict {
    /// Nothing, for that reason.
    Leave(MergeStep),
    /// This device was put back to an older state, and goes on under another name before it merges.
    BeginAnew,
    /// It is taken as it is.
    FastForward,
    /// It and ours become one.
    Join,
}

impl Writer {
    /// Merges a version that was fetched.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] if it is not to be believed, [`Error::WrittenTwice`], [`Error::PutBack`]; a
    /// full disk, a failed write or barrier. [`Error::Busy`] if a failed save took some of what was
    /// fetched with it. Nothing has changed then, but that local changes were saved and published.
    pub(super) fn merge(&mut self, fetched: &Fetch) -> Result<MergeOutcome> {
        let started = Instant::now();
        let theirs = fetched.manifest().filter(|_| fetched.is_complete());
        let theirs = theirs.ok_or_else(|| rejected("it was not fetched whole"))?;
        if let Some(step) = self.at_first_sight(fetched, &theirs)? {
            return self.shared.outcome(step);
        }
        let sides = self.settle(fetched, theirs)?;
        let (step, landing) = match self.judge(&sides)? {
            Verdict::Leave(step) => return self.shared.outcome(step),
            Verdict::BeginAnew => {
                self.begin_anew(fetched)?;
                return self.merge(fetched);
            }
            Verdict::FastForward => (MergeStep::FastForward, self.fast_forward(&sides)?),
            Verdict::Join => (MergeStep::Merged, self.join(&sides)?),
        };
        self.arrive(&sides, landing)?;
        let outcome = self.shared.outcome(step)?;
        log::info!(
            "merge step={step:?} version={} conflicts={} us={}",
            BlobId(outcome.head),
            outcome.conflicts,
            started.elapsed().as_micros()
        );
        Ok(outcome)
    }

    /// What a version comes to that knows nothing new, as far as that can be told before anything is
    /// saved.
    fn at_first_sight(&self, fetched: &Fetch, theirs: &Manifest) -> Result<Option<MergeStep>> {
        let shared = &self.shared;
        if !(shared.knows_all_of(theirs) && fetched.is_whole()) {
            return Ok(None);
        }
        let head = BlobId(fetched.head());
        if shared.holds_all_of(head, theirs)? {
            return Ok(Some(MergeStep::Nothing));
        }
        let ours = shared.core.read().head.clone();
        let me = [self.device_id(&ours)].into();
        // Else this device may have to begin anew.
        let agrees =
            versions::disagreements(&me, ours.manifest.id, head, &shared.vault)?.is_empty();
        Ok(agrees.then_some(MergeStep::Forgotten))
    }

    /// Step 1, and what there is to be merged then.
    fn settle<'f>(&mut self, fetched: &'f Fetch, theirs: Arc<Manifest>) -> Result<Sides<'f>> {
        let shared = Arc::clone(&self.shared);
        let charter = versions::joined(&shared.core.read().head.charter, &theirs.charter);
        let may_write = charter.role(&shared.key).is_some_and(|role| role >= Role::Writer);
        if !may_write {
            // What is changed from here on could not be published any more.
            shared.suspend_writing();
        }
        self.settle_local(theirs.vv.max_lamport())?;
        // What was given up is not found, and would seem to be long past.
        if !fetched.is_whole() {
            return Err(Error::Busy);
        }
        let core = shared.core.read();
        let (ours, base) = (core.head.clone(), core.tree.base().clone());
        Ok(Sides { fetched, theirs, ours, base, charter, may_write })
    }

    /// Saves and publishes what was changed here. Afterwards changes are made under an operation so
    /// much later than all that was published here and than `theirs`, that those a merge itself needs
    /// lie between.
    fn settle_local(&mut self, theirs: u64) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        for _ in 0..SETTLE_ROUNDS_MAX {
            let clock = {
                let mut core = shared.core.write();
                // The present operation is the last that can be published until then.
                core.clock_floor = core.op.lamport.max(theirs).saturating_add(OWN_OPS);
                core.clock_floor
            };
            self.save()?;
            self.publish()?;
            if shared.raise_clock(clock) {
                return Ok(());
            }
        }
        // Only where publishing is refused although there is something to publish.
        Err(Error::ReadOnly { reason: "changes made before cannot be published" })
    }

    /// What is to become of theirs, now that everything here is published.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`], [`Error::WrittenTwice`]; damage in the store.
    fn judge(&self, sides: &Sides<'_>) -> Result<Verdict> {
        let Sides { theirs, ours, base, .. } = sides;
        sides.fetched.verify_again(ours)?;
        let (me, head) = (self.device_id(ours), sides.their_id());
        let known = (ours.manifest.id, &ours.vv);
        let Doubts { forgotten, disagreed } =
            versions::doubts(&me, known, head, &self.shared.vault)?;
        if disagreed.contains(&me) {
            return Ok(Verdict::BeginAnew);
        }
        if forgotten {
            log::warn!("forgot version={head}");
            return Ok(Verdict::Leave(MergeStep::Forgotten));
        }
        match Relation::of(&ours.vv, &theirs.vv) {
            Relation::Same if theirs.root != base.root => Err(Error::WrittenTwice),
            Relation::Same | Relation::Ahead => {
                let is_all_here = self.shared.holds_all_of(head, theirs)?;
                let step = if is_all_here { MergeStep::Nothing } else { MergeStep::Forgotten };
                Ok(Verdict::Leave(step))
            }
            _ if !disagreed.is_empty() => Err(Error::WrittenTwice),
            Relation::Behind => Ok(Verdict::FastForward),
            Relation::Concurrent if sides.may_write => Ok(Verdict::Join),
            Relation::Concurrent => Ok(Verdict::Leave(MergeStep::NotPermitted)),
        }
    }

    /// Steps 4 and 5: what is live follows to where the disk stands.
    fn arrive(&mut self, sides: &Sides<'_>, landing: Landing) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let landed = shared.land(landing, self.device_id(&sides.ours));
        landed.inspect_err(|err| self.part_from_disk(err))?;
        // The members of this version are given all secrets that are here: also that which was begun for a
        // merge that failed before, and that one may remove some of them.
        self.begun_for = None;
        shared.note_publish(sides.theirs.time.max(last_publish(&shared)));
        if shared.has_unpublished() {
            self.schedule.dirty(Instant::now());
            shared.changed();
            // The merge stands whatever becomes of this; a failure is noted, and it is tried again.
            self.save().ok();
        }
        shared.tell_head();
        Ok(())
    }

    pub(super) fn device_id(&self, head: &HeadState) -> DeviceId {
        device_id(&self.device.public(), head.incarnation)
    }
}

fn last_publish(shared: &Shared) -> Time {
    shared.report.lock().last_publish.map_or_else(Time::default, Time::from)
}
