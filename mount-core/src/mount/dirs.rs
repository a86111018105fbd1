//! Directory listings.

use cairnfs_merge::{Kind, Name, NodeId, Tree, View, hanging};

use super::{Mount, Target};
use crate::{
    Attr, DirEntry, Done, Error, Fh, Ino, Result,
    handles::{DirHandle, Listing},
    inodes::Shown,
    places,
    shared::Core,
};

/// Positions of `.` and `..`; the name at index `i` is at `i + NAMES_AT`.
pub(super) const NAMES_AT: u64 = 2;

impl Mount {
    /// Opens a directory.
    ///
    /// # Errors
    ///
    /// [`Error::NotDir`], [`Error::Stale`], damage.
    pub fn opendir(&self, ino: Ino) -> Result<Fh> {
        let core = self.shared().core.read();
        match self.target(&core, ino)? {
            Target::Named(shown, node) if node.kind.is_dir() => {
                Ok(self.shared().handles.open_dir(shown))
            }
            Target::RemovedDir(shown, _) => Ok(self.shared().handles.open_dir(shown)),
            _ => Err(Error::NotDir),
        }
    }

    /// Hands entries to `take` from position `offset` (0, or the `next` of an entry) until it
    /// says that it is full by returning `false` (that entry is not consumed). Begins with `.` and
    /// `..`.
    ///
    /// What is there from the first call to the last is listed once; what comes or goes meanwhile
    /// is listed once or not at all. Position 0 begins anew.
    ///
    /// # Errors
    ///
    /// [`Error::BadHandle`], damage.
    pub fn readdir(
        &self,
        ino: Ino,
        fh: Fh,
        offset: u64,
        with_attrs: bool,
        take: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<()> {
        let handle = self.shared().handles.dir(fh)?;
        let mut listing = handle.listing.lock();
        if offset == 0 {
            *listing = Listing::default();
        }
        for (position, name) in [(0, b".".as_slice()), (1, b"..")] {
            let ino = if position == 0 { ino } else { self.parent_of(&handle)?.unwrap_or(ino) };
            let entry = DirEntry {
                name: name.to_vec(),
                ino,
                kind: Kind::Dir,
                next: position + 1,
                attr: None,
            };
            if offset <= position && !take(entry) {
                return Ok(());
            }
        }
        let first = usize::try_from(offset.saturating_sub(NAMES_AT)).unwrap_or(usize::MAX);
        for index in first.. {
            let core = self.shared().core.read();
            if index >= listing.names.len() && !listing.read_page(&core.tree, &handle.shown.node)? {
                break;
            }
            let Some((name, id, kind)) = listing.names.get(index).cloned() else { break };
            let next = index as u64 + NAMES_AT + 1;
            let mut entry =
                DirEntry { name: name.as_bytes().to_vec(), ino: Ino(0), kind, next, attr: None };
            let mut shown = Shown::node(id);
            if with_attrs || !core.tree.is_at_peace()? {
                match self.find_listed(&core, &handle.shown.node, &name, id) {
                    // It has gone since the page was read.
                    Ok(None) => continue,
                    Ok(Some((known, attr))) => {
                        shown = known;
                        entry.attr = attr.ok().filter(|_| with_attrs);
                    }
                    // One damaged node must not hide the others: whoever looks it up hears of it.
                    Err(err) => log::warn!("readdir node={id} reason={err}"),
                }
            }
            entry.ino = self.shared().inodes.lock().number(shown);
            entry.kind = entry.attr.map_or(kind, |attr| attr.kind);
            let (told, was_told) = (entry.ino, entry.attr.is_some());
            if !take(entry) {
                if was_told {
                    self.shared().inodes.lock().forget(told, 1);
                }
                break;
            }
        }
        Ok(())
    }

    /// What is called `name` in the directory `dir` now, which was `id` when the page was read; `None`
    /// if nothing is.
    fn find_listed(
        &self,
        core: &Core,
        dir: &NodeId,
        name: &Name,
        id: NodeId,
    ) -> Result<Option<(Shown, Result<Attr>)>> {
        // In peace nobody else can have the name as long as it has.
        if core.tree.is_at_peace()?
            && let Some(node) = core.tree.node(&id)?
            && hanging(&node, None).any(|(_, parent, at)| parent == *dir && at == name)
        {
            let shown = Shown::node(id);
            return Ok(Some((shown, self.attr_of_node(core, shown, &node))));
        }
        let dirs = places::group(&core.tree, dir)?;
        let found = View::new(&core.tree).lookup(&dirs, name)?;
        Ok(found.map(|found| (Self::shown(&found), self.attr_of_entry(core, &found))))
    }

    fn parent_of(&self, handle: &DirHandle) -> Result<Option<Ino>> {
        let core = self.shared().core.read();
        let parent = places::parent_of(&core.tree, &handle.shown.node)?;
        Ok(parent.map(|parent| self.shared().inodes.lock().number(Shown::node(parent))))
    }

    /// Closes a directory.
    pub fn releasedir(&self, ino: Ino, fh: Fh) {
        let _ino = ino;
        self.shared().handles.close_dir(fh);
    }

    /// Waits for the barrier under every policy.
    ///
    /// `done` gets what the save failed with.
    pub fn fsyncdir(&self, ino: Ino, done: Done) {
        let target = self.target(&self.shared().core.read(), ino);
        match target {
            Ok(_) => self.save_then(done),
            Err(err) => done(Err(err)),
        }
    }
}
