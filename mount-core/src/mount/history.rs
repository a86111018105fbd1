//! Versions: listing them, and what each changed.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::SystemTime,
};

use cairnfs_merge::{Name, Node, NodeId, Tree, View, spots};
use cairnfs_store::{BlobId, map::Root};

use super::{Mount, Version, presence::Presence};
use crate::{
    ChangedPath, Error, Kind, PathChange, Result,
    file::Data,
    manifest::Manifest,
    places,
    tree::{BaseTree, Layer, LiveTree, keys},
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
        let mut presence = Presence::new(self);
        let mut versions = Vec::new();
        while versions.len() < limit {
            let Some((id, manifest)) = history.next().transpose()? else { break };
            let mut changes = Vec::new();
            let mut more_changes = false;
            if let Some(before) = self.root_before(&manifest)? {
                let compared = self.changes(before, manifest.root, &mut |change, lineage| {
                    let wanted = wanted(&change, lineage);
                    if wanted && changes.len() < max_changes.max(1) {
                        changes.push(change);
                    } else {
                        more_changes |= wanted;
                    }
                    !more_changes
                });
                if !unless_incomplete(compared.map(|()| true))? {
                    (changes, more_changes) = (Vec::new(), false);
                }
            }
            if path.is_some() && changes.is_empty() {
                continue;
            }
            changes.truncate(max_changes);
            let (time, author) = (manifest.time.into(), manifest.author);
            let parents = manifest.parents.iter().map(|id| id.0).collect();
            let is_whole = unless_incomplete(presence.of_tree(manifest.root))?;
            let id = id.0;
            versions.push(Version { id, time, author, parents, is_whole, changes, more_changes });
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
            nodes = entry.into_ids();
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
            [parent] => {
                let parent = self.shared().vault.manifest(parent)?;
                parent.map_or(Root::EMPTY, |parent| parent.root)
            }
            _ => return Ok(None),
        };
        Ok((is_here(before)? && is_here(manifest.root)?).then_some(before))
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
        // These know which copies are called after what.
        let bare = |tree: &BaseTree| LiveTree::over(tree.clone(), Layer::default());
        let (was_tree, is_tree) = (bare(&before), bare(&after));
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
            if !each_change(&id, (&was_tree, was.as_deref()), (&is_tree, is.as_deref()), each)? {
                break;
            }
        }
        Ok(())
    }
}

/// See [`Mount::history`]. Ends after the first error.
pub(super) struct History<'a> {
    mount: &'a Mount,
    first: Option<BlobId>,
    seen: HashSet<BlobId>,
    /// By how much they know: a version knows more than those it follows from.
    waiting: BTreeMap<(u64, SystemTime, BlobId), Arc<Manifest>>,
}

