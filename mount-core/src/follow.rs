//! Open contents when what their names show changes under them: by a merge, or by a change of a
//! contested name.
//!
//! A handle keeps the bytes it was opened on. If these are shown under another name now, as a
//! conflict copy for one, handle and inode number follow them there. If no name shows them any
//! more, they stay with the handle alone; the first write through it makes them a file again,
//! beside what has the name now: nothing that is written may be lost. If the directories that it was
//! in have gone too, they come back with it, see [`Way`].

mod way;

use std::{collections::BTreeSet, sync::Arc};

use cairnfs_merge::{
    Content as Value, ContentId, Edit, Edited, Name, NewNode, Node, NodeId, Spot, Tree, View, spots,
};

pub(crate) use self::way::Way;
use self::way::{End, Ways};
use crate::{
    Error, Ino, Kind, Outdated, Result,
    file::{Data, File},
    inodes::{Bound, Orphan, Shown},
    mount::Mount,
    places,
    shared::{Core, Shared},
    tree::LiveTree,
};

/// What must happen to a content before it is written to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Claim {
    /// It is shown as a conflict copy: the copy becomes a file of its own.
    Copy,
    /// No name shows it: it becomes a new file of this name.
    Anew {
        /// Where the directory is that it was in.
        way: Way,
        /// What it was called.
        name: Name,
    },
}

/// A content that is open or dirty, and the version it began with.
pub(crate) struct OpenVersion {
    shown: Shown,
    file: Arc<File>,
    content: ContentId,
    spot: Option<Spot>,
    /// Where the directory of `spot` is.
    way: Way,
    node: Arc<Node<Data>>,
}

impl OpenVersion {
    /// What showed it.
    pub(crate) fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Whether `tree` shows something else there; not if that cannot be read.
    pub(crate) fn is_parted(&self, tree: &LiveTree) -> bool {
        let now = shown_as(tree, &self.shown, &self.content);
        now.is_ok_and(|now| now != Some(self.shown))
    }
}

/// What a change of the tree may make show something else; see [`Shared::stirred_by`].
pub(crate) struct Stirred {
    contested: BTreeSet<(NodeId, Name)>,
    open: Vec<OpenVersion>,
    /// The names of copies that the change takes away, too: nobody else tells the kernel of them.
    before: Vec<Outdated>,
}

impl Stirred {
    /// What the change itself gave a new version goes on as what it is.
    pub(crate) fn spare(&mut self, is_written: impl Fn(&Shown) -> bool) {
        self.open.retain(|version| !is_written(&version.shown));
    }
}

/// The open or dirty contents of nodes that `is_touched` says of, given where the node hangs.
///
/// # Errors
///
/// Damage in the tree.
pub(crate) fn open_versions(
    core: &Core,
    is_touched: impl Fn(&NodeId, &[Spot]) -> Result<bool>,
) -> Result<Vec<OpenVersion>> {
    let (mut open, mut ways) = (Vec::new(), Ways::default());
    for (shown, file) in core.files.iter() {
        let Some(node) = core.tree.node(&shown.node)? else { continue };
        let spots = spots(&node, core.tree.displaced(&shown.node)?.as_ref());
        if !is_touched(&shown.node, &spots)? {
            continue;
        }
        if let Some(value) = places::content_of(&core.tree, shown, &node)? {
            let spot = spots.into_iter().next();
            let parent = spot.as_ref().map_or(NodeId::Root, |spot| spot.parent);
            let way = ways.to(&core.tree, &parent);
            let (shown, file) = (*shown, Arc::clone(file));
            open.push(OpenVersion { shown, file, content: value.id, spot, way, node });
        }
    }
    Ok(open)
}

impl Shared {
    /// Which names may show another version once `edited` is applied, and what is open of them.
    ///
    /// # Errors
    ///
    /// Damage in the tree.
    pub(crate) fn stirred_by(&self, core: &Core, edited: &Edited<Data>) -> Result<Stirred> {
        let contested = contested_by(&core.tree, edited)?;
        let open = if contested.is_empty() { Vec::new() } else { touched(core, &contested)? };
        let before = self.contested_outdated(core, &contested);
        Ok(Stirred { contested, open, before })
    }

    /// Once the change is applied: what is open follows its bytes, and the kernel is told what it must no
    /// longer believe.
    pub(crate) fn calm(&self, core: &mut Core, stirred: Stirred) {
        let Stirred { contested, open, before: mut outdated } = stirred;
        self.follow(core, open, &mut outdated);
        outdated.extend(self.contested_outdated(core, &contested));
        self.tell_outdated(&outdated);
    }

