//! New bytes: in place, by replacing a file, and by resolving a conflict.

use std::sync::Arc;

use super::{Edit, EditError, EditResult};
use crate::entry::Entry;
use crate::ids::NodeId;
use crate::node::{Body, Content, Place};
use crate::reg::Reg;
use crate::tree::Tree;

impl<B: Body, T: Tree<B>> Edit<'_, B, T> {
    /// Writes `content` to the version shown as `entry`, and returns the node that holds it now.
    ///
    /// Other versions of a conflict stay. A copy becomes a file of its own under its visible
    /// name. Equal bytes change nothing. The history of `content` is filled in here.
    ///
    /// # Errors
    ///
    /// [`EditError::IsADirectory`], or [`EditError::NotFound`] if the entry is gone.
    pub fn write(&mut self, entry: &Entry<B>, content: Content<B>) -> EditResult<NodeId, T::Error> {
        self.act(|edit| edit.overwrite(entry, content))
    }

    /// Renames `temp` over `target` as an editor's save: `target` keeps its identity, and gets the
    /// content of `temp` and those of its attributes that differ.
    ///
    /// Only for a `temp` that this operation created, of the same kind and with one link; anything
    /// else is an ordinary [`Self::rename`], which this falls back to.
    ///
    /// # Errors
    ///
    /// As [`Self::rename`].
    pub fn replace(&mut self, temp: &Entry<B>, target: &Entry<B>) -> EditResult<(), T::Error> {
        let node = self.node(&temp.id())?.ok_or(EditError::NotFound)?;
        let fresh = temp.id().born() == Some(self.op) && node.places.len() == 1;
        let leaf = !temp.is_copy() && temp.kind == target.kind && !temp.kind.is_dir();
        if !fresh || !leaf || temp.id() == target.id() {
            return self.rename(temp, &target.dirs, &target.name);
        }
        self.act(|edit| {
            let content = temp.content.clone().ok_or(EditError::NotFound)?;
            edit.kill(temp.id());
            let id = edit.overwrite(target, content)?;
            let kept = edit.node(&id)?.ok_or(EditError::NotFound)?.effective_attrs();
            for (key, value) in node.effective_attrs().iter() {
                if kept.get(key) != Some(value) {
                    edit.put_attr(&id, key.clone(), Some(value.clone()))?;
                }
            }
            Ok(())
        })
    }

    /// Settles a conflict: `content` under the name of `winner`, every other version goes.
    ///
    /// # Errors
    ///
    /// [`EditError::IsADirectory`] if a directory holds the name.
    pub fn resolve(&mut self, winner: &Entry<B>, content: Content<B>) -> EditResult<(), T::Error> {
        let is_decision = content.auto;
        self.act(|edit| edit.settle_conflict(winner, content, is_decision))
    }

    /// As [`Edit::resolve`], with what all versions together amount to.
    pub(crate) fn unite(
        &mut self,
        winner: &Entry<B>,
        mut content: Content<B>,
    ) -> EditResult<(), T::Error> {
        content.auto = false;
        self.act(|edit| edit.settle_conflict(winner, content, true))
    }

    fn settle_conflict(
        &mut self,
        winner: &Entry<B>,
        mut content: Content<B>,
        is_decision: bool,
    ) -> EditResult<(), T::Error> {
        let shown = winner.content.as_ref().ok_or(EditError::IsADirectory)?;
        let id = winner.id();
        // Other files that have this name lose it only here.
        let mut prepared = false;
        let rivals = self.rivals(winner)?;
        for loser in rivals.copies.iter().chain(&rivals.absorbed).chain([winner]) {
            for other in loser.owners.keys().filter(|other| **other != id) {
                prepared |= self.shield_from(other, loser)?;
            }
        }
        let now = if prepared { self.view().lookup(&winner.dirs, &winner.name)? } else { None };
        let winner = now.as_ref().unwrap_or(winner);
        let rivals = self.rivals(winner)?;
        for loser in rivals.copies.iter().chain(&rivals.absorbed) {
            self.drop_owners(loser, None)?;
        }
        self.drop_owners(winner, Some(&id))?;
        self.settle(&id)?;
        let mut node = Arc::unwrap_or_clone(self.node(&id)?.ok_or(EditError::NotFound)?);
        content.hist = self.hist_of(winner, shown);
        if is_decision {
            // The place is written too, so that two resolvers that keep different nodes both
            // keep them in earnest.
            let places: Vec<_> = node
                .claims()
                .map(|claim| (claim.link, Place::new(claim.place.parent, claim.place.name.clone())))
                .collect();
            for (link, place) in places {
                node.places.insert(link, Reg::one(self.op, place));
            }
        }
        node.content = Reg::one(self.op, content);
        self.put(id, node);
        Ok(self.climb_from(&id)?)
    }

    fn overwrite(
        &mut self,
        entry: &Entry<B>,
        mut content: Content<B>,
    ) -> EditResult<NodeId, T::Error> {
        let shown = entry.content.as_ref().ok_or(EditError::IsADirectory)?;
        if shown.id == content.id && !entry.is_copy() {
            return Ok(entry.id());
        }
        content.hist = self.hist_of(entry, shown);
        let [entry] = &self.shield([entry])?;
        let id = entry.id();
        // A copy that has the new bytes in its history would hide what is being written.
        self.pin_stirred(entry, Some(&content))?;
        if entry.is_copy() {
            return self.detach_in_place(entry, Some(content));
        }
        let owned = entry.owners.get(&id).cloned().unwrap_or_default();
        self.drop_owners(entry, Some(&id))?;
        self.drop_twins(&id, entry)?;
        self.settle(&id)?;
        let mut node = Arc::unwrap_or_clone(self.node(&id)?.ok_or(EditError::NotFound)?);
        let op = self.op;
        // Settling writes a carried version again; it is the one being replaced.
        node.content.retain(|other, old| {
            let carried = *other == op && old.id == shown.id;
            !carried && !owned.contains(other)
        });
        node.content.set(op, content);
        self.put(id, node);
        self.climb_from(&id)?;
        Ok(id)
    }

    /// The history of what replaces `shown`; what this operation wrote was never seen by others.
    fn hist_of(&self, entry: &Entry<B>, shown: &Content<B>) -> Vec<crate::ids::ContentId> {
        let unseen = entry.owners.values().all(|ops| ops.iter().eq([&self.op]));
        if unseen { shown.hist.clone() } else { shown.hist_after() }
    }
}
