//! Reading and writing sealed things: chunks, map nodes, and the caches before them.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use cairnfs_merge::{ContentId, Node, NodeId};
use cairnfs_store::{
    Appender, BlobId, BlobRef, Blobs, Kind as BlobKind,
    disk::Space,
    map::{self, MapReader, Root},
};
use quick_cache::{Weighter, sync::Cache};

use crate::{
    Error, Result,
    file::{
        Base, Data,
        base::Extent,
        cut::{CHUNK_BYTES_AVERAGE, Cutter},
    },
    manifest::Manifest,
};

/// What the cut points of a bucket are keyed by.
const CUTTER_CONTEXT: &str = "chunk boundaries";
/// The domain of the names of contents.
const CONTENT_DOMAIN: &str = "content";
/// The part of the cache that holds decoded map nodes rather than chunks: one in so many.
const MAP_CACHE_SHARE: u64 = 2;
/// The part of what is left of it that holds decoded nodes of many names or attributes.
const NODE_CACHE_SHARE: u64 = 4;
/// A decoded node takes about so many times the bytes of its encoding.
const NODE_GROWTH: u64 = 3;
/// Such nodes that the cache is laid out for.
const NODES_USUAL: usize = 64;
/// The part of the cache that holds manifests: one in so many.
const MANIFEST_CACHE_SHARE: u64 = 8;
/// A decoded manifest takes about so many times the bytes of its encoding, and so many besides.
const MANIFEST_GROWTH: u64 = 2;
const MANIFEST_BYTES: u64 = 2 << 10;

/// Everything that reads sealed bytes. Shared by all threads.
#[derive(Debug)]
pub(crate) struct Vault {
    blobs: Arc<Blobs>,
    maps: MapReader,
    cutter: Cutter,
    chunks: Cache<BlobRef, Arc<[u8]>, Bytes>,
    long_nodes: Cache<BlobRef, Arc<Node<Data>>, Bytes>,
    manifests: Cache<BlobId, Opened, Bytes>,
}

/// A manifest that was read and checked.
#[derive(Clone, Debug)]
struct Opened {
    manifest: Arc<Manifest>,
    /// Of its encoding.
    bytes: u64,
}

/// A chunk weighs its bytes, a node about what it takes.
#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<BlobRef, Arc<[u8]>> for Bytes {
    fn weight(&self, _blob: &BlobRef, chunk: &Arc<[u8]>) -> u64 {
        chunk.len() as u64
    }
}

impl Weighter<BlobRef, Arc<Node<Data>>> for Bytes {
    fn weight(&self, blob: &BlobRef, _node: &Arc<Node<Data>>) -> u64 {
        u64::from(blob.len) * NODE_GROWTH
    }
}

impl Weighter<BlobId, Opened> for Bytes {
    fn weight(&self, _id: &BlobId, opened: &Opened) -> u64 {
        MANIFEST_BYTES + opened.bytes * MANIFEST_GROWTH
    }
}

/// A key and value of a map.
pub(crate) type Item = Result<(map::Slice, map::Slice)>;

