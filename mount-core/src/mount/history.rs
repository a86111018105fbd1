//! Versions: listing them, and verifying all that they hold.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::SystemTime,
};

use cairnfs_merge::{Name, Node, NodeId, Tree, View, spots};
use cairnfs_store::{BlobId, map::Root};

use super::{Mount, Version};
use crate::{
    ChangedPath, Error, Kind, PathChange, Result,
    file::{Base, Data},
    manifest::Manifest,
    places,
    tree::{BaseTree, keys},
};

/// Directories above a path are looked at up to this depth, so that no damage can loop.
const DEPTH_MAX: usize = 1 << 17;

impl Mount {
    /// Versions from the newest back, at most `limit`; with `path` only those that changed it or
    /// what is below it, wherever that was then. At most `max_changes` changed paths are listed for
    /// each.
    ///
    /// # Errors
    ///
    /// Damage, [`Error::Io`].
    pub fn log(
        &self,
        path: Option<&[u8]>,
        limit: usize,
        max_changes: usize,
    ) -> Result<Vec<Version>> {
        let mut history = self.history();
        let nodes = path.map_or(Ok(Vec::new()), |path| self.nodes_at(path))?;
        let wanted = |change: &ChangedPath, lineage: &[NodeId]| {
            path.is_none_or(|path| is_within(&change.path, path))
                || lineage.iter().any(|id| nodes.contains(id))
        };
        let mut versions = Vec::new();
        while versions.len() < limit {
            let Some((id, manifest)) = history.next().transpose()? else { break };
            let mut changes = Vec::new();
            let mut more_changes = false;
            if let Some(before) = self.root_before(&manifest)? {
                self.changes(before, manifest.root, &mut |change, lineage| {
                    let wanted = wanted(&change, lineage);
                    if wanted && changes.len() < max_changes.max(1) {
                        changes.push(change);
                    } else {
                        more_changes |= wanted;
                    }
                    !more_changes
                })?;
            }
            if path.is_some() && changes.is_empty() {
                continue;
            }
            changes.truncate(max_changes);
            let (time, author) = (manifest.time.into(), manifest.author);
            let parents = manifest.parents.iter().map(|id| id.0).collect();
            versions.push(Version { id: id.0, time, author, parents, changes, more_changes });
        }
        Ok(versions)
    }

    /// The nodes that `path` shows now; none if it shows nothing.
    fn nodes_at(&self, path: &[u8]) -> Result<Vec<NodeId>> {
        let core = self.shared().core.read();
        let mut nodes = vec![NodeId::Root];
        let mut dirs = places::group(&core.tree, &NodeId::Root)?;
        for name in path.split(|byte| *byte == b'/') {
            let Ok(name) = Name::new(name) else { return Ok(Vec::new()) };
            let entry = View::new(&core.tree).lookup(&dirs, &name)?;
            let Some(entry) = entry else { return Ok(Vec::new()) };
            dirs = places::group(&core.tree, &entry.id())?;
            nodes = entry.ids;
        }
        Ok(nodes)
    }