impl History<'_> {
    fn wait_for(&mut self, id: BlobId) -> Result<()> {
        // Older versions may have been given up for space.
        if self.seen.insert(id)
            && let Some(manifest) = self.mount.shared().vault.manifest(&id)?
        {
            let time = SystemTime::from(manifest.time);
            self.waiting.insert((manifest.vv.max_lamport(), time, id), manifest);
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Option<(BlobId, Arc<Manifest>)>> {
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
    type Item = Result<(BlobId, Arc<Manifest>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.waiting.clear();
        }
        step.transpose()
    }
}

/// What was found of a version; `false` if parts of it could not be read, being damaged or not here.
fn unless_incomplete(found: Result<bool>) -> Result<bool> {
    match found {
        Err(err) if err.is_damage() => Ok(false),
        found => found,
    }
}

/// Hands the names that a node has lost and got to `each`, and one that it has kept if it is another
/// one now; says whether there was not enough of it yet. What goes is called what it was shown as.
fn each_change(
    id: &NodeId,
    (before, was): (&LiveTree, Option<&Node<Data>>),
    (after, is): (&LiveTree, Option<&Node<Data>>),
    each: &mut dyn FnMut(ChangedPath, &[NodeId]) -> bool,
) -> Result<bool> {
    let places = |tree: &LiveTree, node: Option<&Node<Data>>| -> Result<Vec<_>> {
        let Some(node) = node else { return Ok(Vec::new()) };
        let spots = spots(node, tree.displaced(id)?.as_ref()).into_iter();
        Ok(spots.map(|spot| (spot.parent, spot.name)).collect())
    };
    let (old, new) = (places(before, was)?, places(after, is)?);
    let mut told = |tree: &LiveTree, (parent, name): &(NodeId, Name), change| {
        let (mut path, mut lineage) = place_of(tree, parent)?;
        lineage.insert(0, *id);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        Ok(each(ChangedPath { change, path }, &lineage))
    };
    // A file may have many names.
    let (was_at, is_at) = (old.iter().collect::<HashSet<_>>(), new.iter().collect::<HashSet<_>>());
    for place in &old {
        let (parent, _) = place;
        let names = if is_at.contains(place) {
            copies_gone(id, before, after, place)?
        } else {
            shown_as(id, before, place)?
        };
        for name in names {
            if !told(before, &(*parent, name), PathChange::Removed)? {
                return Ok(false);
            }
        }
    }
    for place in new.iter().filter(|place| !was_at.contains(place)) {
        if !told(after, place, PathChange::Added)? {
            return Ok(false);
        }
    }
    let kept = new.iter().find(|place| was_at.contains(place));
    let (Some(was), Some(is), Some(kept)) = (was, is, kept) else { return Ok(true) };
    if differs(was, is) { told(after, kept, PathChange::Changed) } else { Ok(true) }
}

/// The names that show the node `id` by the one that it has at `place`: this one or those of copies,
/// none if others of the same bytes are shown.
fn shown_as(id: &NodeId, tree: &LiveTree, place: &(NodeId, Name)) -> Result<BTreeSet<Name>> {
    let (parent, name) = place;
    if tree.is_at_peace()? || !tree.is_contested(parent, name)? {
        return Ok(BTreeSet::from([name.clone()]));
    }
    let dirs = places::group(tree, parent)?;
    let claimed = View::new(tree).claimed(&dirs, name)?.into_iter();
    Ok(claimed.filter(|entry| entry.ids().contains(id)).map(|entry| entry.name).collect())
}

/// The names of copies that showed versions of the node `id` at `place`, and now show nothing.
fn copies_gone(
    id: &NodeId,
    before: &LiveTree,
    after: &LiveTree,
    place: &(NodeId, Name),
) -> Result<BTreeSet<Name>> {
    let (parent, name) = place;
    let mut gone = shown_as(id, before, place)?;
    gone.remove(name);
    if !gone.is_empty() {
        let dirs = places::group(after, parent)?;
        for name in std::mem::take(&mut gone) {
            if View::new(after).lookup(&dirs, &name)?.is_none() {
                gone.insert(name);
            }
        }
    }
    Ok(gone)
}

/// Whether something other than bookkeeping has changed.
fn differs(was: &Node<Data>, is: &Node<Data>) -> bool {
    let loud = |node: &Node<Data>| {
        let attrs = node.attrs_of(None).to_map();
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
pub(super) fn path_of<T: Tree<Data, Error = Error>>(tree: &T, id: &NodeId) -> Result<Vec<u8>> {
    place_of(tree, id).map(|(path, _)| path)
}

/// The paths of a node, one for each name that it has.
///
/// # Errors
///
/// As [`path_of`].
pub(super) fn paths_of<T: Tree<Data, Error = Error>>(
    tree: &T,
    id: &NodeId,
) -> Result<Vec<Vec<u8>>> {
    if *id == NodeId::Root {
        return Ok(vec![Vec::new()]);
    }
    let node = tree.node(id)?.ok_or(Error::Stale)?;
    let spots = spots(&node, tree.displaced(id)?.as_ref()).into_iter();
    spots.map(|spot| Ok(path_below(path_of(tree, &spot.parent)?, &spot.name))).collect()
}

/// The path of what is called `name` in the directory with the path `dir`.
pub(super) fn path_below(mut dir: Vec<u8>, name: &Name) -> Vec<u8> {
    if !dir.is_empty() {
        dir.push(b'/');
    }
    dir.extend_from_slice(name.as_bytes());
    dir
}

/// The path of a node, as [`path_of`], and the node with those above it.
fn place_of<T: Tree<Data, Error = Error>>(tree: &T, id: &NodeId) -> Result<(Vec<u8>, Vec<NodeId>)> {
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
