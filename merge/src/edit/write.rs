//! New bytes: in place, by replacing a file, and by resolving a conflict.

use std::sync::Arc;

use super::{Edit, EditError, EditResult};
use crate::entry::Entry;
use crate::ids::NodeId;
use crate::name::Name;
use crate::node::{Body, Content};
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
    /// Whether a rename is that is for the caller to say, who knows how long `temp` was there: what
    /// another device does to it meanwhile stays with it, under its own name. If it
    /// [can not be](Self::can_replace), this is an ordinary [`Self::rename`].
    ///
    /// # Errors
    ///
    /// As [`Self::rename`].
    pub fn replace(&mut self, temp: &Entry<B>, target: &Entry<B>) -> EditResult<(), T::Error> {
        if !self.can_replace(temp, target)? {
            return self.rename(temp, &target.dirs, &target.name);
        }
        let node = self.node(&temp.id())?.ok_or(EditError::NotFound)?;
        self.act(|edit| {
            let content = temp.content.clone().ok_or(EditError::NotFound)?;
            edit.hold(&temp.dirs)?;
            edit.kill(temp.id());
            let id = edit.overwrite(target, content)?;
            let kept = edit.node(&id)?.ok_or(EditError::NotFound)?.attrs_of(None).to_map();
            for (key, value) in node.attrs_of(None).to_map().iter() {
                if kept.get(key) != Some(value) {
                    edit.put_attr(&id, key.clone(), Some(value.clone()))?;
                }
            }
            Ok(())
        })
    }

    /// Whether [`Self::replace`] can leave `target` its identity: both are leaves of one kind, `temp`
    /// has one name, which it shares with nothing, and nobody has made it two.
    ///
    /// # Errors
    ///
    /// Those of the tree.
    pub fn can_replace(&self, temp: &Entry<B>, target: &Entry<B>) -> EditResult<bool, T::Error> {
        let leaf = !temp.is_copy() && temp.kind == target.kind && !temp.kind.is_dir();
        if !leaf || temp.id() == target.id() || temp.owners.len() > 1 {
            return Ok(false);
        }
        let node = self.node(&temp.id())?.ok_or(EditError::NotFound)?;
        let is_one = node.link_count() == 1
            && node.places.iter().all(|(_, places)| places.len() == 1)
            && node.content.len() == 1
            && node.live.len() == 1;
        let rivals = self.rivals(temp)?;
        Ok(is_one && rivals.copies.is_empty() && rivals.absorbed.is_empty())
    }

    /// Settles the conflict of which `entry` is a version: `content` gets the contested name, and
    /// every other version loses it.
    ///
    /// The version that has these bytes already keeps the name; else they are written to the file of
    /// `entry`. Other names of that file show them too; those of the others show what they showed.
    /// What a person decides is [`Self::decide`].
    ///
    /// # Errors
    ///
    /// [`EditError::IsADirectory`] if a directory holds the name.
    pub fn resolve(
        &mut self,
        entry: &Entry<B>,
        mut content: Content<B>,
    ) -> EditResult<(), T::Error> {
        self.act(|edit| {
            let (dirs, slot) = (&entry.dirs, entry.slot());
            let claimed = edit.view().claimed(dirs, slot)?;
            if claimed.iter().any(|version| version.kind.is_dir()) {
                return Err(EditError::IsADirectory);
            }
            let has_it = |version: &&Entry<B>| {
                version.content.as_ref().is_some_and(|has| has.id == content.id)
            };
            let kept = [entry].into_iter().chain(&claimed).find(has_it).unwrap_or(entry);
            let shown = kept.content.as_ref().ok_or(EditError::IsADirectory)?;
            content.hist =
                if shown.id == content.id { shown.hist.clone() } else { edit.hist_of(kept, shown) };
            edit.keep_only(kept, content, dirs, slot)?;
            Ok(edit.place_again(&kept.id(), dirs, slot)?)
        })
    }

    /// Writes the places of the settled file `id` under a name anew: of two resolvers who keep
    /// different files, each takes the other's away, and yet both stay.
    fn place_again(&mut self, id: &NodeId, dirs: &[NodeId], slot: &Name) -> Result<(), T::Error> {
        let links = self.links_at(id, dirs, slot)?;
        let Some(node) = self.node(id)? else { return Ok(()) };
        let mut node = Arc::unwrap_or_clone(node);
        for link in links {
            let place = node.places.get(&link).and_then(Reg::last).map(|(_, place)| place.clone());
            if let Some(place) = place {
                node.places.insert(link, Reg::one(self.op, place));
            }
        }
        self.put(*id, node);
        Ok(())
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
        node.change_versions(Some((op, shown.id)), |versions| {
            versions.retain(|other, old| {
                let carried = *other == op && old.id == shown.id;
                !carried && !owned.contains(other)
            });
            versions.set(op, content);
        });
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
