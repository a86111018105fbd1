//! What is checked of a foreign state before it is believed.
//!
//! Forged knowledge is the dangerous lie: a version vector that claims to have seen what a device
//! has not done yet would make that device's next changes look removed. So a version vector may
//! exceed those of its parents at its author's entry only, and only by as many operations as the
//! author made.
//!
//! # In which order
//!
//! Of a version from elsewhere, before anything of it is joined:
//!
//! 1. [`knowledge`], with what the versions know that it names as its parents and that were checked
//!    before.
//! 2. [`node()`] of each node that is not as in one that was checked; of a state that came as a whole,
//!    [`state()`].
//! 3. [`joinable`] of each of these and ours.
//! 4. [`index()`] if it brings indexes, and [`no_new_cycle`].
//!
//! And of what the merge makes of it, before that is written, [`node()`] and [`joinable`] again: two
//! nodes that are sound can hold too many values together, and others check the same.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::BTreeSet;

use crate::derive::derive;
use crate::ids::{DeviceId, LinkId, NodeId, OpId, VersionVector};
use crate::memory::Indexed;
use crate::node::{Body, Carried, Carry, Content, Node};
use crate::overlay::NodeEdits;
use crate::reg::Reg;
use crate::state::State;
use crate::tree::{IndexEdits, Tree, Why};

/// The most operations one version may hold.
pub const MAX_OPS: u64 = 1 << 32;
/// The most links of one node: as many as four devices may give one file apart.
pub const LINKS_MAX: usize = 1 << 18;
/// The most attributes of one node, those that were removed included.
pub const ATTRS_MAX: usize = 4096;

/// Why a foreign version is not believed. It is to be rejected as a whole; nothing else is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// The author's clock goes back, or ahead of what it did.
    #[error("the lamport time {lamport} of device {device} does not follow from its parents")]
    Lamport {
        /// Whose clock.
        device: DeviceId,
        /// What it claims.
        lamport: u64,
    },
    /// Somebody else's entry differs from what the parents knew.
    #[error("knowledge of device {device} is forged")]
    ForgedKnowledge {
        /// Whose operations it claims to have seen.
        device: DeviceId,
    },
    /// A value was written by an operation that the version vector does not cover.
    #[error("node {node} holds operation {op}, which is not covered")]
    Uncovered {
        /// Where it is.
        node: NodeId,
        /// The operation.
        op: OpId,
    },
    /// More values, links, attributes or history than allowed.
    #[error("node {node} holds too many values")]
    TooMany {
        /// Where.
        node: NodeId,
    },
    /// The node breaks a rule of its kind.
    #[error("node {node} is malformed: {why}")]
    Malformed {
        /// Which.
        node: NodeId,
        /// The rule.
        why: &'static str,
    },
    /// It is a file here and a directory there, or the like: an id is of one kind for life.
    #[error("node {node} is of another kind than here")]
    OtherKind {
        /// Where.
        node: NodeId,
    },
    /// One author moved directories into each other; cycles come from joining only.
    #[error("node {node} is in a cycle made by one device")]
    Cycle {
        /// One of the cycle.
        node: NodeId,
    },
    /// The version vector has an entry of zero.
    #[error("the version vector is not canonical")]
    NotCanonical,
    /// The stored indexes are not those of the nodes.
    #[error("the derived indexes are not those of the nodes")]
    Index,
}

