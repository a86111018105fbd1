//! Three-way merging for tools that have only plain trees.
//!
//! The trees become states: what they have in common with the base has one identity, each side's
//! changes are one operation. Then it is the same join and the same view.

use std::collections::{BTreeMap, BTreeSet};

use crate::conflict::{Conflict, conflicts};
use crate::edit::{EditError, PathEdit, PathError};
use crate::ids::{ContentId, DeviceId, OpId};
use crate::memory::Indexed;
use crate::name::BadName;
use crate::node::{Body, Content, Kind};
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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThreeWayError {
    /// A path that cannot be one.
    #[error("a path is malformed")]
    Path(#[from] BadName),
    /// A tree contradicts itself, as with a file that has entries below it.
    #[error("a tree contradicts itself")]
    Tree(#[from] EditError<std::convert::Infallible>),
}

impl From<PathError> for ThreeWayError {
    fn from(err: PathError) -> Self {
        match err {
            PathError::Name(err) => err.into(),
            PathError::Edit(err) => err.into(),
        }
    }
}

/// Whether a file that is gone and a new one of the same bytes are one file that was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renames {
    /// Never.
    Ignore,
    /// Where the bytes occur once among what is gone, once among what is new, and nowhere else; but
    /// not where a directory has taken the place of the file.
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
///
/// # Panics
///
/// Never: the clock has time left for what has to be restored.
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
    let device = DeviceId([0xff; 16]);
    merged.merge(&other, device).expect("because only two ticks of the clock have passed");
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
) -> Result<Indexed<B>, PathError> {
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
) -> Result<Indexed<B>, PathError> {
    let moved = match renames {
        Renames::Ignore => BTreeMap::new(),
        Renames::ExactContent => moves(before, after),
    };
    let mut paths = PathEdit::new(root, op);
    unlink_gone(&mut paths, before, after, &moved)?;
    put_all(&mut paths, after, &moved)?;
    remove_gone_dirs(&mut paths, before, after)?;
    let edited = paths.edit.finish();
    let mut tree = root.clone();
    if !edited.nodes.is_empty() {
        tree.apply_derived(edited.nodes, edited.index);
        tree.vv_mut().learn(&op);
    }
    Ok(tree)
}

/// Removes the files of `before` that `after` does not have, but for those that are moved.
fn unlink_gone<B: Body>(
    paths: &mut PathEdit<'_, B>,
    before: &PlainTree<B>,
    after: &PlainTree<B>,
    moved: &Moves<'_>,
) -> Result<(), PathError> {
    let sources: BTreeSet<&[u8]> = moved.values().copied().collect();
    for (path, old) in before.iter().filter(|(_, old)| !old.kind.is_dir()) {
        let stays = after.get(path).is_some_and(|new| new.kind == old.kind);
        if !stays
            && !sources.contains(path.as_slice())
            && let Some(entry) = paths.find(path)?
        {
            paths.edit.unlink(&entry)?;
        }
    }
    Ok(())
}

/// Moves, writes and creates what `after` has.
fn put_all<B: Body>(
    paths: &mut PathEdit<'_, B>,
    after: &PlainTree<B>,
    moved: &Moves<'_>,
) -> Result<(), PathError> {
    for (path, new) in after {
        let (parents, name) = paths.make_parents(path)?;
        let mut found = paths.lookup(&parents, &name);
        if let Some(dir) = found.take_if(|entry| entry.kind.is_dir() && !new.kind.is_dir()) {
            paths.edit.remove_tree(&dir)?;
        }
        let source = match moved.get(path.as_slice()) {
            Some(from) => paths.find(from)?,
            None => None,
        };
        match (found, &new.content, source) {
            (Some(entry), Some(content), _) if entry.kind == new.kind => {
                paths.edit.write(&entry, content.clone())?;
            }
            (Some(entry), None, _) if entry.kind.is_dir() => (),
            (Some(_), ..) => return Err(EditError::Exists.into()),
            (None, _, Some(entry)) => paths.edit.rename(&entry, &parents, &name)?,
            (None, content, None) => {
                paths.create(&parents, name, new.kind, content.clone())?;
            }
        }
    }
    Ok(())
}

/// Removes the directories of `before` that `after` does not have; what was in them is gone or moved.
fn remove_gone_dirs<B: Body>(
    paths: &mut PathEdit<'_, B>,
    before: &PlainTree<B>,
    after: &PlainTree<B>,
) -> Result<(), PathError> {
    let (was, is) = (all_dirs(before), all_dirs(after));
    for path in was.difference(&is) {
        if let Some(entry) = paths.find(path)?.filter(|entry| entry.kind.is_dir()) {
            paths.edit.remove_tree(&entry)?;
        }
    }
    Ok(())
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
type Moves<'t> = BTreeMap<&'t [u8], &'t [u8]>;

fn moves<'t, B>(before: &'t PlainTree<B>, after: &'t PlainTree<B>) -> Moves<'t> {
    let gone = unique(before, after);
    let new = unique(after, before);
    let pairs = new.into_iter().filter_map(|(id, to)| Some((to, *gone.get(&id)?)));
    // Where a directory is now, the file has to be gone before anything is moved.
    let dirs = all_dirs(after);
    pairs.filter(|(_, from)| !dirs.contains(from)).collect()
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
