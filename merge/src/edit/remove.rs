//! Removing files, directories and trees.

use std::collections::{BTreeMap, BTreeSet};

use super::{Edit, EditError, EditResult};
use crate::entry::Entry;
use crate::ids::{LinkId, NodeId};
use crate::name::Name;
use crate::node::Body;
use crate::tree::{Tree, hanging};

const PAGE: usize = 1024;

impl<B: Body, T: Tree<B>> Edit<'_, B, T> {
    /// Removes the version shown as `entry`; of a file with several links only this link.
    ///
    /// The copies of its name stay what they are, as files of their own.
    ///
    /// # Errors
    ///
    /// [`EditError::IsADirectory`] for a directory.
    pub fn unlink(&mut self, entry: &Entry<B>) -> EditResult<(), T::Error> {
        self.act(|edit| {
            edit.hold(&entry.dirs)?;
            let [entry] = edit.shield([entry])?;
            let rivals = edit.rivals(&entry)?;
            edit.pin_all(&rivals)?;
            edit.pin_stirred(&entry, None)?;
            edit.drop_shown(&entry)
        })
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    ///
    /// [`EditError::NotEmpty`] if something in it is visible, [`EditError::NotADirectory`] for
    /// anything else than a directory.
    pub fn rmdir(&mut self, entry: &Entry<B>) -> EditResult<(), T::Error> {
        self.act(|edit| {
            edit.hold(&entry.dirs)?;
            let [entry] = edit.shield([entry])?;
            let rivals = edit.rivals(&entry)?;
            edit.pin_all(&rivals)?;
            edit.drop_empty_dir(&entry)
        })
    }

    /// Removes a directory with all that is in it.
    ///
    /// Costs in proportion to what is in it.
    ///
    /// # Errors
    ///
    /// [`EditError::NotADirectory`] for anything else than a directory.
    pub fn remove_tree(&mut self, entry: &Entry<B>) -> EditResult<(), T::Error> {
        self.act(|edit| {
            edit.hold(&entry.dirs)?;
            let [entry] = edit.shield([entry])?;
            let rivals = edit.rivals(&entry)?;
            edit.pin_all(&rivals)?;
            edit.drop_tree(&entry)
        })
    }

    pub(super) fn drop_shown(&mut self, entry: &Entry<B>) -> EditResult<(), T::Error> {
        if entry.kind.is_dir() {
            return Err(EditError::IsADirectory);
        }
        self.drop_owners(entry, None)
    }

    pub(super) fn drop_empty_dir(&mut self, entry: &Entry<B>) -> EditResult<(), T::Error> {
        if !entry.kind.is_dir() {
            return Err(EditError::NotADirectory);
        }
        if !self.view().list(&entry.ids, None, 1)?.is_empty() {
            return Err(EditError::NotEmpty);
        }
        // What is left in it, if anything, was removed by others and is not shown.
        self.drop_tree(entry)
    }

    fn drop_tree(&mut self, entry: &Entry<B>) -> EditResult<(), T::Error> {
        if !entry.kind.is_dir() {
            return Err(EditError::NotADirectory);
        }
        let mut gone: BTreeSet<NodeId> = entry.ids.iter().copied().collect();
        let mut leaves: BTreeSet<NodeId> = BTreeSet::new();
        let mut todo = entry.ids.clone();
        while let Some(dir) = todo.pop() {
            let mut after: Option<(Name, NodeId)> = None;
            loop {
                let from = after.as_ref().map(|(name, id)| (name, id));
                let page = self.tree.children(&dir, from, PAGE)?;
                for (_, id, kind) in &page {
                    if !kind.is_dir() {
                        leaves.insert(*id);
                    } else if gone.insert(*id) {
                        todo.push(*id);
                    }
                }
                match page.last().filter(|_| page.len() == PAGE) {
                    Some((name, id, _)) => after = Some((name.clone(), *id)),
                    None => break,
                }
            }
        }
        for leaf in &leaves {
            let Some(node) = self.node(leaf)? else { continue };
            let displaced = self.displaced(leaf)?;
            let hanging = hanging(&node, displaced.as_ref());
            let links: Vec<LinkId> = hanging
                .filter(|(_, parent, _)| gone.contains(parent))
                .map(|(claim, ..)| claim.link)
                .collect();
            self.drop_links(leaf, &links)?;
        }
        for dir in &gone {
            self.kill(*dir);
        }
        Ok(self.forget_lost_moves(&gone)?)
    }

    /// Drops the losing places of nodes elsewhere that point into removed directories.
    fn forget_lost_moves(&mut self, gone: &BTreeSet<NodeId>) -> Result<(), T::Error> {
        let mut rivals = BTreeMap::new();
        for dir in self.tree.contested_dirs()? {
            for name in self.tree.contested(&dir)? {
                for (id, _) in self.tree.named(&dir, &name)? {
                    let node = self.node(&id)?.filter(|node| node.has_rival_places());
                    rivals.extend(node.map(|node| (id, node)));
                }
            }
        }
        for (id, node) in rivals {
            let loses = node.places.values().any(|reg| {
                reg.len() > 1 && reg.iter().any(|(_, place)| gone.contains(&place.parent))
            });
            if loses {
                self.change(&id, |node| {
                    node.places.retain(|_, reg| {
                        let keeps = reg.iter().any(|(_, place)| !gone.contains(&place.parent));
                        if keeps {
                            reg.retain(|_, place| !gone.contains(&place.parent));
                        }
                        true
                    });
                })?;
            }
        }
        Ok(())
    }
}
