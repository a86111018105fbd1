//! A served bucket: the calls of a file system.
//!
//! Each file holds one family of calls; what they have in common is here: from an inode number to
//! what it shows, and changing the tree.

mod attrs;
mod check;
mod conflicts;
mod dirs;
mod files;
mod history;
mod names;
mod past;
mod presence;
mod sync;
mod view;
mod walking;
mod whole;
mod xattrs;

use std::{sync::Arc, thread::JoinHandle};

use cairnfs_merge::{Attrs, Edit, Entry, Name, Node, NodeId, Tree, View};

pub use self::{
    past::{Past, Which},
    view::PastView,
    walking::{PastEntry, PastItem, Wanted},
    whole::Version,
};
pub(crate) use self::{presence::Presence, whole::seal_as};
use crate::{
    Done, Error, Ino, Kind, Result, Time, Waited,
    file::{Base, Data, File},
    files::Files,
    follow::{self, Claim},
    inodes::{Bound, Orphan, Shown},
    order::{self, Mutex},
    places,
    shared::{Core, Shared},
    tree::{LiveTree, limits},
    writer::{Command, inbox::Inbox},
};

/// A served bucket. Cheap to clone; the writer thread ends with [`Mount::stop`], or when the last
/// clone is dropped.
#[derive(Clone, Debug)]
pub struct Mount {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    inbox: Inbox,
    writer: Mutex<Option<JoinHandle<()>>, order::Ending>,
}

/// An inode number, resolved.
enum Target {
    /// It has a name.
    Named(Shown, Arc<Node<Data>>),
    /// It is open and has none.
    Nameless(Orphan),
    /// It was removed while somebody stands in it.
    RemovedDir(Shown, Arc<Node<Data>>),
}

impl Target {
    /// The attributes of the version that it shows.
    fn attrs(&self) -> Attrs<'_, Data> {
        let (shown, node) = match self {
            Self::Named(shown, node) | Self::RemovedDir(shown, node) => (shown, node),
            Self::Nameless(orphan) => (&orphan.shown, &orphan.node),
        };
        node.attrs_of(shown.copy.as_ref())
    }
}

/// What a change of the tree works with.
struct Change<'c> {
    edit: Edit<'c, Data, LiveTree>,
    op: cairnfs_merge::OpId,
    files: &'c Files,
    shared: &'c Shared,
    /// Whether a version is being made of the changes so far.
    is_publishing: bool,
    next_n: &'c mut u32,
    now: Time,
    /// The conflict copies that the change has made files of their own, and those.
    owned: Vec<(Shown, Shown)>,
}

impl Change<'_> {
    /// A number that nothing else under this operation has.
    fn fresh_n(&mut self) -> u32 {
        *self.next_n += 1;
        *self.next_n
    }

    /// Whether what is shown holds something that the tree does not.
    fn is_changed(&self, shown: &Shown) -> bool {
        self.files.get(shown).is_some_and(|file| file.lock().is_changed())
    }

    /// Whether `entry` was made a moment ago, and neither another device nor a version that is being
    /// made knows of it.
    fn is_young(&self, entry: &Entry<Data>) -> bool {
        let Some(born) = entry.id().born() else { return false };
        let shown = Mount::shown(entry);
        let is_unknown = !self.is_publishing && !self.shared.may_be_known(&born);
        born == self.op || is_unknown && self.shared.inodes.lock().is_young(&shown)
    }

    fn lookup(&self, dirs: &[NodeId], name: &Name) -> Result<Option<Entry<Data>>> {
        self.edit.view().lookup(dirs, name)
    }

    /// A conflict copy that gets another place or name is a file like any other from then on, and so for
    /// whoever has it open. Anything else is what it is.
    fn own(&mut self, entry: Entry<Data>) -> Result<Entry<Data>> {
        if !entry.is_copy() {
            return Ok(entry);
        }
        let own = Shown::node(self.edit.pin(&entry)?);
        self.owned.push((Mount::shown(&entry), own));
        self.lookup(&entry.dirs, &entry.name)?.ok_or(Error::NotFound)
    }

    /// Refuses the change with `err` if no version can hold what `id` has become by it.
    fn must_fit(&self, id: &NodeId, err: Error) -> Result<()> {
        match self.edit.tree().node(id)? {
            Some(node) if !limits::fits(&node) => Err(err),
            _ => Ok(()),
        }
    }
}