    /// The newest version and those before it, as far as they are kept: each after all that follow
    /// from it.
    pub(super) fn history(&self) -> History<'_> {
        let head = self.shared().core.read().head.manifest.id;
        let seen = HashSet::new();
        History { mount: self, first: Some(head), seen, waiting: BTreeMap::new() }
    }

    /// The tree that a version was made of, if both are here; none for a merge.
    fn root_before(&self, manifest: &Manifest) -> Result<Option<Root>> {
        let is_here = |root: Root| match root.0 {
            Some(root) => self.shared().vault.blobs().contains(&root.id),
            None => Ok(true),
        };
        let before = match manifest.parents.as_slice() {
            [] => Root::EMPTY,
            [parent] if self.shared().vault.blobs().contains(parent)? => {
                self.manifest(parent)?.root
            }
            [_] => Root::EMPTY,
            _ => return Ok(None),
        };
        Ok((is_here(before)? && is_here(manifest.root)?).then_some(before))
    }

    fn manifest(&self, id: &BlobId) -> Result<Manifest> {
        let blobs = self.shared().vault.blobs();
        let (_, blob) = blobs.describe(id)?;
        Manifest::open(&blobs.get(&blob)?)
    }

    /// Hands the paths that differ to `each`, with the nodes from there up to the root, until it says
    /// enough.
    fn changes(
        &self,
        old: Root,
        new: Root,
        each: &mut dyn FnMut(ChangedPath, &[NodeId]) -> bool,
    ) -> Result<()> {
        let vault = &self.shared().vault;
        let (before, after) =
            (BaseTree::open(vault.clone(), old)?, BaseTree::open(vault.clone(), new)?);
        let nodes = keys::all_nodes();
        for change in vault.maps().diff(&old, &new) {
            let change = change?;
            // Nodes come first in the order of keys.
            if !change.key.starts_with(&nodes) {
                break;
            }
            let Some(id) = keys::parse_only_node(&change.key) else { continue };
            let was = change.old.as_deref().map(|value| before.decode(value)).transpose()?;
            let is = change.new.as_deref().map(|value| after.decode(value)).transpose()?;
            let changed = match (&was, &is) {
                (None, Some(_)) => (PathChange::Added, &after),
                (Some(_), None) => (PathChange::Removed, &before),
                (Some(was), Some(is)) if was.places != is.places => {
                    // Moved: gone from where it was, and come to where it is.
                    let (path, lineage) = place_of(&before, &id)?;
                    if !each(ChangedPath { change: PathChange::Removed, path }, &lineage) {
                        break;
                    }
                    (PathChange::Added, &after)
                }
                (Some(was), Some(is)) if differs(was, is) => (PathChange::Changed, &after),
                _ => continue,
            };
            let (path, lineage) = place_of(changed.1, &id)?;
            if !path.is_empty() && !each(ChangedPath { change: changed.0, path }, &lineage) {
                break;
            }
        }
        Ok(())
    }

    /// Reads and verifies everything, older versions too; calls `found` for each damaged path of
    /// the newest version (or none for what is not in it) with what is wrong, `progress` with bytes
    /// done and in all.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; damage is found, not failed with.
    pub fn check(
        &self,
        progress: &mut dyn FnMut(u64, u64),
        found: &mut dyn FnMut(Option<&[u8]>, &str),
    ) -> Result<()> {
        // What was written since the last version is verified too.
        match self.publish() {
            Ok(_) => (),
            Err(err @ Error::Damaged { .. }) => found(None, &format!("no new version: {err}")),
            Err(err) => return Err(err),
        }
        let vault = &self.shared().vault;
        let report =
            vault.blobs().scrub(&mut |read| progress(read.done_bytes, read.total_bytes))?;
        let mut damaged: HashMap<BlobId, (String, bool)> = HashMap::new();
        for damage in report.damage {
            let what = format!("{} at {}", damage.pack.display(), damage.offset);
            match damage.id {
                Some(id) => drop(damaged.insert(id, (what, false))),
                None => found(None, &what),
            }
        }
        for (path, what) in self.check_newest(&mut damaged) {
            found(path.as_deref(), &what);
        }
        let elsewhere = damaged.into_values().filter(|(_, has_path)| !has_path);
        elsewhere.for_each(|(what, _)| found(None, &what));
        Ok(())
    }

    /// What is wrong with the newest version and those before it.
    ///
    /// On a disk that runs low, a version that was the newest when it began to be read may be given
    /// up before it is read; then it is no damage that parts of it are missing.
    fn check_newest(
        &self,
        damaged: &mut HashMap<BlobId, (String, bool)>,
    ) -> BTreeSet<(Option<Vec<u8>>, String)> {
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

    fn check_version(
        &self,
        damaged: &mut HashMap<BlobId, (String, bool)>,
    ) -> BTreeSet<(Option<Vec<u8>>, String)> {
        let mut all = BTreeSet::new();
        let mut found = |path: Option<&[u8]>, what: &str| {
            all.insert((path.map(<[u8]>::to_vec), what.to_owned()));
        };
        self.check_tree(damaged, &mut found);
        self.check_history(&mut found);
        all
    }

    /// Finds the paths of the newest version that need something damaged or missing, and marks
    /// what they need.
    fn check_tree(
        &self,
        damaged: &mut HashMap<BlobId, (String, bool)>,
        found: &mut dyn FnMut(Option<&[u8]>, &str),
    ) {
        let tree = self.shared().core.read().tree.base().clone();
        let nodes = keys::all_nodes();
        for item in tree.vault.scan(tree.root, &nodes, &keys::end(&nodes)) {
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
                match path_of(&tree, &id) {
                    Ok(path) => found(Some(&path), &damage),
                    Err(_) => found(None, &damage),
                }
            }
        }
    }

    /// As [`Mount::check_tree`], by the index of names: for a tree of which nodes are lost.
    fn check_names(
        &self,
        tree: &BaseTree,
        damaged: &mut HashMap<BlobId, (String, bool)>,
        found: &mut dyn FnMut(Option<&[u8]>, &str),
    ) {
        let names = keys::all_children();
        for item in tree.vault.scan(tree.root, &names, &keys::end(&names)) {
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
                Ok(mut path) => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(name.as_bytes());
                    found(Some(&path), &damage);
                }
                Err(_) => found(None, &damage),
            }
        }
    }

    /// What is wrong with the contents of a node, if anything is.
    fn check_contents(
        &self,
        node: &Node<Data>,
        damaged: &mut HashMap<BlobId, (String, bool)>,
    ) -> Option<String> {
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
                if let Some((what, has_path)) = damaged.get_mut(&extent.blob.id) {
                    *has_path = true;
                    damage.get_or_insert_with(|| what.clone());
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
        for version in self.history() {
            if let Err(err) = version {
                found(None, &format!("the versions: {err}"));
            }
        }
    }
}

