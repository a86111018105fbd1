//! Directory listings.

use cairnfs_merge::{Kind, Name, NodeId, Tree, View, hanging};

use super::{Mount, Target};
use crate::{
    Attr, DirEntry, Done, Error, Fh, Ino, Result,
    handles::Listing,
    inodes::{Bound, Shown},
    places,
    shared::Core,
};

/// Positions of `.` and `..`; the name at index `i` is at `i + NAMES_AT`.
const NAMES_AT: u64 = 2;

/// What a listing tells of a name.
pub(super) struct Told {
    pub(super) ino: Ino,
    pub(super) kind: Kind,
    /// If there is one, the kernel has been told of `ino`.
    pub(super) attr: Option<Attr>,
}

impl Mount {
    /// Opens a directory.
    ///
    /// # Errors
    ///
    /// [`Error::NotDir`], [`Error::Stale`], damage.
    pub fn opendir(&self, ino: Ino) -> Result<Fh> {
        let core = self.shared().core.read();
        match self.target(&core, ino)? {
            Target::Named(_, node) if !node.kind.is_dir() => Err(Error::NotDir),
            Target::Named(..) | Target::RemovedDir(..) => Ok(self.shared().handles.open_dir(ino)),
            Target::Nameless(_) => Err(Error::NotDir),
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
        let dots = [ino, self.parent_of(ino)?.unwrap_or(ino)];
        hand_over(
            &mut listing,
            (dots, offset),
            // The lock is let go after each page.
            |listing| {
                let core = self.shared().core.read();
                // It may be there again, as another one.
                if matches!(self.target(&core, ino), Ok(Target::RemovedDir(..))) {
                    return Ok(false);
                }
                listing.read_page(&core.tree, &self.listed(ino)?)
            },
            |(name, id, kind)| self.list_one(ino, name, *id, *kind, with_attrs),
            |told| self.shared().inodes.lock().forget(told, 1),
            take,
        )
    }

    /// The directory that was opened as `ino`, which may have gone since, or begun anew.
    ///
    /// # Errors
    ///
    /// [`Error::Stale`].
    fn listed(&self, ino: Ino) -> Result<NodeId> {
        match self.shared().inodes.lock().resolve(ino) {
            Some(Bound::Shown(shown) | Bound::Replaced(shown) | Bound::RemovedDir(shown, _)) => {
                Ok(shown.node)
            }
            Some(Bound::Orphan(_)) | None => Err(Error::Stale),
        }
    }

    /// What is listed of `name` in the directory `dir`, which was `id` when the page was read; `None` if
    /// it has gone since.
    fn list_one(
        &self,
        dir: Ino,
        name: &Name,
        id: NodeId,
        kind: Kind,
        with_attrs: bool,
    ) -> Result<Option<Told>> {
        let core = self.shared().core.read();
        let (mut shown, mut attr): (_, Option<Attr>) = (Shown::node(id), None);
        if with_attrs || !core.tree.is_at_peace()? {
            match self.find_listed(&core, &self.listed(dir)?, name, id) {
                Ok(None) => return Ok(None),
                Ok(Some((known, found))) => {
                    shown = known;
                    attr = found.ok().filter(|_| with_attrs);
                }
                // One damaged node must not hide the others: whoever looks it up hears of it.
                Err(err) => log::warn!("readdir node={id} reason={err}"),
            }
        }
        let ino = self.shared().inodes.lock().number(shown);
        Ok(Some(Told { ino, kind: attr.map_or(kind, |attr| attr.kind), attr }))
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

    fn parent_of(&self, dir: Ino) -> Result<Option<Ino>> {
        let core = self.shared().core.read();
        let parent = places::parent_of(&core.tree, &self.listed(dir)?)?;
        Ok(parent.map(|parent| self.shared().inodes.lock().number(Shown::node(parent))))
    }

    /// Closes a directory.
    pub fn releasedir(&self, fh: Fh) {
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

/// Hands the entries of a directory to `take`, as [`Mount::readdir`] does.
///
/// `read_page` reads more names, `tell` says what one of them shows, if it is there still. The kernel
/// is to `forget` what it was told of and had no room for.
pub(super) fn hand_over(
    listing: &mut Listing,
    (dots, offset): ([Ino; 2], u64),
    read_page: impl Fn(&mut Listing) -> Result<bool>,
    tell: impl Fn(&(Name, NodeId, Kind)) -> Result<Option<Told>>,
    forget: impl Fn(Ino),
    take: &mut dyn FnMut(DirEntry) -> bool,
) -> Result<()> {
    for (next, name, ino) in [(1, b".".as_slice(), dots[0]), (2, b"..", dots[1])] {
        let (name, kind) = (name.to_vec(), Kind::Dir);
        if offset < next && !take(DirEntry { name, ino, kind, next, attr: None }) {
            return Ok(());
        }
    }
    let first = usize::try_from(offset.saturating_sub(NAMES_AT)).unwrap_or(usize::MAX);
    for index in first.. {
        while index >= listing.names.len() {
            if !read_page(listing)? {
                return Ok(());
            }
        }
        let listed = &listing.names[index];
        let Some(Told { ino, kind, attr }) = tell(listed)? else { continue };
        let (name, next) = (listed.0.as_bytes().to_vec(), index as u64 + NAMES_AT + 1);
        if !take(DirEntry { name, ino, kind, next, attr }) {
            if attr.is_some() {
                forget(ino);
            }
            break;
        }
    }
    Ok(())
}