    /// What the kernel knows of `contested` names and of the copies that the tree shows of them.
    fn contested_outdated(
        &self,
        core: &Core,
        contested: &BTreeSet<(NodeId, Name)>,
    ) -> Vec<Outdated> {
        let names = contested.iter();
        names.flat_map(|(dir, name)| self.names_outdated(&core.tree, dir, name)).collect()
    }

    /// Has the contents `open` follow their bytes in the tree as it is now, and adds to `outdated`
    /// what the kernel must no longer believe. What of them is dirty and not shown as a file of its
    /// own is made one at once; where that fails, before anything is saved.
    ///
    /// Damage met on the way is logged; the handles keep their bytes.
    pub(crate) fn follow(
        &self,
        core: &mut Core,
        open: Vec<OpenVersion>,
        outdated: &mut Vec<Outdated>,
    ) {
        // All are taken out first: one may take the place of another.
        let mut taken = Vec::new();
        for version in open {
            // Not what has taken its place since, as a file that was renamed over it does.
            let is_there = core.files.get(&version.shown);
            if is_there.is_some_and(|file| Arc::ptr_eq(file, &version.file)) {
                core.files.remove(&version.shown);
                let now = self.now_shown(&core.tree, &version);
                taken.push((version, now));
            }
        }
        let mut parted = Vec::new();
        for (version, now) in taken {
            match now.filter(|now| !core.files.contains_key(now)) {
                Some(now) => {
                    let mut content = version.file.lock();
                    content.must_record_base();
                    content.set_claim(now.copy.map(|_| Claim::Copy));
                    let is_changed = content.is_changed();
                    drop(content);
                    let mut inodes = self.inodes.lock();
                    let ino = inodes.number(version.shown);
                    if now != version.shown {
                        inodes.rebind(version.shown, now);
                        // Also where the name was contested before, so that nothing about it changes
                        // but what it means.
                        parted.extend(spots(&version.node, None));
                    }
                    core.files.put(now, Arc::clone(&version.file));
                    if is_changed && now.copy.is_some() {
                        core.unclaimed.push((ino, version.file));
                    }
                }
                None => {
                    parted.extend(version.spot.clone());
                    core.unclaimed.extend(self.part(version));
                }
            }
        }
        // What was open under these names has kept its inode number, so that what they show now has
        // another, which the kernel must look up.
        for Spot { parent, name, .. } in &parted {
            outdated.extend(self.names_outdated(&core.tree, parent, name));
        }
        // What is left over is tried again by whoever saves.
        self.claim_changed(core, outdated).ok();
    }

    /// As [`Shared::claim_changed`], and tells the kernel.
    ///
    /// # Errors
    ///
    /// As [`Shared::claim_changed`].
    pub(crate) fn claim_left(&self, core: &mut Core) -> Result<()> {
        let mut outdated = Vec::new();
        let claimed = self.claim_changed(core, &mut outdated);
        self.tell_outdated(&outdated);
        claimed
    }

    /// Makes what is dirty and not shown as a file of its own one.
    ///
    /// # Errors
    ///
    /// The first reason why something could not be made a file: it would be in no save. All others
    /// are.
    fn claim_changed(&self, core: &mut Core, outdated: &mut Vec<Outdated>) -> Result<()> {
        let mut result = Ok(());
        let mut left = Vec::new();
        for (ino, file) in std::mem::take(&mut core.unclaimed) {
            match self.claim(core, ino, &file, outdated) {
                // A copy that has been removed since.
                Ok(()) | Err(Error::Stale) => (),
                Err(err) => {
                    log::error!("claim ino={} reason={:?}", ino.0, err.to_string());
                    left.push((ino, file));
                    result = result.and(Err(err));
                }
            }
        }
        core.unclaimed.extend(left);
        result
    }

    fn now_shown(&self, tree: &LiveTree, version: &OpenVersion) -> Option<Shown> {
        let found = shown_as(tree, &version.shown, &version.content).and_then(|found| {
            match (found, &version.spot) {
                (None, Some(spot)) => split_off(tree, spot, &version.content),
                (found, _) => Ok(found),
            }
        });
        found.unwrap_or_else(|err| {
            log::warn!("follow node={} reason={err}", version.shown.node);
            None
        })
    }

