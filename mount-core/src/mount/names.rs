//! Calls that look names up, make, move and remove them.

use std::sync::Arc;

use cairnfs_merge::{
    Content as Value, ContentId, Entry, LinkId, Name, NewNode, Node, NodeId, Tree,
};

use super::{Change, Mount, Target};
use crate::{
    Attr, Caller, Error, Fh, Ino, Kind, OpenFlags, RenameMode, Result,
    file::{Base, Data},
    inodes::Shown,
    places,
    shared::Core,
    tree::{
        attrs::{self, Times},
        limits::{LINKS_MAX, TARGET_BYTES_MAX},
    },
};

const SET_GID: u32 = 0o2000;

impl Mount {
    /// The entry `name` of the directory `parent`.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NotDir`], [`Error::NameTooLong`], damage.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        let core = self.shared().core.read();
        let entry = self.entry(&core, parent, name)?;
        self.attr_of_entry(&core, &entry)
    }

    /// The kernel forgets `count` lookups of `ino`.
    pub fn forget(&self, ino: Ino, count: u64) {
        self.shared().inodes.lock().forget(ino, count);
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for anything else; [`Error::Stale`], damage.
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        let core = self.shared().core.read();
        let value = match self.target(&core, ino)? {
            Target::Named(shown, node) if node.kind == Kind::Symlink => {
                places::content_of(&core.tree, &shown, &node)?
            }
            Target::Nameless(orphan) if orphan.node.kind == Kind::Symlink => {
                orphan.node.contents().first().map(|(_, value)| (*value).clone())
            }
            _ => return Err(Error::Invalid("not a symbolic link")),
        };
        match value {
            Some(Value { body: Data::Inline(target), .. }) => Ok(target),
            // Longer targets than fit a node are kept as any other content.
            Some(Value { body, len, .. }) if len <= TARGET_BYTES_MAX => {
                self.read_sealed(&Base::new(body, len))
            }
            _ => Err(Error::Damaged { what: "a symbolic link without a target".into() }),
        }
    }

    /// Makes a file, fifo, socket or device. `mode` has the umask applied.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`], [`Error::NotDir`], [`Error::NameTooLong`], [`Error::ReadOnly`], damage.
    pub fn mknod(
        &self,
        caller: Caller,
        parent: Ino,
        name: &[u8],
        kind: Kind,
        mode: u32,
        rdev: u32,
    ) -> Result<Attr> {
        let data = match kind {
            Kind::CharDevice | Kind::BlockDevice => Data::Device(rdev),
            _ => Data::EMPTY,
        };
        self.make(caller, parent, name, kind, mode, Some(Base::new(data, 0)))
    }

    /// Makes a directory. `mode` has the umask applied.
    ///
    /// # Errors
    ///
    /// As [`Mount::mknod`].
    pub fn mkdir(&self, caller: Caller, parent: Ino, name: &[u8], mode: u32) -> Result<Attr> {
        self.make(caller, parent, name, Kind::Dir, mode, None)
    }

    /// Makes a symbolic link to `target`, which nobody looks at.
    ///
    /// # Errors
    ///
    /// As [`Mount::mknod`]; [`Error::NameTooLong`] for the target too.
    pub fn symlink(&self, caller: Caller, parent: Ino, name: &[u8], target: &[u8]) -> Result<Attr> {
        if target.len() as u64 > TARGET_BYTES_MAX {
            return Err(Error::NameTooLong);
        }
        let base = Base::new(Data::Inline(target.to_vec()), target.len() as u64);
        self.make(caller, parent, name, Kind::Symlink, 0o777, Some(base))
    }

    /// Makes a file, unless it exists, and opens it.
    ///
    /// # Errors
    ///
    /// As [`Mount::mknod`] and [`Mount::open`]; [`Error::Exists`] only with `flags.exclusive`.
    pub fn create(
        &self,
        caller: Caller,
        parent: Ino,
        name: &[u8],
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Attr, Fh)> {
        let made = self.make(caller, parent, name, Kind::File, mode, Some(Base::empty()));
        let attr = match made {
            Err(Error::Exists) if !flags.exclusive => self.lookup(parent, name)?,
            made => made?,
        };
        let fh = self.open(attr.ino, flags)?;
        match self.getattr(attr.ino) {
            Ok(attr) => Ok((attr, fh)),
            Err(err) => {
                // Nobody learns the handle's number.
                self.release(attr.ino, fh, Box::new(|_| ()));
                Err(err)
            }
        }
    }

    fn make(
        &self,
        caller: Caller,
        parent: Ino,
        name: &[u8],
        kind: Kind,
        mode: u32,
        base: Option<Base>,
    ) -> Result<Attr> {
        let name = Name::new(name)?;
        // Even an empty file takes a record; only removing may use the reserve.
        self.reserve(0)?;
        let parent = self.parent(parent)?;
        self.change_and(
            |change| {
                let caller = self.shared().owners(change.edit.tree())?.caller(caller);
                let Resolved { dirs, gid, gives_gid } = parent.resolve(change)?;
                let (gid, mode) = match (gives_gid, kind) {
                    (true, Kind::Dir) => (gid, mode | SET_GID),
                    (true, _) => (gid, mode),
                    (false, _) => (caller.gid, mode),
                };
                let id = NodeId::Born { op: change.op, n: change.fresh_n() };
                let content = base.map(|base| {
                    let id = ContentId(self.shared().vault.content_id(&base));
                    Value::new(id, base.sealed_len, base.data)
                });
                let attrs = [
                    (attrs::mode_key(), attrs::number(mode & 0o7777)),
                    (attrs::uid_key(), attrs::number(caller.uid)),
                    (attrs::gid_key(), attrs::number(gid)),
                    (attrs::times_key(), attrs::encode(&Times::born(change.now))),
                ];
                let (name, attrs) = (name.clone(), attrs.into_iter().collect());
                change.edit.create(&dirs, NewNode { id, name, kind, content, attrs })?;
                attrs::set_written(&mut change.edit, &dirs[0], change.now)?;
                Ok((dirs, id))
            },
            |core, (_, id)| {
                let node = core.tree.node(&id)?.ok_or(Error::Stale)?;
                self.attr_of_node(core, Shown::node(id), &node)
            },
        )
    }

    /// Gives a file another name.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`], [`Error::NotPermitted`] for a directory, [`Error::TooManyLinks`],
    /// [`Error::Stale`], damage.
    pub fn link(&self, ino: Ino, new_parent: Ino, new_name: &[u8]) -> Result<Attr> {
        let new_name = Name::new(new_name)?;
        self.reserve(0)?;
        let parent = self.parent(new_parent)?;
        let shown = {
            let core = self.shared().core.read();
            match self.target(&core, ino)? {
                Target::Named(_, node) if node.kind.is_dir() => return Err(Error::NotPermitted),
                Target::Named(_, node) if node.link_count() >= LINKS_MAX => {
                    return Err(Error::TooManyLinks);
                }
                Target::Named(shown, _) => shown,
                Target::Nameless(_) => return Err(Error::NotFound),
                Target::RemovedDir(..) => return Err(Error::NotPermitted),
            }
        };
        self.change_and(
            |change| {
                let dirs = parent.resolve(change)?.dirs;
                let entry = places::entry_of(change.edit.tree(), &shown)?.ok_or(Error::Stale)?;
                let entry = change.own(entry)?;
                let id = entry.id();
                let link = LinkId::Later { op: change.op, n: change.fresh_n() };
                change.edit.link(&entry, &dirs, new_name.clone(), link)?;
                change.must_fit(&id, Error::TooManyLinks)?;
                attrs::set_changed(&mut change.edit, &id, change.now)?;
                attrs::set_written(&mut change.edit, &dirs[0], change.now)?;
                Ok(Shown::node(id))
            },
            |core, linked| {
                let node = core.tree.node(&linked.node)?.ok_or(Error::Stale)?;
                self.attr_of_node(core, linked, &node)
            },
        )
    }

    /// Removes a name; with the last one the file, unless it is open.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::IsDir`], [`Error::ReadOnly`], damage.
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Result<()> {
        self.remove(parent, name, |change, entry| {
            change.edit.unlink(entry)?;
            if change.edit.tree().node(&entry.id())?.is_some() {
                attrs::set_changed(&mut change.edit, &entry.id(), change.now)?;
            }
            Ok(())
        })
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NotDir`], [`Error::NotEmpty`], [`Error::ReadOnly`], damage.
    pub fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<()> {
        self.remove(parent, name, |change, entry| Ok(change.edit.rmdir(entry)?))
    }

    fn remove(
        &self,
        parent: Ino,
        name: &[u8],
        remove: impl FnOnce(&mut Change<'_>, &Entry<Data>) -> Result<()>,
    ) -> Result<()> {
        let name = Name::new(name)?;
        let parent = self.parent(parent)?;
        self.change_and(
            |change| {
                let dirs = parent.resolve(change)?.dirs;
                let entry = change.lookup(&dirs, &name)?.ok_or(Error::NotFound)?;
                let old = change.edit.tree().node(&entry.id())?.ok_or(Error::Stale)?;
                remove(change, &entry)?;
                attrs::set_written(&mut change.edit, &dirs[0], change.now)?;
                Ok(Lost { entry, old })
            },
            |core, lost| self.dropped(core, &lost.entry, &lost.old),
        )
    }

    /// Moves a name, in one step that a crash does not split.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Exists`], [`Error::IsDir`], [`Error::NotDir`],
    /// [`Error::NotEmpty`], [`Error::Invalid`] for a directory into itself,
    /// [`Error::TooManyLinks`] if the longer name is too much for a file of many, damage.
    pub fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        new_parent: Ino,
        new_name: &[u8],
        mode: RenameMode,
    ) -> Result<()> {
        let (name, new_name) = (Name::new(name)?, Name::new(new_name)?);
        let (parent, new_parent) = (self.parent(parent)?, self.parent(new_parent)?);
        self.change_and(
            |change| {
                let dirs = parent.resolve(change)?.dirs;
                let new_dirs = new_parent.resolve(change)?.dirs;
                let found = change.lookup(&dirs, &name)?.ok_or(Error::NotFound)?;
                let target = change.lookup(&new_dirs, &new_name)?;
                let mut moved = change.own(found)?;
                let done = match (mode, target) {
                    (RenameMode::NoReplace, Some(_)) => return Err(Error::Exists),
                    (RenameMode::Exchange, None) => return Err(Error::NotFound),
                    (RenameMode::Exchange, Some(other)) => {
                        let other = change.own(other)?;
                        // It may have been a version of the same name.
                        moved = change.lookup(&dirs, &name)?.ok_or(Error::NotFound)?;
                        change.edit.exchange(&moved, &other)?;
                        attrs::set_changed(&mut change.edit, &other.id(), change.now)?;
                        Renamed::Moved { over: None }
                    }
                    (_, Some(over)) if same_file(&moved, &over) => return Ok(Renamed::Nothing),
                    (_, Some(over)) => move_over(change, &moved, over, (&new_dirs, &new_name))?,
                    (_, None) => {
                        change.edit.rename(&moved, &new_dirs, &new_name)?;
                        Renamed::Moved { over: None }
                    }
                };
                let survivor = match &done {
                    Renamed::Replaced(replaced) => replaced.target.entry.id(),
                    _ => moved.id(),
                };
                if moved.kind != Kind::Dir {
                    change.must_fit(&survivor, Error::TooManyLinks)?;
                }
                attrs::set_changed(&mut change.edit, &survivor, change.now)?;
                attrs::set_written(&mut change.edit, &dirs[0], change.now)?;
                if new_dirs != dirs {
                    attrs::set_written(&mut change.edit, &new_dirs[0], change.now)?;
                }
                Ok(done)
            },
            |core, done| match done {
                Renamed::Nothing | Renamed::Moved { over: None } => Ok(()),
                Renamed::Moved { over: Some(lost) } => self.dropped(core, &lost.entry, &lost.old),
                Renamed::Replaced(replaced) => self.replaced(core, &replaced),
            },
        )
    }

    /// `temp` has become `target`: its content and its inode number go with it.
    fn replaced(&self, core: &mut Core, Replaced { temp, target }: &Replaced) -> Result<()> {
        let (from, to) = (Self::shown(temp), Self::shown(&target.entry));
        let old_file = core.files.remove(&to);
        if let Some(file) = old_file {
            file.replaced(to.node);
            self.set_adrift(to, &target.old, file);
        }
        self.shared().inodes.lock().replace(from, to);
        // One that was never written to needs a record as well, over those of the old content.
        let file = core.files.rename(&from, to).or_else(|| {
            let content = temp.content.clone().filter(|_| temp.kind == Kind::File)?;
            Some(core.files.load(to, Base::new(content.body, content.len)))
        });
        if let Some(file) = file {
            file.lock().must_record_all();
        }
        Ok(())
    }

    fn parent(&self, ino: Ino) -> Result<Parent> {
        let core = self.shared().core.read();
        match self.target(&core, ino)? {
            Target::Named(shown, node) if node.kind.is_dir() => Ok(Parent(shown.node)),
            // A removed directory that is still open or somebody's working directory.
            Target::RemovedDir(..) => Err(Error::NotFound),
            Target::Named(..) | Target::Nameless(_) => Err(Error::NotDir),
        }
    }
}

