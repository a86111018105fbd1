//! What a blob that is here needs besides: of a version its parents, of a map node those below it,
//! of an entry what it lies in.

use std::sync::Arc;

use cairnfs_merge::{Kind, Node, NodeId, Tree, verify};
use cairnfs_store::{BlobId, BlobRef, Error as StoreError, map::MapNode, map::Root};

use super::{Fetch, distrust, rejected};
use crate::{
    Result,
    file::{Data, FILE_BYTES_MAX},
    manifest::Manifest,
    tree::{BaseTree, contents, keys, limits::TARGET_BYTES_MAX},
    vault::parse_extent,
};

/// A blob, and what it is needed for.
#[derive(Clone, Debug)]
pub(super) enum Need {
    Version(BlobId),
    TreeNode(Place),
    /// Of a file's map; `ours` is the map of the same file in our version.
    FileNode(Place, Root),
    /// A node of the tree that is too long for the map.
    LongNode(BlobRef, NodeId),
    Chunk(BlobRef),
}

/// A map node, with what its parent says of it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) blob: BlobRef,
    /// None for a root.
    pub(super) under: Option<Under>,
}

/// Where below a root a map node belongs. As no two places overlap, no node is in two of them: a
/// walk takes no longer than the map is large, whoever made it.
#[derive(Clone, Debug)]
pub(super) struct Under {
    pub(super) level: u8,
    pub(super) first: Vec<u8>,
    /// The key that the next node begins with, if there is one.
    pub(super) end: Option<Vec<u8>>,
}

impl Need {
    pub(super) fn id(&self) -> BlobId {
        match self {
            Self::Version(id) => *id,
            Self::TreeNode(place) | Self::FileNode(place, _) => place.blob.id,
            Self::LongNode(blob, _) | Self::Chunk(blob) => blob.id,
        }
    }

    /// The length that whoever refers to it says it has.
    pub(super) fn len(&self) -> Option<u32> {
        match self {
            Self::Version(_) => None,
            Self::TreeNode(place) | Self::FileNode(place, _) => Some(place.blob.len),
            Self::LongNode(blob, _) | Self::Chunk(blob) => Some(blob.len),
        }
    }
}

impl Fetch {
    /// Looks into what is here for what else is needed; `false` if it is damaged here.
    pub(super) fn expand(&mut self, need: &Need) -> Result<bool> {
        match need {
            Need::Version(id) => self.expand_version(*id),
            Need::TreeNode(place) => {
                let Some(node) = self.load(place)? else { return Ok(false) };
                if node.level() > 0 {
                    self.todo.extend(children(place, &node)?.map(Need::TreeNode));
                    return Ok(true);
                }
                for index in 0..node.len() {
                    self.expand_entry(node.key(index), node.value(index))?;
                }
                Ok(true)
            }
            Need::FileNode(place, ours) => {
                let Some(node) = self.load(place)? else { return Ok(false) };
                self.walked.insert(place.blob.id);
                if node.level() > 0 {
                    let below = children(place, &node)?;
                    self.todo.extend(below.map(|place| Need::FileNode(place, *ours)));
                    return Ok(true);
                }
                for index in 0..node.len() {
                    let extent = parse_extent(node.key(index), node.value(index))
                        .map_err(|_source| rejected("a file's map makes no sense"))?;
                    self.todo.push(Need::Chunk(extent.blob));
                }
                Ok(true)
            }
            Need::LongNode(blob, id) => {
                let read = self.shared.vault.blobs().get(blob);
                let Some(bytes) = self.readable(&blob.id, read)? else { return Ok(false) };
                let node = BaseTree::decode_long(&bytes).map_err(distrust)?;
                self.expand_node(id, &node)?;
                Ok(true)
            }
            Need::Chunk(_) => Ok(true),
        }
    }