    /// A content that no name shows stays with those who have it open; comes back if it must be
    /// claimed at once.
    fn part(&self, version: OpenVersion) -> Option<(Ino, Arc<File>)> {
        let OpenVersion { shown, file, spot, way, node, .. } = version;
        let mut content = file.lock();
        let is_changed = content.is_changed();
        if !file.is_open() && !is_changed {
            self.room.account_dropped(&mut content);
            return None;
        }
        let claim = spot.map(|spot| Claim::Anew { way, name: spot.name });
        content.set_claim(claim);
        // Whoever writes from now on claims it first; what was written before is claimed by us.
        drop(content);
        let mut inodes = self.inodes.lock();
        let ino = inodes.number(shown);
        inodes.orphan(Orphan { shown, node, file: Arc::clone(&file) });
        is_changed.then_some((ino, file))
    }

    /// Makes the content behind `ino` one that may be written to; says what the kernel must no
    /// longer believe.
    ///
    /// # Errors
    ///
    /// Damage in the tree; [`Error::Stale`].
    pub(crate) fn claim(
        &self,
        core: &mut Core,
        ino: Ino,
        file: &Arc<File>,
        outdated: &mut Vec<Outdated>,
    ) -> Result<()> {
        let claim = file.lock().claim().cloned();
        match claim {
            None => Ok(()),
            Some(Claim::Copy) => {
                // Not by its number: it may have been opened under that of a file that it replaced.
                let shown = core.files.shown_as(file).ok_or(Error::Stale)?;
                self.own_copy(core, shown)?;
                file.lock().set_claim(None);
                Ok(())
            }
            Some(Claim::Anew { way, name }) => {
                let bound = self.inodes.lock().resolve(ino);
                let Some(Bound::Orphan(orphan)) = bound else { return Err(Error::Stale) };
                self.make_anew(core, ino, &orphan, (&way, &name), outdated)
            }
        }
    }

    /// Makes the nameless `orphan` a new file `name` at the end of `way`, whatever has that name now:
    /// the newest keeps it, the other is shown as its conflict copy.
    fn make_anew(
        &self,
        core: &mut Core,
        ino: Ino,
        orphan: &Orphan,
        (way, name): (&Way, &Name),
        outdated: &mut Vec<Outdated>,
    ) -> Result<()> {
        let op = core.op;
        let mut fresh = || {
            core.next_n += 1;
            NodeId::Born { op, n: core.next_n }
        };
        let id = fresh();
        let mut edit = Edit::new(&core.tree, op);
        let End { dirs, made } = way.go(&mut edit, fresh)?;
        let (data, len) = {
            let content = orphan.file.lock();
            (content.sealed().clone(), content.sealed_len())
        };
        let attrs = orphan.node.attrs_of(orphan.shown.copy.as_ref()).to_map();
        // The file would else be hidden behind whoever has replaced these very bytes.
        let content = Some(Value::new(self.vault.id_to_come(&id), len, data));
        let new = NewNode { id, name: name.clone(), kind: Kind::File, content, attrs };
        edit.create_beside(&dirs, new)?;
        let edited = edit.finish();
        // What is new below a directory that is new is in nobody's way.
        let (dirs, name) = made.unwrap_or_else(|| (dirs, name.clone()));
        let others = open_versions(core, |_, spots| {
            Ok(spots.iter().any(|spot| dirs.contains(&spot.parent) && spot.name == name))
        })?;
        core.apply(edited);
        let shown = Shown::node(id);
        {
            let mut content = orphan.file.lock();
            content.must_record_all();
            content.set_claim(None);
        }
        core.files.put(shown, Arc::clone(&orphan.file));
        self.inodes.lock().adopt(ino, shown);
        self.follow(core, others, outdated);
        outdated.extend(
            dirs.first().map_or_else(Vec::new, |dir| self.names_outdated(&core.tree, dir, &name)),
        );
        Ok(())
    }

    /// A conflict copy that is about to be changed becomes a file of its own; anything else stays
    /// what it is. The inode number goes with it.
    pub(crate) fn own_copy(&self, core: &mut Core, shown: Shown) -> Result<Shown> {
        if shown.copy.is_none() {
            return Ok(shown);
        }
        let entry = places::entry_of(&core.tree, &shown)?.ok_or(Error::Stale)?;
        let mut edit = Edit::new(&core.tree, core.op);
        let own = Shown::node(edit.pin(&entry)?);
        let edited = edit.finish();
        // Without it another copy may have to become a file of its own too.
        let stirred = self.stirred_by(core, &edited)?;
        core.apply(edited);
        self.copy_became(core, shown, own);
        self.calm(core, stirred);
        Ok(own)
    }

