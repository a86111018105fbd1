//! `stat` and what changes it.

use std::sync::Arc;

use cairnfs_merge::{Content as Value, Entry, Node, Tree};

use super::{Mount, Target};
use crate::{
    Attr, Error, Fh, Ino, Outdated, Result, SetAttr, Time, TimeOrNow,
    file::{Content, Data, File},
    inodes::{Orphan, Shown},
    places,
    shared::Core,
    tree::attrs::{self, Meta},
};

/// The unit of `st_blocks`.
const STAT_BLOCK_BYTES: u64 = 512;

impl Mount {
    /// What `stat` shows of `ino`; of an open file also when it has lost its name.
    ///
    /// # Errors
    ///
    /// [`Error::Stale`], damage.
    pub fn getattr(&self, ino: Ino) -> Result<Attr> {
        let core = self.shared().core.read();
        let target = self.target(&core, ino)?;
        let attr = match &target {
            Target::Named(shown, node) => self.attr(&core, *shown, node)?,
            Target::Nameless(orphan) => orphan_attr(ino, orphan),
            Target::RemovedDir(shown, node) => plain_attr(ino, *shown, node),
        };
        Ok(self.shared().owners(&core.tree)?.shown(Attr { ino, ..attr }))
    }

    /// Changes attributes. A file that is cut or extended by it counts as written to. Whether the
    /// caller may is for whoever calls this to check.
    ///
    /// # Errors
    ///
    /// [`Error::Stale`], [`Error::IsDir`] for the length of a directory, [`Error::TooLarge`],
    /// [`Error::ReadOnly`], damage.
    pub fn setattr(&self, ino: Ino, fh: Option<Fh>, changes: SetAttr) -> Result<Attr> {
        self.shared().writable()?;
        if let Some(len) = changes.size {
            self.set_len(ino, fh, len)?;
        }
        let others = SetAttr { size: None, ..changes };
        if others != SetAttr::default() {
            let core = self.shared().core.read();
            let target = self.target(&core, ino)?;
            let others = self.shared().owners(&core.tree)?.meant(others);
            let is_so = match &target {
                // A copy is not parted for nothing: a recursive chmod has reached it with the name before.
                Target::Named(shown, node) if shown.copy.is_some() => {
                    is_so(&self.attr(&core, *shown, node)?, &others)
                }
                _ => false,
            };
            drop(core);
            match target {
                _ if is_so => (),
                Target::Named(shown, node) => {
                    self.set_attrs(self.apart(shown, &node)?, others)?;
                    self.tell_other_number(ino);
                }
                Target::Nameless(orphan) => self.set_orphan_attrs(&orphan, others),
                Target::RemovedDir(..) => return Err(Error::NotFound),
            }
        }
        self.getattr(ino)
    }

    /// What `shown` is once its attributes can be set and no other version's: of a conflict copy that
    /// is one of several versions of `node`, a file of its own.
    pub(super) fn apart(&self, shown: Shown, node: &Node<Data>) -> Result<Shown> {
        if node.content.len() < 2 {
            return Ok(shown);
        }
        self.with_core(|core| self.shared().own_copy(core, shown))
    }

    fn set_attrs(&self, shown: Shown, changes: SetAttr) -> Result<()> {
        self.change_and(
            |change| {
                let ids = match change.edit.tree().node(&shown.node)? {
                    Some(node) if !node.kind.is_dir() => vec![shown.node],
                    _ => places::group(change.edit.tree(), &shown.node)?,
                };
                for id in ids {
                    let edit = &mut change.edit;
                    if let Some(mode) = changes.mode {
                        edit.set_attr(&id, attrs::mode_key(), Some(attrs::number(mode & 0o7777)))?;
                    }
                    if let Some(uid) = changes.uid {
                        edit.set_attr(&id, attrs::uid_key(), Some(attrs::number(uid)))?;
                    }
                    if let Some(gid) = changes.gid {
                        edit.set_attr(&id, attrs::gid_key(), Some(attrs::number(gid)))?;
                    }
                    let (now, atime) = (change.now, changes.atime);
                    match changes.mtime {
                        // As if it had been written to: nobody has chosen a time.
                        Some(TimeOrNow::Now) => attrs::set_written(edit, &id, now)?,
                        Some(TimeOrNow::At(mtime)) => {
                            edit.set_attr(&id, attrs::mtime_key(), Some(attrs::encode(&mtime)))?;
                        }
                        None => (),
                    }
                    attrs::change_times(edit, &id, |times| {
                        times.ctime = now;
                        times.atime = atime.map_or(times.atime, |atime| resolve(atime, now));
                    })?;
                }
                Ok(())
            },
            |core, ()| {
                if let Some(file) = core.files.get(&shown)
                    && changes.mtime.is_some()
                {
                    file.lock().forget_written();
                }
                Ok(())
            },
        )
    }

