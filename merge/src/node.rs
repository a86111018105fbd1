//! A file or directory as registers, and what its last writer saw of it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{ContentId, LinkId, NodeId, OpId};
use crate::name::{AttrKey, AttrValue, Name};
use crate::reg::Reg;
use crate::small_map::SmallMap;

/// What the caller keeps with a content to find its bytes again; opaque to this crate.
///
/// `Ord` only serves to keep states canonical should two peers store different bodies under one
/// [`ContentId`].
pub trait Body: Clone + Ord + fmt::Debug {}

impl<B: Clone + Ord + fmt::Debug> Body for B {}

/// What a node is, for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A directory: no content, one place.
    Dir,
    /// A regular file, the only kind whose versions may be merged as text.
    File,
    /// A symbolic link; its content is the target, which is never followed.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device; its content is the device number.
    CharDevice,
    /// A block device; its content is the device number.
    BlockDevice,
}

impl Kind {
    /// Whether it is a directory; everything else is a leaf.
    #[must_use]
    pub const fn is_dir(self) -> bool {
        matches!(self, Self::Dir)
    }
}

/// One version of a leaf's content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Content<B> {
    /// The hash of the plaintext.
    pub id: ContentId,
    /// Bytes of plaintext.
    pub len: u64,
    /// What this version replaced, newest first; at most [`Self::MAX_HIST`].
    pub hist: Vec<ContentId>,
    /// Written by a resolver, not by a person: of concurrent automatic values in answer to one
    /// conflict only the latest counts, so that two peers' resolvers do not argue for ever.
    pub auto: bool,
    /// The caller's way to the bytes.
    pub body: B,
}

impl<B> Content<B> {
    /// The most ids a history holds.
    pub const MAX_HIST: usize = 8;

    /// A content that replaces nothing yet; [`Edit`](crate::Edit) fills in the history.
    #[must_use]
    pub const fn new(id: ContentId, len: u64, body: B) -> Self {
        Self { id, len, hist: Vec::new(), auto: false, body }
    }

    /// As a person has it who puts it somewhere, whoever wrote it.
    pub(crate) fn in_hand(self) -> Self {
        Self { auto: false, ..self }
    }

    /// The history of a version that replaces this one.
    #[must_use]
    pub fn hist_after(&self) -> Vec<ContentId> {
        merge_hist(&[&[self.id], &self.hist])
    }
}

/// Concatenates histories, each id once, as far as the bound goes.
pub(crate) fn merge_hist(parts: &[&[ContentId]]) -> Vec<ContentId> {
    let mut out: Vec<ContentId> = Vec::new();
    for id in parts.iter().flat_map(|part| part.iter()) {
        if out.len() == Content::<()>::MAX_HIST {
            break;
        }
        if !out.contains(id) {
            out.push(*id);
        }
    }
    out
}

/// Where a link hangs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The directory.
    pub parent: NodeId,
    /// The name in it.
    pub name: Name,
    /// Where it hung before it was moved here; the way back out of a cycle.
    pub prev: Option<(NodeId, Name)>,
}

impl Place {
    /// A place to be born at.
    #[must_use]
    pub const fn new(parent: NodeId, name: Name) -> Self {
        Self { parent, name, prev: None }
    }

    /// Whether both are one name in one directory.
    #[must_use]
    pub fn same_spot(&self, other: &Self) -> bool {
        self.parent == other.parent && self.name == other.name
    }
}

/// A node as a writer saw it: what revives if somebody else removed it meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Carried<B> {
    /// One place per link.
    pub places: SmallMap<LinkId, Place>,
    /// The content shown; none for a directory.
    pub content: Option<Content<B>>,
    /// Effective attributes.
    pub attrs: SmallMap<AttrKey, AttrValue>,
}

/// A [`Carried`], written as one bit while it equals the registers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Carry<B> {
    /// What the registers of the node say.
    Same,
    /// Something else: the registers have changed since, by others' operations.
    Was(Arc<Carried<B>>),
}

/// A file or directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(bound(deserialize = "B: Ord + Deserialize<'de>"))]
pub struct Node<B> {
    /// What it is.
    pub kind: Kind,
    /// The stem of its copies' names, if it was a conflict copy itself: names do not grow.
    pub origin: Option<Name>,
    /// The operations that keep it alive; without any it is gone.
    pub live: Reg<Carry<B>>,
    /// A place for each link; a directory has one link, the root has none.
    pub places: SmallMap<LinkId, Reg<Place>>,
    /// The content of a leaf.
    pub content: Reg<Content<B>>,
    /// Attributes; `None` is a value that was removed.
    pub attrs: SmallMap<AttrKey, Reg<Option<AttrValue>>>,
}

/// Where a link wants to hang, and the latest operation that said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    /// Which link.
    pub link: LinkId,
    /// Where.
    pub place: &'a Place,
    /// The latest operation that put it there.
    pub op: OpId,
}

impl<'a> Claim<'a> {
    /// What the register of `link` says; nothing if it is empty.
    pub(crate) fn of(link: LinkId, reg: &'a Reg<Place>) -> Option<Self> {
        reg.last().map(|(op, place)| Self { link, place, op: *op })
    }
}

impl<B> Node<B> {
    /// A node without any value.
    #[must_use]
    pub fn empty(kind: Kind) -> Self {
        Self {
            kind,
            origin: None,
            live: Reg::default(),
            places: SmallMap::default(),
            content: Reg::default(),
            attrs: SmallMap::default(),
        }
    }