/// Why a check that reads a tree failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError<E: std::error::Error + 'static> {
    /// The tree could not be read.
    #[error("the tree cannot be read")]
    Tree(#[source] E),
    /// It could, and is not believed.
    #[error(transparent)]
    Reject(#[from] Reject),
}

/// Checks a version vector against those of the version's parents.
///
/// `ops` is how many operations the author says it made on top of them.
///
/// # Errors
///
/// [`Reject::ForgedKnowledge`] or [`Reject::Lamport`].
pub fn knowledge(
    author: DeviceId,
    vv: &VersionVector,
    ops: u64,
    parents: &[&VersionVector],
) -> Result<(), Reject> {
    let mut known = VersionVector::new();
    for parent in parents {
        known.join(parent);
    }
    let devices: BTreeSet<DeviceId> =
        vv.iter().chain(known.iter()).map(|(device, _)| *device).collect();
    for device in devices.into_iter().filter(|device| *device != author) {
        if vv.get(&device) != known.get(&device) {
            return Err(Reject::ForgedKnowledge { device });
        }
    }
    let lamport = vv.get(&author);
    let before = known.max_lamport();
    let grown = lamport != known.get(&author);
    let last = before.checked_add(ops.min(MAX_OPS));
    let follows = last.is_some_and(|last| before < lamport && lamport <= last);
    if (grown && !follows) || (!grown && ops > 0) || lamport == u64::MAX {
        return Err(Reject::Lamport { device: author, lamport });
    }
    Ok(())
}

/// Checks one node of a version that knows `vv`.
///
/// # Errors
///
/// [`Reject::Uncovered`], [`Reject::TooMany`] or [`Reject::Malformed`].
pub fn node<B: Body>(vv: &VersionVector, id: &NodeId, node: &Node<B>) -> Result<(), Reject> {
    let malformed = |why| Err(Reject::Malformed { node: *id, why });
    let Some(born) = id.born().or_else(|| node.live.ops().next().copied()) else {
        return malformed("nothing keeps it alive");
    };
    let ops = node.live.ops().chain(node.content.ops());
    let ops = ops.chain(node.places.values().flat_map(Reg::ops));
    let mut ops = ops.chain(node.attrs.values().flat_map(Reg::ops)).chain([&born]);
    if let Some(op) = ops.find(|op| op.lamport == 0 || !vv.knows(op)) {
        return Err(Reject::Uncovered { node: *id, op: *op });
    }
    if has_too_many(node) {
        return Err(Reject::TooMany { node: *id });
    }
    let empty = node.places.values().any(Reg::is_empty) || node.attrs.values().any(Reg::is_empty);
    if node.live.is_empty() || empty {
        return malformed("a register is empty");
    }
    let mut folded = node.clone();
    folded.fold_live();
    if folded != *node {
        return malformed("it is not canonical");
    }
    for carried in carries(node) {
        shape(id, node, &carried)?;
    }
    shape_of_registers(id, node)
}

fn carries<B: Body>(node: &Node<B>) -> Vec<Carried<B>> {
    let spelled = node.spelled_live();
    let was = |carry: &Carry<B>| match carry {
        Carry::Was(carried) => Some(Carried::clone(carried)),
        Carry::Same => None,
    };
    spelled.iter().filter_map(|(_, carry)| was(carry)).collect()
}

/// What a carry must hold, so that the node can be shown from it.
fn shape<B>(id: &NodeId, node: &Node<B>, carried: &Carried<B>) -> Result<(), Reject> {
    let malformed = |why| Err(Reject::Malformed { node: *id, why });
    let (links, content) = (carried.places.len(), carried.content.is_some());
    let dir = node.kind.is_dir();
    if carried.places.values().any(|place| place.parent == *id) {
        return malformed("it lies in itself");
    }
    match (*id == NodeId::Root, dir) {
        (true, _) if links > 0 => malformed("the root has a place"),
        (false, _) if links == 0 => malformed("it has no place"),
        (false, true) if links > 1 => malformed("a directory has two links"),
        (_, true) if content => malformed("a directory has content"),
        (_, false) if !content => malformed("a leaf has no content"),
        _ => Ok(()),
    }
}

fn shape_of_registers<B>(id: &NodeId, node: &Node<B>) -> Result<(), Reject> {
    let malformed = |why| Err(Reject::Malformed { node: *id, why });
    let odd_link = node.places.keys().any(|link| *link != LinkId::FIRST);
    if *id == NodeId::Root && (!node.kind.is_dir() || !node.places.is_empty()) {
        return malformed("the root is a directory without a place");
    }
    if node.kind.is_dir() && (odd_link || !node.content.is_empty()) {
        return malformed("a directory has a hard link or content");
    }
    let mut places = node.places.values().flat_map(Reg::iter);
    if places.any(|(_, place)| place.parent == *id) {
        return malformed("it lies in itself");
    }
    Ok(())
}

/// Checks that a node can be joined with `ours`, the one of this id that is here, and with what is
/// changed here meanwhile: each register of it could hold the value of one more device.
///
/// # Errors
///
/// [`Reject::OtherKind`] or [`Reject::TooMany`].
pub fn joinable<B>(id: &NodeId, ours: Option<&Node<B>>, node: &Node<B>) -> Result<(), Reject> {
    if ours.is_some_and(|ours| ours.kind != node.kind) {
        return Err(Reject::OtherKind { node: *id });
    }
    let has_room = most_values(node) < Reg::<()>::MAX_VALUES;
    if has_room { Ok(()) } else { Err(Reject::TooMany { node: *id }) }
}

/// How many values the fullest register holds.
fn most_values<B>(node: &Node<B>) -> usize {
    let places = node.places.values().map(Reg::len);
    let attrs = node.attrs.values().map(Reg::len);
    let others = [node.live.len(), node.content.len()];
    others.into_iter().chain(places).chain(attrs).max().unwrap_or(0)
}

fn has_too_many<B>(node: &Node<B>) -> bool {
    let long = |content: &Content<B>| content.hist.len() > Content::<B>::MAX_HIST;
    let carried_long = |carry: &Carry<B>| match carry {
        Carry::Same => false,
        Carry::Was(carried) => {
            carried.content.as_ref().is_some_and(long)
                || carried.places.len() > LINKS_MAX
                || carried.attrs.len() > ATTRS_MAX
        }
    };
    most_values(node) > Reg::<()>::MAX_VALUES
        || node.places.len() > LINKS_MAX
        || node.attrs.len() > ATTRS_MAX
        || node.content.iter().any(|(_, content)| long(content))
        || node.live.iter().any(|(_, carry)| carried_long(carry))
}

/// Checks a whole state, as one read from a file.
///
/// # Errors
///
/// The first [`Reject`] found.
pub fn state<B: Body>(state: &State<B>) -> Result<(), Reject> {
    if state.vv.iter().any(|(_, lamport)| lamport == 0) {
        return Err(Reject::NotCanonical);
    }
    if let Some((device, lamport)) = state.vv.iter().find(|(_, lamport)| *lamport == u64::MAX) {
        return Err(Reject::Lamport { device: *device, lamport });
    }
    for (id, value) in &state.nodes {
        node(&state.vv, id, value)?;
    }
    let tree = Indexed::new(state.clone());
    let Ok(displaced) = tree.all_displaced();
    for id in displaced {
        if is_lone_cycle(state, &id) {
            return Err(Reject::Cycle { node: id });
        }
    }
    Ok(())
}

/// Whether the registers lead from `id` back to it over moves of one device only.
fn is_lone_cycle<B>(state: &State<B>, id: &NodeId) -> bool {
    let mut devices = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut at = *id;
    while seen.insert(at) {
        let Some(node) = state.nodes.get(&at) else { return false };
        let Some(claim) = node.claims().next() else { return false };
        devices.insert(claim.op.device);
        at = claim.place.parent;
    }
    at == *id && devices.len() == 1
}

/// Checks that a version's author made no cycle on top of its parents, which know `parents`.
///
/// Costs what the displaced nodes cost; nothing in peace.
///
/// # Errors
///
/// [`Reject::Cycle`], or what the tree answers.
pub fn no_new_cycle<B: Body, T: Tree<B>>(
    tree: &T,
    parents: &VersionVector,
) -> Result<(), CheckError<T::Error>> {
    for id in tree.all_displaced().map_err(CheckError::Tree)? {
        let Some(displaced) = tree.displaced(&id).map_err(CheckError::Tree)? else { continue };
        let Some(node) = tree.node(&id).map_err(CheckError::Tree)? else { continue };
        for claim in node.claims() {
            let cycle = displaced.get(&claim.link).is_some_and(|(_, why)| *why == Why::Cycle);
            if cycle && !parents.knows(&claim.op) {
                return Err(Reject::Cycle { node: id }.into());
            }
        }
    }
    Ok(())
}

/// Checks the index entries in which a version differs from a parent against its nodes.
///
/// # Errors
///
/// [`Reject::Index`], or what the tree answers.
pub fn index<B: Body, T: Tree<B>>(
    parent: &T,
    changes: &NodeEdits<B>,
    claimed: &IndexEdits,
) -> Result<(), CheckError<T::Error>> {
    let derived = derive(parent, changes).map_err(CheckError::Tree)?;
    if derived == *claimed { Ok(()) } else { Err(Reject::Index.into()) }
}
