//! Three-way merging for tools that have only plain trees.
//!
//! The trees become states: what they have in common with the base has one identity, each side's
//! changes are one operation. Then it is the same join and the same view.

use std::collections::{BTreeMap, BTreeSet};

use crate::conflict::{Conflict, conflicts};
use crate::edit::{Edit, EditError};
use crate::ids::{ContentId, DeviceId, NodeId, OpId};
use crate::memory::Indexed;
use crate::name::{BadName, Name};
use crate::node::{Body, Content, Kind};
use crate::oplog::find_path;
use crate::render::Rendered;
use crate::view::{Policy, View};

/// One entry of a plain tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainEntry<B> {
    /// What it is.
    pub kind: Kind,
    /// Its content; none for a directory.
    pub content: Option<Content<B>>,
}

/// A plain tree: entries by path. Directories on the way need not be listed.
pub type PlainTree<B> = BTreeMap<Vec<u8>, PlainEntry<B>>;

/// Why trees cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum ThreeWayError {
    /// A path that cannot be one.
    #[error("a path is malformed")]
    Path(#[from] BadName),
    /// A tree contradicts itself, as with a file that has entries below it.
    #[error("a tree contradicts itself")]
    Tree(#[from] EditError<std::convert::Infallible>),
}

/// Whether a file that is gone and a new one of the same bytes are one file that was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renames {
    /// Never.
    Ignore,
    /// Where the bytes occur once among what is gone, once among what is new, and nowhere else.
    ExactContent,
}

/// The outcome of a three-way merge.
#[derive(Clone, Debug)]
pub struct ThreeWay<B> {
    /// The merged tree, conflict files and all.
    pub tree: Rendered<B>,
    /// What is contested.
    pub conflicts: Vec<Conflict<B>>,
}

/// Merges `ours` and `theirs`, which both come from `base`.
///
/// Swapping the sides changes nothing.
///
/// # Errors
///
/// [`ThreeWayError`] if one of the trees is none.
pub fn three_way<B: Body>(
    base: &PlainTree<B>,
    ours: &PlainTree<B>,
    theirs: &PlainTree<B>,
    renames: Renames,
    policy: Policy<'_, B>,
) -> Result<ThreeWay<B>, ThreeWayError> {
    let nothing = Indexed::default();
    let empty = PlainTree::new();
    let start = OpId { lamport: 1, device: DeviceId([0; 16]) };
    let root = changed(&nothing, &empty, base, start, Renames::Ignore)?;
    let mut merged = side(&root, base, ours, renames)?;
    let other = side(&root, base, theirs, renames)?;
    // The restore rule cannot run out of clock here: three ticks have passed.
    let device = DeviceId([0xff; 16]);
    merged.merge(&other, device).map_err(|_exhausted| EditError::NotFound)?;
    let view = View::with_policy(&merged, policy);
    let (Ok(tree), Ok(conflicts)) = (view.render(), conflicts(&view));
    Ok(ThreeWay { tree, conflicts })
}

/// One side, under a device that is named by what the side contains: so it does not matter which
/// side is called ours.
fn side<B: Body>(
    root: &Indexed<B>,
    base: &PlainTree<B>,
    tree: &PlainTree<B>,
    renames: Renames,
) -> Result<Indexed<B>, ThreeWayError> {
    let mut hasher = blake3::Hasher::new_derive_key("cairnfs merge 2026 plain tree");
    for (path, entry) in tree {
        let id = entry.content.as_ref().map_or([0; 32], |content| content.id.0);
        hasher.update(&(path.len() as u64).to_le_bytes()).update(path);
        hasher.update(&[entry.kind as u8]).update(&id);
    }
    let mut device = [0; 16];
    hasher.finalize_xof().fill(&mut device);
    changed(root, base, tree, OpId { lamport: 2, device: DeviceId(device) }, renames)
}

