//! What one operation did to one node: values it set and operations it replaced, per register.
//!
//! Order-free: the state of a set of operations is all values set less all that were replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{LinkId, NodeId, OpId};
use crate::name::{AttrKey, AttrValue, Name};
use crate::node::{Body, Carry, Content, Kind, Node, Place};
use crate::reg::Reg;
use crate::small_map::SmallMap;

/// The change of one register by one operation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct RegDelta<V> {
    set: Option<V>,
    gone: Vec<OpId>,
}

/// The change of one node by one operation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(bound(deserialize = "B: Ord + Deserialize<'de>"))]
pub(crate) struct NodeDelta<B> {
    kind: Kind,
    origin: Option<Name>,
    live: RegDelta<Carry<B>>,
    places: SmallMap<LinkId, RegDelta<Place>>,
    content: RegDelta<Content<B>>,
    attrs: SmallMap<AttrKey, RegDelta<Option<AttrValue>>>,
}

impl<V: Ord + Clone> RegDelta<V> {
    fn between(op: OpId, before: &Reg<V>, after: &Reg<V>) -> Self {
        let set = after.iter().find(|(other, _)| **other == op).map(|(_, value)| value.clone());
        let kept: BTreeSet<&OpId> = after.ops().collect();
        Self { set, gone: before.ops().filter(|op| !kept.contains(op)).copied().collect() }
    }

    fn is_empty(&self) -> bool {
        self.set.is_none() && self.gone.is_empty()
    }
}

impl<B: Body> NodeDelta<B> {
    /// What `op` did between two values of a node.
    pub(crate) fn between(
        op: OpId,
        before: Option<&Node<B>>,
        after: Option<&Node<B>>,
    ) -> Option<Self> {
        let some = before.or(after)?;
        let empty = Node::empty(some.kind);
        let (a, b) = (before.unwrap_or(&empty), after.unwrap_or(&empty));
        Some(Self {
            kind: some.kind,
            origin: some.origin.clone(),
            live: RegDelta::between(op, &a.spelled_live(), &b.spelled_live()),
            places: deltas(op, &a.places, &b.places),
            content: RegDelta::between(op, &a.content, &b.content),
            attrs: deltas(op, &a.attrs, &b.attrs),
        })
    }

    /// The content it set.
    pub(crate) const fn content(&self) -> Option<&Content<B>> {
        self.content.set.as_ref()
    }

    /// The first place it set.
    pub(crate) fn place(&self) -> Option<&Place> {
        self.places.values().find_map(|delta| delta.set.as_ref())
    }

    /// The operations it replaced.
    pub(crate) fn replaced(&self) -> impl Iterator<Item = &OpId> {
        let places = self.places.values().flat_map(|delta| &delta.gone);
        let attrs = self.attrs.values().flat_map(|delta| &delta.gone);
        self.live.gone.iter().chain(places).chain(&self.content.gone).chain(attrs)
    }
}

fn deltas<K: Ord + Clone, V: Ord + Clone>(
    op: OpId,
    before: &SmallMap<K, Reg<V>>,
    after: &SmallMap<K, Reg<V>>,
) -> SmallMap<K, RegDelta<V>> {
    let none = Reg::default();
    let keys: BTreeSet<&K> = before.keys().chain(after.keys()).collect();
    let deltas = keys.into_iter().map(|key| {
        let (a, b) = (before.get(key).unwrap_or(&none), after.get(key).unwrap_or(&none));
        (key.clone(), RegDelta::between(op, a, b))
    });
    deltas.filter(|(_, delta)| !delta.is_empty()).collect()
}

/// A register while operations are being collected.
struct Gathered<V> {
    set: Vec<(OpId, V)>,
    gone: BTreeSet<OpId>,
}

impl<V: Ord + Clone> Gathered<V> {
    const fn new() -> Self {
        Self { set: Vec::new(), gone: BTreeSet::new() }
    }

    fn add(&mut self, op: OpId, delta: &RegDelta<V>) {
        self.set.extend(delta.set.clone().map(|value| (op, value)));
        self.gone.extend(&delta.gone);
    }

    fn finish(self) -> Reg<V> {
        let gone = self.gone;
        self.set.into_iter().filter(|(op, _)| !gone.contains(op)).collect()
    }
}

struct Building<B> {
    kind: Kind,
    origin: Option<Name>,
    live: Gathered<Carry<B>>,
    places: BTreeMap<LinkId, Gathered<Place>>,
    content: Gathered<Content<B>>,
    attrs: BTreeMap<AttrKey, Gathered<Option<AttrValue>>>,
}

/// The nodes that a set of operations leaves.
pub(crate) fn nodes_of<'a, B: Body + 'a>(
    deltas: impl Iterator<Item = (OpId, &'a NodeId, &'a NodeDelta<B>)>,
) -> BTreeMap<NodeId, Arc<Node<B>>> {
    let mut building: BTreeMap<NodeId, Building<B>> = BTreeMap::new();
    for (op, id, delta) in deltas {
        let node = building.entry(*id).or_insert_with(|| Building {
            kind: delta.kind,
            origin: delta.origin.clone(),
            live: Gathered::new(),
            places: BTreeMap::new(),
            content: Gathered::new(),
            attrs: BTreeMap::new(),
        });
        node.live.add(op, &delta.live);
        node.content.add(op, &delta.content);
        for (link, delta) in delta.places.iter() {
            node.places.entry(*link).or_insert_with(Gathered::new).add(op, delta);
        }
        for (key, delta) in delta.attrs.iter() {
            node.attrs.entry(key.clone()).or_insert_with(Gathered::new).add(op, delta);
        }
    }
    let finished = building.into_iter().filter_map(|(id, node)| Some((id, finish(node)?)));
    finished.collect()
}

fn finish<B: Body>(building: Building<B>) -> Option<Arc<Node<B>>> {
    let live = building.live.finish();
    if live.is_empty() {
        return None;
    }
    let places = building.places.into_iter().map(|(link, places)| (link, places.finish()));
    let attrs = building.attrs.into_iter().map(|(key, attrs)| (key, attrs.finish()));
    let mut node = Node {
        kind: building.kind,
        origin: building.origin,
        live,
        places: places.filter(|(_, reg)| !reg.is_empty()).collect(),
        content: building.content.finish(),
        attrs: attrs.filter(|(_, reg)| !reg.is_empty()).collect(),
    };
    node.fold_live();
    Some(Arc::new(node))
}