impl Mount {
    /// Whether both are the same served bucket.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// Hands a command to the writer; if it has ended, who waits is told.
    pub(crate) fn send(&self, command: Command) {
        self.inner.inbox.send(command);
    }

    /// Something was changed: the writer's clock must be running.
    fn changed(&self) {
        if self.shared().changed() {
            self.send(Command::Dirty);
        }
    }

    /// Does `work` under the lock of `core`, and takes note if it has changed the tree.
    ///
    /// # Errors
    ///
    /// Those of `work`, which may have changed the tree before it failed.
    fn with_core<R>(&self, work: impl FnOnce(&mut Core) -> Result<R>) -> Result<R> {
        let mut core = self.shared().core.write();
        let before = core.unsaved.len();
        let result = work(&mut core);
        self.shared().room.account_tree(core.tree.held_bytes());
        // Of what was unsaved before, whoever changed it takes note.
        let is_changed = core.unsaved.len() > before;
        drop(core);
        if is_changed {
            self.changed();
        }
        result
    }

    /// Makes sure that `bytes` more can be saved, if need be by giving up older versions.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`].
    fn reserve(&self, bytes: u64) -> Result<()> {
        match self.shared().room.reserve(bytes) {
            Err(Error::NoSpace) => {
                let (looked, looking) = crossbeam_channel::bounded(1);
                self.send(Command::MakeRoom(looked));
                // The end of the channel is the answer.
                if let Ok(never) = looking.recv() {
                    match never {}
                }
                self.shared().room.reserve(bytes)
            }
            result => result,
        }
    }

    /// Calls `answer` with what a call that changed the tree came to: now, or when there is memory for
    /// further changes. Whoever makes them faster than they can be saved waits here, and nobody else.
    pub fn answer_when_room(&self, answer: impl FnOnce(Waited) + Send + 'static) {
        // The change is made, whether or not there is memory for more.
        if self.shared().room.answer(|_relieved, waited| answer(waited)) {
            self.send(Command::Relieve);
        }
    }

    /// Waits for a barrier that covers everything up to now.
    fn save_then(&self, done: Done) {
        self.send(Command::Save(done));
    }

    /// What `ino` stands for.
    ///
    /// # Errors
    ///
    /// [`Error::Stale`] if it is gone.
    fn target(&self, core: &Core, ino: Ino) -> Result<Target> {
        let bound = self.shared().inodes.lock().resolve(ino);
        match bound {
            Some(Bound::Orphan(orphan)) => Ok(Target::Nameless(orphan)),
            Some(Bound::RemovedDir(shown, node)) => Ok(Target::RemovedDir(shown, node)),
            Some(Bound::Shown(shown) | Bound::Replaced(shown)) => {
                match core.tree.node(&shown.node)? {
                    // A conflict copy that has been settled since.
                    Some(node) if shown.copy.is_some() && !has_version(&node, &shown) => {
                        Err(Error::Stale)
                    }
                    Some(node) => Ok(Target::Named(shown, node)),
                    // The root has a node only once it has attributes.
                    None if shown.node == NodeId::Root => {
                        Ok(Target::Named(shown, Arc::new(Node::empty(Kind::Dir))))
                    }
                    None => Err(Error::Stale),
                }
            }
            None => Err(Error::Stale),
        }
    }

    /// The directories that `ino` shows.
    ///
    /// # Errors
    ///
    /// [`Error::Stale`], [`Error::NotDir`], [`Error::NotFound`] for one that was removed.
    fn dirs(&self, core: &Core, ino: Ino) -> Result<Vec<NodeId>> {
        match self.target(core, ino)? {
            Target::Named(shown, node) if node.kind.is_dir() => {
                places::group(&core.tree, &shown.node)
            }
            // It has no names any more.
            Target::RemovedDir(..) => Err(Error::NotFound),
            Target::Named(..) | Target::Nameless(_) => Err(Error::NotDir),
        }
    }

    /// The entry called `name` in the directory `parent`.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NotDir`], [`Error::NameTooLong`].
    fn entry(&self, core: &Core, parent: Ino, name: &[u8]) -> Result<Entry<Data>> {
        let dirs = self.dirs(core, parent)?;
        let name = Name::new(name)?;
        View::new(&core.tree).lookup(&dirs, &name)?.ok_or(Error::NotFound)
    }