/// `root`, which shows `before`, changed to show `after`.
fn changed<B: Body>(
    root: &Indexed<B>,
    before: &PlainTree<B>,
    after: &PlainTree<B>,
    op: OpId,
    renames: Renames,
) -> Result<Indexed<B>, ThreeWayError> {
    let mut edit = Edit::new(root, op);
    let mut next = 0_u32;
    let moved =
        if renames == Renames::ExactContent { moves(before, after) } else { BTreeMap::new() };
    let is_moved = |path: &[u8]| moved.values().any(|from| *from == path);
    let dirs = all_dirs(after);
    for (path, old) in before.iter().rev() {
        let stays = after.get(path).is_some_and(|new| new.kind == old.kind)
            || (old.kind.is_dir() && dirs.contains(path.as_slice()));
        if !stays && !is_moved(path) {
            let Some(entry) = find_path(&edit.view(), path)? else { continue };
            if !entry.kind.is_dir() {
                edit.unlink(&entry)?;
            }
        }
    }
    for (path, new) in after {
        let (parents, name) = parents(&mut edit, path, op, &mut next)?;
        let mut found = edit.view().lookup(&parents, &name).map_err(EditError::Tree)?;
        if let Some(dir) = found.take_if(|entry| entry.kind.is_dir() && !new.kind.is_dir()) {
            edit.remove_tree(&dir)?;
        }
        let source = match moved.get(path.as_slice()) {
            Some(from) => find_path(&edit.view(), from)?,
            None => None,
        };
        match (found, &new.content, source) {
            (Some(entry), Some(content), _) if entry.kind == new.kind => {
                let _node = edit.write(&entry, content.clone())?;
            }
            (Some(entry), None, _) if entry.kind.is_dir() => (),
            (Some(_), ..) => return Err(EditError::Exists.into()),
            (None, _, Some(entry)) => edit.rename(&entry, &parents, &name)?,
            (None, content, None) => {
                let id = NodeId::Born { op, n: next };
                next = next.wrapping_add(1);
                edit.create(id, &parents, name, new.kind, content.clone(), [])?;
            }
        }
    }
    for path in all_dirs(before).into_iter().rev().filter(|path| !dirs.contains(path)) {
        if let Some(entry) = find_path(&edit.view(), path)?.filter(|entry| entry.kind.is_dir()) {
            edit.remove_tree(&entry)?;
        }
    }
    let edited = edit.finish();
    let mut tree = root.clone();
    if !edited.nodes.is_empty() {
        tree.apply_derived(edited.nodes, edited.index);
        tree.vv_mut().learn(&op);
    }
    Ok(tree)
}

/// Every directory of a tree, listed or implied.
fn all_dirs<B>(tree: &PlainTree<B>) -> BTreeSet<&[u8]> {
    let mut dirs = BTreeSet::new();
    for (path, entry) in tree {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        dirs.extend(slashes.filter_map(|(at, _)| path.get(..at)));
        if entry.kind.is_dir() {
            dirs.insert(path.as_slice());
        }
    }
    dirs
}

/// New paths of files that were moved, and where they came from.
fn moves<'t, B>(before: &'t PlainTree<B>, after: &'t PlainTree<B>) -> BTreeMap<&'t [u8], &'t [u8]> {
    let gone = unique(before, after);
    let new = unique(after, before);
    let pairs = new.into_iter().filter_map(|(id, to)| Some((to, *gone.get(&id)?)));
    // A file cannot become the directory it is in.
    pairs.filter(|(to, from)| !to.starts_with(&[from, b"/".as_slice()].concat())).collect()
}

/// Files whose bytes occur once in `tree` and whose path is not in `other`.
fn unique<'t, B>(tree: &'t PlainTree<B>, other: &PlainTree<B>) -> BTreeMap<ContentId, &'t [u8]> {
    let mut paths: BTreeMap<ContentId, Vec<&[u8]>> = BTreeMap::new();
    for (path, entry) in tree.iter().filter(|(_, entry)| entry.kind == Kind::File) {
        if let Some(content) = &entry.content {
            paths.entry(content.id).or_default().push(path);
        }
    }
    let single = paths.into_iter().filter_map(|(id, paths)| match paths.as_slice() {
        [path] => Some((id, *path)),
        _ => None,
    });
    single.filter(|(_, path)| !other.contains_key(*path)).collect()
}

type PlainEdit<'t, B> = Edit<'t, B, Indexed<B>>;

fn parents<B: Body>(
    edit: &mut PlainEdit<'_, B>,
    path: &[u8],
    op: OpId,
    next: &mut u32,
) -> Result<(Vec<NodeId>, Name), ThreeWayError> {
    let mut names = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        names.push(Name::new(part)?);
    }
    let last = names.pop().ok_or(BadName::Empty)?;
    let mut dirs = vec![NodeId::Root];
    for name in names {
        dirs = match edit.view().lookup(&dirs, &name).map_err(EditError::Tree)? {
            Some(entry) if entry.kind.is_dir() => entry.ids,
            Some(_) => return Err(EditError::NotADirectory.into()),
            None => {
                let id = NodeId::Born { op, n: *next };
                *next = next.wrapping_add(1);
                edit.create(id, &dirs, name, Kind::Dir, None, [])?;
                vec![id]
            }
        };
    }
    Ok((dirs, last))
}
