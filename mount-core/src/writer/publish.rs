//! Publishing: the saved state becomes a signed version.
//!
//! ```text
//!   1  seal dirty contents              no lock
//!   2  tell the tree of them; freeze    lock, short
//!   3  fold the frozen layer into the map, sign, one barrier      no lock
//!   4  stand on the new version         lock, short
//! ```
//!
//! Step 1 is repeated for what changed meanwhile, so that a version is a consistent snapshot unless
//! files are written to without a pause while it is made; then it holds their last sealed state. What
//! comes too late for the tree to be told of is saved with the version, and another one is due.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use cairnfs_merge::{Content as Value, ContentId, Edit, NodeId, OpId, Tree};
use cairnfs_store::{BlobRef, Error as StoreError, Kind as BlobKind};

use super::{
    CharterChange, Writer,
    record::{Head, SaveRecord},
    save::Snapshot,
};
use crate::{
    Error, Result, Time,
    file::{Base, Data, File, Tail},
    inodes::Shown,
    manifest::Manifest,
    places,
    shared::{HeadState, Shared},
    tree::{BaseTree, Layer, attrs, map_edits},
    vault::Sealer,
};

/// The newest snapshot of each content that was sealed. By content and not by node: a content may be
/// renamed to another node meanwhile, and must not be taken for two.
type Sealed = HashMap<*const File, Snapshot>;

/// A content that the tree was told of.
struct Told {
    file: *const File,
    /// What its node held before.
    before: Option<Value<Data>>,
    /// What it was sealed into.
    sealed: Data,
}

/// Contents written into the tree under one taking of the lock.
const TOLD_AT_ONCE: usize = 256;
/// How often contents that changed while others were sealed are sealed again.
const SEAL_ROUNDS_MAX: usize = 3;

/// What step 2 hands to step 3.
struct Frozen {
    layer: Arc<Layer>,
    /// Contents that the version does not hold: the record that begins it carries them.
    carried: Vec<Snapshot>,
    /// Whether the next version can hold any of them: they came too late for this one, and may be
    /// sealed by then. What is damaged may not.
    is_late: bool,
    parent: HeadState,
    op: OpId,
    next_op: OpId,
}

impl Writer {
    /// Seals everything as a version and returns its id; the newest version's if nothing changed.
    ///
    /// # Errors
    ///
    /// A full disk, a failed write or barrier: nothing is lost, and a later attempt holds it all.
    pub(super) fn publish(&mut self) -> Result<[u8; 32]> {
        self.publish_with(None)
    }

    /// As [`Writer::publish`], with another charter, if there is one: then also if nothing else has
    /// changed.
    ///
    /// # Errors
    ///
    /// As [`Writer::publish`]; what `change` fails with.
    pub(super) fn publish_with(&mut self, change: Option<&CharterChange>) -> Result<[u8; 32]> {
        let started = Instant::now();
        let shared = Arc::clone(&self.shared);
        if self.appender.poisoned() && shared.has_unpublished() {
            return Err(StoreError::Poisoned.into());
        }
        if !shared.may_publish() || (change.is_none() && !shared.has_unpublished()) {
            self.schedule.published();
            return Ok(shared.core.read().head.manifest.id.0);
        }
        shared.core.write().saving = true;
        let mut sealed = HashMap::new();
        let mut told = Vec::new();
        let result = self.seal_contents(&mut sealed).and_then(|()| {
            let frozen = shared.freeze(&mut sealed, &mut told)?;
            let result = self.write_version(&frozen, change);
            shared.unfreeze(frozen, result.is_ok());
            result
        });
        self.appender.rest();
        match result {
            Ok((head, base)) => {
                let id = head.manifest.id;
                shared.stand_on(head, base, sealed);
                shared.tell_head();
                self.note(&Ok(()));
                log::debug!("publish version={id} us={}", started.elapsed().as_micros());
                Ok(id.0)
            }
            Err(err) => {
                self.drop_batch();
                shared.unseal(sealed, told);
                self.note(&Err(err.clone()));
                Err(err)
            }
        }
    }

