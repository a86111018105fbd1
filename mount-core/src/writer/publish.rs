//! Publishing: the saved state becomes a signed version.
//!
//! ```text
//!   1  fold dirty contents              no lock
//!   2  tell the tree of them; freeze    lock, short
//!   3  fold the frozen layer into the map, sign, one barrier      no lock
//!   4  stand on the new version         lock, short
//! ```
//!
//! Step 1 is repeated for what changed meanwhile, so that a version is a consistent snapshot unless
//! files are written to without a pause while it is made; then it holds their last folded state. What
//! comes too late for the tree to be told of is saved with the version, and another one is due.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use cairnfs_merge::{Content as Value, ContentId, Edit, NodeId, OpId, Tree};
use cairnfs_store::Error as StoreError;

use super::{
    CharterEdit, Writer,
    record::{Head, SaveRecord},
    save::Snapshot,
    version::{NewVersion, VersionFacts},
};
use crate::{
    Error, Result,
    file::{Base, Data, File, Tail},
    inodes::Shown,
    places,
    shared::{Fate, HeadState, Shared},
    tree::{BaseTree, Layer, attrs},
};

/// What was folded for a version.
#[derive(Default)]
struct Folded {
    /// The newest snapshot of each content. By content and not by node: a content may be renamed to
    /// another node meanwhile, and must not be taken for two.
    snapshots: HashMap<*const File, Snapshot>,
    /// Of which content each node had the newest one.
    newest: HashMap<NodeId, *const File>,
}

impl Folded {
    /// The newest snapshot that was taken of the node `id`, if `file`, which is its content now, is
    /// the one it was taken of or has replaced that.
    ///
    /// None that was taken under another name: it may be the half of a temporary file.
    fn of(&self, id: &NodeId, file: &Arc<File>) -> Option<&Snapshot> {
        let snapshot = self.snapshots.get(self.newest.get(id)?)?;
        let is_of_it = Arc::ptr_eq(&snapshot.file, file) || snapshot.file.was_replaced_at(id);
        (snapshot.id == Some(*id) && is_of_it).then_some(snapshot)
    }

    fn insert(&mut self, snapshot: Snapshot) {
        let key = Arc::as_ptr(&snapshot.file);
        self.newest.extend(snapshot.id.map(|id| (id, key)));
        self.snapshots.insert(key, snapshot);
    }
}

/// A content that the tree was told of.
struct Told {
    file: Arc<File>,
    /// What showed it then.
    shown: NodeId,
    /// The node that it was written to.
    node: NodeId,
    /// What its node held before.
    before: Option<Value<Data>>,
    /// What it was folded into.
    folded: Data,
}

/// Contents written into the tree under one taking of the lock.
const TOLD_AT_ONCE: usize = 256;
/// How often contents that changed while others were folded are folded again.
const FOLD_ROUNDS_MAX: usize = 3;

/// What step 2 hands to step 3.
struct Frozen {
    layer: Arc<Layer>,
    /// Nodes of it that no save has: they are unsaved again if the version fails.
    unsaved: BTreeSet<NodeId>,
    /// Contents that the version does not hold: the record that begins it carries them.
    carried: Vec<Snapshot>,
    /// Whether the next version can hold any of them: they came too late for this one, and may be
    /// folded by then. What is damaged may not.
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
    pub(super) fn publish_with(&mut self, change: Option<&CharterEdit>) -> Result<[u8; 32]> {
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
        let mut folded = Folded::default();
        let mut told = Vec::new();
        let result = self.fold_contents(&mut folded).and_then(|()| {
            shared.tell_all(&folded, &mut told)?;
            let frozen = shared.freeze(&mut folded, &told)?;
            let result = self.write_version(&frozen, change);
            shared.unfreeze(frozen, Fate::of(&result));
            result
        });
        self.appender.rest();
        match result {
            Ok((head, base)) => {
                let id = head.manifest.id;
                shared.stand_on(head, base, folded);
                shared.tell_head();
                self.note_written();
                log::debug!("publish version={id} us={}", started.elapsed().as_micros());
                Ok(id.0)
            }
            Err(err) => {
                self.drop_batch();
                shared.give_back(folded, told);
                self.note_failure(&err);
                Err(err)
            }
        }
    }