    /// What an entry is to be known as.
    pub(crate) fn shown(entry: &Entry<Data>) -> Shown {
        let copy = entry.content.as_ref().filter(|_| entry.is_copy());
        Shown { node: entry.id(), copy: copy.map(|content| content.id) }
    }

    /// The content of what is shown, loaded; the caller holds the lock of `core`.
    fn load(core: &mut Core, shown: Shown, node: &Node<Data>) -> Result<Arc<File>> {
        if let Some(file) = core.files.get(&shown) {
            return Ok(Arc::clone(file));
        }
        let value = places::content_of(&core.tree, &shown, node)?;
        let base = value.map_or_else(Base::empty, |value| Base::new(value.body, value.len));
        let file = core.files.load(shown, base);
        if shown.copy.is_some() {
            file.lock().set_claim(Some(Claim::Copy));
        }
        if node.content.len() > 1 {
            // Which of the versions was written to cannot be told from the node alone.
            file.lock().must_record_base();
        }
        Ok(file)
    }

    /// Changes the tree. The change is taken whole or, on an error, not at all.
    fn change<R>(&self, change: impl FnOnce(&mut Change<'_>) -> Result<R>) -> Result<R> {
        self.change_and(change, |_, result| Ok(result))
    }

    /// Changes the tree, and then what goes with it, under one taking of the lock.
    fn change_and<R, S>(
        &self,
        change: impl FnOnce(&mut Change<'_>) -> Result<R>,
        then: impl FnOnce(&mut Core, R) -> Result<S>,
    ) -> Result<S> {
        let mut guard = self.shared().core.write();
        self.shared().writable()?;
        let core = &mut *guard;
        let mut context = Change {
            edit: Edit::new(&core.tree, core.op),
            op: core.op,
            files: &core.files,
            shared: self.shared(),
            is_publishing: core.tree.is_frozen(),
            next_n: &mut core.next_n,
            now: Time::now(),
            owned: Vec::new(),
        };
        let result = change(&mut context)?;
        let Change { edit, owned, .. } = context;
        let edited = edit.finish();
        let stirred = self.shared().stirred_by(core, &edited)?;
        core.apply(edited);
        for (copy, own) in owned {
            self.shared().copy_became(core, copy, own);
        }
        let result = then(core, result);
        self.shared().calm(core, stirred);
        self.shared().room.account_tree(core.tree.held_bytes());
        drop(guard);
        self.changed();
        result
    }

    /// An entry has lost a name; if it was the last one that shows what it shows, its open content lives
    /// on without.
    fn dropped(&self, core: &mut Core, entry: &Entry<Data>, old: &Arc<Node<Data>>) -> Result<()> {
        let shown = Self::shown(entry);
        if core.tree.node(&shown.node)?.is_some() {
            // Of several versions this one may have gone, which only who has it open would notice: to look
            // for it costs a look at all names that the file has left.
            let Some(content) = &entry.content else { return Ok(()) };
            let is_alone = !entry.is_copy() && core.tree.is_at_peace()?;
            if is_alone || core.files.get(&shown).is_none() {
                return Ok(());
            }
            if follow::shown_as(&core.tree, &shown, &content.id)?.is_some() {
                return Ok(());
            }
        }
        if entry.kind.is_dir() {
            self.shared().inodes.lock().removed_dir(shown, Arc::clone(old));
        } else if let Some(file) = core.files.remove(&shown) {
            self.set_adrift(shown, old, file);
        }
        Ok(())
    }

    /// Keeps a content that has lost its last name while it is open; else it goes.
    fn set_adrift(&self, shown: Shown, old: &Arc<Node<Data>>, file: Arc<File>) {
        if file.is_open() {
            let node = Arc::clone(old);
            // Whoever writes to it wants no name for it any more.
            file.lock().set_claim(None);
            self.shared().inodes.lock().orphan(Orphan { shown, node, file });
        } else {
            self.shared().room.account_dropped(&mut file.lock());
        }
    }
}

/// Whether `node` holds the version that is shown as a copy.
fn has_version(node: &Node<Data>, shown: &Shown) -> bool {
    node.contents().iter().any(|(_, content)| Some(content.id) == shown.copy)
}