/// An entry that is gone or taken over.
struct Lost {
    entry: Entry<Data>,
    /// Its node before.
    old: Arc<Node<Data>>,
}

/// A temporary file has taken the place of another one.
struct Replaced {
    temp: Entry<Data>,
    target: Lost,
}

/// What a rename came to.
enum Renamed {
    Nothing,
    Moved {
        /// What it went over.
        over: Option<Box<Lost>>,
    },
    Replaced(Box<Replaced>),
}

/// A directory to change, looked at again under the lock.
struct Parent(NodeId);

/// What a [`Parent`] is under the lock.
struct Resolved {
    /// Its united directories.
    dirs: Vec<NodeId>,
    gid: u32,
    /// Whether what is made in it gets its group.
    gives_gid: bool,
}

impl Parent {
    fn resolve(&self, change: &Change<'_>) -> Result<Resolved> {
        let dirs = places::group(change.edit.tree(), &self.0)?;
        let node = change.edit.tree().node(&self.0)?;
        let Some(node) = node else {
            // The root has a node only once it has attributes.
            let is_root = self.0 == NodeId::Root;
            let resolved = Resolved { dirs, gid: 0, gives_gid: false };
            return if is_root { Ok(resolved) } else { Err(Error::NotFound) };
        };
        let meta = attrs::Meta::of(&node, None);
        Ok(Resolved { dirs, gid: meta.gid, gives_gid: meta.mode & SET_GID != 0 })
    }
}