    /// Step 1: seals the contents that the tree does not hold.
    fn seal_contents(&mut self, sealed: &mut Sealed) -> Result<()> {
        for _ in 0..SEAL_ROUNDS_MAX {
            let dirty = self.shared.unsealed(sealed);
            if dirty.is_empty() {
                break;
            }
            for (id, file) in dirty {
                let content = file.lock().snapshot();
                let mut snapshot = Snapshot { id: Some(id), file, content, base: None };
                match self.fold(&mut snapshot, Tail::Seal) {
                    Ok(()) => (),
                    // One damaged file must not keep all others from being published.
                    Err(err @ Error::Damaged { .. }) => {
                        log::warn!("seal failed node={id} reason={err}");
                        snapshot.file.lock().not_saved(&snapshot.content);
                        continue;
                    }
                    Err(err) => {
                        snapshot.file.lock().not_saved(&snapshot.content);
                        return Err(err);
                    }
                }
                // Should the version fail, what the older snapshot took is unsaved too.
                let key = Arc::as_ptr(&snapshot.file);
                if let Some(older) = sealed.get(&key) {
                    snapshot.content.not_saved(&older.content);
                }
                sealed.insert(key, snapshot);
            }
        }
        Ok(())
    }

    /// Step 3: the new version, durable.
    fn write_version(
        &mut self,
        frozen: &Frozen,
        change: Option<&CharterChange>,
    ) -> Result<(HeadState, BaseTree)> {
        let shared = Arc::clone(&self.shared);
        let mut sealer = Sealer::new(&mut self.appender, &shared.vault);
        let edits = map_edits(&frozen.layer, |long| sealer.put_node(long))?;
        let old_root = shared.core.read().tree.base().root;
        let root = sealer.apply(old_root, edits)?;
        let mut vv = frozen.parent.vv.clone();
        vv.learn(&frozen.op);
        let mut charter = frozen.parent.charter.clone();
        if let Some(change) = change {
            change(&mut charter, frozen.op)?;
        }
        let manifest = Manifest {
            bucket: shared.bucket,
            author: self.device.public(),
            incarnation: frozen.parent.incarnation,
            parents: vec![frozen.parent.manifest.id],
            vv: vv.clone(),
            root,
            ops: frozen.op.lamport.saturating_sub(frozen.parent.vv.max_lamport()),
            time: Time::now(),
            charter: charter.clone(),
        };
        let bytes = manifest.seal(&self.device);
        let blob: BlobRef = self.appender.put(BlobKind::Manifest, &bytes)?;
        let record = SaveRecord {
            head: Some(Head {
                manifest: blob,
                devices: shared.inodes.lock().devices().to_vec(),
                incarnation: frozen.parent.incarnation,
                before: None,
            }),
            op: frozen.next_op,
            nodes: Vec::new(),
            files: frozen.carried.iter().filter_map(Snapshot::whole_record).collect(),
        };
        let base = BaseTree::open(Arc::clone(&shared.vault), root)?;
        // Nothing fails after the barrier: what is live would go on from the version before.
        let bytes = self.append(&record, true)?;
        shared.note_publish(manifest.time);
        self.schedule.published();
        if frozen.is_late {
            self.schedule.carried(Instant::now(), bytes as u64);
        }
        let incarnation = frozen.parent.incarnation;
        Ok((HeadState { manifest: blob, vv, charter, incarnation }, base))
    }
}

impl Shared {
    pub(super) fn has_unpublished(&self) -> bool {
        !self.core.read().is_published()
    }

    /// The contents that the tree does not hold and that are not sealed as they are now.
    fn unsealed(&self, sealed: &Sealed) -> Vec<(NodeId, Arc<File>)> {
        let core = self.core.read();
        let dirty = core.files.iter().filter(|(_, file)| {
            let content = file.lock();
            let is_new = !sealed.contains_key(&Arc::as_ptr(file));
            content.is_changed() && (is_new || content.is_unsaved())
        });
        dirty.map(|(shown, file)| (shown.node, Arc::clone(file))).collect()
    }

