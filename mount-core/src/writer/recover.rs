//! Bringing back what was saved after the last version.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use cairnfs_merge::{LinkId, NodeId, OpId, Tree};
use cairnfs_store::{BlobRef, LeftOut};

use super::{doubt::Doubt, record::SaveRecord};
use crate::{
    Error, Result, Time,
    file::Base,
    files::Files,
    follow::{OpenVersion, open_versions},
    inodes::{Inodes, Shown},
    manifest::Manifest,
    pins::Pinned,
    shared::{Core, HeadState, Journaled, SetBack},
    tree::LiveTree,
    vault::Vault,
};

/// What the log says the bucket was when it was last saved.
pub(crate) struct Recovered {
    pub(crate) core: Core,
    pub(crate) inodes: Inodes,
    pub(crate) published: Time,
    /// Whether there is something that the version does not hold.
    pub(crate) unpublished: bool,
    /// Contents among the files that the version shows elsewhere than the one they lie on: to be
    /// [followed](Shared::follow).
    pub(crate) parted: Vec<OpenVersion>,
}

/// Replays `saves`: the record that began the version we stand on, and all after it. Of what was saved
/// behind something that a repair has `left_out` only what does not depend on that.
///
/// # Errors
///
/// [`Error::LogDamaged`] if no record begins a version; [`Error::Damaged`] if a record or the version
/// makes no sense, [`Error::Newer`].
pub(crate) fn recover(
    saves: &[Vec<u8>],
    left_out: &LeftOut,
    vault: &Arc<Vault>,
) -> Result<Recovered> {
    let mut records = saves.iter().map(|bytes| SaveRecord::decode(bytes));
    let nameless = || Error::LogDamaged { what: "the log names no version".to_owned() };
    let first = records.next().ok_or_else(nameless)??;
    let head = first.head.clone().ok_or_else(nameless)?;
    let manifest = Manifest::open_ours(&vault.chunk(&head.manifest)?)?;
    let mut core = Core {
        tree: LiveTree::open(Arc::clone(vault), manifest.root)?,
        files: Files::default(),
        unclaimed: Vec::new(),
        carried_on: None,
        journaled: Journaled::default(),
        unsaved: BTreeSet::new(),
        saving: false,
        in_flight: 0,
        op: first.op,
        clock_floor: 0,
        next_n: 0,
        set_back: SetBack::default(),
        head: HeadState {
            manifest: head.manifest,
            vv: manifest.vv,
            charter: manifest.charter,
            incarnation: head.incarnation,
            secrets: vault.blobs().keys().secrets().into(),
        },
    };
    let mut doubt = Doubt::new(left_out);
    let mut parted = replay_first(&mut core, first, &mut doubt, vault)?;
    for (record, index) in records.zip(1..) {
        let record = record?;
        doubt.save(index);
        core.op = record.op;
        if !(record.nodes.is_empty() && record.files.is_empty()) {
            // The first save after a merge has all of them where they belong.
            for version in parted.drain(..) {
                core.files.remove(version.shown());
                doubt.loses(version.shown().node);
            }
        }
        replay(&mut core, record, &mut doubt)?;
    }
    // A file may have been removed after its content was recorded.
    let mut gone = HashSet::new();
    for shown in core.files.keys() {
        let is_parted = parted.iter().any(|version| version.shown() == shown);
        if !is_parted && core.tree.node(&shown.node)?.is_none() {
            gone.insert(*shown);
        }
    }
    core.files.retain(|shown, _| !gone.contains(shown));
    let files = core.files.iter().map(|(shown, file)| (shown.node, &**file));
    core.journaled = Journaled::recovered(&core.tree, files);
    core.next_n = next_n(&core)?;
    let mut files = BTreeSet::new();
    for id in doubt.set_back() {
        if core.tree.node(&id)?.is_some() {
            log::warn!("recovery left out what was saved last node={id}");
            files.insert(id);
        }
    }
    core.set_back = SetBack { on: Some(head.manifest), files };
    let unpublished = core.tree.changed_count() > 0 || !core.files.is_empty();
    let (inodes, published) = (Inodes::new(head.devices), manifest.time);
    Ok(Recovered { core, inodes, published, unpublished, parted })
}

/// Replays the record that began the version we stand on; what comes back are contents that lie on
/// the version before, and that this version shows elsewhere.
fn replay_first(
    core: &mut Core,
    first: SaveRecord,
    doubt: &mut Doubt<'_>,
    vault: &Arc<Vault>,
) -> Result<Vec<OpenVersion>> {
    let Some(version) = first.before() else {
        replay(core, first, doubt)?;
        return Ok(Vec::new());
    };
    match tree_of(&version, vault) {
        Ok(before) => {
            core.carried_on = Some(Pinned { id: version.id, tree: before.base().clone() });
            let tree = std::mem::replace(&mut core.tree, before);
            replay(core, first, doubt)?;
            let mut parted = open_versions(core, |_, _| Ok(true))?;
            core.tree = tree;
            parted.retain(|version| version.is_parted(&core.tree));
            Ok(parted)
        }
        // No reason to refuse all that is there.
        Err(err) if err.is_damage() => {
            log::warn!("recover contents-on=newest reason={:?}", err.to_string());
            replay(core, first, doubt)?;
            Ok(Vec::new())
        }
        Err(err) => Err(err),
    }
}

fn tree_of(manifest: &BlobRef, vault: &Arc<Vault>) -> Result<LiveTree> {
    let manifest = Manifest::open_ours(&vault.chunk(manifest)?)?;
    LiveTree::open(Arc::clone(vault), manifest.root)
}

fn replay(core: &mut Core, record: SaveRecord, doubt: &mut Doubt<'_>) -> Result<()> {
    let nodes: BTreeMap<_, _> = record.nodes.into_iter().collect();
    for (id, _) in nodes.iter().filter(|(_, node)| node.is_none()) {
        core.files.remove(&Shown::node(*id));
    }
    doubt.make_way(core, &nodes)?;
    core.tree.replay(nodes)?;
    for (id, file) in record.files {
        let shown = Shown::node(id);
        // The content of a node that went in the same save: there is nothing to bring back.
        let Some(node) = core.tree.node(&id)? else { continue };
        let Some(file) = doubt.file(id, file) else { continue };
        let loaded = match core.files.get(&shown) {
            Some(loaded) => Arc::clone(loaded),
            None => {
                let value = node.contents().last().map(|(_, value)| (*value).clone());
                let base = value.map_or_else(Base::empty, |value| Base::new(value.body, value.len));
                core.files.load(shown, base)
            }
        };
        loaded.lock().apply(file)?;
    }
    Ok(())
}

/// The counter goes on behind what the current operation has created already: nodes, and further
/// names of nodes.
fn next_n(core: &Core) -> Result<u32> {
    let mut last = 0;
    let mut note = |op: OpId, n: u32| {
        if op == core.op {
            last = last.max(n);
        }
    };
    for id in core.tree.changed_ids() {
        if let NodeId::Born { op, n } = *id {
            note(op, n);
        }
        for link in core.tree.node(id)?.iter().flat_map(|node| node.places.keys()) {
            if let LinkId::Later { op, n } = *link {
                note(op, n);
            }
        }
    }
    Ok(last)
}