fn same_file(one: &Entry<Data>, other: &Entry<Data>) -> bool {
    one.id() == other.id() && one.kind == other.kind && !one.kind.is_dir()
}

/// Moves a name over another one, which is called `name` in `dirs`.
fn move_over(
    change: &mut Change<'_>,
    moved: &Entry<Data>,
    over: Entry<Data>,
    (dirs, name): (&[NodeId], &Name),
) -> Result<Renamed> {
    let old = change.edit.tree().node(&over.id())?.ok_or(Error::Stale)?;
    if is_save(change, moved, &over)? {
        let mut temp = moved.clone();
        // The tree does not have what was written to it, and a version made just now must not show
        // less than that in the place of the old. Beside other versions it is no longer the old: what
        // is said of it would else be said of that.
        if change.is_changed(&Mount::shown(moved)) {
            temp.content.clone_from(&over.content);
            if let Some(content) = temp.content.as_mut().filter(|_| old.content.len() > 1) {
                content.id = change.shared.vault.id_to_come(&moved.id());
            }
        }
        let own = change.edit.tree().node(&temp.id())?.ok_or(Error::Stale)?.attrs_of(None).to_map();
        change.edit.replace(&temp, &over)?;
        // What the old file had and the new one lacks: extended attributes, a time that was set.
        let node = change.edit.tree().node(&over.id())?.ok_or(Error::Stale)?;
        for key in node.attrs_of(None).to_map().keys().filter(|key| own.get(key).is_none()) {
            change.edit.set_attr(&over.id(), key.clone(), None)?;
        }
        let target = Lost { entry: over, old };
        return Ok(Renamed::Replaced(Box::new(Replaced { temp: moved.clone(), target })));
    }
    change.edit.rename(moved, dirs, name)?;
    // It may have other names, by which the loss of this one shows.
    if change.edit.tree().node(&over.id())?.is_some() {
        attrs::set_changed(&mut change.edit, &over.id(), change.now)?;
    }
    Ok(Renamed::Moved { over: Some(Box::new(Lost { entry: over, old })) })
}

/// Whether the rename is an editor's save: a file that was made a moment ago, and that no other device
/// knows, over one of its kind.
fn is_save(change: &Change<'_>, temp: &Entry<Data>, target: &Entry<Data>) -> Result<bool> {
    if target.is_copy() || !change.is_young(temp) || !change.edit.can_replace(temp, target)? {
        return Ok(false);
    }
    let target = change.edit.tree().node(&target.id())?.ok_or(Error::Stale)?;
    Ok(target.places.len() == 1)
}
