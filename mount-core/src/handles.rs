//! Open handles.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use cairnfs_merge::{Kind, Listed, Name, NodeId, Tree, View};

use crate::{
    Error, Fh, OpenFlags, Result,
    file::{Data, File},
    inodes::Shown,
    order::{self, Mutex, RwLock},
    places,
};

/// Names read from the tree at once.
const PAGE_NAMES: usize = 1024;

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
    pub(crate) shown: Shown,
    pub(crate) listing: Mutex<Listing, order::Listing>,
}

/// The part of a directory that was read.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) names: Vec<(Name, NodeId, Kind)>,
    pub(crate) complete: bool,
}

impl Listing {
    /// Reads the next names of the directory `dir`; `false` if there are no more.
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
        let after = self.names.last().map(|(name, ..)| name.clone());
        let view = View::new(tree);
        // Each page would cost all contested names.
        let limit = if view.has_contested(&dirs)? { usize::MAX } else { PAGE_NAMES };
        let page = view.list(&dirs, after.as_ref(), limit)?;
        self.complete = page.len() < limit;
        let any = !page.is_empty();
        self.names.extend(page.into_iter().map(|Listed { name, kind, id }| (name, id, kind)));
        Ok(any)
    }
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

    pub(crate) fn open_dir(&self, shown: Shown) -> Fh {
        let fh = self.fresh();
        let handle = DirHandle { shown, listing: Mutex::default() };
        self.dirs.write().insert(fh, Arc::new(handle));
        fh
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
