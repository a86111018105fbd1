//! One operation of a log.

use serde::{Deserialize, Serialize};

use crate::copies::could_be_copy;
use crate::delta::NodeDelta;
use crate::ids::{NodeId, OpId};
use crate::name::Name;
use crate::node::{Body, Content, Place};

/// What an operation was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PathOpKind {
    /// Write a file, new or old.
    Write,
    /// Make a directory.
    Mkdir,
    /// Remove a file or a directory with all that is in it.
    Remove,
    /// Move something.
    Rename,
    /// Settle a conflict.
    Resolve,
}

/// One recorded operation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(bound(deserialize = "B: Ord + Deserialize<'de>"))]
pub struct PathOperation<B> {
    /// Its name, unique and final.
    pub id: OpId,
    /// What it was asked to do.
    pub kind: PathOpKind,
    /// The path as its author saw it.
    pub path: Vec<u8>,
    /// The content it wrote.
    pub content: Option<Content<B>>,
    /// The operations whose values it replaced.
    pub pred: Vec<OpId>,
    /// Whether a resolver made it.
    pub auto: bool,
    /// What it did, node by node.
    pub(crate) effects: Vec<(NodeId, NodeDelta<B>)>,
}

impl<B: Body> PathOperation<B> {
    /// The nodes it changed, those it only protected included; see [`Self::node`] for the one it
    /// was about.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.effects.iter().map(|(id, _)| *id)
    }

    /// The node it was about: the one whose content or place it wrote. None for a removal, for the
    /// move of a conflict copy, and for what a resolver answered.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        self.subject().map(|(id, _)| *id)
    }

    /// The directory in which it put its node; none if it moved nothing.
    #[must_use]
    pub fn parent(&self) -> Option<NodeId> {
        Some(self.subject()?.1.place()?.parent)
    }

    /// The name that it gave its node; none if it moved nothing.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        Some(&self.subject()?.1.place()?.name)
    }

    fn subject(&self) -> Option<&(NodeId, NodeDelta<B>)> {
        let last = self.path.rsplit(|byte| *byte == b'/').next()?;
        self.effects.iter().rfind(|(_, delta)| match (self.kind, delta.place()) {
            (PathOpKind::Write | PathOpKind::Resolve, _) => {
                let id = |content: &Content<B>| content.id;
                self.content.is_some() && delta.content().map(id) == self.content.as_ref().map(id)
            }
            // Directories on the way, which may be new too, come first.
            (PathOpKind::Mkdir, Some(place)) => place.name.as_bytes() == last,
            (PathOpKind::Rename, Some(Place { parent, name, prev: Some((dir, old)) })) => {
                // A copy of the old name may have become a file of its own there.
                old.as_bytes() == last && !(parent == dir && could_be_copy(name))
            }
            _ => false,
        })
    }
}
