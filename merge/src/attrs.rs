//! Which of the concurrent values of an attribute a version of a file is shown with.
//!
//! A register holds what peers who did not know of each other have set. Where the content is
//! disputed too, each version comes with values of its own: those that its author set. They are told
//! by the device that wrote them.
//!
//! # Invariants
//!
//! 1. A version is shown with what its author set, whichever version has the name; else with the
//!    latest value, of those that did not come with another version if there are any.
//! 2. To write or remove one version changes no attribute that another is shown with.

use std::collections::BTreeSet;

use crate::ids::{ContentId, OpId};
use crate::name::{AttrKey, AttrValue};
use crate::node::{Body, Carried, Carry, Content, Node};
use crate::reg::Reg;
use crate::small_map::SmallMap;
use crate::versions::versions;

/// The concurrent values of one attribute.
type Values = Reg<Option<AttrValue>>;

/// The operation behind a version, by which the values that came with it are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Author {
    op: OpId,
    /// The first version of the same device, if that is another: what it set from then on came with
    /// that one, until this one.
    first: Option<OpId>,
    /// The next version of the same device: what it has set since came with that one.
    next: Option<OpId>,
}

impl Author {
    fn of<B>(op: OpId, content: &Reg<Content<B>>) -> Self {
        let mut same = content.ops().filter(|other| other.device == op.device).copied();
        let first = same.next().filter(|first| *first < op);
        Self { op, first, next: content.ops().find(|other| is_later(other, &op)).copied() }
    }

    /// Whether a value that `op` set came with this version.
    fn set(&self, op: &OpId) -> bool {
        let after = *op >= self.op || self.first.is_none_or(|first| *op < first);
        op.device == self.op.device && after && self.next.is_none_or(|next| *op < next)
    }

    fn own<'r>(&self, values: &'r Values) -> Option<(&'r OpId, &'r Option<AttrValue>)> {
        values.iter().rev().find(|(op, _)| self.set(op))
    }
}

/// The versions of a node that are shown, as far as attributes go; the latest is the last.
#[derive(Clone, Debug)]
struct Authors(Vec<Author>);

impl Authors {
    fn of<B: Body>(node: &Node<B>) -> Self {
        let shown = versions(node).into_iter().filter_map(|version| version.op);
        let mut authors: Vec<_> = shown.map(|op| Author::of(op, &node.content)).collect();
        authors.sort_unstable_by_key(|author| author.op);
        Self(authors)
    }

    /// The value that the version of `author` is shown with.
    fn pick<'r>(
        &self,
        key: &AttrKey,
        values: &'r Values,
        author: Option<&Author>,
    ) -> Option<(&'r OpId, &'r Option<AttrValue>)> {
        if let Some(own) = author.and_then(|author| author.own(values)) {
            return Some(own);
        }
        let others: Vec<_> = self.0.iter().filter(|other| Some(*other) != author).collect();
        let came: BTreeSet<_> =
            others.iter().filter_map(|other| Some(other.own(values)?.0)).collect();
        match values.iter().rev().find(|(op, _)| !came.contains(op)) {
            None if key.is_of_content() => None,
            None => values.last(),
            free => free,
        }
    }
}

/// The attributes that a version of a node is shown with.
#[derive(Clone, Debug)]
pub struct Attrs<'n, B> {
    node: &'n Node<B>,
    authors: Authors,
    author: Option<Author>,
}

impl<'n, B: Body> Attrs<'n, B> {
    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &AttrKey) -> Option<&'n AttrValue> {
        match self.node.attrs.get(key) {
            Some(values) => self.authors.pick(key, values, self.author.as_ref())?.1.as_ref(),
            None => self.carried()?.attrs.get(key),
        }
    }

    /// All of them.
    #[must_use]
    pub fn to_map(&self) -> SmallMap<AttrKey, AttrValue> {
        let carried = self.carried().into_iter().flat_map(|carried| carried.attrs.keys());
        let keys: BTreeSet<_> = carried.chain(self.node.attrs.keys()).collect();
        keys.into_iter().filter_map(|key| Some((key.clone(), self.get(key)?.clone()))).collect()
    }

    /// What the author of the version carried, else the latest writer: it counts where somebody has
    /// removed the node and what its registers held.
    fn carried(&self) -> Option<&'n Carried<B>> {
        let by_author = |op: &OpId| self.author.is_some_and(|author| author.set(op));
        match self.node.live.iter().rev().find(|(op, _)| by_author(op)) {
            Some((_, Carry::Was(carried))) => Some(carried),
            Some((_, Carry::Same)) => None,
            None => Some(self.node.carried()?.1),
        }
    }
}

impl<B> Node<B> {
    /// The attributes that have different values, but for housekeeping.
    pub(crate) fn differing_attrs(&self) -> impl Iterator<Item = &AttrKey> {
        let loud = self.attrs.iter().filter(|(key, _)| !key.is_quiet());
        loud.filter(|(_, values)| differ(values)).map(|(key, _)| key)
    }
}

