//! Conflicts: what there are, and settling them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use cairnfs_merge::{
    Conflict, ConflictKind, ConflictVersion, Decision, DeviceId, Disputed, Name, NodeId, OpId,
    Tree, View, at_name, conflicts,
};
use cairnfs_store::DevicePublicKey;

use super::{Change, Mount};
use crate::{
    Author, ConflictInfo, ConflictSetting, ConflictSide, Error, Keep, OtherName, Result, Seen,
    Setting,
    file::Data,
    owners::Owners,
    tree::{
        LiveTree,
        attrs::{self, Meta},
    },
};

/// Who is who.
struct Known {
    /// Who wrote under each device id.
    authors: BTreeMap<DeviceId, (DevicePublicKey, String)>,
    /// As whom owners are shown.
    owners: Owners,
}

impl Mount {
    /// What conflicts, sorted by path: all, or what is at `path` or below it. A file with several names is
    /// there once, under the first of them that is.
    ///
    /// # Errors
    ///
    /// Damage, [`Error::Io`].
    pub fn conflicts(&self, path: Option<&[u8]>) -> Result<Vec<ConflictInfo>> {
        let listed = self.if_disputed(|tree| {
            let known = self.known()?;
            let is_wanted = |conflict: &Conflict<Data>| match path {
                Some(path) => is_at_or_below(conflict, path),
                None => true,
            };
            let listed =
                by_file(conflicts(&View::new(tree))?).into_iter().filter_map(|mut names| {
                    let first = names.iter().position(is_wanted)?;
                    Some((names.remove(first), names))
                });
            let mut infos = Vec::new();
            for (conflict, others) in listed {
                let mut info = self.info(tree, &conflict, &known)?;
                info.other_names = others.iter().map(other_name).collect();
                infos.push(info);
            }
            infos.sort_by(|a, b| (&a.path, a.kind).cmp(&(&b.path, b.kind)));
            Ok(infos)
        });
        Ok(listed?.unwrap_or_default())
    }

    /// How many files and names conflict.
    ///
    /// # Errors
    ///
    /// Those of [`Self::conflicts`].
    pub(super) fn conflict_count(&self) -> Result<usize> {
        let count = self.if_disputed(|tree| Ok(by_file(conflicts(&View::new(tree))?).len()));
        Ok(count?.unwrap_or_default())
    }

    /// What `list` makes of the tree as it is now, unless nothing conflicts there. Without the lock of
    /// `core`: there may be many conflicts, and whoever opens something must not wait for that.
    fn if_disputed<R>(&self, list: impl Fn(&LiveTree) -> Result<R>) -> Result<Option<R>> {
        let look = || {
            let disputed = self.shared().core.read().tree.disputed()?;
            disputed.as_ref().map(&list).transpose()
        };
        match look() {
            // The version may have been replaced and given up for space meanwhile.
            Err(err) if err.is_damage() => look(),
            result => result,
        }
    }

    fn known(&self) -> Result<Known> {
        let core = self.shared().core.read();
        let owners = self.shared().owners(&core.tree)?;
        Ok(Known { authors: core.head.charter.authors(), owners })
    }

    /// What is told of a conflict; its sides are the versions, in their order.
    fn info<T: Tree<Data, Error = Error>>(
        &self,
        tree: &T,
        conflict: &Conflict<Data>,
        known: &Known,
    ) -> Result<ConflictInfo> {
        let author = |device: &DeviceId| {
            let author = known.authors.get(device);
            Author {
                key: author.map(|(key, _)| *key),
                name: author.map_or_else(String::new, |(_, name)| name.clone()),
                ours: author.is_some_and(|(key, _)| *key == self.shared().key),
            }
        };
        let newest_of = |ours: bool| {
            let of = |version: &&ConflictVersion<Data>| author(&version.author()).ours == ours;
            conflict.versions.iter().filter(of).map(|version| version.op).max()
        };
        let newest = [newest_of(false), newest_of(true)];
        let sides = conflict.versions.iter().map(|version| {
            let node = tree.node(&version.entry.id())?;
            let content = version.entry.content.as_ref();
            let id = content.map(|content| &content.id);
            let time = node.map(|node| Meta::of(&node, id).times.mtime);
            Ok(ConflictSide {
                path: shown_path(conflict, version),
                id: id.map_or([0; 32], |id| id.0),
                author: author(&version.author()),
                removed: version.entry.weak,
                newest: newest.contains(&Some(version.op)),
                time: time.map_or(SystemTime::UNIX_EPOCH, Into::into),
                len: content.map_or(0, |content| content.len),
            })
        });
        let remover = only_remover(conflict, known).map(|device| author(&device));
        let settings = conflict.said.iter().map(|said| {
            let node = tree.node(&said.node)?;
            Ok(ConflictSetting {
                what: setting(&said.what, &known.owners),
                author: author(&said.op.device),
                shown: said.shown,
                time: node.and_then(|node| attrs::changed_by(&node, &said.op)).map(Into::into),
            })
        });
        Ok(ConflictInfo {
            path: conflict.path.clone(),
            kind: conflict.kind,
            sides: sides.collect::<Result<_>>()?,
            settings: settings.collect::<Result<_>>()?,
            remover,
            other_names: Vec::new(),
        })
    }

