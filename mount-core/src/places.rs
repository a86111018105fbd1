//! Finding one's way in the shown tree.

use cairnfs_merge::{Entry, NodeId, Tree, View, hanging, united};

use crate::{Error, Result, file::Data};

/// The directories that are shown as one with `dir`, itself included.
///
/// # Errors
///
/// Damage in the tree.
pub(crate) fn group<T: Tree<Data, Error = Error>>(tree: &T, dir: &NodeId) -> Result<Vec<NodeId>> {
    // Directories of one name contest it, so in peace every directory is alone.
    if tree.is_at_peace()? { Ok(vec![*dir]) } else { united(tree, dir) }
}

/// The entry that shows the node `id` under its own name; `None` if it is not shown.
///
/// # Errors
///
/// Damage in the tree.
pub(crate) fn entry_of_node<T: Tree<Data, Error = Error>>(
    tree: &T,
    id: &NodeId,
) -> Result<Option<Entry<Data>>> {
    let Some(node) = tree.node(id)? else { return Ok(None) };
    let displaced = tree.displaced(id)?;
    for (_, parent, name) in hanging(&node, displaced.as_ref()) {
        let dirs = group(tree, &parent)?;
        let mut shown = View::new(tree).claimed(&dirs, name)?.into_iter();
        if let Some(entry) = shown.find(|entry| entry.ids.contains(id)) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}
