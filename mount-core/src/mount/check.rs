//! Verifying all that a bucket holds.

use std::collections::{BTreeSet, HashMap};

use cairnfs_merge::{Node, Tree};
use cairnfs_store::BlobId;

use super::{
    Mount,
    history::{path_below, path_of, paths_of},
};
use crate::{
    Error, Result,
    file::{Base, Data},
    tree::{BaseTree, keys},
};

/// A damaged blob.
struct Damage {
    /// Where it lies.
    what: String,
    /// Whether a path of the newest version was found that needs it.
    has_path: bool,
}

/// What a read of the whole log has found.
type Damaged = HashMap<BlobId, Damage>;
/// Paths, or none for what has none, with what is wrong there.
type Found = BTreeSet<(Option<Vec<u8>>, String)>;

impl Mount {
    /// Reads and verifies everything, older versions too; calls `found` for each damaged path of
    /// the newest version (or none for what is not in it) with what is wrong, `progress` with bytes
    /// done and in all, which says whether to go on.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::Stopped`] once `progress` says so or the mount has been stopped, so that
    /// others may have the bucket. Damage is found, not failed with.
    pub fn check(
        &self,
        progress: &mut dyn FnMut(u64, u64) -> bool,
        found: &mut dyn FnMut(Option<&[u8]>, &str),
    ) -> Result<()> {
        for path in self.set_back() {
            found(path.as_deref(), "what was saved of it last is lost, it is as it was before");
        }
        // What was written since the last version is verified too.
        match self.publish() {
            Ok(_) => (),
            Err(err) if err.is_damage() => found(None, &format!("no new version: {err}")),
            // What is there can be read on a full disk too.
            Err(Error::NoSpace) => log::info!("check version=no reason=full"),
            Err(err) => return Err(err),
        }
        let vault = &self.shared().vault;
        let report = vault.blobs().scrub(&mut |read| {
            progress(read.done_bytes, read.total_bytes) && !self.shared().has_stopped()
        })?;
        let mut damaged = Damaged::new();
        for damage in report.damage {
            let what = format!("{} at {}", damage.pack.display(), damage.offset);
            match damage.id {
                Some(id) => drop(damaged.insert(id, Damage { what, has_path: false })),
                None => found(None, &what),
            }
        }
        let newest = self.check_newest(&mut damaged);
        if self.shared().has_stopped() {
            return Err(Error::Stopped);
        }
        for (path, what) in newest {
            found(path.as_deref(), &what);
        }
        let elsewhere = damaged.into_values().filter(|damage| !damage.has_path);
        elsewhere.for_each(|damage| found(None, &damage.what));
        Ok(())
    }

    /// The paths of files that are not as they were saved last, under all their names; of one that is in a
    /// directory which is lost there is none.
    fn set_back(&self) -> Vec<Option<Vec<u8>>> {
        let core = self.shared().core.read();
        core.set_back().flat_map(|id| named(paths_of(&core.tree, id))).collect()
    }

    /// What is wrong with the newest version and those before it.
    ///
    /// On a disk that runs low, a version that was the newest when it began to be read may be given
    /// up before it is read; then it is no damage that parts of it are missing.
    fn check_newest(&self, damaged: &mut Damaged) -> Found {
        const TIMES_MAX: u32 = 20;
        let newest = || self.shared().core.read().head.manifest.id;
        for _ in 1..TIMES_MAX {
            let before = newest();
            let found = self.check_version(damaged);
            if found.is_empty() || newest() == before {
                return found;
            }
        }
        self.check_version(damaged)
    }

    fn check_version(&self, damaged: &mut Damaged) -> Found {
        let mut all = Found::new();
        let mut found = |path: Option<&[u8]>, what: &str| {
            all.insert((path.map(<[u8]>::to_vec), what.to_owned()));
        };
        self.check_tree(damaged, &mut found);
        self.check_history(&mut found);
        all
    }

    /// Finds the paths of the newest version that need something damaged or missing, and marks
    /// what they need.
    fn check_tree(&self, damaged: &mut Damaged, found: &mut dyn FnMut(Option<&[u8]>, &str)) {
        let tree = self.shared().core.read().tree.base().clone();
        let nodes = keys::all_nodes();
        let end = keys::end(&nodes);
        let items = tree.vault.scan(tree.root, &nodes, &end);
        for item in items.take_while(|_| !self.shared().has_stopped()) {
            let (key, value) = match item {
                Ok(item) => item,
                Err(err) => {
                    found(None, &format!("the tree: {err}"));
                    // What stands behind cannot be reached from here, but by its names.
                    return self.check_names(&tree, damaged, found);
                }
            };
            let Some(id) = keys::parse_only_node(&key) else { continue };
            let damage = match tree.decode(&value) {
                Ok(node) => self.check_contents(&node, damaged),
                Err(err) => Some(err.to_string()),
            };
            if let Some(damage) = damage {
                for path in named(paths_of(&tree, &id)) {
                    found(path.as_deref(), &damage);
                }
            }
        }
    }

    /// As [`Mount::check_tree`], by the index of names: for a tree of which nodes are lost.
    fn check_names(
        &self,
        tree: &BaseTree,
        damaged: &mut Damaged,
        found: &mut dyn FnMut(Option<&[u8]>, &str),
    ) {
        let names = keys::all_children();
        let end = keys::end(&names);
        let items = tree.vault.scan(tree.root, &names, &end);
        for item in items.take_while(|_| !self.shared().has_stopped()) {
            let (key, _) = match item {
                Ok(item) => item,
                Err(err) => {
                    found(None, &format!("the names of the tree: {err}"));
                    break;
                }
            };
            let Some((dir, name, id)) = keys::parse_any_child(&key) else { continue };
            let damage = match tree.node(&id) {
                Ok(Some(node)) => self.check_contents(&node, damaged),
                Ok(None) => None,
                Err(err) => Some(err.to_string()),
            };
            let Some(damage) = damage else { continue };
            match path_of(tree, &dir) {
                Ok(path) => found(Some(&path_below(path, &name)), &damage),
                Err(_) => found(None, &damage),
            }
        }
    }

    /// What is wrong with the contents of a node, if anything is.
    fn check_contents(&self, node: &Node<Data>, damaged: &mut Damaged) -> Option<String> {
        let vault = &self.shared().vault;
        let mut damage = None;
        for (_, value) in node.contents() {
            let base = Base::new(value.body.clone(), value.len);
            let mut at = 0;
            loop {
                let extent = match base.chunk_after(vault, at) {
                    Ok(Some(extent)) => extent,
                    Ok(None) => break,
                    Err(err) => return Some(err.to_string()),
                };
                at = extent.end();
                if let Some(known) = damaged.get_mut(&extent.blob.id) {
                    known.has_path = true;
                    damage.get_or_insert_with(|| known.what.clone());
                } else if let Err(err) = vault.blobs().describe(&extent.blob.id) {
                    // Missing, or what the scrub could not tell the name of.
                    damage.get_or_insert_with(|| err.to_string());
                }
            }
        }
        damage
    }

    /// Follows the versions back to the first that are kept.
    fn check_history(&self, found: &mut dyn FnMut(Option<&[u8]>, &str)) {
        for version in self.history().take_while(|_| !self.shared().has_stopped()) {
            if let Err(err) = version {
                found(None, &format!("the versions: {err}"));
            }
        }
    }
}

/// Each of `paths`; nothing where they cannot be told.
fn named(paths: Result<Vec<Vec<u8>>>) -> Vec<Option<Vec<u8>>> {
    paths.map_or_else(|_| vec![None], |paths| paths.into_iter().map(Some).collect())
}
