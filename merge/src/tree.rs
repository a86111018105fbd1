//! What the engine needs of a tree that somebody else stores.
//!
//! A caller keeps nodes by id and three *derived* indexes, which [`derive()`](crate::derive())
//! computes and nobody else writes:
//!
//! | index | key | value | in peace |
//! |--|--|--|--|
//! | children | directory, name, node | kind | one entry per link |
//! | contested | directory, name | nothing | empty |
//! | displaced | node | [`Displaced`] | empty |

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{LinkId, NodeId};
use crate::name::Name;
use crate::node::{Claim, Kind, Node, Place};
use crate::small_map::SmallMap;

/// Which fallback a displaced link took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Fallback {
    /// Back to where it was before its last move; into the root if it never moved.
    Prev,
    /// Into the root.
    Root,
}

/// Why a link does not hang where its register says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Why {
    /// The directory is gone.
    Orphan,
    /// It was moved into itself by two moves that did not know of each other.
    Cycle,
}

/// The links of one node that do not hang where their registers say.
pub type Displaced = SmallMap<LinkId, (Fallback, Why)>;

/// A node, if it is alive.
pub type Found<B> = Option<Arc<Node<B>>>;

/// One child as the children index has it.
pub type Child = (Name, NodeId, Kind);

/// A tree of nodes with its derived indexes; reads may fail.
///
/// [`NodeId::Root`] is always a live directory. It has a node only once it has attributes; that
/// node has no place and cannot be removed.
pub trait Tree<B> {
    /// Why a read failed.
    type Error: std::error::Error + 'static;

    /// The node `id`; `None` if it is not alive.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    fn node(&self, id: &NodeId) -> Result<Found<B>, Self::Error>;

    /// The nodes `ids`, in their order; override it where fetching many at once is cheaper.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    fn nodes(&self, ids: &[NodeId]) -> Result<Vec<Found<B>>, Self::Error> {
        ids.iter().map(|id| self.node(id)).collect()
    }

    /// The nodes under `name` in `dir`, sorted by id.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    fn named(&self, dir: &NodeId, name: &Name) -> Result<Vec<(NodeId, Kind)>, Self::Error>;

    /// Up to `limit` children of `dir` behind `after`, sorted by name, then id.
    ///
    /// Fewer than `limit` means that there are no more.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    fn children(
        &self,
        dir: &NodeId,
        after: Option<(&Name, &NodeId)>,
        limit: usize,
    ) -> Result<Vec<Child>, Self::Error>;

    /// The contested names in `dir`, sorted.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    fn contested(&self, dir: &NodeId) -> Result<Vec<Name>, Self::Error>;

    /// Whether `name` is contested in `dir`; override it where that is cheaper than all of them.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    fn is_contested(&self, dir: &NodeId, name: &Name) -> Result<bool, Self::Error> {
        Ok(self.contested(dir)?.binary_search(name).is_ok())
    }

    /// The contested names in `dir` under which a file hangs that once was a copy called after `stem`
    /// (its [`origin`](crate::Node::origin)): a copy of it is called after that again. Names that are
    /// too many do no harm, but for what they cost; where nothing else is known, all contested ones.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    fn once_copies(&self, dir: &NodeId, stem: &Name) -> Result<Vec<Name>, Self::Error> {
        let _any = stem;
        self.contested(dir)
    }

    /// Whether no name is contested anywhere, as far as that can be told at once.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    fn is_at_peace(&self) -> Result<bool, Self::Error> {
        Ok(self.contested_dirs()?.is_empty())
    }

    /// All directories that have a contested name, sorted.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    fn contested_dirs(&self) -> Result<Vec<NodeId>, Self::Error>;

    /// The links of `id` that do not hang where their registers say.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    fn displaced(&self, id: &NodeId) -> Result<Option<Displaced>, Self::Error>;

    /// All displaced nodes, sorted.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    fn all_displaced(&self) -> Result<Vec<NodeId>, Self::Error>;
}

/// The changes of the three indexes; apply all of them with the nodes they were derived for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexEdits {
    /// `Some` adds a child, `None` removes it.
    pub children: BTreeMap<(NodeId, Name, NodeId), Option<Kind>>,
    /// `true` adds a contested name, `false` removes it.
    pub contested: BTreeMap<(NodeId, Name), bool>,
    /// `Some` sets the displaced links of a node, `None` removes the entry.
    pub displaced: BTreeMap<NodeId, Option<Displaced>>,
}

impl IndexEdits {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.children.is_empty() && self.contested.is_empty() && self.displaced.is_empty()
    }

    /// Adds edits that were derived after these.
    pub fn then(&mut self, later: Self) {
        self.children.extend(later.children);
        self.contested.extend(later.contested);
        self.displaced.extend(later.displaced);
    }
}

/// Where a link hangs in the rendered tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Which link.
    pub link: LinkId,
    /// The directory.
    pub parent: NodeId,
    /// The name of the slot there; a conflict copy is shown under another.
    pub name: Name,
}

/// Where `claim` ends with fallback `step`.
pub(crate) fn spot_of<'a>(claim: &Claim<'a>, step: Option<Fallback>) -> (NodeId, &'a Name) {
    let Place { parent, name, prev } = claim.place;
    match (step, prev) {
        (None, _) => (*parent, name),
        (Some(Fallback::Prev), Some((parent, name))) => (*parent, name),
        (Some(Fallback::Prev), None) | (Some(Fallback::Root), _) => (NodeId::Root, name),
    }
}

/// What each link of `node` claims, and the directory and name that it gets, given its displaced
/// links. As [`spots`], but without a copy.
pub fn hanging<'a, B>(
    node: &'a Node<B>,
    displaced: Option<&'a Displaced>,
) -> impl Iterator<Item = (Claim<'a>, NodeId, &'a Name)> {
    node.claims().map(move |claim| {
        let step = displaced.and_then(|all| all.get(&claim.link)).map(|(step, _)| *step);
        let (parent, name) = spot_of(&claim, step);
        (claim, parent, name)
    })
}

/// Where the links of `node` hang, given its displaced links.
#[must_use]
pub fn spots<B>(node: &Node<B>, displaced: Option<&Displaced>) -> Vec<Spot> {
    let hanging = hanging(node, displaced);
    hanging
        .map(|(claim, parent, name)| Spot { link: claim.link, parent, name: name.clone() })
        .collect()
}

/// Where the links of the node `id` hang; empty if it is gone.
pub(crate) fn spots_in<B, T: Tree<B>>(tree: &T, id: &NodeId) -> Result<Vec<Spot>, T::Error> {
    Ok(match tree.node(id)? {
        Some(node) => spots(&node, tree.displaced(id)?.as_ref()),
        None => Vec::new(),
    })
}