    /// What conflicts at `path` or below it, to be settled: what is written and in no version yet takes
    /// part, as it does in [`Self::resolve`].
    ///
    /// # Errors
    ///
    /// Those of [`Self::conflicts`] and [`Self::publish`].
    pub fn conflicts_to_settle(&self, path: Option<&[u8]>) -> Result<Vec<ConflictInfo>> {
        self.publish_contents()?;
        self.conflicts(path)
    }

    fn publish_contents(&self) -> Result<()> {
        if self.shared().core.read().has_changed_contents() {
            self.publish()?;
        }
        Ok(())
    }

    /// Settles the conflict of the contested name `path`, or of which `path` is a copy. What whoever
    /// decides has not `seen` is not dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Changed`] if more takes part by now than was `seen`: nothing is changed then.
    /// [`Error::NotFound`] if nothing conflicts there, the version to keep takes no part, or the
    /// directory to move to is gone; [`Error::Exists`] if the name to move to is taken;
    /// [`Error::ReadOnly`], damage.
    pub fn resolve(&self, path: &[u8], keep: &Keep, seen: &Seen) -> Result<()> {
        // What is written but not published is part of what is decided on.
        self.publish_contents()?;
        let known = self.known()?;
        let is_ours = |op: &OpId| {
            known.authors.get(&op.device).is_some_and(|(key, _)| *key == self.shared().key)
        };
        self.change(|change| {
            let conflicts = conflicts_at(change, path)?;
            let infos = conflicts.iter().map(|it| self.info(change.edit.tree(), it, &known));
            let infos: Vec<_> = infos.collect::<Result<_>>()?;
            // Under the lock under which it is decided: a merge may have come since it was listed.
            if !infos.iter().all(|info| seen.knows(info)) {
                return Err(Error::Changed);
            }
            let (conflict, info) = conflicts.iter().zip(&infos).next().ok_or(Error::NotFound)?;
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
            if !found && !info.kind.is_of_versions() && matches!(keep, Keep::Ours | Keep::Theirs) {
                return Err(Error::NotFound);
            }
            Ok(())
        })
    }
}

/// The same conflicts, those of one file under its names together: what one decides about its content or
/// its attributes is decided under all of them.
fn by_file(conflicts: Vec<Conflict<Data>>) -> Vec<Vec<Conflict<Data>>> {
    let mut places = BTreeMap::new();
    let mut files: Vec<Vec<_>> = Vec::new();
    for conflict in conflicts {
        let is_of_file = matches!(conflict.kind, ConflictKind::Content | ConflictKind::Meta);
        let versions = conflict.versions.iter().map(|it| (it.entry.id(), it.op));
        let said = conflict.said.iter().map(|it| (it.node, it.op));
        let file = (conflict.kind, versions.collect::<Vec<_>>(), said.collect::<Vec<_>>());
        match places.get(&file) {
            Some(place) if is_of_file => {
                let place: &mut Vec<_> = &mut files[*place];
                place.push(conflict);
            }
            _ => {
                places.insert(file, files.len());
                files.push(vec![conflict]);
            }
        }
    }
    files
}

fn other_name(conflict: &Conflict<Data>) -> OtherName {
    let shown = conflict.versions.iter().map(|version| shown_path(conflict, version));
    OtherName { path: conflict.path.clone(), shown: shown.collect() }
}

/// The one device, of those that have or had the bucket, that has not written what is shown as removed.
fn only_remover(conflict: &Conflict<Data>, known: &Known) -> Option<DeviceId> {
    let authors = &known.authors;
    let key = |device: &DeviceId| authors.get(device).map(|(key, _)| *key);
    let removed = || conflict.versions.iter().filter(|version| version.entry.weak);
    removed().next()?;
    let wrote: BTreeSet<_> = removed().filter_map(|version| key(&version.author())).collect();
    let mut others = authors.iter().filter(|(_, (key, _))| !wrote.contains(key));
    let (device, (one, _)) = others.next()?;
    // A device has several ids.
    others.all(|(_, (key, _))| key == one).then_some(*device)
}

/// The conflicts of the contested name `path`, or of which `path` is a copy: that about which version
/// is to stay alone, if there is such a one.
fn conflicts_at(change: &Change<'_>, path: &[u8]) -> Result<Vec<Conflict<Data>>> {
    let mut names = path.split(|byte| *byte == b'/').map(Name::new);
    let Some(Ok(last)) = names.next_back() else { return Ok(Vec::new()) };
    let mut dirs = vec![NodeId::Root];
    for name in names {
        let Ok(name) = name else { return Ok(Vec::new()) };
        match change.lookup(&dirs, &name)? {
            Some(entry) if entry.kind.is_dir() => dirs = entry.into_ids(),
            _ => return Ok(Vec::new()),
        }
    }
    let mut found = at_name(&change.edit.view(), &dirs, &last)?;
    if let Some(first) = found.first().map(|conflict| conflict.slot.clone()) {
        found.retain(|conflict| conflict.slot == first);
    }
    if let Some(of_versions) = found.iter().position(|it| it.kind.is_of_versions()) {
        return Ok(vec![found.swap_remove(of_versions)]);
    }
    Ok(found)
}

fn setting(disputed: &Disputed, owners: &Owners) -> Setting {
    match disputed {
        Disputed::Path(path) => Setting::Path(path.clone()),
        Disputed::Attr(key, value) => match attrs::setting(key, value.as_ref()) {
            Setting::Owner(uid) => Setting::Owner(owners.user(uid)),
            Setting::Group(gid) => Setting::Group(owners.group(gid)),
            other => other,
        },
    }
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
