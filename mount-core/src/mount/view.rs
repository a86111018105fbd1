//! An older version as a file system: the calls that look and read, and none that changes anything.
//!
//! Nothing here ever changes, so that no lock is held while the tree is read, and whoever asks may
//! remember every answer. Inode numbers are those of the live file system as far as it had them.

use std::{sync::Arc, time::SystemTime};

use cairnfs_merge::{Name, Node, NodeId, Tree, View};

use super::{
    Mount, Past,
    attrs::{add_sealed, dir_links, plain_attr},
    dirs::{Told, hand_over},
    xattrs::{names_of, value_of},
};
use crate::{
    Attr, DirEntry, Error, Fh, Ino, Kind, OpenFlags, Result, StatFs, Whence,
    file::{Base, Data, File},
    handles::Handles,
    inodes::{Bound, Inodes, Shown},
    order::{self, Mutex},
    places,
};

/// A version that is shown. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PastView {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: [u8; 32],
    time: SystemTime,
    /// None once it has ended.
    past: Mutex<Option<Arc<Past>>, order::Past>,
    inodes: Mutex<Inodes, order::Inodes>,
    handles: Handles,
}

impl PastView {
    /// Shows `past` until it is [ended](Self::end).
    #[must_use]
    pub fn new(past: Past) -> Self {
        let devices = past.mount().shared().inodes.lock().devices().to_vec();
        let inner = Inner {
            id: past.id(),
            time: past.time(),
            past: Mutex::new(Some(Arc::new(past))),
            inodes: Mutex::new(Inodes::new(devices)),
            handles: Handles::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The version's id.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        self.inner.id
    }

    /// When it was published.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        self.inner.time
    }

    /// Lets the version go. Every call from now on is [`Error::Stopped`], and the bucket is free once
    /// those under way have been answered.
    pub fn end(&self) {
        let past = self.inner.past.lock().take();
        drop(past);
    }

    fn past(&self) -> Result<Arc<Past>> {
        self.inner.past.lock().clone().ok_or(Error::Stopped)
    }

