//! Conflicts: what there are, and settling them.

use std::collections::BTreeMap;

use cairnfs_merge::{
    Conflict, ConflictVersion, Decision, DeviceId, Name, NodeId, OpId, Tree, View, at_name,
    conflicts,
};

use super::{Change, Mount};
use crate::{
    ConflictInfo, ConflictSide, Error, Keep, Result,
    file::Data,
    peers::is_of_versions,
    tree::{LiveTree, attrs::Meta},
};

/// Who wrote under each device id.
type Authors = BTreeMap<DeviceId, ([u8; 32], String)>;

impl Mount {
    /// What conflicts, sorted by path: all, or what is at `path` or below it.
    ///
    /// # Errors
    ///
    /// Damage, [`Error::Io`].
    pub fn conflicts(&self, path: Option<&[u8]>) -> Result<Vec<ConflictInfo>> {
        let listed = self.if_disputed(|tree| {
            let authors = self.shared().core.read().head.charter.authors();
            let wanted = conflicts(&View::new(tree))?.into_iter().filter(|conflict| match path {
                Some(path) => is_at_or_below(conflict, path),
                None => true,
            });
            wanted.map(|conflict| self.info(tree, &conflict, &authors)).collect::<Result<_>>()
        });
        Ok(listed?.unwrap_or_default())
    }

    /// What `list` makes of the tree as it is now, unless nothing conflicts there. Without the lock of
    /// `core`: there may be many conflicts, and whoever opens something must not wait for that.
    pub(super) fn if_disputed<R>(
        &self,
        list: impl Fn(&LiveTree) -> Result<R>,
    ) -> Result<Option<R>> {
        let look = || {
            let disputed = self.shared().core.read().tree.disputed()?;
            disputed.as_ref().map(&list).transpose()
        };
        match look() {
            // The version may have been replaced and given up for space meanwhile.
            Err(Error::Damaged { .. }) => look(),
            result => result,
        }
    }

    /// What is told of a conflict; its sides are the versions, in their order.
    fn info<T: Tree<Data, Error = Error>>(
        &self,
        tree: &T,
        conflict: &Conflict<Data>,
        authors: &Authors,
    ) -> Result<ConflictInfo> {
        let key_of = |version: &ConflictVersion<Data>| authors.get(&version.author());
        let is_ours = |version: &ConflictVersion<Data>| {
            key_of(version).is_some_and(|(key, _)| *key == self.shared().key)
        };
        let newest_of = |ours: bool| {
            let side = conflict.versions.iter().filter(|version| is_ours(version) == ours);
            side.map(|version| version.op).max()
        };
        let newest = [newest_of(false), newest_of(true)];
        let sides = conflict.versions.iter().map(|version| {
            let author = key_of(version);
            let node = tree.node(&version.entry.id())?;
            let content = version.entry.content.as_ref();
            Ok(ConflictSide {
                path: shown_path(conflict, version),
                id: content.map_or([0; 32], |content| content.id.0),
                author: author.map(|(key, _)| *key),
                author_name: author.map_or_else(String::new, |(_, name)| name.clone()),
                ours: is_ours(version),
                newest: newest.contains(&Some(version.op)),
                time: node.map_or_else(Default::default, |node| Meta::of(&node).times.mtime).into(),
                len: content.map_or(0, |content| content.len),
            })
        });
        Ok(ConflictInfo {
            path: conflict.path.clone(),
            kind: conflict.kind.to_string(),
            sides: sides.collect::<Result<_>>()?,
        })
    }

    /// Settles the conflict of the contested name `path`, or of which `path` is a copy.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if nothing conflicts there, the version to keep takes no part, or the
    /// directory to move to is gone; [`Error::Exists`] if the name to move to is taken;
    /// [`Error::ReadOnly`], damage.
    pub fn resolve(&self, path: &[u8], keep: &Keep) -> Result<()> {
        // What is written but not published is part of what is decided on.
        if self.shared().core.read().has_changed_contents() {
            self.publish()?;
        }
        let authors = self.shared().core.read().head.charter.authors();
        let is_ours =
            |op: &OpId| authors.get(&op.device).is_some_and(|(key, _)| *key == self.shared().key);
        self.change(|change| {
            let conflict = conflict_at(change, path)?.ok_or(Error::NotFound)?;
            let info = self.info(change.edit.tree(), &conflict, &authors)?;
            let kept = info.kept(keep)?;
            let kept = kept.first().and_then(|place| conflict.versions.get(*place));
            let kept = &kept.ok_or(Error::NotFound)?.entry;
            let decision = if *keep == Keep::Both { Decision::All } else { Decision::Only(kept) };
            let prefers = |op: &OpId| match keep {
                Keep::Ours => is_ours(op),
                Keep::Theirs => !is_ours(op),
                _ => false,
            };
            let found = change.edit.decide(&conflict.dirs, &conflict.slot, &decision, &prefers)?;
            // Nothing of what is disputed is from the side that was asked for.
            if !found && !info.is_of_versions() && matches!(keep, Keep::Ours | Keep::Theirs) {
                return Err(Error::NotFound);
            }
            Ok(())
        })
    }
}

/// A conflict of the contested name `path`, or of which `path` is a copy: about which version is to
/// stay, if there is such a one.
fn conflict_at(change: &Change<'_>, path: &[u8]) -> Result<Option<Conflict<Data>>> {
    let mut names = path.split(|byte| *byte == b'/').map(Name::new);
    let Some(Ok(last)) = names.next_back() else { return Ok(None) };
    let mut dirs = vec![NodeId::Root];
    for name in names {
        let Ok(name) = name else { return Ok(None) };
        match change.lookup(&dirs, &name)? {
            Some(entry) if entry.kind.is_dir() => dirs = entry.ids,
            _ => return Ok(None),
        }
    }
    let mut found = at_name(&change.edit.view(), &dirs, &last)?;
    if let Some(first) = found.first().map(|conflict| conflict.slot.clone()) {
        found.retain(|conflict| conflict.slot == first);
    }
    let of_versions = found.iter().position(|it| is_of_versions(&it.kind.to_string()));
    Ok(found.into_iter().nth(of_versions.unwrap_or(0)))
}

/// The path under which a version is shown.
fn shown_path(conflict: &Conflict<Data>, version: &ConflictVersion<Data>) -> Vec<u8> {
    let dir = conflict.path.len().saturating_sub(conflict.slot.as_bytes().len());
    let mut path = conflict.path.get(..dir).unwrap_or_default().to_vec();
    path.extend_from_slice(version.entry.name.as_bytes());
    path
}

fn is_at_or_below(conflict: &Conflict<Data>, path: &[u8]) -> bool {
    let within = |shown: &[u8]| match shown.strip_prefix(path) {
        Some(rest) => rest.is_empty() || path.is_empty() || rest.starts_with(b"/"),
        None => false,
    };
    within(&conflict.path) || conflict.versions.iter().any(|it| within(&shown_path(conflict, it)))
}
