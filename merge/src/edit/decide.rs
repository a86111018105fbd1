//! Ending a conflict, as a person or a resolver decides it.
//!
//! # Invariant
//!
//! No directory goes, and of a file with several names nothing goes but what the decision names: a
//! file that loses this name keeps its others and what they show.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Edit, EditError, EditResult};
use crate::entry::Entry;
use crate::groups::claimants;
use crate::ids::{ContentId, LinkId, NodeId, OpId};
use crate::name::Name;
use crate::node::{Body, Content, Node, Place, are_rivals};
use crate::reg::Reg;
use crate::tree::Tree;
use crate::versions::merged_versions;

/// What a person wants to stay of the versions there are, for [`Edit::decide`]. A program answers with
/// a [`Resolution`](crate::Resolution).
#[derive(Debug)]
pub enum Decision<'a, B> {
    /// All versions, each as a file of its own under the name it is shown under; where these are
    /// names of one file, they are still.
    All,
    /// This version, under the contested name if no directory has it; the others lose the name. A
    /// file that keeps it has this version under all its names.
    Only(&'a Entry<B>),
}

impl<B: Body, T: Tree<B>> Edit<'_, B, T> {
    /// Ends every conflict of the name `slot` in the united directories `dirs`, as a person decides
    /// among what is there; [`Self::resolve`] writes something new.
    ///
    /// Of places and attributes that peers disagree about, those count whose operations `prefers`
    /// says yes to, else those that are shown. Returns whether it said so of any.
    ///
    /// # Errors
    ///
    /// [`EditError::NotFound`] if nothing is shown there; [`EditError::Exists`] or
    /// [`EditError::NotFound`] if a preferred place is taken or gone, [`EditError::IntoSelf`] if it is
    /// in the directory itself.
    pub fn decide(
        &mut self,
        dirs: &[NodeId],
        slot: &Name,
        decision: &Decision<'_, B>,
        prefers: &dyn Fn(&OpId) -> bool,
    ) -> EditResult<bool, T::Error> {
        self.act(|edit| {
            let winner = edit.view().slot(dirs, slot)?.into_winner().ok_or(EditError::NotFound)?;
            let mut kept: BTreeSet<NodeId> = winner.ids.iter().copied().collect();
            match decision {
                Decision::All => kept.extend(edit.keep_all(&winner)?),
                Decision::Only(version) if winner.kind.is_dir() => {
                    kept.extend(edit.keep_beside(&winner, version)?);
                }
                Decision::Only(version) => {
                    edit.keep_only(version, by_a_person(version)?, dirs, slot)?;
                    kept = BTreeSet::from([version.id()]);
                }
            }
            edit.commit_part()?;
            let mut preferred = false;
            for id in &kept {
                preferred |= edit.agree(id, prefers)?;
            }
            Ok(preferred)
        })
    }

    /// Keeps all versions, and returns the files that have left the name.
    fn keep_all(&mut self, winner: &Entry<B>) -> EditResult<Vec<NodeId>, T::Error> {
        for (id, is_dir) in claimants(&self.tree, &winner.dirs, &winner.name)? {
            if !is_dir {
                self.part_versions(&id, winner)?;
            }
        }
        self.commit_part()?;
        self.set_free(winner)
    }

    /// Makes the copies of the name that `winner` has files of their own, and returns them. Each of
    /// these files has one version, so its names stay together when this one changes.
    fn set_free(&mut self, winner: &Entry<B>) -> EditResult<Vec<NodeId>, T::Error> {
        let rivals = self.rivals(winner)?;
        let mut elsewhere = Vec::new();
        for (id, is_dir) in claimants(&self.tree, &winner.dirs, &winner.name)? {
            if !is_dir {
                elsewhere.extend(self.lost_elsewhere(&id, winner)?.into_iter().map(|at| (id, at)));
            }
        }
        let mut free = Vec::new();
        for copy in &rivals.copies {
            free.push(self.detach_in_place(copy, None)?);
        }
        for loser in &rivals.absorbed {
            self.drop_owners(loser, None)?;
        }
        for (id, copy) in &elsewhere {
            let dir = self.home(&copy.dirs)?;
            self.place(id, copy, dir, &copy.name)?;
        }
        Ok(free)
    }

    /// The copies that show file `id` for names it has lost, other than that of `winner`, if it is
    /// to be written or hung up anew: it would take those names from who has them.
    fn lost_elsewhere(
        &self,
        id: &NodeId,
        winner: &Entry<B>,
    ) -> EditResult<Vec<Entry<B>>, T::Error> {
        let mut lost = Vec::new();
        let is_unsettled = |node: Arc<Node<B>>| {
            node.is_weak() || node.content.len() != 1 || node.places.values().any(are_rivals)
        };
        let is_changed = self.displaced(id)?.is_some() || self.node(id)?.is_some_and(is_unsettled);
        let names =
            if is_changed { self.names_where(id, <[Name]>::contains)? } else { BTreeSet::new() };
        for (dirs, slot) in names {
            if slot != winner.name || dirs != winner.dirs {
                let copies = self.view().copies(&dirs, &slot)?.into_iter();
                lost.extend(copies.filter(|copy| copy.id() == *id));
            }
        }
        Ok(lost)
    }

    /// Leaves file `id` its latest version. Each other one becomes a file of its own that has all
    /// the names under which copies show it.
    fn part_versions(&mut self, id: &NodeId, winner: &Entry<B>) -> EditResult<(), T::Error> {
        let Some(node) = self.node(id)? else { return Ok(()) };
        let versions = merged_versions(&node, self.policy.text);
        let latest = versions.iter().max_by_key(|version| version.op);
        let Some(latest) = latest.map(|version| version.content.id) else { return Ok(()) };
        if versions.iter().all(|version| version.content.id == latest) {
            return Ok(());
        }
        let mut names = self.names_where(id, <[Name]>::contains)?;
        names.insert((winner.dirs.clone(), winner.name.clone()));
        let mut copies: BTreeMap<ContentId, Vec<(LinkId, Entry<B>)>> = BTreeMap::new();
        for (dirs, slot) in names {
            let links = self.links_at(id, &dirs, &slot)?;
            let shown = self.view().copies(&dirs, &slot)?.into_iter();
            for copy in shown.filter(|copy| copy.id() == *id) {
                let content = copy.content.as_ref().map(|content| content.id);
                if let (Some(content), Some(link)) = (content, links.iter().min())
                    && content != latest
                {
                    copies.entry(content).or_default().push((*link, copy));
                }
            }
        }
        for named in copies.into_values() {
            self.split_with_names(id, named)?;
        }
        // Its place among the versions of other files must not change: no touch.
        Ok(self.change(id, |node| {
            node.change_versions(None, |versions| {
                versions.retain(|_, content| content.id == latest);
            });
        })?)
    }

    /// Makes one file of the copies `named`, which show one version of `id`.
    fn split_with_names(
        &mut self,
        id: &NodeId,
        mut named: Vec<(LinkId, Entry<B>)>,
    ) -> EditResult<(), T::Error> {
        named.sort_by_key(|(link, _)| *link);
        let Some(((link, first), others)) = named.split_first() else { return Ok(()) };
        let node = self.node(id)?.ok_or(EditError::NotFound)?;
        let content = first.content.clone().ok_or(EditError::IsADirectory)?;
        let place = (self.home(&first.dirs)?, &first.name);
        let split = self.split(first, &node, *link, place, content.in_hand())?;
        for (link, copy) in others {
            let dir = self.home(&copy.dirs)?;
            let place = Reg::one(self.op, Place::new(dir, copy.name.clone()));
            self.change(&split, |node| drop(node.places.insert(*link, place)))?;
            self.climb(dir)?;
        }
        Ok(())
    }

    /// Leaves the name to `kept` alone, directories aside, and writes `content` to its file.
    pub(super) fn keep_only(
        &mut self,
        kept: &Entry<B>,
        content: Content<B>,
        dirs: &[NodeId],
        slot: &Name,
    ) -> EditResult<(), T::Error> {
        let id = kept.id();
        self.drop_claims(dirs, slot, Some(id))?;
        let shown = kept.content.as_ref().ok_or(EditError::IsADirectory)?.id;
        let node = self.node(&id)?.ok_or(EditError::NotFound)?;
        // An answer is known by its operation: it writes what is there already too.
        let is_alone = !content.auto
            && node.content.len() == 1
            && node.content.iter().all(|it| *it.1 == content);
        // Settled, so that who decides otherwise at the same time leaves a version too, not none.
        self.settle(&id)?;
        if !is_alone {
            let (heir, content) = ((self.op, shown), Reg::one(self.op, content));
            let node = self.node(&id)?.ok_or(EditError::NotFound)?;
            let mut node = Arc::unwrap_or_clone(node);
            // No carry is spelled out: settled, it says what the registers say from now on.
            node.change_versions(Some(heir), |versions| *versions = content);
            self.put(id, node);
        }
        Ok(self.climb_from(&id)?)
    }

    /// Keeps `version` where the directory `winner` has the name. A file becomes one of its own
    /// beside it.
    fn keep_beside(
        &mut self,
        winner: &Entry<B>,
        version: &Entry<B>,
    ) -> EditResult<Vec<NodeId>, T::Error> {
        if version.kind.is_dir() {
            self.drop_claims(&winner.dirs, &winner.name, None)?;
            return Ok(Vec::new());
        }
        self.keep_only(version, by_a_person(version)?, &winner.dirs, &winner.name)?;
        self.commit_part()?;
        self.set_free(winner)
    }

    /// Takes the name away from all files but `kept`.
    fn drop_claims(
        &mut self,
        dirs: &[NodeId],
        slot: &Name,
        kept: Option<NodeId>,
    ) -> EditResult<(), T::Error> {
        for (id, is_dir) in claimants(&self.tree, dirs, slot)? {
            if !is_dir && Some(id) != kept {
                let links = self.links_at(&id, dirs, slot)?;
                self.drop_links(&id, &links)?;
            }
        }
        Ok(())
    }
}

/// The content of `version` as a person keeps it.
fn by_a_person<B: Body, E: std::error::Error>(version: &Entry<B>) -> EditResult<Content<B>, E> {
    Ok(version.content.clone().ok_or(EditError::IsADirectory)?.in_hand())
}