    /// The conflict copy `copy` has become the file `own`: its inode number and what is open of it go
    /// with it.
    pub(crate) fn copy_became(&self, core: &mut Core, copy: Shown, own: Shown) {
        if let Some(file) = core.files.rename(&copy, own) {
            let mut content = file.lock();
            content.must_record_all();
            content.set_claim(None);
        }
        self.inodes.lock().rebind(copy, own);
    }

    /// The name `name` in `dir` and those of its copies; damage met on the way is logged.
    pub(crate) fn names_outdated(
        &self,
        tree: &LiveTree,
        dir: &NodeId,
        name: &Name,
    ) -> Vec<Outdated> {
        self.find_names_outdated(tree, dir, name).unwrap_or_else(|err| {
            log::warn!("outdated dir={dir} reason={err}");
            Vec::new()
        })
    }

    fn find_names_outdated(
        &self,
        tree: &LiveTree,
        dir: &NodeId,
        name: &Name,
    ) -> Result<Vec<Outdated>> {
        let dirs = places::group(tree, dir)?;
        let copies = View::new(tree).copies(&dirs, name)?;
        let names: Vec<Name> =
            copies.into_iter().map(|copy| copy.name).chain([name.clone()]).collect();
        let inodes = self.inodes.lock();
        let mut outdated = Vec::new();
        for dir in dirs {
            // It may have gone.
            let Some(dir) = inodes.known(&Shown::node(dir)) else { continue };
            outdated.extend(
                names.iter().map(|name| Outdated::Name { dir, name: name.as_bytes().to_vec() }),
            );
            outdated.push(Outdated::Inode(dir));
        }
        Ok(outdated)
    }
}

/// What shows the version `content` of the node that `shown` was, if anything does: preferably as it was, under
/// a name that the file has or as a conflict copy. A file may have several names, and be a copy of some.
pub(crate) fn shown_as(
    tree: &LiveTree,
    shown: &Shown,
    content: &ContentId,
) -> Result<Option<Shown>> {
    let entries = places::showing(tree, &shown.node, content)?;
    let mut now = entries.iter().map(Mount::shown);
    let first = now.clone().next();
    Ok(now.find(|now| now.copy.is_some() == shown.copy.is_some()).or(first))
}

/// The file that a conflict copy of the name at `spot` has become, if it holds `content`.
fn split_off(tree: &LiveTree, spot: &Spot, content: &ContentId) -> Result<Option<Shown>> {
    let dirs = places::group(tree, &spot.parent)?;
    let split = tree.changed_ids().filter(|id| matches!(id, NodeId::Split(_)));
    for id in split.copied().collect::<Vec<_>>() {
        let Some(node) = tree.node(&id)? else { continue };
        let here = spots(&node, tree.displaced(&id)?.as_ref());
        if here.iter().any(|at| dirs.contains(&at.parent))
            && node.contents().iter().any(|(_, value)| value.id == *content)
        {
            return shown_as(tree, &Shown::node(id), content);
        }
    }
    Ok(None)
}

/// The names that may show another version once `edited` is applied: those that become contested or
/// cease to be, and the contested names of what it changes.
fn contested_by(tree: &LiveTree, edited: &Edited<Data>) -> Result<BTreeSet<(NodeId, Name)>> {
    let mut names: BTreeSet<_> = edited.index.contested.keys().cloned().collect();
    if tree.is_at_peace()? {
        return Ok(names);
    }
    for (id, node) in &edited.nodes {
        let before = tree.displaced(id)?;
        let after = edited.index.displaced.get(id).unwrap_or(&before);
        let was = tree.node(id)?.map(|node| spots(&node, before.as_ref()));
        let is = node.as_ref().map(|node| spots(node, after.as_ref()));
        for Spot { parent, name, .. } in was.into_iter().chain(is).flatten() {
            // In directories that are shown as one any of them may have the other versions.
            let dirs = places::group(tree, &parent)?;
            if places::is_contested(tree, &dirs, &name)? {
                names.extend(dirs.into_iter().map(|dir| (dir, name.clone())));
            }
        }
    }
    Ok(names)
}

/// What is open of the contested names.
fn touched(core: &Core, contested: &BTreeSet<(NodeId, Name)>) -> Result<Vec<OpenVersion>> {
    open_versions(core, |_, spots| {
        let is_one = |spot: &Spot| contested.contains(&(spot.parent, spot.name.clone()));
        Ok(spots.iter().any(is_one))
    })
}