impl Vault {
    /// Reads through caches that hold at most about `cache_bytes` in all.
    pub(crate) fn new(blobs: Arc<Blobs>, cache_bytes: u64) -> Self {
        let map_bytes = cache_bytes / MAP_CACHE_SHARE;
        let node_bytes = (cache_bytes - map_bytes) / NODE_CACHE_SHARE;
        let manifest_bytes = cache_bytes / MANIFEST_CACHE_SHARE;
        let chunk_bytes = cache_bytes - map_bytes - node_bytes - manifest_bytes;
        let key = blobs.keys().derive(CUTTER_CONTEXT);
        let [a, b, c, d, e, f, g, h, ..] = *key.expose();
        let count = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX).max(16);
        let chunks = count(chunk_bytes / CHUNK_BYTES_AVERAGE as u64);
        let manifests = count(manifest_bytes / MANIFEST_BYTES);
        Self {
            maps: MapReader::new(Arc::clone(&blobs), map_bytes),
            cutter: Cutter::new([a, b, c, d, e, f, g, h]),
            chunks: Cache::with_weighter(chunks, chunk_bytes, Bytes),
            long_nodes: Cache::with_weighter(NODES_USUAL, node_bytes, Bytes),
            manifests: Cache::with_weighter(manifests, manifest_bytes, Bytes),
            blobs,
        }
    }

    pub(crate) fn cutter(&self) -> &Cutter {
        &self.cutter
    }

    pub(crate) fn blobs(&self) -> &Arc<Blobs> {
        &self.blobs
    }

    pub(crate) fn maps(&self) -> &MapReader {
        &self.maps
    }

    /// The plaintext of a chunk.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if it is missing or was changed, [`Error::Io`].
    pub(crate) fn chunk(&self, blob: &BlobRef) -> Result<Arc<[u8]>> {
        if let Some(chunk) = self.chunks.get(blob) {
            return Ok(chunk);
        }
        let chunk = self.blobs.get(blob)?;
        self.chunks.insert(*blob, Arc::clone(&chunk));
        Ok(chunk)
    }

    /// A node that lies in a blob of its own, read by `decode`.
    ///
    /// # Errors
    ///
    /// As [`Vault::chunk`]; what `decode` fails with.
    pub(crate) fn long_node(
        &self,
        blob: &BlobRef,
        decode: impl FnOnce(&[u8]) -> Result<Arc<Node<Data>>>,
    ) -> Result<Arc<Node<Data>>> {
        if let Some(node) = self.long_nodes.get(blob) {
            return Ok(node);
        }
        let node = decode(&self.blobs.get(blob)?)?;
        self.long_nodes.insert(*blob, Arc::clone(&node));
        Ok(node)
    }

    /// The version `id`; `None` if it is not here.
    ///
    /// # Errors
    ///
    /// As [`Vault::chunk`]; [`Error::Newer`].
    pub(crate) fn manifest(&self, id: &BlobId) -> Result<Option<Arc<Manifest>>> {
        // It may have been given up since it was read.
        if !self.blobs.contains(id)? {
            return Ok(None);
        }
        if let Some(manifest) = self.manifest_read(id) {
            return Ok(Some(manifest));
        }
        let (_, blob) = self.blobs.describe(id)?;
        self.open_manifest(*id, &self.blobs.get(&blob)?).map(Some)
    }

    /// The version `id` if it was read not long ago.
    pub(crate) fn manifest_read(&self, id: &BlobId) -> Option<Arc<Manifest>> {
        self.manifests.get(id).map(|opened| opened.manifest)
    }

    /// Checks the version `id`, whose plaintext is `bytes`, and keeps it for a while.
    ///
    /// # Errors
    ///
    /// As [`Manifest::open`].
    pub(crate) fn open_manifest(&self, id: BlobId, bytes: &[u8]) -> Result<Arc<Manifest>> {
        let manifest = Arc::new(Manifest::open(bytes)?);
        let opened = Opened { manifest: Arc::clone(&manifest), bytes: bytes.len() as u64 };
        self.manifests.insert(id, opened);
        Ok(manifest)
    }

    /// The value under `key` in the map `root`.
    ///
    /// # Errors
    ///
    /// Damage in the map, [`Error::Io`].
    pub(crate) fn get(&self, root: Root, key: &[u8]) -> Result<Option<map::Slice>> {
        Ok(self.maps.get(&root, key)?)
    }

    /// The entries of the map `root` from `from` to before `to`.
    pub(crate) fn scan(&self, root: Root, from: &[u8], to: &[u8]) -> impl Iterator<Item = Item> {
        let range = self.maps.range(&root, Bound::Included(from), Bound::Excluded(to));
        range.map(|item| item.map_err(Error::from))
    }

    /// The first chunk in a file's map that ends after `pos`.
    ///
    /// # Errors
    ///
    /// Damage in the map, [`Error::Io`].
    pub(crate) fn extent_after(&self, root: Root, pos: u64) -> Result<Option<Extent>> {
        let key = offset_key(pos);
        if let Some((start, value)) = self.maps.floor(&root, &key)? {
            let extent = parse_extent(&start, &value)?;
            if extent.end() > pos {
                return Ok(Some(extent));
            }
        }
        let behind = self.maps.range(&root, Bound::Excluded(&key), Bound::Unbounded).next();
        let Some(item) = behind else { return Ok(None) };
        let (start, value) = item?;
        parse_extent(&start, &value).map(Some)
    }

    /// The name of a content: the same for equal contents, and not to be computed or tested
    /// without the bucket's keys.
    pub(crate) fn content_id(&self, base: &Base) -> [u8; 32] {
        let keys = self.blobs.keys();
        match &base.data {
            Data::Inline(bytes) => keys.hash(CONTENT_DOMAIN, bytes),
            data => {
                let named = postcard::to_stdvec(&(data, base.sealed_len))
                    .expect("because contents always encode");
                keys.hash("content in chunks", &named)
            }
        }
    }

    /// The name of a content that `node` has and that is not sealed yet: no history holds it.
    pub(crate) fn id_to_come(&self, node: &NodeId) -> ContentId {
        let named = postcard::to_stdvec(node).expect("because node ids always encode");
        ContentId(self.blobs.keys().hash("content to come", &named))
    }

    /// What the disk below has left.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(crate) fn space(&self) -> Result<Space> {
        Ok(self.blobs.space()?)
    }
}

