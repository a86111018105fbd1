//! A log of operations on paths, for tools that have no tree of their own.
//!
//! Merging two logs is the union of their operations: none is rewritten, dropped or filed under
//! another id. The tree of a log is a pure function of the set, and the tree of a union is the
//! join of the trees.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use serde::{Deserialize, Serialize};

use crate::conflict::{Conflict, conflicts};
use crate::delta::{NodeDelta, nodes_of};
use crate::edit::{EditError, Edited, PathEdit, PathError, find_path};
use crate::entry::Entry;
use crate::ids::{ClockExhausted, ContentId, DeviceId, NodeId, OpId, VersionVector};
use crate::memory::Indexed;
use crate::name::BadName;
use crate::node::{Body, Content, Kind};
use crate::operation::{PathOpKind, PathOperation};
use crate::resolve::{ConflictResolver, Context, ResolveError, resolve};
use crate::state::State;
use crate::verify::{self, Reject};
use crate::view::{Policy, View};

/// Why a log refused something; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// A path that cannot be one.
    #[error("a path is malformed")]
    Path(#[from] BadName),
    /// The tree does not allow it.
    #[error(transparent)]
    Edit(#[from] EditError<Infallible>),
    /// A resolver gave an answer that cannot be carried out.
    #[error(transparent)]
    Resolve(#[from] ResolveError<Infallible>),
    /// The clock is exhausted.
    #[error(transparent)]
    Clock(#[from] ClockExhausted),
    /// The other log is not believed.
    #[error(transparent)]
    Reject(#[from] Reject),
    /// One operation id stands for two operations: a device key was cloned.
    #[error("operation {op} has two meanings")]
    Equivocation {
        /// The operation.
        op: OpId,
    },
    /// An operation says that it replaced one which its author cannot have seen: one that is not in
    /// the log, or not an earlier one.
    #[error("operation {op} says that it replaced {replaced}, which it cannot have seen")]
    Unseen {
        /// The operation.
        op: OpId,
        /// What it says that it replaced.
        replaced: OpId,
    },
    /// An operation says of itself that it replaced others than it does.
    #[error("operation {op} replaced others than it says")]
    Pred {
        /// The operation.
        op: OpId,
    },
}

impl From<PathError> for LogError {
    fn from(err: PathError) -> Self {
        match err {
            PathError::Name(err) => err.into(),
            PathError::Edit(err) => err.into(),
        }
    }
}

/// What merging a log did.
#[derive(Clone, Debug)]
pub struct LogMerge<B> {
    /// How many operations were new.
    pub added: usize,
    /// The operation that the resolver's answers made, if there were any.
    pub resolved_by: Option<OpId>,
    /// Versions that are no longer shown because of an answer.
    pub discarded: Vec<ContentId>,
    /// Conflicts that stay.
    pub unresolved: Vec<Conflict<B>>,
}

/// A log of operations on paths.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "B: Body + Deserialize<'de>", serialize = "B: Body + Serialize"))]
#[serde(try_from = "Stored<B>", into = "Stored<B>")]
pub struct PathOpLog<B> {
    device: DeviceId,
    ops: BTreeMap<OpId, PathOperation<B>>,
    /// What the operations amount to.
    tree: Indexed<B>,
}

/// A log as it is stored; the tree follows from the operations.
#[derive(Serialize, Deserialize)]
#[serde(bound(deserialize = "B: Ord + Deserialize<'de>"))]
struct Stored<B> {
    device: DeviceId,
    ops: Vec<PathOperation<B>>,
}

impl<B: Body> From<PathOpLog<B>> for Stored<B> {
    fn from(log: PathOpLog<B>) -> Self {
        Self { device: log.device, ops: log.ops.into_values().collect() }
    }
}

impl<B: Body> TryFrom<Stored<B>> for PathOpLog<B> {
    type Error = LogError;

    fn try_from(stored: Stored<B>) -> Result<Self, LogError> {
        let mut log = Self::new(stored.device);
        let mut ops = BTreeMap::new();
        for op in stored.ops {
            let id = op.id;
            if ops.insert(id, op).is_some() {
                return Err(LogError::Equivocation { op: id });
            }
        }
        log.tree = Indexed::new(checked(&ops)?);
        log.ops = ops;
        Ok(log)
    }
}

impl<B: Body> PathOpLog<B> {
    /// An empty log, written by `device`.
    #[must_use]
    pub fn new(device: DeviceId) -> Self {
        Self { device, ops: BTreeMap::new(), tree: Indexed::default() }
    }

    /// The recorded operations in the order of their ids.
    pub fn operations(&self) -> impl Iterator<Item = &PathOperation<B>> {
        self.ops.values()
    }

    /// What the log knows.
    #[must_use]
    pub const fn vv(&self) -> &VersionVector {
        &self.tree.state().vv
    }

    /// The state the operations amount to.
    #[must_use]
    pub const fn tree(&self) -> &Indexed<B> {
        &self.tree
    }

    /// Records that `path` was written; directories on the way are made.
    ///
    /// # Errors
    ///
    /// [`LogError::Path`], or [`LogError::Edit`] if a file is in the way or a directory is there.
    pub fn write(&mut self, path: &[u8], content: Content<B>) -> Result<(), LogError> {
        let written = content.clone();
        self.record(PathOpKind::Write, path, Some(written), |paths| {
            let (dirs, name) = paths.make_parents(path)?;
            let _node = match paths.lookup(&dirs, &name) {
                Some(entry) => paths.edit.write(&entry, content)?,
                None => paths.create(&dirs, name, Kind::File, Some(content))?,
            };
            Ok(())
        })
    }

    /// Records that a directory was made, with those on the way.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub fn mkdir(&mut self, path: &[u8]) -> Result<(), LogError> {
        self.record(PathOpKind::Mkdir, path, None, |paths| {
            let (dirs, name) = paths.make_parents(path)?;
            paths.create(&dirs, name, Kind::Dir, None)?;
            Ok(())
        })
    }

    /// Records that `path` was removed, with all that is in it.
    ///
    /// # Errors
    ///
    /// [`LogError::Edit`] if nothing is there.
    pub fn remove(&mut self, path: &[u8]) -> Result<(), LogError> {
        let entry = self.entry(path)?.ok_or(EditError::NotFound)?;
        self.record(PathOpKind::Remove, path, None, |paths| {
            let edit = &mut paths.edit;
            let gone =
                if entry.kind.is_dir() { edit.remove_tree(&entry) } else { edit.unlink(&entry) };
            Ok(gone?)
        })
    }

    /// Records that `from` was moved to `to`.
    ///
    /// # Errors
    ///
    /// [`LogError::Edit`] as for `rename(2)`.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<(), LogError> {
        let entry = self.entry(from)?.ok_or(EditError::NotFound)?;
        self.record(PathOpKind::Rename, from, None, |paths| {
            let (dirs, name) = paths.make_parents(to)?;
            Ok(paths.edit.rename(&entry, &dirs, &name)?)
        })
    }

    /// Records that a person settled the conflict at `path`.
    ///
    /// # Errors
    ///
    /// [`LogError::Edit`] if nothing is there, or a directory.
    pub fn settle(&mut self, path: &[u8], content: Content<B>) -> Result<(), LogError> {
        let entry = self.entry(path)?.ok_or(EditError::NotFound)?;
        let written = Some(content.clone());
        self.record(PathOpKind::Resolve, path, written, |paths| {
            Ok(paths.edit.resolve(&entry, content)?)
        })
    }

    /// The entry shown at `path`: names with slashes between them, and none before or behind.
    ///
    /// # Errors
    ///
    /// [`LogError::Path`] if it is no path.
    pub fn entry(&self, path: &[u8]) -> Result<Option<Entry<B>>, LogError> {
        Ok(find_path(&View::new(&self.tree), path)?)
    }

    /// All entries by path.
    #[must_use]
    pub fn entries(&self) -> BTreeMap<Vec<u8>, Entry<B>> {
        let Ok(rendered) = View::new(&self.tree).render();
        rendered.by_path().into_iter().map(|(path, entry)| (path, entry.clone())).collect()
    }

    /// All conflicts.
    #[must_use]
    pub fn conflicts(&self) -> Vec<Conflict<B>> {
        let Ok(conflicts) = conflicts(&View::new(&self.tree));
        conflicts
    }

    /// Adds the operations of `other`, and returns how many were new.
    ///
    /// Copies the operations; if some were new, it derives the tree from all of them anew.
    ///
    /// # Errors
    ///
    /// [`LogError::Reject`], [`LogError::Equivocation`], [`LogError::Unseen`] or [`LogError::Pred`] if
    /// `other` is not to be believed; then nothing has changed, the clock neither.
    pub fn merge(&mut self, other: &Self) -> Result<usize, LogError> {
        let mut ops = self.ops.clone();
        for (id, op) in &other.ops {
            match ops.get(id) {
                Some(known) if known != op => return Err(LogError::Equivocation { op: *id }),
                Some(_) => (),
                None => drop(ops.insert(*id, op.clone())),
            }
        }
        let added = ops.len().saturating_sub(self.ops.len());
        if added > 0 {
            self.tree = Indexed::new(checked(&ops)?);
            self.ops = ops;
        }
        Ok(added)
    }

    /// Adds the operations of `other`, then asks `resolver` about the conflicts of the result. Its
    /// answers become one more operation of this log.
    ///
    /// # Errors
    ///
    /// As [`Self::merge`], or [`LogError::Resolve`] for an answer that cannot be carried out; then
    /// nothing has changed.
    pub fn merge_with_resolver(
        &mut self,
        other: &Self,
        resolver: &dyn ConflictResolver<B>,
        context: &Context<'_, B>,
    ) -> Result<LogMerge<B>, LogError> {
        let local = self.vv().clone();
        let mut merged = self.clone();
        let added = merged.merge(other)?;
        let op = merged.vv().next_op(self.device)?;
        let done = resolve(&merged.tree, Policy::default(), op, &local, resolver, context)?;
        let resolved_by = (!done.edited.nodes.is_empty()).then_some(op);
        if resolved_by.is_some() {
            merged.keep(op, PathOpKind::Resolve, b"", None, true, done.edited);
        }
        *self = merged;
        let (discarded, unresolved) = (done.discarded, done.unresolved);
        Ok(LogMerge { added, resolved_by, discarded, unresolved })
    }

    fn record(
        &mut self,
        kind: PathOpKind,
        path: &[u8],
        content: Option<Content<B>>,
        action: impl FnOnce(&mut PathEdit<'_, B>) -> Result<(), PathError>,
    ) -> Result<(), LogError> {
        let op = self.vv().next_op(self.device)?;
        let mut paths = PathEdit::new(&self.tree, op);
        action(&mut paths)?;
        let edited = paths.edit.finish();
        if !edited.nodes.is_empty() {
            self.keep(op, kind, path, content, false, edited);
        }
        Ok(())
    }

    fn keep(
        &mut self,
        id: OpId,
        kind: PathOpKind,
        path: &[u8],
        content: Option<Content<B>>,
        auto: bool,
        edited: Edited<B>,
    ) {
        let nodes = &self.tree.state().nodes;
        let effects = edited.nodes.iter().filter_map(|(node, after)| {
            let before = nodes.get(node).map(AsRef::as_ref);
            Some((*node, NodeDelta::between(id, before, after.as_deref())?))
        });
        let effects: Vec<_> = effects.collect();
        let pred = replaced(&effects).into_iter().collect();
        let path = path.to_vec();
        self.tree.apply_derived(edited.nodes, edited.index);
        self.tree.vv_mut().learn(&id);
        self.ops.insert(id, PathOperation { id, kind, path, content, pred, auto, effects });
    }
}

/// The operations that `effects` replace.
fn replaced<B: Body>(effects: &[(NodeId, NodeDelta<B>)]) -> BTreeSet<OpId> {
    effects.iter().flat_map(|(_, delta)| delta.replaced()).copied().collect()
}

/// Checks that each operation replaced only what its author can have seen, and says so.
///
/// Else one could replace what is not done yet: forged knowledge, as in [`verify`]. A log has all that
/// its operations stand on, as logs are merged whole.
fn check_replaced<B: Body>(ops: &BTreeMap<OpId, PathOperation<B>>) -> Result<(), LogError> {
    for (id, op) in ops {
        let replaced = replaced(&op.effects);
        let unseen = |other: &&OpId| other.lamport >= id.lamport || !ops.contains_key(other);
        if let Some(other) = replaced.iter().find(unseen) {
            return Err(LogError::Unseen { op: *id, replaced: *other });
        }
        if !replaced.iter().eq(&op.pred) {
            return Err(LogError::Pred { op: *id });
        }
    }
    Ok(())
}

/// The state of a set of operations, if it is to be believed.
fn checked<B: Body>(ops: &BTreeMap<OpId, PathOperation<B>>) -> Result<State<B>, LogError> {
    let mut vv = VersionVector::new();
    for id in ops.keys() {
        // An author's clock is one ahead of something it knew.
        let next = vv.max_lamport().checked_add(1);
        if id.lamport == 0 || id.lamport == u64::MAX || next.is_none_or(|next| id.lamport > next) {
            return Err(Reject::Lamport { device: id.device, lamport: id.lamport }.into());
        }
        vv.learn(id);
    }
    check_replaced(ops)?;
    let deltas = ops
        .iter()
        .flat_map(|(id, op)| op.effects.iter().map(move |(node, delta)| (*id, node, delta)));
    let state = State { vv, nodes: nodes_of(deltas) };
    verify::state(&state)?;
    Ok(state)
}
