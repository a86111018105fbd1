//! Moving entries.

use std::collections::BTreeSet;

use super::{Edit, EditError, EditResult};
use crate::entry::Entry;
use crate::ids::NodeId;
use crate::name::Name;
use crate::node::Body;
use crate::tree::{Tree, spots_in};

/// Whether both are shown under one name in one directory.
fn is_at<B>(entry: &Entry<B>, other: &Entry<B>) -> bool {
    entry.name == other.name && entry.dirs == other.dirs
}

impl<B: Body, T: Tree<B>> Edit<'_, B, T> {
    /// Moves `from` to `name` in the united directories `dirs`, over what is shown there.
    ///
    /// A directory may replace an empty directory, a leaf another leaf. Two links of one file stay
    /// as they are. Costs in proportion to the depth, whatever is in a directory.
    ///
    /// # Errors
    ///
    /// [`EditError::IntoSelf`], [`EditError::NotEmpty`], [`EditError::IsADirectory`],
    /// [`EditError::NotADirectory`] as `rename(2)` has them.
    pub fn rename(
        &mut self,
        from: &Entry<B>,
        dirs: &[NodeId],
        name: &Name,
    ) -> EditResult<(), T::Error> {
        self.act(|edit| {
            let dir = edit.home(dirs)?;
            if let Some(target) = edit.view().lookup(dirs, name)? {
                let same = from.dirs == target.dirs && from.name == target.name;
                let twins = !from.is_copy() && !target.is_copy() && from.id() == target.id();
                if same || (twins && !from.kind.is_dir()) {
                    return Ok(());
                }
            }
            edit.must_not_contain(from, dirs)?;
            edit.hold(&from.dirs)?;
            // The target may be another version of the same file, and have other names.
            let [from] = &edit.own([from])?;
            let target = edit.view().lookup(dirs, name)?;
            let (from, target) = if let Some(target) = target {
                let [from, target] = edit.shield([from, &target])?;
                (from, Some(target))
            } else {
                let [from] = edit.shield([from])?;
                (from, None)
            };
            let from = &from;
            let mut rivals = edit.rivals(from)?;
            if let Some(target) = &target {
                let more = edit.rivals(target)?;
                rivals.copies.extend(more.copies);
                rivals.absorbed.extend(more.absorbed);
            }
            rivals.copies.retain(|rival| {
                !is_at(rival, from) && !target.as_ref().is_some_and(|target| is_at(rival, target))
            });
            edit.pin_all(&rivals)?;
            for entry in [Some(from), target.as_ref()].into_iter().flatten() {
                edit.pin_stirred(entry, None)?;
            }
            match &target {
                Some(target) if target.kind.is_dir() && !from.kind.is_dir() => {
                    return Err(EditError::IsADirectory);
                }
                Some(target) if from.kind.is_dir() => edit.drop_empty_dir(target)?,
                Some(target) => edit.drop_shown(target)?,
                None => (),
            }
            edit.shift(from, dir, name)
        })
    }

    /// Gives two entries each other's place (`RENAME_EXCHANGE`). Two links of one file stay as they
    /// are.
    ///
    /// # Errors
    ///
    /// [`EditError::IntoSelf`] if one is in the other.
    pub fn exchange(&mut self, a: &Entry<B>, b: &Entry<B>) -> EditResult<(), T::Error> {
        self.act(|edit| {
            edit.must_not_contain(a, &b.dirs)?;
            edit.must_not_contain(b, &a.dirs)?;
            let [a, b] = &edit.own([a, b])?;
            if a.id() == b.id() {
                return Ok(());
            }
            let [a, b] = &edit.shield([a, b])?;
            let (a_dir, b_dir) = (edit.home(&a.dirs)?, edit.home(&b.dirs)?);
            let mut rivals = edit.rivals(a)?;
            let more = edit.rivals(b)?;
            rivals.copies.extend(more.copies);
            rivals.absorbed.extend(more.absorbed);
            rivals.copies.retain(|rival| !is_at(rival, a) && !is_at(rival, b));
            edit.pin_all(&rivals)?;
            // No version is taken out of what stays, and what loses something gets something: nothing
            // to hold, and nothing is stirred.
            edit.shift(a, b_dir, &b.name)?;
            edit.shift(b, a_dir, &a.name)
        })
    }

    /// Makes those of `entries` that are copies files of their own, and returns all as they are now.
    fn own<const N: usize>(
        &mut self,
        entries: [&Entry<B>; N],
    ) -> EditResult<[Entry<B>; N], T::Error> {
        let mut now = entries.map(Clone::clone);
        if !entries.iter().any(|entry| entry.is_copy()) {
            return Ok(now);
        }
        for entry in entries {
            let found = self.view().lookup(&entry.dirs, &entry.name)?;
            let copy = found.ok_or(EditError::NotFound)?;
            if copy.is_copy() {
                let [copy] = self.shield([&copy])?;
                self.pin_stirred(&copy, None)?;
                self.detach_in_place(&copy, None)?;
                self.commit_part()?;
            }
        }
        for entry in &mut now {
            let found = self.view().lookup(&entry.dirs, &entry.name)?;
            *entry = found.ok_or(EditError::NotFound)?;
        }
        Ok(now)
    }

    /// Hangs what `from` shows on `dir` as `name`.
    fn shift(&mut self, from: &Entry<B>, dir: NodeId, name: &Name) -> EditResult<(), T::Error> {
        if from.kind.is_dir() {
            for id in &from.ids {
                self.place(id, from, dir, name)?;
            }
            return Ok(());
        }
        if from.is_copy() {
            self.detach_to(from, dir, name, None)?;
            return Ok(());
        }
        self.drop_owners(from, Some(&from.id()))?;
        self.place(&from.id(), from, dir, name)
    }

    /// A directory must not be moved below itself.
    fn must_not_contain(&self, entry: &Entry<B>, dirs: &[NodeId]) -> EditResult<(), T::Error> {
        if !entry.kind.is_dir() {
            return Ok(());
        }
        let mut seen = BTreeSet::new();
        let mut todo = dirs.to_vec();
        while let Some(dir) = todo.pop() {
            if entry.ids.contains(&dir) {
                return Err(EditError::IntoSelf);
            }
            if seen.insert(dir) {
                todo.extend(spots_in(&self.tree, &dir)?.into_iter().map(|spot| spot.parent));
            }
        }
        Ok(())
    }
}