#[allow(clippy::big_endian_bytes, reason = "keys sort as bytes")]
pub(crate) fn offset_key(offset: u64) -> [u8; 8] {
    offset.to_be_bytes()
}

#[allow(clippy::big_endian_bytes, reason = "keys sort as bytes")]
pub(crate) fn parse_extent(key: &[u8], value: &[u8]) -> Result<Extent> {
    let bad = || Error::Damaged { what: "the map of a file's chunks".into() };
    let start = u64::from_be_bytes(key.try_into().map_err(|_length| bad())?);
    let blob: BlobRef = postcard::from_bytes(value).map_err(|_malformed| bad())?;
    let sound = blob.len > 0 && start.checked_add(u64::from(blob.len)).is_some();
    if sound { Ok(Extent { start, blob }) } else { Err(bad()) }
}

/// Puts sealed things into the open batch of the log.
#[derive(Debug)]
pub(crate) struct Sealer<'a> {
    appender: &'a mut Appender,
    vault: &'a Vault,
}

impl<'a> Sealer<'a> {
    pub(crate) fn new(appender: &'a mut Appender, vault: &'a Vault) -> Self {
        Self { appender, vault }
    }

    /// Seals chunks, in parallel where it pays.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`], [`Error::Io`], [`Error::Poisoned`].
    pub(crate) fn put_chunks(&mut self, chunks: &[&[u8]]) -> Result<Vec<BlobRef>> {
        Ok(self.appender.put_all(BlobKind::Chunk, chunks)?)
    }

    /// Seals a tree node that is too long for the map.
    ///
    /// # Errors
    ///
    /// As [`Sealer::put_chunks`].
    pub(crate) fn put_node(&mut self, node: &[u8]) -> Result<BlobRef> {
        Ok(self.appender.put(BlobKind::Chunk, node)?)
    }

    /// The map that `root` becomes by `edits`.
    ///
    /// # Errors
    ///
    /// Damage in the map; as [`Sealer::put_chunks`].
    pub(crate) fn apply(
        &mut self,
        root: Root,
        edits: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    ) -> Result<Root> {
        Ok(map::apply(&self.vault.maps, self.appender, &root, edits)?)
    }

    /// A file's map `root` with chunks removed and added.
    ///
    /// # Errors
    ///
    /// As [`Sealer::apply`].
    pub(crate) fn apply_extents(
        &mut self,
        root: Root,
        edits: &BTreeMap<u64, Option<BlobRef>>,
    ) -> Result<Root> {
        let edits = edits.iter().map(|(start, blob)| {
            let value = blob
                .map(|blob| postcard::to_stdvec(&blob).expect("because references always encode"));
            (offset_key(*start).to_vec(), value)
        });
        Ok(map::apply(&self.vault.maps, self.appender, &root, edits)?)
    }
}
