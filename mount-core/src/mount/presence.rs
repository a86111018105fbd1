//! Whether all that an older version holds is here: parts of it may have been given up for space, and
//! those of before a device joined never were.

use cairnfs_store::{BlobRef, map::Root};

use super::{Mount, Past};
use crate::{
    Result,
    file::Data,
    tree::{BaseTree, contents, keys},
    vault::{Vault, parse_extent},
};

/// Judges one version after the other, best in the order of the log: what one shares with the last
/// that was found whole is not looked at again.
pub(crate) struct Presence {
    /// The newest version.
    newest: BaseTree,
    /// The tree of a version that is all here.
    whole: Root,
}

impl Presence {
    /// Takes for granted that the newest version is here.
    pub(super) fn new(mount: &Mount) -> Self {
        Self::beside(mount.shared().core.read().tree.base().clone())
    }

    /// Takes for granted that `whole` is here.
    pub(crate) fn beside(whole: BaseTree) -> Self {
        Self { whole: whole.root, newest: whole }
    }

    /// Whether all that the tree `root` holds is here: its map nodes are read by which it differs, and
    /// of the rest it is seen whether it can be found.
    ///
    /// # Errors
    ///
    /// Damage, [`Error::Io`](crate::Error::Io).
    pub(crate) fn of_tree(&mut self, root: Root) -> Result<bool> {
        let vault = &self.newest.vault;
        let is_here = map_is_here(vault, self.whole, root, |key, value| {
            if !key.starts_with(&keys::all_nodes()) {
                return Ok(true);
            }
            let before = vault.get(self.whole, key)?;
            match before.as_deref() {
                Some(before) if before == value => Ok(true),
                before => self.node_is_here(before, value),
            }
        })?;
        if is_here {
            self.whole = root;
        }
        Ok(is_here)
    }

    /// Whether all is here that a node, as it is stored, lies in; `before` is the same node of the
    /// version that is whole.
    fn node_is_here(&self, before: Option<&[u8]>, value: &[u8]) -> Result<bool> {
        let vault = &self.newest.vault;
        if let Some(blob) = BaseTree::outside(value)
            && !vault.blobs().contains(&blob.id)?
        {
            return Ok(false);
        }
        let before = before.map(|value| self.newest.decode(value)).transpose()?;
        let map = before.and_then(|node| contents(&node).find_map(|it| map_of(&it.body)));
        for content in contents(&*self.newest.decode(value)?) {
            if !content_is_here(vault, map.unwrap_or(Root::EMPTY), &content.body)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn map_of(content: &Data) -> Option<Root> {
    match content {
        Data::Map { root, .. } => Some(*root),
        _ => None,
    }
}

impl Past {
    /// Whether all of it is here.
    ///
    /// # Errors
    ///
    /// Damage, [`Error::Io`](crate::Error::Io).
    pub fn is_whole(&self) -> Result<bool> {
        Presence::new(self.mount()).of_tree(self.tree.root)
    }
}

/// Whether everything is here that a content lies in; of the map `whole` of another one all is.
pub(super) fn content_is_here(vault: &Vault, whole: Root, content: &Data) -> Result<bool> {
    match content {
        Data::Inline(_) | Data::Device(_) => Ok(true),
        Data::Chunk(blob) => Ok(vault.blobs().contains(&blob.id)?),
        Data::Map { root, .. } => map_is_here(vault, whole, *root, |key, value| {
            Ok(vault.blobs().contains(&parse_extent(key, value)?.blob.id)?)
        }),
    }
}

/// A map node, with the level and the first key that the node above says it has.
type Place = (BlobRef, Option<(u8, Vec<u8>)>);

/// Whether all nodes of `map` are here that are not in `whole` too, and `entry` says so of what is in
/// them. Nodes may be in the cache that are not here any more: so each is looked for.
fn map_is_here(
    vault: &Vault,
    whole: Root,
    map: Root,
    mut entry: impl FnMut(&[u8], &[u8]) -> Result<bool>,
) -> Result<bool> {
    let (maps, blobs) = (vault.maps(), vault.blobs());
    let mut todo: Vec<Place> = map.0.map(|root| (root, None)).into_iter().collect();
    while let Some((blob, place)) = todo.pop() {
        let is_known = match &place {
            Some((level, first)) => maps.holds(&whole, &blob, (*level, first), None)?,
            None => whole.0 == Some(blob),
        };
        if is_known {
            continue;
        }
        if !blobs.contains(&blob.id)? {
            return Ok(false);
        }
        let node = maps.load(&blob)?;
        for index in 0..node.len() {
            let below = node.level().checked_sub(1).zip(node.child(index));
            match below {
                Some((level, child)) => todo.push((child, Some((level, node.key(index).to_vec())))),
                None if !entry(node.key(index), node.value(index))? => return Ok(false),
                None => (),
            }
        }
    }
    Ok(true)
}
