//! Finding one's way in the shown tree.

use cairnfs_merge::{
    Content, ContentId, Entry, Name, Node, NodeId, Tree, View, hanging, spots, united,
};

use crate::{Error, Result, file::Data, inodes::Shown};

/// The directories that are shown as one with `dir`, itself included.
///
/// # Errors
///
/// Damage in the tree.
pub(crate) fn group<T: Tree<Data, Error = Error>>(tree: &T, dir: &NodeId) -> Result<Vec<NodeId>> {
    // Directories of one name contest it, so in peace every directory is alone.
    if tree.is_at_peace()? { Ok(vec![*dir]) } else { united(tree, dir) }
}

/// Whether the name `name` in the directories `dirs`, which are shown as one, has several versions.
///
/// # Errors
///
/// Damage in the tree.
pub(crate) fn is_contested<T: Tree<Data, Error = Error>>(
    tree: &T,
    dirs: &[NodeId],
    name: &Name,
) -> Result<bool> {
    for dir in dirs {
        if tree.is_contested(dir, name)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The entry that shows the node `id`: under a name that it has, or as a conflict copy if others have
/// all of them; `None` if it is not shown.
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
    let mut copy = None;
    for (_, parent, name) in hanging(&node, displaced.as_ref()) {
        let dirs = group(tree, &parent)?;
        let claimed = View::new(tree).claimed(&dirs, name)?.into_iter();
        for entry in claimed.filter(|entry| entry.ids().contains(id)) {
            if !entry.is_copy() {
                return Ok(Some(entry));
            }
            copy.get_or_insert(entry);
        }
    }
    Ok(copy)
}

/// The entry of `shown`; `None` if it is not shown.
///
/// # Errors
///
/// Damage in the tree.
pub(crate) fn entry_of<T: Tree<Data, Error = Error>>(
    tree: &T,
    shown: &Shown,
) -> Result<Option<Entry<Data>>> {
    match &shown.copy {
        Some(copy) => Ok(showing(tree, &shown.node, copy)?.into_iter().find(Entry::is_copy)),
        None => entry_of_node(tree, &shown.node),
    }
}

/// The entries that show the version `content` of the node `id`.
///
/// # Errors
///
/// Damage in the tree.
pub(crate) fn showing<T: Tree<Data, Error = Error>>(
    tree: &T,
    id: &NodeId,
    content: &ContentId,
) -> Result<Vec<Entry<Data>>> {
    let mut showing = Vec::new();
    let Some(node) = tree.node(id)? else { return Ok(showing) };
    for spot in spots(&node, tree.displaced(id)?.as_ref()) {
        let dirs = group(tree, &spot.parent)?;
        let shown = View::new(tree).claimed(&dirs, &spot.name)?.into_iter();
        showing.extend(shown.filter(|entry| {
            let is_shown = entry.content.as_ref().is_some_and(|shown| shown.id == *content);
            is_shown && entry.ids().contains(id)
        }));
    }
    Ok(showing)
}

/// The version of its content that `shown` shows of `node`; none of what has no content.
///
/// # Errors
///
/// Damage in the tree.
pub(crate) fn content_of<T: Tree<Data, Error = Error>>(
    tree: &T,
    shown: &Shown,
    node: &Node<Data>,
) -> Result<Option<Content<Data>>> {
    let contents = node.contents();
    if let Some(copy) = shown.copy {
        let found = contents.into_iter().find(|(_, content)| content.id == copy);
        return Ok(found.map(|(_, content)| content.clone()));
    }
    if let [] | [_] = contents.as_slice() {
        return Ok(contents.first().map(|(_, content)| (*content).clone()));
    }
    let entry = entry_of_node(tree, &shown.node)?;
    Ok(entry.and_then(|entry| entry.content))
}

/// The directory that the node `id` is shown in; the first of them if it has several names.
///
/// # Errors
///
/// Damage in the tree.
pub(crate) fn parent_of<T: Tree<Data, Error = Error>>(
    tree: &T,
    id: &NodeId,
) -> Result<Option<NodeId>> {
    let Some(node) = tree.node(id)? else { return Ok(None) };
    let displaced = tree.displaced(id)?;
    Ok(spots(&node, displaced.as_ref()).into_iter().next().map(|spot| spot.parent))
}