    /// What was read here of a blob; `None` if it is damaged. It was found to be what its name says
    /// when it came: so that is this disk's doing.
    fn readable<T>(&self, id: &BlobId, read: Result<T, StoreError>) -> Result<Option<T>> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(StoreError::Corrupt { .. } | StoreError::Missing { .. }) => Ok(None),
            Err(StoreError::UnknownEpoch { epoch }) => match self.missing_secret(id, epoch) {
                Ok(missing) => Err(missing),
                // The secret that it names may be what is damaged.
                Err(_) => Ok(None),
            },
            Err(err) => Err(distrust(err.into())),
        }
    }

    /// Whether a node of a file's map that was looked at in one place belongs where another map has it,
    /// too; `false` if it is damaged here. All below it does then that does not reach its end.
    pub(super) fn fits_again(&mut self, place: &Place, ours: Root) -> Result<bool> {
        if place.under.is_none() {
            return Ok(true);
        }
        let Some(node) = self.load(place)? else { return Ok(false) };
        if node.level() > 0 {
            let last = node.len().saturating_sub(1);
            self.todo.push(Need::FileNode(child(place, &node, last)?, ours));
        }
        Ok(true)
    }

    /// The map node at `place`; `None` if it is damaged here.
    fn load(&self, place: &Place) -> Result<Option<Arc<MapNode>>> {
        let read = self.shared.vault.maps().load(&place.blob);
        let Some(node) = self.readable(&place.blob.id, read)? else { return Ok(None) };
        let fits = match &place.under {
            Some(Under { level, first, end }) => {
                let last = node.len().checked_sub(1).map(|last| node.key(last));
                let is_within =
                    last.is_some_and(|last| end.as_deref().is_none_or(|end| last < end));
                node.level() == *level && is_within && node.key(0) == *first
            }
            None => true,
        };
        if fits { Ok(Some(node)) } else { Err(rejected("a map node that is not where it belongs")) }
    }

    fn expand_version(&mut self, id: BlobId) -> Result<bool> {
        let Some(manifest) = self.load_version(id)? else { return Ok(false) };
        if manifest.bucket != self.shared.bucket {
            return Err(rejected("a version of another bucket"));
        }
        // What is covered brings nothing new, unless it means something else by what both know. What it
        // says of members is relied on only if it is known here as well.
        let is_covered = id != self.head && self.known.dominates(&manifest.vv);
        if is_covered && !self.doubtful.iter().any(|op| manifest.vv.knows(op)) {
            return Ok(true);
        }
        if self.mends {
            let root = manifest.root.0.map(|blob| Place { blob, under: None });
            self.todo.extend(root.map(Need::TreeNode));
            for parent in &manifest.parents {
                // What was given up for space is not missed.
                if self.shared.vault.blobs().contains(parent)? {
                    self.versions.need(*parent)?;
                }
            }
        } else if !self.is_first() {
            // A device that has just joined believes who invited it, and needs no history.
            manifest.parents.iter().try_for_each(|parent| self.versions.need(*parent))?;
        }
        if id == self.head {
            self.manifest = Some(manifest);
        }
        Ok(true)
    }

    /// The version `id`; `None` if it is damaged here.
    fn load_version(&self, id: BlobId) -> Result<Option<Arc<Manifest>>> {
        let vault = &self.shared.vault;
        if let Some(manifest) = vault.manifest_read(&id) {
            return Ok(Some(manifest));
        }
        let read = vault.blobs().describe(&id).and_then(|(_, blob)| vault.blobs().get(&blob));
        let Some(bytes) = self.readable(&id, read)? else { return Ok(None) };
        vault.open_manifest(id, &bytes).map(Some).map_err(distrust)
    }

    /// An entry of the tree's map.
    fn expand_entry(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if !key.starts_with(&keys::all_nodes()) {
            // The indexes follow from the nodes, which is checked when it is merged.
            return Ok(());
        }
        let id = keys::parse_only_node(key).filter(|id| keys::node(id) == key);
        let id = id.ok_or_else(|| rejected("a key of the tree makes no sense"))?;
        let ours = self.shared.vault.get(self.ours.root, key)?;
        if ours.is_some_and(|ours| *ours == *value) {
            return Ok(());
        }
        match BaseTree::outside(value) {
            Some(blob) => self.todo.push(Need::LongNode(blob, id)),
            None => {
                let node = self.ours.decode(value).map_err(distrust)?;
                self.expand_node(&id, &node)?;
            }
        }
        Ok(())
    }

    fn expand_node(&mut self, id: &NodeId, node: &Node<Data>) -> Result<()> {
        let Some(head) = &self.manifest else { return Err(rejected("a tree without a version")) };
        verify::node(&head.vv, id, node).map_err(|reject| rejected(&reject.to_string()))?;
        let ours = self.ours.node(id)?;
        let our_maps: Vec<Root> = ours
            .iter()
            .flat_map(|node| contents(node))
            .filter_map(|content| match content.body {
                Data::Map { root, .. } => Some(root),
                _ => None,
            })
            .collect();
        for content in contents(node) {
            if node.kind == Kind::Symlink && content.len > TARGET_BYTES_MAX {
                return Err(rejected("a symbolic link that is too long"));
            }
            match &content.body {
                Data::Inline(bytes) if bytes.len() as u64 == content.len => (),
                Data::Device(_) => (),
                Data::Chunk(blob) if u64::from(blob.len) == content.len => {
                    self.todo.push(Need::Chunk(*blob));
                }
                Data::Map { root, .. } if content.len <= FILE_BYTES_MAX => {
                    let ours = our_maps.first().copied().unwrap_or(Root::EMPTY);
                    if let Some(blob) = root.0.filter(|_| !our_maps.contains(root)) {
                        self.todo.push(Need::FileNode(Place { blob, under: None }, ours));
                    }
                }
                _ => return Err(rejected("a content that makes no sense")),
            }
        }
        Ok(())
    }
}

/// The children of the inner node at `place`.
fn children(place: &Place, node: &MapNode) -> Result<impl Iterator<Item = Place> + use<>> {
    let places = (0..node.len()).map(|index| child(place, node, index));
    let places: Vec<Place> = places.collect::<Result<_>>()?;
    // The last is looked at first: so from left to right.
    Ok(places.into_iter().rev())
}

/// One of them.
fn child(place: &Place, node: &MapNode, index: usize) -> Result<Place> {
    let level = node.level().checked_sub(1).ok_or_else(|| rejected("a leaf with children"))?;
    let blob = node.child(index).ok_or_else(|| rejected("a map node without a child"))?;
    let next = (index + 1 < node.len()).then(|| node.key(index + 1).to_vec());
    let end = next.or_else(|| place.under.as_ref()?.end.clone());
    Ok(Place { blob, under: Some(Under { level, first: node.key(index).to_vec(), end }) })
}
