//! The tree as it is now: the last version, and the changes since on top of it.
//!
//! ```text
//!   live     changes under the current operation      <- every change goes here
//!   frozen   changes that are being published          (only while the writer publishes)
//!   base     the last version, in the ordered map
//! ```
//!
//! Reads go through all three. Publishing freezes the live layer, so that it can be folded into the
//! map without a lock while calls go on changing the next one.

pub(crate) mod attrs;
mod base;
pub(crate) mod keys;
pub(crate) mod limits;
mod once_copies;
mod subdirs;
mod weight;

use std::{collections::BTreeMap, sync::Arc};

use cairnfs_merge::{
    Carry, Child, Content, Displaced, Edited, IndexEdits, Kind, Name, Node, NodeEdits, NodeId,
    Overlay, Tree, derive,
};
use cairnfs_store::{BlobRef, map::Root};

pub(crate) use base::BaseTree;
use once_copies::OnceCopies;
use subdirs::Subdirs;
use weight::node_bytes;

pub(crate) use crate::file::Data;
use crate::{Error, Result, vault::Vault};

/// The contents in a node's register, and those that writers carried.
pub(crate) fn contents(node: &Node<Data>) -> impl Iterator<Item = &Content<Data>> {
    let carried = node.live.iter().filter_map(|(_, carry)| match carry {
        Carry::Was(was) => was.content.as_ref(),
        Carry::Same => None,
    });
    node.content.iter().map(|(_, content)| content).chain(carried)
}

/// Changed nodes, and what follows for the indexes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layer {
    pub(crate) nodes: NodeEdits<Data>,
    pub(crate) index: IndexEdits,
}

impl Layer {
    /// The changed children of `dir`.
    fn children_of(&self, dir: &NodeId) -> impl Iterator<Item = (&Name, &NodeId, Option<Kind>)> {
        self.index
            .children
            .range((*dir, Name::least(), NodeId::Root)..)
            .take_while(move |((parent, ..), _)| parent == dir)
            .map(|((_, name, id), kind)| (name, id, *kind))
    }

    fn put(&mut self, nodes: NodeEdits<Data>, index: IndexEdits) {
        self.nodes.extend(nodes);
        self.index.then(index);
    }
}

/// The memory that the nodes of the layers take, in bytes.
#[derive(Clone, Copy, Debug)]
struct NodeBytes {
    live: u64,
    frozen: u64,
}

/// The last version and the changes since.
#[derive(Debug)]
pub(crate) struct LiveTree {
    base: BaseTree,
    frozen: Option<Arc<Layer>>,
    live: Layer,
    node_bytes: NodeBytes,
    subdirs: Subdirs,
    once_copies: OnceCopies,
}

impl LiveTree {
    pub(crate) fn open(vault: Arc<Vault>, root: Root) -> Result<Self> {
        Ok(Self::over(BaseTree::open(vault, root)?, Layer::default()))
    }

    /// The last version.
    pub(crate) fn base(&self) -> &BaseTree {
        &self.base
    }

    /// Puts in what an [`Edit`](cairnfs_merge::Edit) of this tree has changed.
    pub(crate) fn apply(&mut self, edited: Edited<Data>) {
        self.put(edited.nodes, edited.index);
    }

    fn put(&mut self, nodes: NodeEdits<Data>, index: IndexEdits) {
        self.follow_subdirs(&index);
        let touched = self.once_copies.touched(&index);
        for (id, node) in &nodes {
            let before = self.live.nodes.get(id).map_or(0, node_bytes);
            self.node_bytes.live = self.node_bytes.live + node_bytes(node) - before;
        }
        self.live.put(nodes, index);
        self.follow_once_copies(touched);
    }

    /// Puts in nodes that a save record carries.
    ///
    /// # Errors
    ///
    /// Damage met on the way to the indexes; nothing has changed then.
    pub(crate) fn replay(&mut self, nodes: NodeEdits<Data>) -> Result<()> {
        let index = derive(self, &nodes)?;
        self.put(nodes, index);
        Ok(())
    }

