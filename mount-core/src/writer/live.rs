//! What must stay of all that a bucket holds: the newest version, and what was changed since.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use cairnfs_merge::Node;
use cairnfs_store::{BlobId, BlobRef};

use crate::{
    Error, Result,
    file::Data,
    shared::Shared,
    tree::{BaseTree, contents, keys},
    vault::Vault,
};

/// Where [`Live`] is computed from: all that is referred to at one moment.
pub(super) struct Roots {
    head: BlobRef,
    base: BaseTree,
    /// Changes that no version holds yet, and contents that are open or changed.
    unpublished: Vec<Data>,
}

/// Names of blobs, shortened: a clash keeps something that could have gone, which does no harm.
pub(super) struct Live {
    short_ids: HashSet<u64>,
    cancelled: Arc<AtomicBool>,
}

impl Live {
    /// Everything that `roots` lead to. Costs reading the whole tree and the map of every file.
    ///
    /// # Errors
    ///
    /// Damage, [`Error::Io`]; [`Error::Stopped`] soon after `cancelled` is set.
    pub(super) fn of(vault: &Vault, roots: &Roots, cancelled: &Arc<AtomicBool>) -> Result<Self> {
        let mut live = Self { short_ids: HashSet::new(), cancelled: Arc::clone(cancelled) };
        live.insert(&roots.head);
        for content in &roots.unpublished {
            live.add_content(vault, content)?;
        }
        live.add_tree(&roots.base)?;
        if live.is_cancelled() { Err(Error::Stopped) } else { Ok(live) }
    }

    pub(super) fn contains(&self, id: &BlobId) -> bool {
        self.short_ids.contains(&short(id))
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// `true` if it was not there, and what is below it is to be looked at.
    fn insert(&mut self, blob: &BlobRef) -> bool {
        self.short_ids.insert(short(&blob.id)) && !self.is_cancelled()
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
            if self.is_cancelled() {
                break;
            }
            let (_, value) = item?;
            if let Some(blob) = BaseTree::outside(&value) {
                self.insert(&blob);
            }
            self.add_node(vault, &*base.decode(&value)?)?;
        }
        Ok(())
    }
}

fn short(id: &BlobId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl Shared {
    /// What everything that must stay is referred to by, now.
    pub(super) fn roots(&self) -> Roots {
        let core = self.core.read();
        let mut unpublished: Vec<Data> = core
            .tree
            .changed_nodes()
            .flat_map(|node| contents(node))
            .map(|it| it.body.clone())
            .collect();
        for file in core.files.values().cloned().chain(self.inodes.lock().orphans()) {
            unpublished.push(file.lock().sealed().clone());
        }
        Roots { head: core.head.manifest, base: core.tree.base().clone(), unpublished }
    }
}