    /// The entry `name` of the directory `parent`.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NotDir`], [`Error::NameTooLong`], [`Error::Stopped`]; damage, also
    /// if a part of the version was given up for space before it was shown.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        let past = self.past()?;
        let (shown, node) = self.target(&past, parent)?;
        if !node.kind.is_dir() {
            return Err(Error::NotDir);
        }
        let dirs = places::group(&past.tree, &shown.node)?;
        let entry = View::new(&past.tree).lookup(&dirs, &Name::new(name)?)?;
        let shown = Mount::shown(&entry.ok_or(Error::NotFound)?);
        self.tell(&past, shown)
    }

    /// The kernel forgets `count` lookups of `ino`.
    pub fn forget(&self, ino: Ino, count: u64) {
        self.inner.inodes.lock().forget(ino, count);
    }

    /// What `stat` shows of `ino`.
    ///
    /// # Errors
    ///
    /// [`Error::Stale`], [`Error::Stopped`], damage.
    pub fn getattr(&self, ino: Ino) -> Result<Attr> {
        let past = self.past()?;
        let (shown, node) = self.target(&past, ino)?;
        Ok(Attr { ino, ..attr_of(&past, shown, &node)? })
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for anything else; as [`PastView::getattr`].
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        let past = self.past()?;
        let (shown, node) = self.target(&past, ino)?;
        if node.kind != Kind::Symlink {
            return Err(Error::Invalid("not a symbolic link"));
        }
        past.link_target(places::content_of(&past.tree, &shown, &node)?.as_ref())
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// [`Error::IsDir`], [`Error::Invalid`] for what has no content; as [`PastView::getattr`].
    pub fn open(&self, ino: Ino) -> Result<Fh> {
        let past = self.past()?;
        let (shown, node) = self.target(&past, ino)?;
        match node.kind {
            Kind::File => (),
            Kind::Dir => return Err(Error::IsDir),
            _ => return Err(Error::Invalid("not a regular file")),
        }
        let content = places::content_of(&past.tree, &shown, &node)?;
        let base = content.map_or_else(Base::empty, |content| Base::new(content.body, content.len));
        Ok(self.inner.handles.open_file(Arc::new(File::new(base)), OpenFlags::default()))
    }

    /// Up to `len` bytes from `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    ///
    /// [`Error::BadHandle`]; [`Error::Damaged`] if a chunk is missing or was changed;
    /// [`Error::Stopped`].
    pub fn read(&self, fh: Fh, offset: u64, len: u32) -> Result<Vec<u8>> {
        let past = self.past()?;
        let handle = self.inner.handles.file(fh)?;
        let extract = handle.file.lock().extract(offset, u64::from(len));
        extract.read(&past.tree.vault)
    }

    /// The next data or hole at or after `offset`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchOffset`]; as [`PastView::read`].
    pub fn seek(&self, fh: Fh, offset: u64, whence: Whence) -> Result<u64> {
        let past = self.past()?;
        let handle = self.inner.handles.file(fh)?;
        let extract = handle.file.lock().extract(offset, u64::MAX);
        extract.seek(&past.tree.vault, whence)
    }

    /// Closes a file.
    pub fn release(&self, fh: Fh) {
        drop(self.inner.handles.close_file(fh));
    }

    /// Opens a directory.
    ///
    /// # Errors
    ///
    /// [`Error::NotDir`]; as [`PastView::getattr`].
    pub fn opendir(&self, ino: Ino) -> Result<Fh> {
        let past = self.past()?;
        let (_, node) = self.target(&past, ino)?;
        if node.kind.is_dir() { Ok(self.inner.handles.open_dir(ino)) } else { Err(Error::NotDir) }
    }

    /// Hands entries to `take` from position `offset` (0, or the `next` of an entry) until it says
    /// that it is full by returning `false` (that entry is not consumed). Begins with `.` and `..`.
    ///
    /// # Errors
    ///
    /// [`Error::BadHandle`], [`Error::Stopped`], damage.
    pub fn readdir(
        &self,
        ino: Ino,
        fh: Fh,
        offset: u64,
        with_attrs: bool,
        take: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<()> {
        let past = self.past()?;
        let handle = self.inner.handles.dir(fh)?;
        let dir = self.target(&past, ino)?.0.node;
        let mut listing = handle.listing.lock();
        let parent = places::parent_of(&past.tree, &dir)?
            .map_or(ino, |parent| self.inner.inodes.lock().number(Shown::node(parent)));
        hand_over(
            &mut listing,
            ([ino, parent], offset),
            |listing| listing.read_page(&past.tree, &dir),
            |(name, id, kind)| Ok(Some(self.list_one(&past, (&dir, name), *id, *kind, with_attrs))),
            |told| self.forget(told, 1),
            take,
        )
    }

    /// What is listed of a name of a directory, which is `id`.
    fn list_one(
        &self,
        past: &Past,
        (dir, name): (&NodeId, &Name),
        id: NodeId,
        kind: Kind,
        with_attrs: bool,
    ) -> Told {
        let told = shown_as(past, dir, name, id).and_then(|shown| {
            let attr = if with_attrs { Some(self.tell(past, shown)?) } else { None };
            Ok((shown, attr))
        });
        let (shown, attr) = told.unwrap_or_else(|err| {
            // One damaged node must not hide the others: whoever looks it up hears of it.
            log::warn!("readdir node={id} reason={err}");
            (Shown::node(id), None)
        });
        let ino = attr.map_or_else(|| self.inner.inodes.lock().number(shown), |attr| attr.ino);
        Told { ino, kind, attr }
    }

    /// Closes a directory.
    pub fn releasedir(&self, fh: Fh) {
        self.inner.handles.close_dir(fh);
    }

    /// The value of an extended attribute.
    ///
    /// # Errors
    ///
    /// [`Error::NoXattr`]; as [`PastView::getattr`].
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        let (shown, node) = self.target(&*self.past()?, ino)?;
        value_of(&node.attrs_of(shown.copy.as_ref()), name)
    }

    /// The names of extended attributes, each ended by a NUL, as `listxattr` returns them.
    ///
    /// # Errors
    ///
    /// As [`PastView::getattr`].
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<u8>> {
        let (shown, node) = self.target(&*self.past()?, ino)?;
        Ok(names_of(&node.attrs_of(shown.copy.as_ref())))
    }

    /// What `statfs` shows: what it does of the live file system.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`], [`Error::Io`].
    pub fn statfs(&self) -> Result<StatFs> {
        self.past()?.mount().statfs()
    }

    /// What `ino` stands for.
    fn target(&self, past: &Past, ino: Ino) -> Result<(Shown, Arc<Node<Data>>)> {
        let bound = self.inner.inodes.lock().resolve(ino);
        let Some(Bound::Shown(shown)) = bound else { return Err(Error::Stale) };
        Ok((shown, node_of(past, &shown)?))
    }

    /// The attributes of what is shown; the kernel is told its inode number.
    fn tell(&self, past: &Past, shown: Shown) -> Result<Attr> {
        let attr = attr_of(past, shown, &*node_of(past, &shown)?)?;
        let mut inodes = self.inner.inodes.lock();
        let ino = inodes.number(shown);
        inodes.told(ino, false);
        Ok(Attr { ino, ..attr })
    }
}

fn node_of(past: &Past, shown: &Shown) -> Result<Arc<Node<Data>>> {
    match past.tree.node(&shown.node)? {
        Some(node) => Ok(node),
        // The root has a node only once it has attributes.
        None if shown.node == NodeId::Root => Ok(Arc::new(Node::empty(Kind::Dir))),
        None => Err(Error::Stale),
    }
}

/// What the name `name` of the directory `dir`, listed as `id`, shows.
fn shown_as(past: &Past, dir: &NodeId, name: &Name, id: NodeId) -> Result<Shown> {
    if past.tree.is_at_peace()? {
        return Ok(Shown::node(id));
    }
    let dirs = places::group(&past.tree, dir)?;
    let entry = View::new(&past.tree).lookup(&dirs, name)?.ok_or(Error::NotFound)?;
    Ok(Mount::shown(&entry))
}

/// The attributes of what is shown, without its number.
fn attr_of(past: &Past, shown: Shown, node: &Node<Data>) -> Result<Attr> {
    let mut attr = past.owners.shown(plain_attr(Ino(0), shown, node));
    if node.kind.is_dir() {
        let dirs = places::group(&past.tree, &shown.node)?;
        attr.nlink = dir_links(past.tree.count_subdirs(&dirs)?);
        return Ok(attr);
    }
    attr.nlink = u32::try_from(node.link_count()).unwrap_or(u32::MAX);
    if let Some(content) = places::content_of(&past.tree, &shown, node)? {
        add_sealed(&mut attr, &content);
    }
    Ok(attr)
}
