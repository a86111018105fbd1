//! Merging: a version of a peer's becomes part of the live mount.
//!
//! ```text
//!   1  save and publish what was changed here       so that nothing of it can be lost
//!   2  join, verify, ask the resolver, sign         no lock; on the published tree, which nobody changes
//!   3  one barrier
//!   4  land: the live changes since step 1 are put on the new version      lock, short
//!   5  save those changes where they are now; tell the peers                by those who observe
//! ```
//!
//! Changes that are made while step 2 runs are made under an operation later than all that the
//! merge knows (see [`Shared::raise_clock`]), so that joining them in step 4 is a merge like any
//! other, and small. The kernel is told in step 4, before anybody can see what has changed.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use cairnfs_merge::{
    Context, DeviceId, IndexEdits, NodeEdits, OpId, Policy, Relation, Side, VersionVector, View,
    conflicts, derive, merge, resolve, verify,
};
use cairnfs_store::{BlobId, BlobRef, Kind as BlobKind};

use super::{
    Writer,
    anew::Renaming,
    landing::Landing,
    record::{Head, SaveRecord},
    save::Snapshot,
};
use crate::{
    Error, MergeOutcome, MergeStep, Result, Role, Strategy, Time,
    charter::resolver,
    fetch::{Fetch, distrust, rejected},
    file::Data,
    manifest::{Manifest, device_id},
    shared::{HeadState, Shared},
    text::Texts,
    tree::{BaseTree, Layer, LiveTree, keys, map_edits},
    vault::Sealer,
    versions::{self, Doubts},
};

/// How often what was changed here is published before a merge, while it goes on changing.
const SETTLE_ROUNDS_MAX: usize = 4;
/// Operations that a merge itself may need: one to restore, one to resolve.
const OWN_OPS: u64 = 3;

/// What differs between our version and theirs.
pub(super) struct Difference {
    pub(super) nodes: Vec<cairnfs_merge::Differing<Data>>,
    /// The entries of the indexes.
    others: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

/// What the record that begins a merged version says of what is in no version.
struct Carried {
    /// The version that the contents lie on, if that is not the merged one.
    before: Option<BlobRef>,
    /// The operation that changes are made under.
    op: OpId,
    /// Contents that are changed.
    contents: Vec<Snapshot>,
}

/// What a merge comes to, before it is written.
struct Joined {
    layer: Layer,
    vv: VersionVector,
}

impl Writer {
    /// Merges a version that was fetched.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] if it is not to be believed; a full disk, a failed write or barrier.
    /// [`Error::Busy`] if a failed save took some of what was fetched with it. Nothing has changed
    /// then, but that local changes were saved and published.
    pub(super) fn merge(&mut self, fetched: &Fetch) -> Result<MergeOutcome> {
        let started = Instant::now();
        let theirs = fetched.manifest().filter(|_| fetched.is_complete());
        let theirs = theirs.ok_or_else(|| rejected("it was not fetched whole"))?;
        let shared = Arc::clone(&self.shared);
        let ours = shared.core.read().head.clone();
        if shared.knows_all_of(&theirs)? && fetched.is_whole() && self.agrees(fetched, &ours)? {
            return shared.outcome(MergeStep::Nothing);
        }
        let charter = versions::joined(&ours.charter, &theirs.charter);
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
        let (ours, base) = {
            let core = shared.core.read();
            (core.head.clone(), core.tree.base().clone())
        };
        fetched.verify_again(&ours)?;
        let (me, head) = (self.device_id(&ours), BlobId(fetched.head()));
        let Doubts { forgotten, disagreed } =
            versions::doubts(&me, (ours.manifest.id, &ours.vv), head, &shared.vault)?;
        if disagreed.contains(&me) {
            self.begin_anew(fetched)?;
            return self.merge(fetched);
        }
        if forgotten {
            log::warn!("forgot version={}", hex8(&fetched.head()));
            return shared.outcome(MergeStep::Forgotten);
        }
        let step = match Relation::of(&ours.vv, &theirs.vv) {
            Relation::Same if theirs.root != base.root => {
                return Err(rejected(versions::WRITTEN_TWICE));
            }
            Relation::Same | Relation::Ahead => return shared.outcome(MergeStep::Nothing),
            Relation::Behind => MergeStep::FastForward,
            Relation::Concurrent => MergeStep::Merged,
        };
        if !disagreed.is_empty() {
            return Err(rejected(versions::WRITTEN_TWICE));
        }
        if step == MergeStep::Merged && !may_write {
            return shared.outcome(MergeStep::NotPermitted);
        }
        let lost = |side| charter.has_lost_some_of(side);
        if step == MergeStep::Merged && lost(&ours.charter) && lost(&theirs.charter) {
            self.rotate_for(head)?;
        }
        let result = self.join_and_write(fetched, &theirs, &ours, &base, step);
        if result.is_err() {
            self.drop_batch();
        }
        let landed = shared.land(result?, self.device_id(&ours));
        landed.inspect_err(|err| self.part_from_disk(err))?;
        shared.note_publish(theirs.time.max(ours_time(&shared)));
        if shared.has_unpublished() {
            self.schedule.dirty(Instant::now());
            shared.changed();
            // The merge stands whatever becomes of this; a failure is noted, and it is tried again.
            let _noted = self.save().is_err();
        }
        shared.tell_head();
        let outcome = shared.outcome(step)?;
        log::info!(
            "merge step={step:?} version={} conflicts={} us={}",
            hex8(&outcome.head),
            outcome.conflicts,
            started.elapsed().as_micros()
        );
        Ok(outcome)
    }

