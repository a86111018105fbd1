//! Deciding conflicts: resolvers, and what becomes of their answers.
//!
//! A merge needs no resolver. One that answers makes *operations*, as a person would, flagged
//! automatic: a decision travels, and is never a private view. Among concurrent automatic values
//! only the latest counts, so resolvers on different peers fall quiet, whatever they answer. Merged
//! texts fall quiet too: whoever sees the same versions makes the same bytes of them.

use std::collections::BTreeSet;

use crate::conflict::{Conflict, ConflictVersion, conflicts};
use crate::edit::{Edit, EditError, Edited};
use crate::entry::{ConflictKind, Entry};
use crate::ids::{ContentId, NodeId, OpId, VersionVector};
use crate::name::Name;
use crate::node::{Body, Content};
use crate::tree::Tree;
use crate::versions::MergeContent;
use crate::view::Policy;

/// What is to become of a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution<B> {
    /// The version this side had before the merge; the latest if all of them came with it. To the
    /// next merge they would be this side's, and an answer then would come a round late.
    UseBase,
    /// The version that came with the merge.
    UseIncoming,
    /// The version that this operation wrote.
    UseVersion(OpId),
    /// All versions, under the names they have: nothing is written.
    KeepBoth,
    /// None of the versions.
    SkipBoth,
    /// The version that came with the merge, under another path.
    RenameIncoming {
        /// Where; its directory must exist, and nothing may be there yet.
        new_path: Vec<u8>,
    },
    /// Something new.
    Merged(Content<B>),
    /// What [`MergeContent`] makes of the versions: of them alone, so the same on every peer. Unlike
    /// [`Self::Merged`] it counts as an edit of all of them and not as an answer. Of two answers the
    /// latest stands for both; but one that was made of other versions has edits in it that the
    /// latest lacks. The two are a conflict like any other, and are merged in their turn.
    MergedText(Content<B>),
}

/// What a resolver may use besides the conflict.
#[derive(Clone, Copy)]
pub struct Context<'a, B> {
    /// Merges texts, if the caller can.
    pub text: Option<&'a dyn MergeContent<B>>,
}

impl<B> std::fmt::Debug for Context<'_, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("text", &self.text.is_some()).finish()
    }
}

