//! Versions: listing them, and verifying all that they hold.

use std::collections::HashMap;

use cairnfs_merge::{Node, NodeId, Tree, spots};
use cairnfs_store::{BlobId, BlobRef, map::Root};

use super::{Mount, Version};
use crate::{
    ChangedPath, Error, Kind, PathChange, Result,
    file::{Base, Data},
    manifest::Manifest,
    tree::{BaseTree, keys},
};

/// Directories above a path are looked at up to this depth, so that no damage can loop.
const DEPTH_MAX: usize = 1 << 17;

impl Mount {
    /// Versions from the newest back, at most `limit`; with `path` only those that changed it or
    /// what is below it. At most `max_changes` changed paths are listed for each.
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
        let mut next = Some(self.shared().core.read().head.manifest.id);
        let mut versions = Vec::new();
        while let Some(id) = next.filter(|_| versions.len() < limit) {
            let manifest = self.manifest(&id)?;
            let parent = manifest.parents.first().copied();
            // Where older versions were given up for space, history begins with what is left.
            next = match parent {
                Some(parent) if self.shared().vault.blobs().contains(&parent)? => Some(parent),
                _ => None,
            };
            let before = next.map(|parent| self.manifest(&parent)).transpose()?;
            let before = before.map_or(Root::EMPTY, |parent| parent.root);
            let mut changes = Vec::new();
            let mut more_changes = false;
            self.changes(before, manifest.root, &mut |change| {
                let wanted = path.is_none_or(|path| is_within(&change.path, path));
                if wanted && changes.len() < max_changes.max(1) {
                    changes.push(change);
                } else {
                    more_changes |= wanted;
                }
                !more_changes
            })?;
            if path.is_some() && changes.is_empty() {
                continue;
            }
            changes.truncate(max_changes);
            let (time, author) = (manifest.time.into(), manifest.author);
            versions.push(Version { id: id.0, time, author, changes, more_changes });
        }
        Ok(versions)
    }

    fn manifest(&self, id: &BlobId) -> Result<Manifest> {
        let blobs = self.shared().vault.blobs();
        let (_, blob) = blobs.describe(id)?;
        Manifest::open(&blobs.get(&blob)?)
    }

    /// Hands the paths that differ to `each` until it says enough.
    fn changes(
        &self,
        old: Root,
        new: Root,
        each: &mut dyn FnMut(ChangedPath) -> bool,
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
                    let path = path_of(&before, &id)?;
                    if !each(ChangedPath { change: PathChange::Removed, path }) {
                        break;
                    }
                    (PathChange::Added, &after)
                }
                (Some(was), Some(is)) if differs(was, is) => (PathChange::Changed, &after),
                _ => continue,
            };
            let path = path_of(changed.1, &id)?;
            if !path.is_empty() && !each(ChangedPath { change: changed.0, path }) {
                break;
            }
        }
        Ok(())
    }

    /// Reads and verifies everything; calls `found` for each damaged path (or none for what no path
    /// leads to) with what is wrong, `progress` with bytes done and in all.
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
        self.publish()?;
        let root = self.shared().core.read().tree.base().root;
        let vault = &self.shared().vault;
        let total = vault.blobs().stats()?.pack_bytes;
        let tree = BaseTree::open(vault.clone(), root)?;
        let mut seen: HashMap<BlobId, Option<String>> = HashMap::new();
        let mut done = 0;
        let nodes = keys::all_nodes();
        for item in vault.scan(root, &nodes, &keys::end(&nodes)) {
            let (key, value) = match item {
                Ok(item) => item,
                Err(err) => {
                    found(None, &err.to_string());
                    break;
                }
            };
            let Some(id) = keys::parse_only_node(&key) else { continue };
            let damage = match tree.decode(&value) {
                Ok(node) => self.check_contents(&node, &mut seen, &mut |bytes| {
                    done += bytes;
                    progress(done.min(total), total);
                }),
                Err(err) => Some(err.to_string()),
            };
            if let Some(damage) = damage {
                match path_of(&tree, &id) {
                    Ok(path) => found(Some(&path), &damage),
                    Err(_) => found(None, &damage),
                }
            }
        }
        self.check_history(found);
        progress(total, total);
        Ok(())
    }

    /// What is wrong with the contents of a node, if anything is.
    fn check_contents(
        &self,
        node: &Node<Data>,
        seen: &mut HashMap<BlobId, Option<String>>,
        read: &mut dyn FnMut(u64),
    ) -> Option<String> {
        let vault = &self.shared().vault;
        let mut damage = None;
        let mut check = |blob: &BlobRef| {
            let known = seen.entry(blob.id).or_insert_with(|| {
                read(u64::from(blob.len));
                // Straight from the disk: a cache would hide what has happened to it.
                vault.blobs().get(blob).err().map(|err| Error::from(err).to_string())
            });
            if damage.is_none() {
                damage.clone_from(known);
            }
        };
        for (_, value) in node.contents() {
            let base = Base::new(value.body.clone(), value.len);
            let mut at = 0;
            loop {
                match base.chunk_after(vault, at) {
                    Ok(Some(extent)) => {
                        check(&extent.blob);
                        at = extent.end();
                    }
                    Ok(None) => break,
                    Err(err) => return Some(err.to_string()),
                }
            }
        }
        damage
    }

    /// Follows the versions back to the first.
    fn check_history(&self, found: &mut dyn FnMut(Option<&[u8]>, &str)) {
        let mut next = Some(self.shared().core.read().head.manifest.id);
        while let Some(id) = next {
            match self.manifest(&id) {
                Ok(manifest) => next = manifest.parents.first().copied(),
                Err(err) => {
                    found(None, &format!("version {id}: {err}"));
                    return;
                }
            }
        }
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
    let mut names = Vec::new();
    let mut at = *id;
    while at != NodeId::Root {
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
    Ok(names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>().join(&b'/'))
}
