//! Steps 2 and 3 of a merge: what two versions come to, verified and written with one barrier.

use std::{collections::BTreeMap, sync::Arc};

use cairnfs_merge::{
    Context, EditError, IndexEdits, Node, NodeEdits, NodeId, OpId, Policy, ResolveError, Side,
    Tree, VersionVector, View, conflicts, merge, resolve, verify,
};
use cairnfs_store::{BlobId, BlobRef, Secret};

use super::{
    Writer,
    difference::{Difference, difference, must_be_joinable},
    landing::Landing,
    merge::OWN_OPS,
    stale::Stale,
    version::{NewVersion, VersionFacts},
};
use crate::{
    Result, Strategy,
    charter::{Charter, resolver},
    fetch::{Fetch, rejected},
    file::Data,
    inodes::GONE_DIRS_MAX,
    manifest::{self, Manifest},
    shared::HeadState,
    text::Texts,
    tree::{BaseTree, Layer, LiveTree, attrs},
    versions,
};

/// The two versions that are to become one.
pub(super) struct Sides<'f> {
    pub(super) fetched: &'f Fetch,
    pub(super) theirs: Arc<Manifest>,
    pub(super) ours: HeadState,
    /// The tree of ours.
    pub(super) base: BaseTree,
    /// What both say of members and settings.
    pub(super) charter: Charter,
    /// Whether that lets this device write.
    pub(super) may_write: bool,
}

impl Sides<'_> {
    pub(super) fn their_id(&self) -> BlobId {
        BlobId(self.fetched.head())
    }

    /// A device that has just joined has nothing to compare with, and believes who invited it.
    fn is_first(&self) -> bool {
        self.ours.vv.is_empty()
    }
}

/// Their version, and in what it differs from ours.
struct Compared {
    blob: BlobRef,
    tree: BaseTree,
    difference: Difference,
    index: IndexEdits,
}

/// What both come to together.
struct Joined {
    layer: Layer,
    vv: VersionVector,
}

impl Writer {
    /// Has the log stand on theirs as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`](crate::Error::Rejected); damage, a full disk, a failed write or barrier.
    /// All is as it was then.
    pub(super) fn fast_forward(&mut self, sides: &Sides<'_>) -> Result<Landing> {
        let secret = self.shared.vault.blobs().sealed_under(&sides.their_id())?;
        self.write_under(secret, |this| {
            let Compared { blob, tree, difference, index } = this.compare(sides)?;
            // What is older there would count here from now on.
            if sides.charter != sides.theirs.charter {
                return Err(rejected("it lacks members or settings that it claims to know"));
            }
            let head = HeadState {
                manifest: blob,
                vv: sides.theirs.vv.clone(),
                charter: sides.theirs.charter.clone(),
                incarnation: sides.ours.incarnation,
                secrets: this.secrets_of_both(),
            };
            this.write_landing(sides, head, tree, Layer { nodes: difference.edits(), index })
        })
    }

    /// Has the log stand on a version of this device's own that follows from both.
    ///
    /// # Errors
    ///
    /// As [`Writer::fast_forward`].
    pub(super) fn join(&mut self, sides: &Sides<'_>) -> Result<Landing> {
        let Sides { theirs, ours, base, charter, .. } = sides;
        let secret =
            self.secret_of_both(&ours.charter, (sides.their_id(), &theirs.charter), charter)?;
        self.write_under(secret, |this| {
            let Compared { blob, tree, difference, .. } = this.compare(sides)?;
            if let Some(parents) = versions::known_to_parents(theirs, &this.shared.vault)? {
                verify::no_new_cycle(&tree, &parents)?;
            }
            let mut joined = this.joined(sides, &tree, difference)?;
            this.decide(sides, &mut joined)?;
            joined.verify()?;
            let Joined { layer, vv } = joined;
            let facts = VersionFacts {
                incarnation: ours.incarnation,
                parents: vec![ours.manifest.id, blob.id],
                before: ours.vv.max_lamport().max(theirs.vv.max_lamport()),
                vv,
                charter: charter.clone(),
                secrets: this.secrets_of_both(),
            };
            let NewVersion { head, base, .. } = this.make_version(&layer, base.root, facts)?;
            this.write_landing(sides, head, base, layer)
        })
    }

    /// Writes with everything sealed under the secret that both sides are to have from now on. If it
    /// fails all is as it was.
    fn write_under(
        &mut self,
        secret: (u16, Secret),
        write: impl FnOnce(&mut Self) -> Result<Landing>,
    ) -> Result<Landing> {
        self.sealing_under(secret, |this| {
            let result = write(this);
            if result.is_err() {
                this.drop_batch();
            }
            result
        })
    }

    /// Those that are not of our version came with theirs.
    fn secrets_of_both(&self) -> Arc<[(u16, Secret)]> {
        self.shared.vault.blobs().keys().secrets().into()
    }

