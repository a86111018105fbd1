//! What must stay of all that a bucket holds: the newest version, what was changed since, and older
//! versions as long as somebody reads them.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
};

use cairnfs_store::{BlobId, BlobRef};

use crate::{
    Error, Result,
    file::Data,
    pins::Pinned,
    shared::Shared,
    tree::{BaseTree, contents, keys},
    vault::{Vault, parse_extent},
};

/// Where [`Live`] is computed from: all that is referred to at one moment.
pub(super) struct Roots {
    head: BlobRef,
    base: BaseTree,
    /// Changes that no version holds yet, and contents that are open or changed.
    unpublished: Vec<Data>,
    /// Older versions that somebody reads.
    pinned: Vec<Pinned>,
    /// How many versions ever had been pinned then.
    pub(super) pins: u64,
}

/// What a walk does where something is missing or damaged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lacking {
    /// It fails: nothing may be taken for dead that was not reached because of it.
    Fails,
    /// It passes that by. A part of an older version may have been given up before.
    Passes,
}

/// What is alive.
#[derive(Default)]
pub(super) struct Live {
    /// Nodes of maps. Everything below one of them is here too, and is not looked at again: so their
    /// names are whole, and a chunk of the same bytes is not among them.
    nodes: HashSet<BlobId>,
    /// Other blobs by their names, shortened: a clash keeps something that could have gone, which
    /// does no harm.
    others: HashSet<u64>,
}

impl Live {
    /// Adds everything that `roots` lead to. Costs reading the nodes of maps that are not in it yet:
    /// the whole tree, and the map of every file, at first.
    ///
    /// # Errors
    ///
    /// Damage, [`Error::Io`]; [`Error::Stopped`] soon after `cancelled` is set. It is of no use then.
    pub(super) fn add(
        &mut self,
        vault: &Vault,
        roots: &Roots,
        cancelled: &AtomicBool,
    ) -> Result<()> {
        self.add_blob(&roots.head.id);
        let walk = Walk { vault, lacking: Lacking::Fails, cancelled };
        for content in &roots.unpublished {
            self.add_content(&walk, content)?;
        }
        self.add_tree(&walk, &roots.base)?;
        let walk = Walk { vault, lacking: Lacking::Passes, cancelled };
        for pinned in &roots.pinned {
            self.add_blob(&pinned.id);
            walk.pass(self.add_tree(&walk, &pinned.tree))?;
        }
        Ok(())
    }

    pub(super) fn contains(&self, id: &BlobId) -> bool {
        self.nodes.contains(id) || self.others.contains(&short(id))
    }

    fn add_blob(&mut self, id: &BlobId) {
        self.others.insert(short(id));
    }

    /// `true` if it was not there, and what is below it is to be looked at.
    fn add_map_node(&mut self, walk: &Walk<'_>, blob: &BlobRef) -> Result<bool> {
        // Nothing else is ordered by it.
        if walk.cancelled.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        if walk.lacking == Lacking::Passes && !walk.vault.blobs().contains(&blob.id)? {
            return Ok(false);
        }
        Ok(self.nodes.insert(blob.id))
    }

    /// Everything that a content lies in.
    fn add_content(&mut self, walk: &Walk<'_>, data: &Data) -> Result<()> {
        match data {
            Data::Inline(_) | Data::Device(_) => Ok(()),
            Data::Chunk(blob) => {
                self.add_blob(&blob.id);
                Ok(())
            }
            Data::Map { root, .. } => walk.vault.maps().walk(
                root,
                self,
                |live, node| live.add_map_node(walk, node),
                |live, key, value| {
                    live.add_blob(&parse_extent(key, value)?.blob.id);
                    Ok(())
                },
            ),
        }
    }

    /// Everything that the tree of `base` holds.
    fn add_tree(&mut self, walk: &Walk<'_>, base: &BaseTree) -> Result<()> {
        let nodes = keys::all_nodes();
        walk.vault.maps().walk(
            &base.root,
            self,
            |live, node| live.add_map_node(walk, node),
            |live, key, value| {
                if !key.starts_with(&nodes) {
                    return Ok(());
                }
                walk.pass(live.add_node(walk, base, value))
            },
        )
    }