    /// Step 1. Afterwards changes are made under an operation so much later than all that was
    /// published here and than `theirs`, that those a merge itself needs lie between.
    pub(super) fn settle_local(&mut self, theirs: u64) -> Result<()> {
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

    pub(super) fn device_id(&self, head: &HeadState) -> DeviceId {
        device_id(&self.device.public(), head.incarnation)
    }

    /// Whether they mean the same by this device's operations as it does itself.
    fn agrees(&self, fetched: &Fetch, ours: &HeadState) -> Result<bool> {
        let (me, theirs) = ([self.device_id(ours)].into(), BlobId(fetched.head()));
        let vault = &self.shared.vault;
        Ok(versions::disagreements(&me, ours.manifest.id, theirs, vault)?.is_empty())
    }

    /// Steps 2 and 3. Nothing fails after the barrier: what is live would go on from the version
    /// before, and its saves would undo the new one at the next opening.
    fn join_and_write(
        &mut self,
        fetched: &Fetch,
        theirs: &Manifest,
        ours: &HeadState,
        base: &BaseTree,
        step: MergeStep,
    ) -> Result<Landing> {
        let shared = Arc::clone(&self.shared);
        let their_tree = BaseTree::open(Arc::clone(&shared.vault), theirs.root)?;
        let (_, their_blob) = shared.vault.blobs().describe(&BlobId(fetched.head()))?;
        // A device that has just joined has nothing to compare with, and believes who invited it.
        let first = ours.vv.is_empty();
        let difference = if first { Difference::none() } else { difference(base, &their_tree)? };
        let index = if first { IndexEdits::default() } else { difference.verify(base)? };
        let charter = versions::joined(&ours.charter, &theirs.charter);
        if !charter.is_sound() {
            return Err(rejected("together there would be too many members, or changes of them"));
        }
        if step == MergeStep::FastForward {
            // What is older there would count here from now on.
            if charter != theirs.charter {
                return Err(rejected("it lacks members or settings that it claims to know"));
            }
            let head = HeadState {
                manifest: their_blob,
                vv: theirs.vv.clone(),
                charter: theirs.charter.clone(),
                incarnation: ours.incarnation,
            };
            self.write_head(&head, None)?;
            let nodes = difference.edits();
            return Ok(Landing { head, base: their_tree, nodes, index, first });
        }
        if let Some(parents) = versions::known_to_parents(theirs, &shared.vault)? {
            verify::no_new_cycle(&their_tree, &parents)?
                .map_err(|reject| rejected(&reject.to_string()))?;
        }
        let joined = self.join(ours, theirs, base, &their_tree, difference, &charter)?;
        let mut sealer = Sealer::new(&mut self.appender, &shared.vault);
        let edits = map_edits(&joined.layer, |long| sealer.put_node(long))?;
        let root = sealer.apply(base.root, edits)?;
        let mut parents = vec![ours.manifest.id, their_blob.id];
        parents.sort_unstable();
        let before = ours.vv.max_lamport().max(theirs.vv.max_lamport());
        let manifest = Manifest {
            bucket: shared.bucket,
            author: self.device.public(),
            incarnation: ours.incarnation,
            parents,
            vv: joined.vv.clone(),
            root,
            ops: joined.vv.max_lamport() - before,
            time: Time::now(),
            charter: charter.clone(),
        };
        let blob = self.appender.put(BlobKind::Manifest, &manifest.seal(&self.device))?;
        let head =
            HeadState { manifest: blob, vv: joined.vv, charter, incarnation: ours.incarnation };
        let base = BaseTree::open(Arc::clone(&shared.vault), root)?;
        self.write_head(&head, None)?;
        let Layer { nodes, index } = joined.layer;
        Ok(Landing { head, base, nodes, index, first })
    }

    /// The join, and what the resolver makes of its conflicts.
    fn join(
        &mut self,
        ours: &HeadState,
        theirs: &Manifest,
        base: &BaseTree,
        their_tree: &BaseTree,
        difference: Difference,
        charter: &crate::charter::Charter,
    ) -> Result<Joined> {
        let me = self.device_id(ours);
        let merged = merge(
            Side { tree: base, vv: &ours.vv },
            Side { tree: their_tree, vv: &theirs.vv },
            difference.nodes.into_iter().map(Ok),
            me,
        )?;
        let (mut layer, mut vv) = (Layer { nodes: merged.nodes, index: merged.index }, merged.vv);
        if let Some((op, nodes)) = &merged.restored {
            log::info!("restored op={} nodes={}", op.lamport, nodes.len());
        }
        let settings = charter.settings();
        let decides =
            |strategy: &Strategy| !matches!(strategy, Strategy::ConflictFile | Strategy::Fork);
        if decides(&settings.strategy) || settings.rules.iter().any(|(_, rule)| decides(rule)) {
            let op = vv.next_op(me).map_err(|_exhausted| Error::TooLarge)?;
            let tree = LiveTree::over(base.clone(), layer.clone());
            let shared = Arc::clone(&self.shared);
            let found = conflicts(&View::new(&tree))?;
            let texts = Texts::new(&shared, &mut self.appender, ours.manifest.id, &found)?;
            let resolved = resolve(
                &tree,
                Policy::default(),
                op,
                &ours.vv,
                &resolver(settings)?,
                &Context { text: Some(&texts) },
            )
            .map_err(|err| Error::Rejected { why: err.to_string() })?;
            if !resolved.edited.nodes.is_empty() {
                log::info!("resolved op={} discarded={}", op.lamport, resolved.discarded.len());
                layer.nodes.extend(resolved.edited.nodes);
                layer.index.then(resolved.edited.index);
                vv.learn(&op);
            }
        }
        Ok(Joined { layer, vv })
    }

    /// The disk stands on a version that memory could not follow to.
    pub(super) fn part_from_disk(&mut self, err: &Error) {
        self.appender.abandon();
        self.note(&Err(err.clone()));
    }

    /// Step 3: from the next opening on, the bucket stands on `head`. Contents that are changed but
    /// in no version are carried over, under their new names if there are some.
    ///
    /// Whatever can fail comes before it: once it has returned, what is live must land on `head` or
    /// [part from the disk](Self::part_from_disk).
    pub(super) fn write_head(
        &mut self,
        head: &HeadState,
        renaming: Option<&Renaming>,
    ) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let Carried { before, op, contents } = shared.begin_carrying(renaming);
        let record = SaveRecord {
            head: Some(Head {
                manifest: head.manifest,
                devices: shared.inodes.lock().devices().to_vec(),
                incarnation: head.incarnation,
                before,
            }),
            op,
            nodes: Vec::new(),
            files: contents.iter().filter_map(Snapshot::whole_record).collect(),
        };
        let result = self.append(&record, true);
        // What was saved before and carried nevertheless is due already, or damaged.
        let is_late = contents.iter().any(|it| it.content.is_unsaved());
        shared.end_carrying(contents, result.is_ok());
        if is_late && let Ok(bytes) = result {
            self.schedule.carried(Instant::now(), bytes as u64);
        }
        let result = result.map(drop);
        self.note(&result);
        result
    }
}

impl Difference {
    fn none() -> Self {
        Self { nodes: Vec::new(), others: BTreeMap::new() }
    }