    /// Step 2: the tree learns of the sealed contents, and its changes are frozen. What the nodes
    /// held before goes to `told`.
    fn freeze(&self, sealed: &mut Sealed, told: &mut Vec<Told>) -> Result<Frozen> {
        let ids: Vec<NodeId> = self.core.read().files.keys().map(|shown| shown.node).collect();
        for slice in ids.chunks(TOLD_AT_ONCE) {
            self.tell(slice, sealed, told)?;
        }
        let mut guard = self.core.write();
        let core = &mut *guard;
        let (mut carried, mut is_late) = (Vec::new(), false);
        let known: HashSet<*const File> = told.iter().map(|told| told.file).collect();
        for (shown, file) in core.files.iter() {
            let key = Arc::as_ptr(file);
            if known.contains(&key) || !file.lock().is_changed() {
                continue;
            }
            let mut content = file.lock().snapshot();
            is_late |= content.is_unsaved();
            // Sealed, but renamed before the tree was told: it must not be taken for published.
            if let Some(older) = sealed.remove(&key) {
                content.not_saved(&older.content);
                is_late = true;
            }
            let file = Arc::clone(file);
            carried.push(Snapshot { id: Some(shown.node), file, content, base: None });
        }
        let op = core.op;
        core.op.lamport = core.clock_floor.max(core.op.lamport + 1);
        core.next_n = 0;
        core.in_flight += core.unsaved.len();
        core.unsaved.clear();
        self.inodes.lock().grown_up();
        let (parent, next_op) = (core.head.clone(), core.op);
        Ok(Frozen { layer: core.tree.freeze(), carried, is_late, parent, op, next_op })
    }

    /// Writes the sealed contents of the nodes `ids` into the tree.
    fn tell(&self, ids: &[NodeId], sealed: &Sealed, told: &mut Vec<Told>) -> Result<()> {
        let mut guard = self.core.write();
        let core = &mut *guard;
        let mut edit = Edit::new(&core.tree, core.op);
        for id in ids {
            let Some(file) = core.files.get(&Shown::node(*id)) else { continue };
            let Some(snapshot) = sealed.get(&Arc::as_ptr(file)) else { continue };
            let (Some(base), Some(node)) = (&snapshot.base, core.tree.node(id)?) else { continue };
            let before = node.content.last().map(|(_, value)| value.clone());
            self.write_content(&mut edit, *id, snapshot, base)?;
            told.push(Told { file: Arc::as_ptr(file), before, sealed: base.data.clone() });
        }
        let edited = edit.finish();
        core.unsaved.extend(edited.nodes.keys());
        core.tree.apply(edited);
        Ok(())
    }

    fn write_content<T: Tree<Data, Error = Error>>(
        &self,
        edit: &mut Edit<'_, Data, T>,
        node: NodeId,
        snapshot: &Snapshot,
        base: &Base,
    ) -> Result<()> {
        let Some(entry) = places::entry_of_node(edit.tree(), &node)? else { return Ok(()) };
        let id = ContentId(self.vault.content_id(base));
        let value = Value::new(id, base.sealed_len, base.data.clone());
        let node = edit.write(&entry, value)?;
        // What the content says now: the time may have been set since it was sealed.
        if let Some(written) = snapshot.file.lock().written() {
            attrs::set_last_written(edit, &node, written)?;
        }
        Ok(())
    }

    /// Step 4.
    fn stand_on(&self, head: HeadState, base: BaseTree, sealed: Sealed) {
        let mut core = self.core.write();
        core.tree.settle(base);
        core.head = head;
        core.saving_ends();
        for Snapshot { file, content, base, .. } in sealed.into_values() {
            let mut live = file.lock();
            self.room.account(live.saved(&content, base));
            live.published(&content);
        }
        core.files.retain(|_, file| file.is_open() || file.lock().is_changed());
    }

    /// The frozen layer is part of a version, or live again.
    fn unfreeze(&self, frozen: Frozen, durable: bool) {
        let mut core = self.core.write();
        if !durable {
            core.tree.thaw();
            core.unsaved.extend(frozen.layer.nodes.keys());
        }
        self.settle(frozen.carried, durable);
    }

    /// The version failed: what was sealed for it is gone with its batch, so that the tree must
    /// not name it.
    fn unseal(&self, sealed: Sealed, told: Vec<Told>) {
        let mut guard = self.core.write();
        let core = &mut *guard;
        for told in told {
            // By now the content may belong to another node.
            let holder = core.files.iter().find(|(_, file)| Arc::as_ptr(file) == told.file);
            if let (Some((shown, _)), Some(before)) = (holder, told.before) {
                core.tree.untell(&shown.node, &told.sealed, &before);
            }
        }
        self.settle(sealed.into_values(), false);
        core.saving_ends();
        drop(guard);
        self.changed();
    }
}
