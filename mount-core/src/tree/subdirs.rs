//! How many directories lie in each directory that was asked for: `stat` wants to know.
//!
//! The kernel asks for the attributes of a directory after each change in it. So a count, once made,
//! is kept and follows the changes; only directories that come or go change it.
//!
//! Directories of one name are shown as one, and count as one. Names that several have are contested:
//! in peace there are none to look for.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cairnfs_merge::{IndexEdits, Kind, Name, NodeId, Tree};

use super::{BaseTree, LiveTree, keys};
use crate::{
    Error, Result,
    file::Data,
    order::{self, Mutex},
};

/// Directories whose count is kept: some 300 KiB.
const COUNTS_MAX: usize = 4096;
/// Directories in which names are contested of which it is kept how many count too often.
const DOUBLES_MAX: usize = 64;

/// What was counted. Its lock is taken under that of the tree and last.
#[derive(Debug, Default)]
pub(super) struct Subdirs(Mutex<Counts, order::Subdirs>);

#[derive(Debug, Default)]
struct Counts {
    /// The directories in each directory.
    nodes: HashMap<NodeId, u64>,
    /// How many of those in united directories are not shown, as another one has their name.
    doubles: HashMap<Vec<NodeId>, u64>,
}

impl Subdirs {
    /// The tree is another one now.
    pub(super) fn forget(&mut self) {
        *self.0.get_mut() = Counts::default();
    }

    fn keep(&self, dir: NodeId, count: u64) {
        let counts = &mut self.0.lock().nodes;
        if counts.len() >= COUNTS_MAX {
            counts.clear();
        }
        counts.insert(dir, count);
    }

    fn keep_doubles(&self, dirs: &[NodeId], count: u64) {
        let doubles = &mut self.0.lock().doubles;
        if doubles.len() >= DOUBLES_MAX {
            doubles.clear();
        }
        doubles.insert(dirs.to_vec(), count);
    }

    /// Something about the names in `dirs` changes.
    fn forget_doubles(&self, is_touched: impl Fn(&NodeId) -> bool) {
        self.0.lock().doubles.retain(|dirs, _| !dirs.iter().any(&is_touched));
    }

    fn change(&self, dir: &NodeId, before: bool, now: bool) {
        if let Some(count) = self.0.lock().nodes.get_mut(dir) {
            *count = count.saturating_add(u64::from(now)).saturating_sub(u64::from(before));
        }
    }

    fn knows(&self, dir: &NodeId) -> bool {
        self.0.lock().nodes.contains_key(dir)
    }
}

/// How many of the directories in the united directories `dirs` are not shown, as another one has
/// their name. Costs a look at each contested name.
fn doubles<T: Tree<Data, Error = Error>>(tree: &T, dirs: &[NodeId]) -> Result<u64> {
    let mut names: BTreeSet<Name> = BTreeSet::new();
    for dir in dirs {
        names.extend(tree.contested(dir)?);
    }
    let mut doubles = 0_u64;
    for name in &names {
        let mut count = 0_u64;
        for dir in dirs {
            let named = tree.named(dir, name)?;
            count += named.iter().filter(|(_, kind)| kind.is_dir()).count() as u64;
        }
        doubles += count.saturating_sub(1);
    }
    Ok(doubles)
}

impl BaseTree {
    /// How many directories are shown in the united directories `dirs`. Costs one read for each of
    /// them, and one for each contested name.
    ///
    /// # Errors
    ///
    /// Damage in the map.
    pub(crate) fn count_subdirs(&self, dirs: &[NodeId]) -> Result<u64> {
        let mut count = 0_u64;
        for dir in dirs {
            count = count.saturating_add(self.count_subdirs_of(dir)?);
        }
        if self.is_at_peace()? { Ok(count) } else { Ok(count.saturating_sub(doubles(self, dirs)?)) }
    }

