//! What is shown under one name, and what a conflict is called.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, OpId};
use crate::name::Name;
use crate::node::{Content, Kind};

/// How an entry came to its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It has the name it asked for.
    Winner,
    /// It lost its name to another version, and is shown as `stem@<hex>`.
    Copy {
        /// The name it lost.
        slot: Name,
        /// What its new name begins with.
        stem: Name,
    },
}

/// One visible name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<B> {
    /// The visible name.
    pub name: Name,
    /// The united directories it is in.
    pub dirs: Vec<NodeId>,
    /// What it is.
    pub kind: Kind,
    /// Never empty; see [`Self::ids`].
    pub(crate) ids: Vec<NodeId>,
    /// The version shown; none for a directory.
    pub content: Option<Content<B>>,
    /// Whether it has its own name.
    pub role: Role,
    /// The operations that wrote this version, and hidden ones that it stands for, per node.
    pub owners: BTreeMap<NodeId, BTreeSet<OpId>>,
    /// Whether somebody removed it and unseen work keeps it alive.
    pub weak: bool,
    /// The higher of two versions wins the name.
    pub(crate) rank: Rank,
    /// What the name of a copy begins with, should it lose.
    pub(crate) stem: Name,
}

/// The order of versions: the later of writing and placing, then writing; ids settle ties.
pub(crate) type Rank = (OpId, OpId, NodeId);

impl<B> Entry<B> {
    /// The node to act on.
    ///
    /// # Panics
    ///
    /// Never: there is at least one.
    #[must_use]
    pub fn id(&self) -> NodeId {
        *self.ids.first().expect("because an entry has a node")
    }

    /// Of a directory all united ones, sorted; of a leaf the nodes that hold this version, the one to
    /// act on first. There is at least one.
    #[must_use]
    pub fn ids(&self) -> &[NodeId] {
        &self.ids
    }

    /// As [`Self::ids`].
    #[must_use]
    pub fn into_ids(self) -> Vec<NodeId> {
        self.ids
    }

    /// The name it asked for.
    #[must_use]
    pub const fn slot(&self) -> &Name {
        match &self.role {
            Role::Winner => &self.name,
            Role::Copy { slot, .. } => slot,
        }
    }

    /// Whether it is shown as a conflict copy.
    #[must_use]
    pub const fn is_copy(&self) -> bool {
        matches!(self.role, Role::Copy { .. })
    }

    /// Whether both are the same kind with the same bytes: then one stands for both.
    pub(crate) fn same_bytes(&self, other: &Self) -> bool {
        let id = |entry: &Self| entry.content.as_ref().map(|content| content.id);
        self.kind == other.kind && !self.kind.is_dir() && id(self) == id(other)
    }

    /// Lets this entry stand for `other` too.
    pub(crate) fn absorb(&mut self, other: &Self) {
        for (id, ops) in &other.owners {
            self.owners.entry(*id).or_default().extend(ops);
            if !self.ids.contains(id) {
                self.ids.push(*id);
            }
        }
    }
}

/// One line of a directory listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The visible name.
    pub name: Name,
    /// What it is.
    pub kind: Kind,
    /// The node to act on; the first of united directories.
    pub id: NodeId,
}

/// What kind of disagreement a conflict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConflictKind {
    /// One file was given different bytes.
    Content,
    /// Different files were given one name.
    Name,
    /// A directory and something else were given one name.
    Type,
    /// One file or directory was moved to different places.
    Rename,
    /// Directories were moved into each other.
    Cycle,
    /// A file was removed by one and changed by another.
    DeleteModify,
    /// A directory was removed by one and added to by another.
    DeleteAdd,
    /// An attribute was set to different values.
    Meta,
    /// Two names are equal on systems that fold case or normalise.
    Clash,
    /// A file or directory lost the directory it was in.
    Orphan,
}

impl ConflictKind {
    /// Whether it is about which version is to stay, and not about the place or the attributes of
    /// what is shown.
    #[must_use]
    pub const fn is_of_versions(self) -> bool {
        match self {
            Self::Content | Self::Name | Self::Type | Self::DeleteModify | Self::DeleteAdd => true,
            Self::Rename | Self::Cycle | Self::Meta | Self::Clash | Self::Orphan => false,
        }
    }
}

impl fmt::Display for ConflictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Content => "content",
            Self::Name => "name",
            Self::Type => "type",
            Self::Rename => "rename",
            Self::Cycle => "cycle",
            Self::DeleteModify => "delmod",
            Self::DeleteAdd => "deladd",
            Self::Meta => "meta",
            Self::Clash => "clash",
            Self::Orphan => "orphan",
        })
    }
}