    fn set_orphan_attrs(&self, orphan: &Orphan, changes: SetAttr) {
        let mut node = Node::clone(&orphan.node);
        let mut meta = Meta::of(&node, orphan.shown.copy.as_ref());
        let now = Time::now();
        meta.mode = changes.mode.unwrap_or(meta.mode) & 0o7777;
        meta.uid = changes.uid.unwrap_or(meta.uid);
        meta.gid = changes.gid.unwrap_or(meta.gid);
        meta.times.ctime = now;
        if let Some(atime) = changes.atime {
            meta.times.atime = resolve(atime, now);
        }
        if let Some(mtime) = changes.mtime {
            meta.times.mtime = resolve(mtime, now);
            orphan.file.lock().forget_written();
        }
        attrs::overwrite(&mut node, &meta);
        self.shared().inodes.lock().update_orphan(&orphan.file, &Arc::new(node));
    }

    /// The attributes of a looked-up entry; the kernel is told its inode number.
    pub(super) fn attr_of_entry(&self, core: &Core, entry: &Entry<Data>) -> Result<Attr> {
        let shown = Self::shown(entry);
        let node = core.tree.node(&shown.node)?.ok_or(Error::Stale)?;
        self.attr_of_node(core, shown, &node)
    }

    /// The attributes of what is shown; the kernel is told its inode number.
    pub(super) fn attr_of_node(
        &self,
        core: &Core,
        shown: Shown,
        node: &Node<Data>,
    ) -> Result<Attr> {
        let attr = self.attr(core, shown, node)?;
        let newborn = shown.node.born() == Some(core.op);
        self.shared().inodes.lock().told(attr.ino, newborn);
        Ok(self.shared().owners(&core.tree)?.shown(attr))
    }

    /// Of the owner as the tree has it.
    fn attr(&self, core: &Core, shown: Shown, node: &Node<Data>) -> Result<Attr> {
        let ino = self.shared().inodes.lock().number(shown);
        let mut attr = plain_attr(ino, shown, node);
        if node.kind.is_dir() {
            let dirs = places::group(&core.tree, &shown.node)?;
            attr.nlink = dir_links(core.tree.count_subdirs(&dirs)?);
            return Ok(attr);
        }
        attr.nlink = u32::try_from(node.link_count()).unwrap_or(u32::MAX);
        match core.files.get(&shown) {
            Some(file) => add_content(&mut attr, &file.lock()),
            None => {
                if let Some(value) = places::content_of(&core.tree, &shown, node)? {
                    add_sealed(&mut attr, &value);
                }
            }
        }
        Ok(attr)
    }

    /// Cuts or extends a file.
    pub(super) fn set_len(&self, ino: Ino, fh: Option<Fh>, len: u64) -> Result<()> {
        let cut = |content: &mut Content| content.set_len(len, Time::now());
        let grown = match fh {
            Some(fh) => self.write_to(ino, &self.shared().handles.file(fh)?.file, cut)?,
            None => self.with_content(ino, cut)?,
        };
        self.shared().room.account(grown?);
        self.changed();
        Ok(())
    }

    /// Changes the content behind `ino`, or opens it, while it cannot be dropped from the table.
    pub(super) fn with_content<R>(
        &self,
        ino: Ino,
        change: impl FnOnce(&mut Content) -> R,
    ) -> Result<R> {
        self.with_core(|core| {
            self.shared().writable()?;
            let file = self.load_content(core, ino)?;
            self.claim(core, ino, &file)?;
            Ok(change(&mut file.lock()))
        })
        .inspect(|_changed| self.tell_other_number(ino))
    }