/// Answers conflicts.
pub trait ConflictResolver<B>: Send + Sync {
    /// What is to become of `conflict`.
    fn resolve(&self, conflict: &Conflict<B>, context: &Context<'_, B>) -> Resolution<B>;

    /// Promises the same answer whichever side is local, so that all peers show the same at once.
    fn symmetric(&self) -> bool {
        false
    }
}

/// Why an answer was refused; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError<E: std::error::Error + 'static> {
    /// The tree could not be changed.
    #[error(transparent)]
    Edit(#[from] EditError<E>),
    /// The resolver named a version that takes no part in the conflict.
    #[error("the resolver chose a version that is not in the conflict")]
    UnknownVersion,
    /// The resolver named a path that cannot be used.
    #[error("the resolver named an unusable path")]
    BadPath,
}

/// What resolvers did.
#[derive(Clone, Debug)]
pub struct Resolved<B> {
    /// Changed nodes and index edits, all written by one operation; empty if nothing was decided.
    pub edited: Edited<B>,
    /// Versions that are no longer shown because of a decision.
    pub discarded: Vec<ContentId>,
    /// Conflicts that stay.
    pub unresolved: Vec<Conflict<B>>,
}

/// Asks `resolver` about every conflict of bytes in `tree`, and writes its answers under `op`.
///
/// `local` is what this side knew before the merge; it tells local versions from incoming ones.
/// Conflicts of other kinds are settled by the rules, and only listed.
///
/// # Errors
///
/// [`ResolveError`]; then nothing is to be applied.
pub fn resolve<B: Body, T: Tree<B>>(
    tree: &T,
    policy: Policy<'_, B>,
    op: OpId,
    local: &VersionVector,
    resolver: &dyn ConflictResolver<B>,
    context: &Context<'_, B>,
) -> Result<Resolved<B>, ResolveError<T::Error>> {
    let mut edit = Edit::with_policy(tree, op, policy);
    let mut asked = BTreeSet::new();
    let (mut discarded, mut unresolved) = (Vec::new(), Vec::new());
    for mut conflict in conflicts(&edit.view()).map_err(EditError::Tree)? {
        for version in &mut conflict.versions {
            version.local = local.knows(&version.op);
        }
        // Where a directory has the name there is nothing to choose from; else once for each name.
        let slot = || (conflict.dirs.clone(), conflict.slot.clone());
        let answer = match conflict.kind {
            ConflictKind::Type => {
                asked.insert(slot());
                Resolution::KeepBoth
            }
            ConflictKind::Content | ConflictKind::Name | ConflictKind::DeleteModify
                if asked.insert(slot()) =>
            {
                resolver.resolve(&conflict, context)
            }
            _ => Resolution::KeepBoth,
        };
        match apply(&mut edit, &conflict, answer)? {
            Some(lost) => discarded.extend(lost),
            None => unresolved.push(conflict),
        }
    }
    Ok(Resolved { edited: edit.finish(), discarded, unresolved })
}

type Lost = Option<Vec<ContentId>>;

/// Writes an answer. Returns the contents that are no longer shown, or `None` if nothing changed.
fn apply<B: Body, T: Tree<B>>(
    edit: &mut Edit<'_, B, T>,
    conflict: &Conflict<B>,
    answer: Resolution<B>,
) -> Result<Lost, ResolveError<T::Error>> {
    let Some(winner) = conflict.versions.first() else { return Ok(None) };
    let chosen = |wanted: &dyn Fn(&ConflictVersion<B>) -> bool| {
        conflict.versions.iter().filter(|v| wanted(v)).max_by_key(|version| version.op)
    };
    let version = match &answer {
        Resolution::UseBase => chosen(&|version| version.local).or_else(|| chosen(&|_| true)),
        Resolution::UseIncoming => chosen(&|version| !version.local),
        Resolution::UseVersion(op) => {
            Some(chosen(&|version| version.op == *op).ok_or(ResolveError::UnknownVersion)?)
        }
        _ => None,
    };
    let content = match answer {
        Resolution::KeepBoth => return Ok(None),
        Resolution::RenameIncoming { new_path } => {
            rename_incoming(edit, conflict, &new_path)?;
            return Ok(Some(Vec::new()));
        }
        Resolution::SkipBoth => {
            let content = winner.entry.content.clone().ok_or(ResolveError::UnknownVersion)?;
            settle(edit, &winner.entry, content)?;
            if let Some(entry) = find(edit, &conflict.dirs, &conflict.slot)? {
                edit.unlink(&entry)?;
            }
            return Ok(Some(contents(conflict).collect()));
        }
        Resolution::MergedText(content) => {
            let merged = content.id;
            edit.unite(&winner.entry, content)?;
            return Ok(Some(contents(conflict).filter(|id| *id != merged).collect()));
        }
        Resolution::Merged(content) => content,
        _ => match version.and_then(|version| version.entry.content.clone()) {
            Some(content) => content,
            // Only one side takes part, and not the one that was asked for.
            None => return Ok(None),
        },
    };
    let kept = content.id;
    settle(edit, &winner.entry, content)?;
    Ok(Some(contents(conflict).filter(|id| *id != kept).collect()))
}

fn contents<B>(conflict: &Conflict<B>) -> impl Iterator<Item = ContentId> {
    conflict.versions.iter().filter_map(|version| Some(version.entry.content.as_ref()?.id))
}

fn settle<B: Body, T: Tree<B>>(
    edit: &mut Edit<'_, B, T>,
    winner: &Entry<B>,
    mut content: Content<B>,
) -> Result<(), EditError<T::Error>> {
    content.auto = true;
    edit.resolve(winner, content)
}

fn find<B: Body, T: Tree<B>>(
    edit: &Edit<'_, B, T>,
    dirs: &[NodeId],
    name: &Name,
) -> Result<Option<Entry<B>>, EditError<T::Error>> {
    Ok(edit.view().lookup(dirs, name)?)
}

/// Moves the incoming version away; the local one gets the name, if the other had it.
fn rename_incoming<B: Body, T: Tree<B>>(
    edit: &mut Edit<'_, B, T>,
    conflict: &Conflict<B>,
    new_path: &[u8],
) -> Result<(), ResolveError<T::Error>> {
    let mut names = Vec::new();
    for part in new_path.split(|byte| *byte == b'/') {
        names.push(Name::new(part).map_err(|_bad| ResolveError::BadPath)?);
    }
    let name = names.pop().ok_or(ResolveError::BadPath)?;
    let mut dirs = vec![NodeId::Root];
    for part in &names {
        let entry = find(edit, &dirs, part)?.filter(|entry| entry.kind.is_dir());
        dirs = entry.ok_or(ResolveError::BadPath)?.ids;
    }
    if find(edit, &dirs, &name)?.is_some() {
        return Err(ResolveError::BadPath);
    }
    let incoming = conflict.versions.iter().filter(|version| !version.local);
    let incoming = incoming.max_by_key(|version| version.op);
    let incoming = &incoming.ok_or(ResolveError::UnknownVersion)?.entry;
    if incoming.is_copy() {
        edit.detach(incoming, &dirs, &name)?;
        return Ok(());
    }
    edit.rename(incoming, &dirs, &name)?;
    let local = conflict.versions.iter().find(|version| version.local);
    if let Some(local) = local
        && let Some(entry) = find(edit, &conflict.dirs, &local.entry.name)?
    {
        edit.rename(&entry, &conflict.dirs, &conflict.slot)?;
    }
    Ok(())
}