    fn edits(&self) -> NodeEdits<Data> {
        self.nodes.iter().map(|(id, _, theirs)| (*id, theirs.clone())).collect()
    }

    /// That their indexes are those of their nodes: given that ours are, what differs must be what
    /// follows from the nodes that differ.
    fn verify(&self, base: &BaseTree) -> Result<IndexEdits> {
        let index = derive(base, &self.edits())?;
        let layer = Layer { nodes: NodeEdits::new(), index };
        let expected = map_edits(&layer, |_| Err(rejected("a node among the indexes")))?;
        let wrong = || rejected("its indexes are not those of its nodes");
        for (key, value) in &expected {
            let is_there = match self.others.get(key) {
                Some(theirs) => theirs == value,
                None => base.vault.get(base.root, key)?.as_deref() == value.as_deref(),
            };
            if !is_there {
                return Err(wrong());
            }
        }
        if self.others.keys().any(|key| !expected.contains_key(key)) {
            return Err(wrong());
        }
        Ok(layer.index)
    }
}

/// Every entry in which two trees differ.
pub(super) fn difference(ours: &BaseTree, theirs: &BaseTree) -> Result<Difference> {
    let nodes = keys::all_nodes();
    let mut difference = Difference::none();
    for change in ours.vault.maps().diff(&ours.root, &theirs.root) {
        let change = change?;
        if !change.key.starts_with(&nodes) {
            difference.others.insert(change.key.to_vec(), change.new.map(|value| value.to_vec()));
            continue;
        }
        let id = keys::parse_only_node(&change.key);
        let id = id.ok_or_else(|| rejected("a key of the tree makes no sense"))?;
        let was = change.old.as_deref().map(|value| ours.decode(value)).transpose()?;
        let is = change.new.as_deref().map(|value| theirs.decode(value)).transpose();
        difference.nodes.push((id, was, is.map_err(distrust)?));
    }
    Ok(difference)
}

fn ours_time(shared: &Shared) -> Time {
    shared.report.lock().last_publish.map_or_else(Time::default, Time::from)
}

fn hex8(id: &[u8; 32]) -> String {
    id[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Shared {
    /// Sees to it that changes are made under an operation of at least `clock`; `false` if there
    /// are changes under an earlier one.
    fn raise_clock(&self, clock: u64) -> bool {
        let mut core = self.core.write();
        if core.op.lamport >= clock {
            return true;
        }
        if core.tree.changed_count() > 0 {
            return false;
        }
        core.op = OpId { lamport: clock, ..core.op };
        core.next_n = 0;
        true
    }

    /// Whether the version we stand on holds all that `theirs` does.
    pub(crate) fn knows_all_of(&self, theirs: &Manifest) -> Result<bool> {
        let core = self.core.read();
        match Relation::of(&core.head.vv, &theirs.vv) {
            // Where the same is known but something else is shown, somebody wrote one operation
            // twice: never to be taken for agreement.
            Relation::Same => Ok(core.tree.base().root == theirs.root),
            Relation::Ahead => Ok(true),
            Relation::Behind | Relation::Concurrent => Ok(false),
        }
    }

    /// Takes what the record that begins the merged version carries.
    fn begin_carrying(&self, renaming: Option<&Renaming>) -> Carried {
        let mut core = self.core.write();
        let changed = core.files.iter().filter_map(|(shown, file)| {
            let mut content = file.lock();
            let id = renaming.map_or(shown.node, |renaming| renaming.of_node(shown.node));
            content.is_changed().then(|| Snapshot {
                id: Some(id),
                file: Arc::clone(file),
                content: content.snapshot(),
                base: None,
            })
        });
        let contents: Vec<_> = changed.collect();
        core.saving = true;
        core.in_flight = contents.iter().filter(|it| it.content.is_unsaved()).count();
        let op = renaming.map_or(core.op, |renaming| renaming.of(core.op));
        // Under new names they lie on the new version itself.
        let before = renaming.is_none().then_some(core.head.manifest);
        Carried { before, op, contents }
    }

    fn end_carrying(&self, contents: Vec<Snapshot>, durable: bool) {
        let mut core = self.core.write();
        core.saving_ends();
        self.settle(contents, durable);
    }

    fn outcome(&self, step: MergeStep) -> Result<MergeOutcome> {
        let (head, base) = {
            let core = self.core.read();
            (core.head.manifest.id.0, core.tree.base().clone())
        };
        // Without the lock: there may be many, and nobody changes a version.
        let conflicts = conflicts(&View::new(&base))?.len() as u64;
        Ok(MergeOutcome { head, step, conflicts })
    }
}