    /// Where a changed node holds `sealed`, gives it the bytes back that it had `before`.
    pub(crate) fn untell(&mut self, id: &NodeId, sealed: &Data, before: &Content<Data>) {
        let Some(Some(node)) = self.live.nodes.get(id) else { return };
        if let Some((&op, value)) = node.content.last()
            && value.body == *sealed
        {
            let (hist, auto) = (value.hist.clone(), value.auto);
            let value = Content { hist, auto, ..before.clone() };
            let mut node = Node::clone(node);
            node.content.set(op, value);
            self.put(NodeEdits::from([(*id, Some(Arc::new(node)))]), IndexEdits::default());
        }
    }

    /// The node as the live layer has it, if it has changed since the last version was begun.
    pub(crate) fn changed(&self, id: &NodeId) -> Option<Option<Arc<Node<Data>>>> {
        self.live.nodes.get(id).cloned()
    }

    /// The nodes that have changed since the last version, as they are now.
    pub(crate) fn changed_nodes(&self) -> impl Iterator<Item = &Arc<Node<Data>>> {
        let layers = self.frozen.as_deref().into_iter().chain([&self.live]);
        layers.flat_map(|layer| layer.nodes.values().flatten())
    }

    /// The nodes that have changed since the last version was begun.
    pub(crate) fn changed_ids(&self) -> impl Iterator<Item = &NodeId> {
        self.live.nodes.keys()
    }

    /// How many nodes have changed since the last version was begun.
    pub(crate) fn changed_count(&self) -> usize {
        self.live.nodes.len()
    }

    /// The memory that the changes since the last version take, in bytes.
    pub(crate) fn held_bytes(&self) -> u64 {
        let layers = self.frozen.as_deref().into_iter().chain([&self.live]);
        let NodeBytes { live, frozen } = self.node_bytes;
        live + frozen + layers.map(Layer::index_bytes).sum::<u64>()
    }

    /// Whether nothing has changed since the last version.
    pub(crate) fn is_published(&self) -> bool {
        self.frozen.is_none() && self.live.nodes.is_empty()
    }

    /// Whether a version is being made of what was changed before.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Takes the changes so far out of the way of further ones; see [`LiveTree::settle`].
    ///
    /// # Panics
    ///
    /// If a layer is frozen already: only the writer freezes, and it settles first.
    pub(crate) fn freeze(&mut self) -> Arc<Layer> {
        assert!(self.frozen.is_none(), "one version at a time");
        let layer = Arc::new(std::mem::take(&mut self.live));
        self.node_bytes = NodeBytes { live: 0, frozen: self.node_bytes.live };
        self.frozen = Some(Arc::clone(&layer));
        layer
    }

    /// The tree that stands on another version, with other changes on it.
    pub(crate) fn over(base: BaseTree, live: Layer) -> Self {
        let (subdirs, once_copies) = (Subdirs::default(), OnceCopies::default());
        let node_bytes = NodeBytes { live: live.node_bytes(), frozen: 0 };
        Self { base, frozen: None, live, node_bytes, subdirs, once_copies }
    }

    /// The tree as it is now, to list its conflicts without a lock; `None` if there are none. Costs a
    /// copy of the changes since the last version.
    ///
    /// # Errors
    ///
    /// Damage in the map.
    pub(crate) fn disputed(&self) -> Result<Option<Self>> {
        if self.is_at_peace()? {
            return Ok(None);
        }
        let now = Self::over(self.base.clone(), self.live.clone());
        Ok(Some(Self { frozen: self.frozen.clone(), ..now }))
    }

    /// The changes since the last version was begun.
    pub(crate) fn live(&self) -> &Layer {
        &self.live
    }

    /// The frozen layer has become part of the version `root`.
    pub(crate) fn settle(&mut self, base: BaseTree) {
        self.base = base;
        self.frozen = None;
        self.node_bytes.frozen = 0;
        self.subdirs.forget();
    }

