//! Open handles.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use cairnfs_merge::{Kind, Listed, Name, NodeId, Tree, View};

use crate::{
    Error, Fh, Ino, OpenFlags, Result,
    file::{Data, File},
    order::{self, Mutex, RwLock},
    places,
};

/// Names read from the tree at once.
const PAGE_NAMES: usize = 1024;
/// Contested names read at once: for each the nodes of all that claim it are read.
const PAGE_CONTESTED: usize = 32;

/// All open handles of a mount.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    files: RwLock<HashMap<Fh, Arc<FileHandle>>, order::FileHandles>,
    dirs: RwLock<HashMap<Fh, Arc<DirHandle>>, order::DirHandles>,
    last: AtomicU64,
}

/// One open file.
#[derive(Debug)]
pub(crate) struct FileHandle {
    pub(crate) file: Arc<File>,
    pub(crate) flags: OpenFlags,
}

/// One open directory: the names as far as they were read, so that a position stays what it was
/// however the directory changes.
#[derive(Debug)]
pub(crate) struct DirHandle {
    /// As what it was opened.
    ino: Ino,
    pub(crate) listing: Mutex<Listing, order::Listing>,
}

/// The part of a directory that was read: first the contested names with their copies, then the others.
/// A page of either costs about the same, however many there are of the other.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) names: Vec<(Name, NodeId, Kind)>,
    /// The contested names that are still to come; none before the first page.
    contested: Option<BTreeSet<Name>>,
    /// Names that were contested or copies when they were read: they may be like any other by now.
    known: BTreeSet<Name>,
    /// The last of the others that was read.
    after: Option<Name>,
    complete: bool,
}

impl Listing {
    /// Reads some more names of the directory `dir`, none perhaps; `false` if there are no more.
    ///
    /// # Errors
    ///
    /// Damage in the tree.
    pub(crate) fn read_page<T: Tree<Data, Error = Error>>(
        &mut self,
        tree: &T,
        dir: &NodeId,
    ) -> Result<bool> {
        if self.complete {
            return Ok(false);
        }
        let dirs = places::group(tree, dir)?;
        let view = View::new(tree);
        let contested = match &mut self.contested {
            Some(contested) => contested,
            None => self.contested.insert(contested_in(tree, &dirs)?),
        };
        if contested.is_empty() {
            let page = view.page(&dirs, self.after.as_ref(), PAGE_NAMES)?;
            let names = page.names.into_values().filter(|it| !self.known.contains(&it.name));
            self.names.extend(names.map(|Listed { name, kind, id }| (name, id, kind)));
            self.complete = page.end.is_none();
            self.after = page.end;
            return Ok(true);
        }
        for _ in 0..PAGE_CONTESTED {
            let Some(slot) = contested.first() else { break };
            for entry in view.claimed(&dirs, slot)? {
                self.known.insert(entry.name.clone());
                self.names.push((entry.name.clone(), entry.id(), entry.kind));
            }
            self.known.extend(contested.pop_first());
        }
        Ok(true)
    }
}

/// The contested names in the united directories `dirs`.
fn contested_in<T: Tree<Data, Error = Error>>(tree: &T, dirs: &[NodeId]) -> Result<BTreeSet<Name>> {
    let mut names = BTreeSet::new();
    for dir in dirs {
        names.extend(tree.contested(dir)?);
    }
    Ok(names)
}

impl Handles {
    fn fresh(&self) -> Fh {
        // Only distinctness matters.
        Fh(self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) fn open_file(&self, file: Arc<File>, flags: OpenFlags) -> Fh {
        let fh = self.fresh();
        self.files.write().insert(fh, Arc::new(FileHandle { file, flags }));
        fh
    }

    /// # Errors
    ///
    /// [`Error::BadHandle`].
    pub(crate) fn file(&self, fh: Fh) -> Result<Arc<FileHandle>> {
        self.files.read().get(&fh).cloned().ok_or(Error::BadHandle)
    }

    pub(crate) fn close_file(&self, fh: Fh) -> Option<Arc<FileHandle>> {
        self.files.write().remove(&fh)
    }

    pub(crate) fn open_dir(&self, ino: Ino) -> Fh {
        let fh = self.fresh();
        self.dirs.write().insert(fh, Arc::new(DirHandle { ino, listing: Mutex::default() }));
        fh
    }

    /// The directories that are open.
    pub(crate) fn open_dirs(&self) -> BTreeSet<Ino> {
        self.dirs.read().values().map(|handle| handle.ino).collect()
    }

    /// # Errors
    ///
    /// [`Error::BadHandle`].
    pub(crate) fn dir(&self, fh: Fh) -> Result<Arc<DirHandle>> {
        self.dirs.read().get(&fh).cloned().ok_or(Error::BadHandle)
    }

    pub(crate) fn close_dir(&self, fh: Fh) {
        self.dirs.write().remove(&fh);
    }

    pub(crate) fn count(&self) -> u64 {
        let files = self.files.read().len();
        (files + self.dirs.read().len()) as u64
    }
}