impl<B: Body> Node<B> {
    /// The attributes that the version `content` is shown with; those of the latest version if it is
    /// none of them or not given.
    #[must_use]
    pub fn attrs_of(&self, content: Option<&ContentId>) -> Attrs<'_, B> {
        let authors = if self.content.len() > 1 { Authors::of(self) } else { Authors(Vec::new()) };
        let is_it = |it: &Content<B>| content.is_some_and(|id| it.id == *id);
        let named = self.content.iter().rev().find(|(_, it)| is_it(it)).map(|(op, _)| *op);
        let latest = || authors.0.last().map(|author| author.op);
        let op = named.or_else(latest).or_else(|| self.content.ops().next_back().copied());
        let author = op.map(|op| Author::of(op, &self.content));
        Attrs { node: self, authors, author }
    }

    /// The attributes of which peers that did not know of each other have said different things. Not
    /// those that differ only because several versions are shown, each with one of the values, nor times
    /// of writing.
    pub fn rival_attrs(&self) -> impl Iterator<Item = &AttrKey> {
        let mut differing = self.differing_attrs().peekable();
        let has_any = differing.peek().is_some();
        let authors = if has_any { Authors::of(self) } else { Authors(Vec::new()) };
        differing.filter(move |key| {
            let Some(values) = self.attrs.get(key) else { return false };
            let shown: BTreeSet<_> = match authors.0.as_slice() {
                [] | [_] => BTreeSet::new(),
                many => many
                    .iter()
                    .filter_map(|it| Some(authors.pick(key, values, Some(it))?.0))
                    .collect(),
            };
            let said: Vec<_> = self.said_of(key).collect();
            let mut hidden = said.iter().filter(|(op, _)| !shown.contains(op));
            hidden.any(|(_, one)| said.iter().any(|(_, other)| one != other))
        })
    }

    /// The values of `key` that somebody set for their own sake: a time that came with a content, or
    /// of which is only said that nobody set it, follows from writing.
    pub(crate) fn said_of<'n>(
        &'n self,
        key: &AttrKey,
    ) -> impl Iterator<Item = (&'n OpId, &'n Option<AttrValue>)> + use<'n, B> {
        let is_of_content = key.is_of_content();
        let came = move |op: &OpId| self.content.ops().any(|it| it == op);
        let values = self.attrs.get(key).into_iter().flat_map(Reg::iter);
        values.filter(move |(op, value)| !is_of_content || (value.is_some() && !came(op)))
    }

    /// Sets an attribute of the latest version, or removes it. Versions of which somebody else has set
    /// it stay as they are; the others have it too.
    pub(crate) fn set_attr(&mut self, op: OpId, key: AttrKey, value: Option<AttrValue>) {
        if self.content.len() < 2 {
            self.attrs.insert(key, Reg::one(op, value));
            return;
        }
        let mut values = self.attrs.get(&key).cloned().unwrap_or_default();
        let authors = Authors::of(self);
        let others = authors.0.split_last().map_or(&[][..], |(_, others)| others);
        // What a device sets now it sets for the latest of its versions.
        let others = others.iter().filter(|other| !other.set(&op));
        let kept: BTreeSet<OpId> =
            others.filter_map(|other| Some(*other.own(&values)?.0)).collect();
        values.retain(|op, _| kept.contains(op));
        values.set(op, value);
        self.attrs.insert(key, values);
    }

    /// Changes the versions. With one that goes the values go that came with it, and no other is
    /// shown with; a time goes also where it is the only value. The version that the operation of
    /// `heir` writes is shown with what the version named beside it was.
    pub(crate) fn change_versions(
        &mut self,
        heir: Option<(OpId, ContentId)>,
        change: impl FnOnce(&mut Reg<Content<B>>),
    ) {
        let several = self.content.len() > 1;
        let is_of_some = |(key, values): &(&AttrKey, &Values)| {
            differ(values) || (several && key.is_of_content())
        };
        if !self.attrs.iter().any(|attr| is_of_some(&attr)) {
            return change(&mut self.content);
        }
        let was = self.clone();
        change(&mut self.content);
        if self.content.is_empty() {
            return;
        }
        let before = Authors::of(&was);
        let model = heir.and_then(|(_, id)| was.attrs_of(Some(&id)).author);
        let heir = heir.map(|(op, _)| op);
        let stays = |author: &&Author| {
            Some(author.op) != heir && self.content.ops().any(|op| *op == author.op)
        };
        let (left, gone): (Vec<&Author>, Vec<&Author>) = before.0.iter().partition(stays);
        for (key, values) in was.attrs.iter().filter(is_of_some) {
            let pick = |author| before.pick(key, values, author);
            let kept: BTreeSet<_> =
                left.iter().filter_map(|author| Some(pick(Some(*author))?.0)).collect();
            let mut dropped: BTreeSet<_> =
                gone.iter().filter_map(|author| Some(author.own(values)?.0)).collect();
            let inherited = heir.map(|op| (op, pick(model.as_ref())));
            dropped.extend(inherited.and_then(|(_, picked)| Some(picked?.0)));
            let mut now = values.clone();
            now.retain(|op, _| kept.contains(op) || !dropped.contains(op));
            if let Some((op, picked)) = inherited {
                now.set(op, picked.and_then(|(_, value)| value.clone()));
            }
            if now.is_empty() {
                self.attrs.remove(key);
            } else {
                self.attrs.insert(key.clone(), now);
            }
        }
    }
}

fn differ(values: &Values) -> bool {
    values.as_slice().windows(2).any(|pair| pair[0].1 != pair[1].1)
}

fn is_later(op: &OpId, than: &OpId) -> bool {
    op.device == than.device && op > than
}
