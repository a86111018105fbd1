//! What must stay of all that a bucket holds: the newest version, what was changed since, as it is and as
//! it was saved last, and older versions as long as somebody reads them.

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
    /// What of those was saved, as it was then.
    journaled: Vec<Data>,
    /// Older versions that somebody reads, and the one that an opening would look up what was carried
    /// over a merge in.
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
    /// Nodes below which something may have been passed by.
    passed: HashSet<BlobId>,
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
        for content in &roots.journaled {
            walk.pass(self.add_content(&walk, content))?;
        }
        for pinned in &roots.pinned {
            self.add_blob(&pinned.id);
            walk.pass(self.add_tree(&walk, &pinned.tree))?;
        }
        Ok(())
    }

    pub(super) fn contains(&self, id: &BlobId) -> bool {
        self.nodes.contains(id) || self.passed.contains(id) || self.others.contains(&short(id))
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
        if walk.lacking == Lacking::Fails {
            return Ok(self.nodes.insert(blob.id));
        }
        let is_whole = self.nodes.contains(&blob.id);
        if is_whole || !walk.vault.blobs().contains(&blob.id)? || !self.passed.insert(blob.id) {
            return Ok(false);
        }
        // One that cannot be read would end the walk, before what lies beside it.
        match walk.vault.maps().load(blob).map_err(Error::from) {
            Err(err) if err.is_damage() => Ok(false),
            loaded => loaded.map(|_node| true),
        }
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
        let journaled = core.journaled.contents().cloned().collect();
        let (mut pinned, pins) = self.pins.all();
        pinned.extend(core.carried_on.clone());
        let (head, base) = (core.head.manifest, core.tree.base().clone());
        Roots { head, base, unpublished, journaled, pinned, pins }
    }
}

#[cfg(test)]
mod tests {
    use cairnfs_store::map::Root;

    use super::*;
    use crate::{
        Ino, Kind, Mount, Which,
        file::base::INLINE_BYTES_MAX,
        peers::hex,
        random_load::{ME, fresh, mount, write_all},
        repair_tests::records,
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

    /// All names of chunks that `base` refers to, in the order of its nodes.
    fn chunks(base: &BaseTree) -> Vec<BlobId> {
        let nodes = keys::all_nodes();
        let end = keys::end(&nodes);
        let items = base.vault.scan(base.root, &nodes, &end);
        let all = items.map(|item| base.decode(&item.unwrap().1).unwrap());
        let chunk = |data: &Data| match data {
            Data::Chunk(blob) => Some(blob.id),
            _ => None,
        };
        all.filter_map(|node| contents(&node).find_map(|content| chunk(&content.body))).collect()
    }

    #[test]
    fn a_damaged_part_of_a_version_that_is_read_takes_nothing_else_with_it() {
        const FILES: usize = 400;
        let (disk, device, mut rng) = fresh(1);
        let mounted = mount(&disk, &device).unwrap();
        for n in 0..FILES {
            let file = create(&mounted, format!("{n:03}").as_bytes());
            write_all(&mounted, file, 0, &rng.bytes(INLINE_BYTES_MAX + 1)).unwrap();
        }
        let version = mounted.publish().unwrap();
        let base = mounted.shared().roots().base;
        let all = chunks(&base);
        assert_eq!(all.len(), FILES);
        // Nodes of the map with the chunks whose names are in them.
        let mut leaves: Vec<(BlobId, usize)> = Vec::new();
        let node = |leaves: &mut Vec<_>, node: &BlobRef| {
            leaves.push((node.id, 0));
            Ok::<_, Error>(true)
        };
        let of_nodes = keys::all_nodes();
        let entry = |leaves: &mut Vec<(BlobId, usize)>, key: &[u8], _: &[u8]| {
            leaves.last_mut().unwrap().1 += usize::from(key.starts_with(&of_nodes));
            Ok(())
        };
        base.vault.maps().walk(&base.root, &mut leaves, node, entry).unwrap();
        // The node of the root has no chunk.
        leaves.retain(|(_, nodes)| *nodes > 1);
        assert!(leaves.len() > 2, "{leaves:?}");
        let (rotten, lost) = leaves[0];
        for n in 0..FILES {
            mounted.unlink(Ino::ROOT, format!("{n:03}").as_bytes()).unwrap();
        }
        mounted.publish().unwrap();
        mounted.stop().unwrap();
        drop((base, mounted));
        let record = records(&disk).into_iter().find(|it| it.name == rotten.0).unwrap();
        record.rot(&disk);

        let mounted = mount(&disk, &device).unwrap();
        let past = mounted.past(&Which::Id(hex(&version))).unwrap().unwrap();
        let shared = mounted.shared();
        let mut live = Live::default();
        live.add(&shared.vault, &shared.roots(), &AtomicBool::default()).unwrap();
        let kept = |live: &Live| all.iter().filter(|chunk| live.contains(chunk)).count();
        assert!((FILES - lost..FILES).contains(&kept(&live)), "{} of {FILES}", kept(&live));
        // It comes again with a version that shows what was lost.
        record.rot(&disk);
        let mut roots = shared.roots();
        roots.base = roots.pinned.remove(0).tree;
        live.add(&shared.vault, &roots, &AtomicBool::default()).unwrap();
        assert_eq!(kept(&live), FILES);
        drop((roots, past));
        mounted.stop().unwrap();
    }

    #[test]
    fn what_contents_are_carried_on_stays() {
        let (disk, device, mut rng) = fresh(1);
        let mount = mount(&disk, &device).unwrap();
        let file = create(&mount, b"f");
        write_all(&mount, file, 0, &rng.bytes(INLINE_BYTES_MAX + 1)).unwrap();
        let id = BlobId(mount.publish().unwrap());
        let shared = mount.shared();
        let tree = shared.roots().base;
        let chunk = chunks(&tree)[0];
        mount.unlink(Ino::ROOT, b"f").unwrap();
        mount.publish().unwrap();
        let is_live = || {
            let mut live = Live::default();
            live.add(&shared.vault, &shared.roots(), &AtomicBool::default()).unwrap();
            live.contains(&chunk) && live.contains(&id)
        };
        assert!(!is_live());
        shared.core.write().carried_on = Some(Pinned { id, tree });
        assert!(is_live());
        mount.stop().unwrap();
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