    /// Changes the open content `file`, known as `ino`; what a merge has parted from its name
    /// becomes a file of its own first.
    pub(super) fn write_to<R>(
        &self,
        ino: Ino,
        file: &Arc<File>,
        change: impl FnOnce(&mut Content) -> R,
    ) -> Result<R> {
        loop {
            let mut content = file.lock();
            if content.claim().is_none() {
                let changed = change(&mut content);
                drop(content);
                self.tell_other_number(ino);
                return Ok(changed);
            }
            drop(content);
            self.with_core(|core| {
                self.shared().writable()?;
                self.claim(core, ino, file)
            })?;
        }
    }

    /// What was changed as `ino` is known to the kernel under another number too, if it has replaced the
    /// file of that number: what it knows under that one is outdated.
    pub(super) fn tell_other_number(&self, ino: Ino) {
        let other = self.shared().inodes.lock().other_number(ino);
        if let Some(other) = other {
            self.shared().tell_outdated(&[Outdated::Inode(other)]);
        }
    }

    /// What a merge has parted from its name becomes a file of its own; the kernel is told.
    fn claim(&self, core: &mut Core, ino: Ino, file: &Arc<File>) -> Result<()> {
        let mut outdated = Vec::new();
        let claimed = self.shared().claim(core, ino, file, &mut outdated);
        self.shared().tell_outdated(&outdated);
        claimed
    }
}

/// Whether nothing is left for `changes` to change but the time of the last change itself.
fn is_so(attr: &Attr, changes: &SetAttr) -> bool {
    let is_at = |time: Option<TimeOrNow>, is| time.is_none_or(|time| time == TimeOrNow::At(is));
    changes.mode.is_none_or(|mode| mode & 0o7777 == attr.mode)
        && changes.uid.is_none_or(|uid| uid == attr.uid)
        && changes.gid.is_none_or(|gid| gid == attr.gid)
        && is_at(changes.mtime, attr.mtime)
        && is_at(changes.atime, attr.atime)
}

fn resolve(time: TimeOrNow, now: Time) -> Time {
    match time {
        TimeOrNow::Now => now,
        TimeOrNow::At(time) => time,
    }
}

/// The links of a directory: its name, its `.`, and the `..` of each directory in it.
pub(super) fn dir_links(subdirs: u64) -> u32 {
    u32::try_from(subdirs).unwrap_or(u32::MAX - 2).saturating_add(2)
}

/// What the node alone tells of what is shown.
pub(super) fn plain_attr(ino: Ino, shown: Shown, node: &Node<Data>) -> Attr {
    let Meta { mode, uid, gid, times } = Meta::of(node, shown.copy.as_ref());
    Attr {
        ino,
        kind: node.kind,
        mode,
        nlink: 0,
        uid,
        gid,
        rdev: 0,
        size: 0,
        blocks: 0,
        atime: times.atime,
        mtime: times.mtime,
        ctime: times.ctime,
        btime: times.btime,
    }
}

/// What the tree tells of a content.
pub(super) fn add_sealed(attr: &mut Attr, content: &Value<Data>) {
    attr.size = content.len;
    attr.blocks = content.body.stored_bytes().div_ceil(STAT_BLOCK_BYTES);
    if let Data::Device(rdev) = content.body {
        attr.rdev = rdev;
    }
}

/// What a loaded content knows better than the tree.
fn add_content(attr: &mut Attr, content: &Content) {
    attr.size = content.len();
    attr.blocks = content.stored_bytes().div_ceil(STAT_BLOCK_BYTES);
    if let Some(written) = content.written() {
        attr.mtime = written;
        attr.ctime = attr.ctime.max(written);
    }
}

fn orphan_attr(ino: Ino, orphan: &Orphan) -> Attr {
    let mut attr = plain_attr(ino, orphan.shown, &orphan.node);
    add_content(&mut attr, &orphan.file.lock());
    attr
}