/// See [`Mount::history`]. Ends after the first error.
pub(super) struct History<'a> {
    mount: &'a Mount,
    first: Option<BlobId>,
    seen: HashSet<BlobId>,
    /// By how much they know: a version knows more than those it follows from.
    waiting: BTreeMap<(u64, SystemTime, BlobId), Manifest>,
}

impl History<'_> {
    fn wait_for(&mut self, id: BlobId) -> Result<()> {
        // Older versions may have been given up for space.
        if self.seen.insert(id) && self.mount.shared().vault.blobs().contains(&id)? {
            let manifest = self.mount.manifest(&id)?;
            let time = SystemTime::from(manifest.time);
            self.waiting.insert((manifest.vv.max_lamport(), time, id), manifest);
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Option<(BlobId, Manifest)>> {
        if let Some(first) = self.first.take() {
            self.wait_for(first)?;
        }
        let Some(((.., id), manifest)) = self.waiting.pop_last() else { return Ok(None) };
        for parent in &manifest.parents {
            self.wait_for(*parent)?;
        }
        Ok(Some((id, manifest)))
    }
}

impl Iterator for History<'_> {
    type Item = Result<(BlobId, Manifest)>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.waiting.clear();
        }
        step.transpose()
    }
}

/// Whether something other than bookkeeping has changed.
fn differs(was: &Node<Data>, is: &Node<Data>) -> bool {
    let loud = |node: &Node<Data>| {
        let attrs = node.effective_attrs();
        let loud = attrs.iter().filter(|(key, _)| !key.is_quiet());
        loud.map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>()
    };
    was.content != is.content || (is.kind != Kind::Dir && loud(was) != loud(is))
}

fn is_within(path: &[u8], ancestor: &[u8]) -> bool {
    match path.strip_prefix(ancestor) {
        Some(rest) => rest.is_empty() || ancestor.is_empty() || rest.starts_with(b"/"),
        None => false,
    }
}

/// The path of a node from the root, without a leading slash.
fn path_of(tree: &BaseTree, id: &NodeId) -> Result<Vec<u8>> {
    place_of(tree, id).map(|(path, _)| path)
}

/// The path of a node, as [`path_of`], and the node with those above it.
fn place_of(tree: &BaseTree, id: &NodeId) -> Result<(Vec<u8>, Vec<NodeId>)> {
    let mut names = Vec::new();
    let mut lineage = Vec::new();
    let mut at = *id;
    while at != NodeId::Root {
        lineage.push(at);
        let node = tree.node(&at)?.ok_or(Error::Stale)?;
        let displaced = tree.displaced(&at)?;
        let Some(spot) = spots(&node, displaced.as_ref()).into_iter().next() else { break };
        names.push(spot.name);
        at = spot.parent;
        if names.len() > DEPTH_MAX {
            return Err(Error::Damaged { what: "a directory within itself".into() });
        }
    }
    names.reverse();
    let path = names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>().join(&b'/');
    Ok((path, lineage))
}