    /// Whether somebody removed the node and unseen work keeps it alive.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        self.places.is_empty()
    }

    /// What the latest writer carried, if the registers say something else by now.
    #[must_use]
    pub fn carried(&self) -> Option<(OpId, &Carried<B>)> {
        match self.live.last()? {
            (op, Carry::Was(carried)) => Some((*op, carried)),
            (_, Carry::Same) => None,
        }
    }

    /// Where each link wants to hang: the latest place, or the carried one of a weak node.
    pub fn claims(&self) -> impl Iterator<Item = Claim<'_>> {
        let own = self.places.iter().filter_map(|(link, reg)| Claim::of(*link, reg));
        let carried = self.carried().filter(|_| self.is_weak());
        own.chain(carried.into_iter().flat_map(|(op, carried)| {
            carried.places.iter().map(move |(link, place)| Claim { link: *link, place, op })
        }))
    }

    /// How many links it has.
    #[must_use]
    pub fn link_count(&self) -> usize {
        let carried = self.carried().filter(|_| self.is_weak());
        carried.map_or(self.places.len(), |(_, carried)| carried.places.len())
    }

    /// The versions of the content, each with the operation that wrote it; the carried one,
    /// without an operation, if somebody removed the node.
    #[must_use]
    pub fn contents(&self) -> Vec<(Option<OpId>, &Content<B>)> {
        if self.content.is_empty() {
            let carried = self.carried().and_then(|(_, carried)| carried.content.as_ref());
            return carried.map(|content| (None, content)).into_iter().collect();
        }
        self.content.iter().map(|(op, content)| (Some(*op), content)).collect()
    }

    /// Whether a link was moved to different places by peers that did not know of each other.
    #[must_use]
    pub fn has_rival_places(&self) -> bool {
        self.places.values().any(are_rivals)
    }

    /// Whether anything about the node itself is contested, or it may be hidden.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.is_marked_apart_from_places() || self.has_rival_places()
    }

    pub(crate) fn is_marked_apart_from_places(&self) -> bool {
        self.is_weak() || self.content.len() > 1 || self.differing_attrs().next().is_some()
    }
}

/// Whether `places` are different ones.
pub(crate) fn are_rivals(places: &Reg<Place>) -> bool {
    places.as_slice().windows(2).any(|pair| !pair[0].1.same_spot(&pair[1].1))
}

impl<B: Body> Node<B> {
    /// What the registers say, spelled out: the meaning of [`Carry::Same`]. Where one has several
    /// values it is the last of them, which need not have come with the version that is the last.
    #[must_use]
    pub fn registers(&self) -> Carried<B> {
        let latest = |(link, reg): (&LinkId, &Reg<Place>)| Some((*link, reg.last()?.1.clone()));
        let value = |(key, reg): (&AttrKey, &Reg<Option<AttrValue>>)| {
            Some((key.clone(), reg.last()?.1.clone()?))
        };
        Carried {
            places: self.places.iter().filter_map(latest).collect(),
            content: self.content.last().map(|(_, content)| content.clone()),
            attrs: self.attrs.iter().filter_map(value).collect(),
        }
    }

    /// The live register with every [`Carry::Same`] spelled out.
    pub(crate) fn spelled_live(&self) -> Reg<Carry<B>> {
        let mut live = self.live.clone();
        if live.iter().any(|(_, carry)| *carry == Carry::Same) {
            let same = Arc::new(self.registers());
            live.map_values(|_, carry| match carry {
                Carry::Same => Carry::Was(Arc::clone(&same)),
                was @ Carry::Was(_) => was,
            });
        }
        live
    }

    /// Writes what equals the registers as [`Carry::Same`].
    pub(crate) fn fold_live(&mut self) {
        if self.live.iter().any(|(_, carry)| *carry != Carry::Same) {
            let same = self.registers();
            self.live.map_values(|_, carry| match carry {
                Carry::Was(was) if *was == same => Carry::Same,
                other => other,
            });
        }
    }

    /// Makes what `op` wrote a person's, where it is one who acts under the operation of an answer:
    /// see [`Content::auto`].
    pub(crate) fn take_in_hand(&mut self, op: &OpId) {
        if self.content.iter().any(|(other, content)| other == op && content.auto) {
            self.content.map_values(|other, content| {
                let auto = content.auto && other != op;
                Content { auto, ..content }
            });
        }
    }

    /// Changes registers without losing what writers carried while they still said the same.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Self)) {
        self.live = self.spelled_live();
        change(self);
        self.fold_live();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DeviceId;

    fn op(lamport: u64) -> OpId {
        OpId { lamport, device: DeviceId([1; 16]) }
    }

    fn file() -> Node<()> {
        let mut node = Node::empty(Kind::File);
        let place = Place::new(NodeId::Root, Name::new(b"f").unwrap());
        node.places = SmallMap::one(LinkId::FIRST, Reg::one(op(1), place));
        node.content = Reg::one(op(1), Content::new(ContentId([1; 32]), 1, ()));
        node.live = Reg::one(op(1), Carry::Same);
        node
    }

    #[test]
    fn a_carry_survives_a_change_of_the_registers() {
        let mut node = file();
        let before = node.registers();
        node.change(|node| node.content = Reg::default());
        assert_eq!(node.carried().map(|(_, was)| was.clone()), Some(before));
        assert_eq!(node.contents().len(), 1);
    }

    #[test]
    fn histories_are_bounded_and_free_of_repeats() {
        let ids: Vec<_> = (0..9).map(|n| ContentId([n; 32])).collect();
        let hist = merge_hist(&[&ids[..2], &ids]);
        assert_eq!(hist, ids[..8]);
    }
}