    /// Reads in what theirs differs, and verifies that it can stand beside ours.
    fn compare(&self, sides: &Sides<'_>) -> Result<Compared> {
        let Sides { theirs, base, charter, .. } = sides;
        let vault = &self.shared.vault;
        let tree = BaseTree::open(Arc::clone(vault), theirs.root)?;
        let (_, blob) = vault.blobs().describe(&sides.their_id())?;
        let first = sides.is_first();
        let difference = if first { Difference::none() } else { difference(base, &tree)? };
        difference.verify_nodes()?;
        let index = if first { IndexEdits::default() } else { difference.verify_indexes(base)? };
        if !manifest::is_within_bounds(&self.next_known(sides)) {
            return Err(rejected(
                "with this one there would be more devices, or later times, than \
                a version can name",
            ));
        }
        if !charter.is_sound() {
            return Err(rejected("together there would be too many members, or changes of them"));
        }
        Ok(Compared { blob, tree, difference, index })
    }

    /// What the next version of this device knows if it stands on both.
    fn next_known(&self, Sides { theirs, ours, .. }: &Sides<'_>) -> VersionVector {
        let mut vv = ours.vv.clone();
        vv.join(&theirs.vv);
        let lamport = vv.max_lamport().saturating_add(OWN_OPS);
        vv.learn(&OpId { lamport, device: self.device_id(ours) });
        vv
    }

    /// What both trees come to, with every conflict in it.
    fn joined(
        &self,
        Sides { theirs, ours, base, .. }: &Sides<'_>,
        their_tree: &BaseTree,
        difference: Difference,
    ) -> Result<Joined> {
        let merged = merge(
            Side { tree: base, vv: &ours.vv },
            Side { tree: their_tree, vv: &theirs.vv },
            difference.nodes.into_iter().map(Ok),
            self.device_id(ours),
        )?;
        if let Some((op, nodes)) = &merged.restored {
            log::info!("restored op={} nodes={}", op.lamport, nodes.len());
        }
        let layer = Layer { nodes: merged.nodes, index: merged.index };
        Ok(Joined { layer, vv: merged.vv })
    }

    /// Puts in what the resolver makes of the conflicts, where a strategy asks for it.
    fn decide(
        &mut self,
        Sides { ours, base, charter, .. }: &Sides<'_>,
        joined: &mut Joined,
    ) -> Result<()> {
        let settings = charter.settings();
        let decides =
            |strategy: &Strategy| !matches!(strategy, Strategy::ConflictFile | Strategy::Fork);
        if !decides(&settings.strategy) && !settings.rules.iter().any(|(_, rule)| decides(rule)) {
            return Ok(());
        }
        let op = joined.vv.next_op(self.device_id(ours))?;
        let tree = LiveTree::over(base.clone(), joined.layer.clone());
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
        );
        match resolved {
            Ok(resolved) if resolved.edited.nodes.is_empty() => (),
            Ok(resolved) => {
                log::info!("resolved op={} discarded={}", op.lamport, resolved.discarded.len());
                joined.layer.nodes.extend(resolved.edited.nodes);
                joined.layer.index.then(resolved.edited.index);
                joined.vv.learn(&op);
            }
            Err(ResolveError::Edit(EditError::Tree(err))) => return Err(err),
            // The versions stand beside each other, as they do without a strategy.
            Err(err) => log::error!("resolve decided=nothing reason={:?}", err.to_string()),
        }
        Ok(())
    }

    /// Step 3. Nothing fails after the barrier: what is live would go on from the version before, and
    /// its saves would undo the new one at the next opening.
    fn write_landing(
        &mut self,
        sides: &Sides<'_>,
        head: HeadState,
        base: BaseTree,
        Layer { nodes, index }: Layer,
    ) -> Result<Landing> {
        let stale = Stale::between(&sides.base, &base, &nodes, &index)?;
        let removed_dirs = removed_dirs(&sides.base, &nodes)?;
        self.write_head(&head, None)?;
        let first = sides.is_first();
        Ok(Landing { head, base, nodes, index, stale, removed_dirs, first })
    }
}

/// What is left of the directories of `old` that `nodes` removes, or of some of them.
fn removed_dirs(
    old: &BaseTree,
    nodes: &NodeEdits<Data>,
) -> Result<BTreeMap<NodeId, Arc<Node<Data>>>> {
    let mut dirs = BTreeMap::new();
    for (id, _) in nodes.iter().filter(|(_, node)| node.is_none()) {
        if dirs.len() == GONE_DIRS_MAX {
            break;
        }
        if let Some(node) = old.node(id)?.filter(|node| node.kind.is_dir()) {
            dirs.insert(*id, Arc::new(attrs::remains(&node)));
        }
    }
    Ok(dirs)
}

impl Joined {
    /// That what was sound on either side is so together: others would refuse it, or nobody could
    /// read it.
    fn verify(&self) -> Result<()> {
        for (id, node) in &self.layer.nodes {
            let Some(node) = node else { continue };
            verify::node(&self.vv, id, node)
                .map_err(|why| rejected(&format!("joined with what is here, {why}")))?;
            must_be_joinable(id, None, node)?;
        }
        Ok(())
    }
}