    /// Everything that a node, as it is stored in the tree of `base`, lies in.
    fn add_node(&mut self, walk: &Walk<'_>, base: &BaseTree, value: &[u8]) -> Result<()> {
        if let Some(blob) = BaseTree::outside(value) {
            self.add_blob(&blob.id);
        }
        // All that it may be asked to show, now or once its registers are merged.
        contents(&*base.decode(value)?)
            .try_for_each(|it| walk.pass(self.add_content(walk, &it.body)))
    }
}

/// How everything is gone through.
struct Walk<'w> {
    vault: &'w Vault,
    lacking: Lacking,
    cancelled: &'w AtomicBool,
}

impl Walk<'_> {
    /// The end of a part: also if something in it is damaged, where that does not matter.
    fn pass(&self, part: Result<()>) -> Result<()> {
        match part {
            Err(err) if err.is_damage() && self.lacking == Lacking::Passes => Ok(()),
            part => part,
        }
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
        let (pinned, pins) = self.pins.all();
        let (head, base) = (core.head.manifest, core.tree.base().clone());
        Roots { head, base, unpublished, pinned, pins }
    }
}

#[cfg(test)]
mod tests {
    use cairnfs_store::map::Root;

    use super::*;
    use crate::{
        Ino, Kind, Mount,
        file::base::INLINE_BYTES_MAX,
        random_load::{ME, fresh, mount, write_all},
    };

    fn create(mount: &Mount, name: &[u8]) -> Ino {
        mount.mknod(ME, Ino::ROOT, name, Kind::File, 0o644, 0).unwrap().ino
    }

    /// The map of the only file that has one.
    fn root_of_map(roots: &Roots) -> Root {
        let nodes = keys::all_nodes();
        let end = keys::end(&nodes);
        let items = roots.base.vault.scan(roots.base.root, &nodes, &end);
        let mut all = items.map(|item| roots.base.decode(&item.unwrap().1).unwrap());
        let found = all.find_map(|node| {
            contents(&node).find_map(|content| match content.body {
                Data::Map { root, .. } => Some(root),
                _ => None,
            })
        });
        found.unwrap()
    }

    /// Blobs of equal bytes have one name, and a member can give a file whatever bytes.
    #[test]
    fn a_chunk_of_the_bytes_of_a_map_node_hides_nothing_that_lies_below_that() {
        let (disk, device, mut rng) = fresh(1);
        let mount = mount(&disk, &device).unwrap();
        // The one created first comes first.
        let (same, large) = (create(&mount, b"same"), create(&mount, b"large"));
        write_all(&mount, large, 0, &rng.bytes(8 << 20)).unwrap();
        mount.publish().unwrap();
        let shared = mount.shared();
        let map = root_of_map(&shared.roots());
        let mut nodes = Vec::new();
        let node = |nodes: &mut Vec<BlobRef>, node: &BlobRef| {
            nodes.push(*node);
            Ok::<_, Error>(true)
        };
        shared.vault.maps().walk(&map, &mut nodes, node, |_, _, _| Ok(())).unwrap();
        let node = nodes.into_iter().find(|node| u64::from(node.len) > INLINE_BYTES_MAX).unwrap();
        write_all(&mount, same, 0, &shared.vault.blobs().get(&node).unwrap()).unwrap();
        mount.publish().unwrap();
        let mut live = Live::default();
        live.add(&shared.vault, &shared.roots(), &AtomicBool::default()).unwrap();
        assert!(live.others.contains(&short(&node.id)), "it is no chunk of the other file");
        for item in shared.vault.maps().iter(&map) {
            let (key, value) = item.unwrap();
            assert!(live.contains(&parse_extent(&key, &value).unwrap().blob.id));
        }
        mount.stop().unwrap();
    }
}