    fn count_subdirs_of(&self, dir: &NodeId) -> Result<u64> {
        let prefix = keys::subdirs(dir);
        let end = keys::end(&prefix);
        let mut entries = self.vault.scan(self.root, &prefix, &end);
        entries.try_fold(0_u64, |count, entry| entry.map(|_| count + 1))
    }
}

impl LiveTree {
    /// How many directories are shown in the united directories `dirs`.
    ///
    /// Costs nothing where it was asked for since the last version; else one read for each
    /// directory in them, and a look at each child that changed since that version, and at each
    /// contested name.
    ///
    /// # Errors
    ///
    /// Damage in the map.
    pub(crate) fn count_subdirs(&self, dirs: &[NodeId]) -> Result<u64> {
        let mut count = 0_u64;
        for dir in dirs {
            count = count.saturating_add(self.count_subdirs_of(dir)?);
        }
        if self.is_at_peace()? {
            return Ok(count);
        }
        let known = self.subdirs.0.lock().doubles.get(dirs).copied();
        let doubles = match known {
            Some(doubles) => doubles,
            None => {
                let doubles = doubles(self, dirs)?;
                self.subdirs.keep_doubles(dirs, doubles);
                doubles
            }
        };
        Ok(count.saturating_sub(doubles))
    }

    fn count_subdirs_of(&self, dir: &NodeId) -> Result<u64> {
        if let Some(count) = self.subdirs.0.lock().nodes.get(dir) {
            return Ok(*count);
        }
        let count = self.recount_subdirs(dir)?;
        self.subdirs.keep(*dir, count);
        Ok(count)
    }

    fn recount_subdirs(&self, dir: &NodeId) -> Result<u64> {
        let vault = &self.base.vault;
        let mut count = self.base.count_subdirs_of(dir)?;
        // The layers say which children came and went since; a directory has one name.
        let mut changed = BTreeMap::new();
        for layer in self.frozen.as_deref().into_iter().chain([&self.live]) {
            for (name, id, kind) in layer.children_of(dir) {
                // Only a directory that comes, or something unknown that goes, can matter.
                if kind.is_none_or(Kind::is_dir) {
                    changed.insert((name, id), kind.is_some());
                }
            }
        }
        let mut is_dir: BTreeMap<&NodeId, bool> = BTreeMap::new();
        for ((_, id), now) in changed {
            *is_dir.entry(id).or_default() |= now;
        }
        for (id, now) in is_dir {
            let before = vault.get(self.base.root, &keys::subdir(dir, id))?.is_some();
            count = count.saturating_add(u64::from(now)).saturating_sub(u64::from(before));
        }
        Ok(count)
    }

    /// Has the counts follow `edits`, before these are put into the live layer.
    pub(super) fn follow_subdirs(&self, edits: &IndexEdits) {
        let has_doubles = !self.subdirs.0.lock().doubles.is_empty();
        if has_doubles {
            let children = edits.children.keys().map(|(dir, ..)| dir);
            let contested = edits.contested.keys().map(|(dir, _)| dir);
            let dirs: BTreeSet<&NodeId> = children.chain(contested).collect();
            self.subdirs.forget_doubles(|dir| dirs.contains(dir));
        }
        // Renamed within one directory: one name goes, another comes, in whatever order.
        let mut touched: BTreeMap<(&NodeId, &NodeId), (bool, bool)> = BTreeMap::new();
        for (key, kind) in &edits.children {
            let (dir, _, id) = key;
            if kind.is_some_and(|kind| !kind.is_dir()) || !self.subdirs.knows(dir) {
                continue;
            }
            match self.shows_dir(key) {
                Ok(before) => {
                    let seen = touched.entry((dir, id)).or_default();
                    *seen = (seen.0 | before, seen.1 | kind.is_some());
                }
                // It is counted when it is asked for, and whoever asks hears of the damage.
                Err(_) => drop(self.subdirs.0.lock().nodes.remove(dir)),
            }
        }
        for ((dir, _), (before, now)) in touched {
            self.subdirs.change(dir, before, now);
        }
    }

