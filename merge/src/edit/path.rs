//! Edits by path, for those who know no ids.

use std::convert::Infallible;

use super::{Edit, EditError, EditResult, NewNode};
use crate::entry::Entry;
use crate::ids::{NodeId, OpId};
use crate::memory::Indexed;
use crate::name::{BadName, Name};
use crate::node::{Body, Content, Kind};
use crate::small_map::SmallMap;
use crate::tree::Tree;
use crate::view::View;

/// Why an edit by path was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PathError {
    /// The path cannot be one.
    #[error("a path is malformed")]
    Name(#[from] BadName),
    /// The tree does not allow it.
    #[error(transparent)]
    Edit(#[from] EditError<Infallible>),
}

/// An [`Edit`] of a tree in memory that has its operation for itself, so it can number what it
/// creates.
pub(crate) struct PathEdit<'t, B> {
    pub(crate) edit: Edit<'t, B, Indexed<B>>,
    op: OpId,
    created: u32,
}

impl<'t, B: Body> PathEdit<'t, B> {
    pub(crate) fn new(tree: &'t Indexed<B>, op: OpId) -> Self {
        Self { edit: Edit::new(tree, op), op, created: 0 }
    }

    pub(crate) fn find(&self, path: &[u8]) -> Result<Option<Entry<B>>, BadName> {
        find_path(&self.edit.view(), path)
    }

    pub(crate) fn lookup(&self, dirs: &[NodeId], name: &Name) -> Option<Entry<B>> {
        let Ok(entry) = self.edit.view().lookup(dirs, name);
        entry
    }

    /// Finds the directory of `path`, making what is missing, and its last name.
    pub(crate) fn make_parents(&mut self, path: &[u8]) -> Result<(Vec<NodeId>, Name), PathError> {
        let mut names = names_of(path)?;
        let last = names.pop().ok_or(BadName::Empty)?;
        let mut dirs = vec![NodeId::Root];
        for name in names {
            dirs = match self.lookup(&dirs, &name) {
                Some(entry) if entry.kind.is_dir() => entry.ids,
                Some(_) => return Err(EditError::NotADirectory.into()),
                None => vec![self.create(&dirs, name, Kind::Dir, None)?],
            };
        }
        Ok((dirs, last))
    }

    pub(crate) fn create(
        &mut self,
        dirs: &[NodeId],
        name: Name,
        kind: Kind,
        content: Option<Content<B>>,
    ) -> EditResult<NodeId, Infallible> {
        let id = NodeId::Born { op: self.op, n: self.created };
        self.created = self.created.wrapping_add(1);
        let attrs = SmallMap::default();
        self.edit.create(dirs, NewNode { id, name, kind, content, attrs })?;
        Ok(id)
    }
}

/// The names of a path: with slashes between them, and none before or behind.
pub(crate) fn names_of(path: &[u8]) -> Result<Vec<Name>, BadName> {
    path.split(|byte| *byte == b'/').map(Name::new).collect()
}

/// The entry at `path`.
pub(crate) fn find_path<B: Body, T: Tree<B, Error = Infallible>>(
    view: &View<'_, B, T>,
    path: &[u8],
) -> Result<Option<Entry<B>>, BadName> {
    let mut dirs = vec![NodeId::Root];
    let mut found: Option<Entry<B>> = None;
    for name in names_of(path)? {
        if let Some(dir) = found.take() {
            if !dir.kind.is_dir() {
                return Ok(None);
            }
            dirs = dir.ids;
        }
        let Ok(entry) = view.lookup(&dirs, &name);
        match entry {
            Some(entry) => found = Some(entry),
            None => return Ok(None),
        }
    }
    Ok(found)
}
