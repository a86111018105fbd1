//! Getting space back on a disk that fills up.
//!
//! Every version is kept while the disk has room. When it runs low, what only older versions hold
//! is given up: packs that are mostly dead are emptied and removed. What the newest version and
//! everything saved since hold is never touched.
//!
//! Save records that a version has made redundant go without need, when it is quiet after it.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use cairnfs_merge::Node;
use cairnfs_store::{BlobId, BlobRef};

use super::{Writer, record::SaveRecord};
use crate::{
    Result,
    file::Data,
    shared::Shared,
    tree::{BaseTree, contents, keys},
    vault::Vault,
};

/// Packs emptied under one save.
const PACKS_AT_ONCE: usize = 4;
/// A disk with less than this part free is low, as is one with less than [`LOW_BYTES_MAX`].
const LOW_PART: u64 = 50;
const LOW_BYTES_MAX: u64 = 2 << 30;
/// How soon after one attempt the next is made if the disk is low: an attempt reads every pack.
const LOW_PAUSE: Duration = Duration::from_secs(600);
/// The same if somebody has been refused space.
const STARVED_PAUSE: Duration = Duration::from_secs(1);

/// Names of blobs, shortened: a clash keeps something that could have gone, which does no harm.
#[derive(Default)]
struct Live(HashSet<u64>);

impl Live {
    fn short(id: &BlobId) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = id.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// `true` if it was not there.
    fn insert(&mut self, blob: &BlobRef) -> bool {
        self.0.insert(Self::short(&blob.id))
    }

    fn contains(&self, id: &BlobId) -> bool {
        self.0.contains(&Self::short(id))
    }

    /// Everything that a content lies in.
    fn add_content(&mut self, vault: &Vault, data: &Data) -> Result<()> {
        match data {
            Data::Inline(_) | Data::Device(_) => (),
            Data::Chunk(blob) => drop(self.insert(blob)),
            Data::Map { root, .. } => {
                let mut chunks = Vec::new();
                vault.maps().walk(root, &mut |node| Ok(self.insert(node)), &mut |_, value| {
                    chunks.extend(postcard::from_bytes::<BlobRef>(value).ok());
                    Ok(())
                })?;
                for chunk in chunks {
                    self.insert(&chunk);
                }
            }
        }
        Ok(())
    }

    /// Everything that a node may be asked to show, now or once its registers are merged.
    fn add_node(&mut self, vault: &Vault, node: &Node<Data>) -> Result<()> {
        for content in contents(node) {
            self.add_content(vault, &content.body)?;
        }
        Ok(())
    }

    /// Everything that the tree of `base` holds.
    fn add_tree(&mut self, base: &BaseTree) -> Result<()> {
        let vault = &base.vault;
        vault.maps().walk(&base.root, &mut |node| Ok(self.insert(node)), &mut |_, _| Ok(()))?;
        let nodes = keys::all_nodes();
        for item in vault.scan(base.root, &nodes, &keys::end(&nodes)) {
            let (_, value) = item?;
            if let Some(blob) = BaseTree::outside(&value) {
                self.insert(&blob);
            }
            self.add_node(vault, &*base.decode(&value)?)?;
        }
        Ok(())
    }
}

impl Writer {
    /// Gives up what only older versions hold, if the disk is low and it is time to look.
    pub(super) fn reclaim_if_low(&mut self) {
        let pause = if self.shared.is_starved() { STARVED_PAUSE } else { LOW_PAUSE };
        // What is being fetched is referred to by nothing yet; if it is what fills the disk, it ends.
        if self.shared.is_fetching() {
            return;
        }
        let too_soon = self.reclaimed_at.is_some_and(|at| at.elapsed() < pause);
        if too_soon || self.appender.poisoned() || !self.is_low() {
            return;
        }
        if let Err(err) = self.reclaim() {
            self.drop_batch();
            log::warn!("reclaim failed reason={err}");
        }
        // Measured from the end: on a large bucket an attempt takes long.
        self.reclaimed_at = Some(Instant::now());
    }

    /// When there is time to give redundant save records up; `None` if there are none.
    pub(super) fn tidy_at(&self) -> Option<Instant> {
        let quiet = self.shared.options.publish_quiet;
        (self.tidying && !self.appender.poisoned()).then(|| self.shared.last_change() + quiet)
    }

    /// Empties a pack of which at least half is save records that a version has made redundant.
    /// `false` if there was none. No blob goes, so that every version stays.
    pub(super) fn reclaim_spent(&mut self) -> bool {
        let result = self.appender.reclaim_spent().map_err(Into::into).and_then(|plan| {
            if plan.packs > 0 {
                self.finish_reclaim(false)?;
            }
            Ok(plan.packs > 0)
        });
        result.unwrap_or_else(|err: crate::Error| {
            self.drop_batch();
            log::warn!("reclaim failed reason={err}");
            false
        })
    }

    /// Makes the copies durable and lets the packs go.
    fn finish_reclaim(&mut self, urgent: bool) -> Result<()> {
        let op = self.shared.core.read().op;
        let record = SaveRecord { head: None, op, nodes: Vec::new(), files: Vec::new() }.encode();
        if urgent {
            self.appender.save_urgent(&record, false)?;
        } else {
            self.appender.save(&record, false)?;
        }
        self.appender.reclaim_finish()?;
        Ok(())
    }

    fn is_low(&self) -> bool {
        self.shared.is_starved()
            || self.shared.vault.space().is_ok_and(|space| {
                space.free_bytes < (space.total_bytes / LOW_PART).min(LOW_BYTES_MAX)
            })
    }

    fn reclaim(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let live = shared.live()?;
        loop {
            let plan = self.appender.reclaim(&|id| live.contains(id), PACKS_AT_ONCE)?;
            if plan.packs == 0 {
                break;
            }
            self.finish_reclaim(true)?;
        }
        shared.fed();
        Ok(())
    }
}

impl Shared {
    /// Everything that must stay.
    fn live(&self) -> Result<Live> {
        let (base, head, unpublished) = {
            let core = self.core.read();
            // Changes that no version holds yet, and contents that are open or changed.
            let mut unpublished: Vec<Data> = core
                .tree
                .changed_nodes()
                .flat_map(|node| contents(node))
                .map(|it| it.body.clone())
                .collect();
            for file in core.files.values().cloned().chain(self.inodes.lock().orphans()) {
                unpublished.push(file.lock().sealed().clone());
            }
            (core.tree.base().clone(), core.head.manifest, unpublished)
        };
        let mut live = Live::default();
        live.insert(&head);
        for content in &unpublished {
            live.add_content(&self.vault, content)?;
        }
        live.add_tree(&base)?;
        Ok(live)
    }
}