    /// Whether this child is there now, and is a directory.
    fn shows_dir(&self, key: &(NodeId, Name, NodeId)) -> Result<bool> {
        for layer in [&self.live].into_iter().chain(self.frozen.as_deref()) {
            if let Some(kind) = layer.index.children.get(key) {
                return Ok(kind.is_some_and(Kind::is_dir));
            }
        }
        // Under this very name: it may have been moved away and come back under another one.
        let (dir, name, id) = key;
        let kind = self.base.vault.get(self.base.root, &keys::child(dir, name, id))?;
        Ok(kind.is_some_and(|kind| keys::parse_kind(&kind).is_some_and(Kind::is_dir)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cairnfs_store::DeviceKey;
    use proptest::prelude::*;

    use crate::{
        Bucket, Caller, Ino, Kind, Mount, Options, Protection, RenameMode, Result, Unlock,
    };

    const ME: Caller = Caller { uid: 0, gid: 0 };

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Make(Kind),
        Remove,
        Move,
        Swap,
        Publish,
    }

    fn step() -> impl Strategy<Value = (Step, usize, usize, u8, u8)> {
        let step = prop_oneof![
            4 => Just(Step::Make(Kind::Dir)),
            2 => Just(Step::Make(Kind::File)),
            3 => Just(Step::Remove),
            4 => Just(Step::Move),
            2 => Just(Step::Swap),
            1 => Just(Step::Publish),
        ];
        (step, 0..3_usize, 0..3_usize, b'a'..b'd', b'a'..b'd')
    }

    /// Directories that `ls` shows in `dir`.
    fn listed(mount: &Mount, dir: Ino) -> Result<u32> {
        let fh = mount.opendir(dir)?;
        let mut count = 0;
        mount.readdir(dir, fh, 0, false, &mut |entry| {
            let dots = matches!(entry.name.as_slice(), b"." | b"..");
            count += u32::from(entry.kind == Kind::Dir && !dots);
            true
        })?;
        Ok(count)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn counts_follow_every_change(steps in prop::collection::vec(step(), 1..40)) {
            let place = tempfile::tempdir().unwrap();
            let path = place.path().join("bucket");
            let device = Arc::new(DeviceKey::generate().unwrap());
            Bucket::create(&path, &device, Protection::KeyFile).unwrap();
            let bucket = Bucket::open(&path, device, Unlock::KeyFile).unwrap();
            let mount = Mount::start(bucket, Options::default()).unwrap();
            let dirs = [Ino::ROOT, mount.mkdir(ME, Ino::ROOT, b"x", 0o755).unwrap().ino,
                mount.mkdir(ME, Ino::ROOT, b"y", 0o755).unwrap().ino];
            for (step, from, to, name, other) in steps {
                let (from, to) = (dirs[from], dirs[to]);
                // Many are refused: no such name, not empty, of another kind.
                let _refused = match step {
                    Step::Make(Kind::Dir) =>
                        mount.mkdir(ME, from, &[name], 0o755).map(drop),
                    Step::Make(kind) => mount.mknod(ME, from, &[name], kind, 0o644, 0).map(drop),
                    Step::Remove =>
                        mount.rmdir(from, &[name]).or_else(|_| mount.unlink(from, &[name])),
                    Step::Move => mount.rename(from, &[name], to, &[other], RenameMode::Replace),
                    Step::Swap => mount.rename(from, &[name], to, &[other], RenameMode::Exchange),
                    Step::Publish => mount.publish().map(drop),
                };
                for dir in dirs {
                    let links = mount.getattr(dir).unwrap().nlink;
                    prop_assert_eq!(links, 2 + listed(&mount, dir).unwrap());
                }
            }
            mount.stop().unwrap();
        }
    }
}