    /// Step 1: folds the contents that the tree does not hold.
    fn fold_contents(&mut self, folded: &mut Folded) -> Result<()> {
        for _ in 0..FOLD_ROUNDS_MAX {
            let dirty = self.shared.unfolded(folded);
            if dirty.is_empty() {
                break;
            }
            for file in dirty {
                let Some((id, mut snapshot)) = self.shared.snapshot_of(file) else { continue };
                match self.fold(&mut snapshot, Tail::Seal) {
                    Ok(()) => (),
                    // A file that cannot be read must not keep all others from being published.
                    Err(err) if !self.ends_saving(&err) => {
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
                if let Some(older) = folded.snapshots.get(&Arc::as_ptr(&snapshot.file)) {
                    snapshot.content.not_saved(&older.content);
                }
                folded.insert(snapshot);
            }
        }
        Ok(())
    }

    /// Step 3: the new version, durable.
    fn write_version(
        &mut self,
        frozen: &Frozen,
        change: Option<&CharterEdit>,
    ) -> Result<(HeadState, BaseTree)> {
        let shared = Arc::clone(&self.shared);
        let parent = &frozen.parent;
        let mut vv = parent.vv.clone();
        vv.learn(&frozen.op);
        let mut charter = parent.charter.clone();
        if let Some(change) = change {
            change(&mut charter, frozen.op)?;
        }
        let facts = VersionFacts {
            incarnation: parent.incarnation,
            parents: vec![parent.manifest.id],
            before: parent.vv.max_lamport(),
            vv,
            charter,
            secrets: parent.secrets_and(shared.vault.blobs().keys().current()),
        };
        let old_root = shared.core.read().tree.base().root;
        let NewVersion { head, base, time } = self.make_version(&frozen.layer, old_root, facts)?;
        let record = SaveRecord {
            head: Some(Head {
                manifest: head.manifest,
                devices: shared.inodes.lock().devices().to_vec(),
                incarnation: head.incarnation,
                before: None,
            }),
            op: frozen.next_op,
            nodes: Vec::new(),
            files: frozen.carried.iter().filter_map(Snapshot::whole_record).collect(),
        };
        // Nothing fails after the barrier: what is live would go on from the version before.
        let bytes = self.append(&record)?;
        {
            let mut core = shared.core.write();
            core.carried_on = None;
            core.journaled.begin(&frozen.carried);
        }
        shared.note_publish(time);
        self.schedule.published();
        if frozen.is_late {
            self.schedule.carried(Instant::now(), bytes as u64);
        }
        Ok((head, base))
    }
}

impl Shared {
    pub(super) fn has_unpublished(&self) -> bool {
        !self.core.read().is_published()
    }

    /// The contents that the tree does not hold and that are not folded as they are now.
    fn unfolded(&self, folded: &Folded) -> Vec<Arc<File>> {
        let core = self.core.read();
        let dirty = core.files.values().filter(|file| {
            let content = file.lock();
            let is_new = !folded.snapshots.contains_key(&Arc::as_ptr(file));
            content.is_changed() && (is_new || content.is_unsaved())
        });
        dirty.map(Arc::clone).collect()
    }

    /// Takes what `file` holds, and the node it is the content of at that moment; nothing if it has
    /// lost its name.
    fn snapshot_of(&self, file: Arc<File>) -> Option<(NodeId, Snapshot)> {
        let core = self.core.read();
        let id = core.files.shown_as(&file)?.node;
        let content = file.lock().snapshot();
        Some((id, Snapshot { id: Some(id), file, content, base: None }))
    }

    /// Step 2: the tree learns of the folded contents. What the nodes held before goes to `told`.
    fn tell_all(&self, folded: &Folded, told: &mut Vec<Told>) -> Result<()> {
        let ids: Vec<NodeId> = self.core.read().files.keys().map(|shown| shown.node).collect();
        ids.chunks(TOLD_AT_ONCE).try_for_each(|slice| self.tell(slice, folded, told))
    }

    /// And its changes are frozen.
    ///
    /// # Errors
    ///
    /// As [`Shared::claim_left`].
    fn freeze(&self, folded: &mut Folded, told: &[Told]) -> Result<Frozen> {
        let mut guard = self.core.write();
        let core = &mut *guard;
        self.claim_left(core)?;
        let (mut carried, mut is_late) = (Vec::new(), false);
        let told_at: HashMap<*const File, NodeId> =
            told.iter().map(|told| (Arc::as_ptr(&told.file), told.shown)).collect();
        for (shown, file) in core.files.iter() {
            let key = Arc::as_ptr(file);
            let is_known = told_at.get(&key) == Some(&shown.node);
            if is_known || !file.lock().is_changed() {
                continue;
            }
            let mut content = file.lock().snapshot();
            is_late |= content.is_unsaved();
            // Folded, but renamed before the tree was told, or since: the tree does not have it where
            // it is now, and it must not be taken for published.
            if let Some(older) = folded.snapshots.remove(&key) {
                content.not_saved(&older.content);
                is_late = true;
            }
            let file = Arc::clone(file);
            carried.push(Snapshot { id: Some(shown.node), file, content, base: None });
        }
        let op = core.op;
        core.op.lamport = core.clock_floor.max(core.op.lamport + 1);
        core.next_n = 0;
        let unsaved = std::mem::take(&mut core.unsaved);
        core.in_flight += unsaved.len();
        self.inodes.lock().grown_up(Instant::now());
        let (parent, next_op) = (core.head.clone(), core.op);
        Ok(Frozen { layer: core.tree.freeze(), unsaved, carried, is_late, parent, op, next_op })
    }

    /// Writes the folded contents of the nodes `ids` into the tree.
    fn tell(&self, ids: &[NodeId], folded: &Folded, told: &mut Vec<Told>) -> Result<()> {
        let mut guard = self.core.write();
        let core = &mut *guard;
        let mut written = HashSet::new();
        let mut edit = Edit::new(&core.tree, core.op);
        for id in ids {
            let Some(file) = core.files.get(&Shown::node(*id)) else { continue };
            let Some(snapshot) = folded.of(id, file) else { continue };
            let (Some(base), Some(node)) = (&snapshot.base, core.tree.node(id)?) else { continue };
            let before = node.content.last().map(|(_, value)| value.clone());
            // What is shown nowhere cannot be told, and is carried.
            let Some(node) = self.write_content(&mut edit, *id, base)? else { continue };
            // What the content says now: the time may have been set since it was folded. What has
            // replaced it has another.
            let is_live = Arc::ptr_eq(&snapshot.file, file);
            if let Some(written) = file.lock().written().filter(|_| is_live) {
                attrs::set_last_written(&mut edit, &node, written)?;
            }
            let (file, folded) = (Arc::clone(&snapshot.file), base.data.clone());
            told.push(Told { file, shown: *id, node, before, folded });
            written.insert(Shown::node(*id));
        }
        let edited = edit.finish();
        // A version of a conflict may go by this: the bytes of another were written to the file.
        let mut stirred = self.stirred_by(core, &edited)?;
        stirred.spare(|shown| written.contains(shown));
        core.apply(edited);
        self.calm(core, stirred);
        Ok(())
    }

    /// Writes what was folded as `base` to `node`; says which node has it then. None if `node` is shown
    /// nowhere.
    fn write_content<T: Tree<Data, Error = Error>>(
        &self,
        edit: &mut Edit<'_, Data, T>,
        node: NodeId,
        base: &Base,
    ) -> Result<Option<NodeId>> {
        let Some(entry) = places::entry_of_node(edit.tree(), &node)? else { return Ok(None) };
        let id = ContentId(self.vault.content_id(base));
        let value = Value::new(id, base.sealed_len, base.data.clone());
        Ok(Some(edit.write(&entry, value)?))
    }

    /// Step 4.
    fn stand_on(&self, head: HeadState, base: BaseTree, folded: Folded) {
        let mut core = self.core.write();
        core.tree.settle(base);
        self.room.account_tree(core.tree.held_bytes());
        core.head = head;
        core.saving_ends();
        for Snapshot { file, content, base, .. } in folded.snapshots.into_values() {
            let mut live = file.lock();
            self.room.account(live.saved(&content, base));
            live.published(&content);
        }
        core.files.retain(|_, file| file.is_open() || file.lock().is_changed());
    }

    /// The frozen layer is part of a version, or live again.
    fn unfreeze(&self, frozen: Frozen, fate: Fate) {
        let mut core = self.core.write();
        if fate == Fate::Unsaved {
            core.tree.thaw();
            core.unsaved.extend(frozen.unsaved);
        }
        self.settle(frozen.carried, fate);
    }

    /// The version failed: what was folded for it is gone with its batch, so that the tree must
    /// not name it.
    fn give_back(&self, folded: Folded, told: Vec<Told>) {
        let mut guard = self.core.write();
        let core = &mut *guard;
        for told in told {
            let Some(before) = told.before else { continue };
            // By now the content may belong to another node, or another content to this one.
            let holder = core.files.shown_as(&told.file).map(|shown| shown.node);
            for node in holder.into_iter().chain([told.node]) {
                core.tree.untell(&node, &told.folded, &before);
            }
        }
        self.settle(folded.snapshots.into_values(), Fate::Unsaved);
        core.saving_ends();
        drop(guard);
        self.changed();
    }
}

#[cfg(test)]
mod tests {
    use std::{io::ErrorKind, time::Duration};

    use cairnfs_store::sim::{Call, Fault};

    use super::*;
    use crate::{
        Ino, Kind, Mount, OpenFlags, RenameMode,
        random_load::{ME, fresh, mount_publishing, save, write_all},
    };

    const HOUR: Duration = Duration::from_secs(3600);

    fn read(mount: &Mount, name: &[u8]) -> Vec<u8> {
        let ino = mount.lookup(Ino::ROOT, name).unwrap().ino;
        let fh = mount.open(ino, OpenFlags::default()).unwrap();
        let bytes = mount.read(fh, 0, 100).unwrap();
        mount.release(ino, fh, Box::new(|_| ()));
        bytes
    }

    #[test]
    fn what_replaces_a_file_between_being_told_to_the_tree_and_the_freeze_is_carried() {
        let (disk, device, _) = fresh(1);
        let mounted = mount_publishing(&disk, &device, HOUR, HOUR).unwrap();
        let write = |name: &[u8], content: &[u8]| {
            let ino = mounted.mknod(ME, Ino::ROOT, name, Kind::File, 0o644, 0).unwrap().ino;
            write_all(&mounted, ino, 0, content).unwrap();
        };
        write(b"f", b"old");
        mounted.publish().unwrap();
        write(b"temp", b"new");
        // As the writer does, which has nothing to do now.
        let shared = mounted.shared();
        shared.core.write().saving = true;
        let (mut folded, mut told) = (Folded::default(), Vec::new());
        for file in shared.unfolded(&folded) {
            let (_, mut snapshot) = shared.snapshot_of(file).unwrap();
            snapshot.base = Some(Base::new(Data::Inline(b"new".to_vec()), 3));
            folded.insert(snapshot);
        }
        shared.tell_all(&folded, &mut told).unwrap();
        assert_eq!(told.len(), 1);
        mounted.rename(Ino::ROOT, b"temp", Ino::ROOT, b"f", RenameMode::Replace).unwrap();
        let frozen = shared.freeze(&mut folded, &told).unwrap();
        assert_eq!(frozen.carried.len(), 1, "the version would have neither");
        assert!(frozen.is_late, "another one is due");
        shared.unfreeze(frozen, Fate::Unsaved);
        shared.give_back(folded, told);
        assert_eq!(read(&mounted, b"f"), b"new");
        mounted.publish().unwrap();
        mounted.stop().unwrap();
        let again = mount_publishing(&disk.kill(), &device, HOUR, HOUR).unwrap();
        assert_eq!(read(&again, b"f"), b"new");
        again.stop().unwrap();
    }

    #[test]
    fn what_a_save_has_is_saved_still_when_a_version_has_failed() {
        let (disk, device, _) = fresh(1);
        let mounted = mount_publishing(&disk, &device, HOUR, HOUR).unwrap();
        for n in 0..20 {
            mounted.mkdir(ME, Ino::ROOT, format!("d{n}").as_bytes(), 0o755).unwrap();
        }
        mounted.rmdir(Ino::ROOT, b"d1").unwrap();
        save(&mounted).unwrap();
        let unsaved = || mounted.shared().core.read().unsaved_changes();
        for nth in 1..=8 {
            disk.inject(Fault::Fail { call: Call::Write, nth, kind: ErrorKind::StorageFull });
        }
        assert!(mounted.publish().is_err());
        assert_eq!(unsaved(), 0, "they are in the log");
        // And what no save has is not forgotten.
        mounted.mkdir(ME, Ino::ROOT, b"late", 0o755).unwrap();
        assert_eq!(unsaved(), 2, "it and the directory that it is in");
        let shared = mounted.shared();
        let frozen = shared.freeze(&mut Folded::default(), &[]).unwrap();
        shared.unfreeze(frozen, Fate::Unsaved);
        shared.core.write().saving_ends();
        assert_eq!(unsaved(), 2);
        assert!((0..10).any(|_| mounted.publish().is_ok()));
        mounted.stop().unwrap();
    }

    #[test]
    fn a_mount_whose_last_version_fails_has_lost_nothing() {
        let (disk, device, _) = fresh(1);
        let mounted = mount_publishing(&disk, &device, HOUR, HOUR).unwrap();
        mounted.mkdir(ME, Ino::ROOT, b"d", 0o755).unwrap();
        save(&mounted).unwrap();
        for nth in 1..=8 {
            disk.inject(Fault::Fail { call: Call::Write, nth, kind: ErrorKind::StorageFull });
        }
        let before = mounted.head();
        mounted.stop().unwrap();
        assert_eq!(mounted.head(), before, "there is a version");
        let again = mount_publishing(&disk.kill(), &device, HOUR, HOUR).unwrap();
        assert!(again.lookup(Ino::ROOT, b"d").is_ok());
        again.stop().unwrap();
    }
}