    /// The frozen layer could not be published: its changes are live again, below newer ones.
    pub(crate) fn thaw(&mut self) {
        if let Some(frozen) = self.frozen.take() {
            let mut layer = Arc::unwrap_or_clone(frozen);
            let newer = std::mem::take(&mut self.live);
            layer.put(newer.nodes, newer.index);
            self.node_bytes = NodeBytes { live: layer.node_bytes(), frozen: 0 };
            self.live = layer;
        }
    }
}

/// Reads `$tree` as the layers of `$live` show it.
macro_rules! through {
    ($live:ident, $tree:ident => $read:expr) => {
        match &$live.frozen {
            None => {
                let $tree = Overlay::over(&$live.base, &$live.live.nodes, &$live.live.index);
                $read
            }
            Some(frozen) => {
                let below = Overlay::over(&$live.base, &frozen.nodes, &frozen.index);
                let $tree = Overlay::over(&below, &$live.live.nodes, &$live.live.index);
                $read
            }
        }
    };
}

impl Tree<Data> for LiveTree {
    type Error = Error;

    fn node(&self, id: &NodeId) -> Result<Option<Arc<Node<Data>>>> {
        through!(self, tree => tree.node(id))
    }

    fn named(&self, dir: &NodeId, name: &Name) -> Result<Vec<(NodeId, Kind)>> {
        through!(self, tree => tree.named(dir, name))
    }

    fn children(
        &self,
        dir: &NodeId,
        after: Option<(&Name, &NodeId)>,
        limit: usize,
    ) -> Result<Vec<Child>> {
        through!(self, tree => tree.children(dir, after, limit))
    }

    fn contested(&self, dir: &NodeId) -> Result<Vec<Name>> {
        through!(self, tree => tree.contested(dir))
    }

    fn is_contested(&self, dir: &NodeId, name: &Name) -> Result<bool> {
        through!(self, tree => tree.is_contested(dir, name))
    }

    fn once_copies(&self, dir: &NodeId, stem: &Name) -> Result<Vec<Name>> {
        self.find_once_copies(dir, stem)
    }

    fn is_at_peace(&self) -> Result<bool> {
        through!(self, tree => tree.is_at_peace())
    }

    fn contested_dirs(&self) -> Result<Vec<NodeId>> {
        through!(self, tree => tree.contested_dirs())
    }

    fn displaced(&self, id: &NodeId) -> Result<Option<Displaced>> {
        through!(self, tree => tree.displaced(id))
    }

    fn all_displaced(&self) -> Result<Vec<NodeId>> {
        through!(self, tree => tree.all_displaced())
    }
}

/// The edits of the map that make `layer` part of a version, in the order of their keys.
///
/// `put` stores a node that is too long for the map.
///
/// # Errors
///
/// What `put` fails with.
pub(crate) fn map_edits(
    layer: &Layer,
    mut put: impl FnMut(&[u8]) -> Result<BlobRef>,
) -> Result<BTreeMap<keys::Key, Option<Vec<u8>>>> {
    let mut edits = BTreeMap::new();
    for (id, node) in &layer.nodes {
        let value = match node {
            Some(node) => Some(BaseTree::encode(node, &mut put)?),
            None => None,
        };
        edits.insert(keys::node(id), value);
    }
    for ((dir, name, id), kind) in &layer.index.children {
        edits.insert(keys::child(dir, name, id), kind.map(|kind| vec![keys::kind_byte(kind)]));
        let subdir = kind.is_some_and(Kind::is_dir).then(Vec::new);
        let known = edits.entry(keys::subdir(dir, id)).or_insert(None);
        // Renamed within one directory: one name goes, another comes, in whatever order.
        *known = known.take().or(subdir);
    }
    for ((dir, name), contested) in &layer.index.contested {
        edits.insert(keys::contested(dir, name), contested.then(Vec::new));
    }
    for (id, displaced) in &layer.index.displaced {
        let value = displaced.as_ref().map(|displaced| {
            postcard::to_stdvec(displaced).expect("because displaced links always encode")
        });
        edits.insert(keys::displaced(id), value);
    }
    Ok(edits)
}
