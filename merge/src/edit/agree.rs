//! Ending the disagreement about what a node is besides its content: where it hangs, whether it is
//! there at all, and its attributes.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Edit, EditError, EditResult};
use crate::groups::united;
use crate::ids::{LinkId, NodeId, OpId};
use crate::name::{AttrKey, AttrValue, Name};
use crate::node::{Body, Node, Place, are_rivals};
use crate::reg::Reg;
use crate::tree::{Displaced, Tree, Why, hanging, spots_in};

/// Says yes to the operations whose values are wanted.
type Prefers<'p> = &'p dyn Fn(&OpId) -> bool;

/// A directory, and the name of something in it.
type Spot = (NodeId, Name);

impl<B: Body, T: Tree<B>> Edit<'_, B, T> {
    /// Makes what `prefers` says yes to of the places and attributes of `id` undisputed, else what
    /// is shown. Says whether it said so of any.
    pub(super) fn agree(
        &mut self,
        id: &NodeId,
        prefers: Prefers<'_>,
    ) -> EditResult<bool, T::Error> {
        let Some(disputed) = self.node(id)? else { return Ok(false) };
        let displaced = self.displaced(id)?;
        let mut preferred = disputed.is_weak() && disputed.live.ops().any(prefers);
        let turned = match &displaced {
            Some(displaced) => self.turn_cycle(id, &disputed, displaced, prefers)?,
            None => Turned::Stays { preferred: false },
        };
        self.touch(id)?;
        match turned {
            Turned::Stays { preferred: shown } => {
                preferred |= shown;
                preferred |= self.settle_places(id, &disputed, displaced.as_ref(), prefers)?;
            }
            Turned::To(link, spot) => {
                preferred = true;
                self.hang(id, link, spot)?;
            }
        }
        let attrs: Vec<_> = disputed.rival_attrs().cloned().collect();
        for key in attrs {
            let Some(reg) = disputed.attrs.get(&key) else { continue };
            let wanted = preferred_of(reg, prefers);
            preferred |= wanted.is_some();
            let shown = || disputed.attrs_of(None).get(&key).cloned();
            let value = wanted.map_or_else(shown, Clone::clone);
            self.set_undisputed(id, key, value)?;
        }
        if let Some(node) = self.node(id)? {
            let mut node = Arc::unwrap_or_clone(node);
            node.take_in_hand(&self.op);
            self.put(*id, node);
        }
        Ok(preferred)
    }

    /// Hangs each link that has rival places on the preferred one, else where it is shown.
    fn settle_places(
        &mut self,
        id: &NodeId,
        disputed: &Node<B>,
        displaced: Option<&Displaced>,
        prefers: Prefers<'_>,
    ) -> EditResult<bool, T::Error> {
        let mut preferred = false;
        for (claim, parent, name) in hanging(disputed, displaced) {
            let rivals = disputed.places.get(&claim.link).filter(|reg| are_rivals(reg));
            let Some(rivals) = rivals else { continue };
            let shown = (parent, name.clone());
            let wanted = preferred_of(rivals, prefers);
            let spot = match wanted {
                Some(place) => (place.parent, place.name.clone()),
                None => shown.clone(),
            };
            preferred |= wanted.is_some();
            if spot != shown {
                self.must_take(id, &spot)?;
            }
            self.hang(id, claim.link, spot)?;
        }
        Ok(preferred)
    }

    fn set_undisputed(
        &mut self,
        id: &NodeId,
        key: AttrKey,
        value: Option<AttrValue>,
    ) -> EditResult<(), T::Error> {
        let mut node = Arc::unwrap_or_clone(self.node(id)?.ok_or(EditError::NotFound)?);
        node.attrs.insert(key, Reg::one(self.op, value));
        self.put(*id, node);
        Ok(())
    }

    /// Hangs one link of `id`, which was touched, on another spot.
    fn hang(
        &mut self,
        id: &NodeId,
        link: LinkId,
        (parent, name): Spot,
    ) -> EditResult<(), T::Error> {
        let mut node = Arc::unwrap_or_clone(self.node(id)?.ok_or(EditError::NotFound)?);
        let prev = match node.places.get(&link).and_then(Reg::last) {
            Some((_, at)) if at.parent == parent && at.name == name => at.prev.clone(),
            Some((_, at)) => Some((at.parent, at.name.clone())),
            None => None,
        };
        node.places.insert(link, Reg::one(self.op, Place { parent, name, prev }));
        self.put(*id, node);
        self.moved.insert(*id);
        Ok(self.climb(parent)?)
    }

    /// Refuses a spot that is gone, taken, or in `id` itself.
    fn must_take(&self, id: &NodeId, (parent, name): &Spot) -> EditResult<(), T::Error> {
        let dirs = united::<B, _>(&self.tree, parent)?;
        self.home(&[*parent])?;
        if self.is_in(id, parent)? {
            return Err(EditError::IntoSelf);
        }
        self.must_be_free(&dirs, name)
    }

    fn is_in(&self, id: &NodeId, dir: &NodeId) -> Result<bool, T::Error> {
        Ok(self.way_up(*dir, id)?.is_some())
    }

    /// The directories from `from` up to below `end`, if it is above them or one of them.
    fn way_up(&self, from: NodeId, end: &NodeId) -> Result<Option<Vec<NodeId>>, T::Error> {
        let (mut way, mut seen) = (Vec::new(), BTreeSet::new());
        let mut at = from;
        while at != *end {
            let above = spots_in(&self.tree, &at)?.into_iter().next();
            let Some(spot) = above.filter(|_| seen.insert(at)) else { return Ok(None) };
            way.push(at);
            at = spot.parent;
        }
        Ok(Some(way))
    }

    /// Directory `id` went back because another move put into it what it was moved into. If its own
    /// move is preferred, that other one goes back instead.
    fn turn_cycle(
        &mut self,
        id: &NodeId,
        node: &Node<B>,
        displaced: &Displaced,
        prefers: Prefers<'_>,
    ) -> EditResult<Turned, T::Error> {
        let as_shown = Turned::Stays { preferred: false };
        let Some(claim) = node.claims().next() else { return Ok(as_shown) };
        if displaced.get(&claim.link).is_none_or(|(_, why)| *why != Why::Cycle) {
            return Ok(as_shown);
        }
        let Some(way) = self.way_up(claim.place.parent, id)? else { return Ok(as_shown) };
        let mut others = Vec::new();
        for dir in way {
            let Some(node) = self.node(&dir)? else { continue };
            if let Some(moved) = node.claims().next() {
                others.push((moved.op, dir, moved.link, moved.place.clone()));
            }
        }
        if !prefers(&claim.op) {
            return Ok(Turned::Stays { preferred: others.iter().any(|(op, ..)| prefers(op)) });
        }
        let latest = others.into_iter().max_by_key(|(op, dir, ..)| (!prefers(op), *op, *dir));
        let Some((_, dir, link, place)) = latest else { return Ok(as_shown) };
        let before = match place.prev {
            Some((parent, name)) if self.home(&[parent]).is_ok() && !self.is_in(id, &parent)? => {
                (parent, name)
            }
            _ => (NodeId::Root, place.name),
        };
        let spot = (claim.place.parent, claim.place.name.clone());
        self.must_be_free(&united::<B, _>(&self.tree, &spot.0)?, &spot.1)?;
        self.must_take(&dir, &before)?;
        self.touch(&dir)?;
        self.hang(&dir, link, before)?;
        self.commit_part()?;
        Ok(Turned::To(claim.link, spot))
    }
}

/// What becomes of a directory that went back.
enum Turned {
    /// It stays where it is shown; whether the move that had it go back is preferred.
    Stays {
        /// Whether it is.
        preferred: bool,
    },
    /// It goes where it was moved to.
    To(LinkId, Spot),
}

/// The latest wanted value of a register.
fn preferred_of<'r, V>(reg: &'r Reg<V>, prefers: Prefers<'_>) -> Option<&'r V> {
    reg.iter().rev().find(|(op, _)| prefers(op)).map(|(_, value)| value)
}
