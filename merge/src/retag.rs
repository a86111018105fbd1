//! Giving operations other names: for a device that used some of its own twice.
//!
//! A device that is put back to an older state and goes on mints operations that others know
//! already, with another meaning. Under a new [`DeviceId`](crate::DeviceId) what it did since is what
//! it is: concurrent.

use std::sync::Arc;

use crate::ids::{LinkId, NodeId, OpId};
use crate::node::{Body, Carried, Carry, Node, Place};
use crate::reg::Reg;

impl NodeId {
    /// The same node, if the operation that created it is called `rename(op)`.
    #[must_use]
    pub fn retagged(&self, rename: &impl Fn(OpId) -> OpId) -> Self {
        match *self {
            Self::Born { op, n } => Self::Born { op: rename(op), n },
            other @ (Self::Root | Self::Split(_)) => other,
        }
    }
}

impl<B: Body> Node<B> {
    /// This node, with every operation `op` in it called `rename(op)`, which must not give one name
    /// to two operations of one register.
    #[must_use]
    pub fn retagged(&self, rename: &impl Fn(OpId) -> OpId) -> Self {
        let link = |link: &LinkId| match *link {
            LinkId::Later { op, n } => LinkId::Later { op: rename(op), n },
            LinkId::First => LinkId::First,
        };
        let place = |place: &Place| Place {
            parent: place.parent.retagged(rename),
            name: place.name.clone(),
            prev: place.prev.as_ref().map(|(dir, name)| (dir.retagged(rename), name.clone())),
        };
        let carry = |carry: &Carry<B>| match carry {
            Carry::Same => Carry::Same,
            Carry::Was(was) => Carry::Was(Arc::new(Carried {
                places: was.places.iter().map(|(at, it)| (link(at), place(it))).collect(),
                content: was.content.clone(),
                attrs: was.attrs.clone(),
            })),
        };
        let places = self.places.iter().map(|(at, reg)| (link(at), retag(reg, rename, place)));
        let attrs = self.attrs.iter();
        let mut node = Self {
            kind: self.kind,
            origin: self.origin.clone(),
            live: retag(&self.live, rename, carry),
            places: places.collect(),
            content: retag(&self.content, rename, Clone::clone),
            attrs: attrs
                .map(|(key, reg)| (key.clone(), retag(reg, rename, Clone::clone)))
                .collect(),
        };
        node.fold_live();
        node
    }
}

fn retag<T: Ord>(reg: &Reg<T>, rename: &impl Fn(OpId) -> OpId, value: impl Fn(&T) -> T) -> Reg<T> {
    reg.iter().map(|(op, it)| (rename(*op), value(it))).collect()
}
