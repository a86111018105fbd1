//! Deciding conflicts: resolvers, and what becomes of their answers.
//!
//! A merge needs no resolver. One that answers makes *operations*, as a person would, flagged
//! automatic: a decision travels, and is never a private view. Among concurrent automatic values
//! only the latest counts, so resolvers on different peers fall quiet, whatever they answer. Merged
//! texts fall quiet too: whoever sees the same versions makes the same bytes of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::conflict::{Conflict, ConflictVersion, at_name, conflicts};
use crate::edit::{Edit, EditError, Edited, names_of};
use crate::entry::{ConflictKind, Entry};
use crate::ids::{ContentId, NodeId, OpId, VersionVector};
use crate::name::Name;
use crate::node::{Body, Content};
use crate::tree::Tree;
use crate::versions::{MergeContent, merged_versions};
use crate::view::Policy;

/// What is to become of a conflict: the answer of a [`ConflictResolver`], written as automatic. A
/// person's is a [`Decision`](crate::Decision).
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
    /// Something new, for the file that has the name: its other names show it too.
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

/// Answers conflicts, for [`resolve`] to write what it says.
pub trait ConflictResolver<B>: Send + Sync {
    /// What is to become of `conflict`.
    fn resolve(&self, conflict: &Conflict<B>, context: &Context<'_, B>) -> Resolution<B>;

    /// Promises the same answer whichever side is local, so that all peers show the same at once.
    fn symmetric(&self) -> bool {
        false
    }
}

/// Why an answer was refused; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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

/// What [`resolve`] made of the answers.
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
    let listed = conflicts(&edit.view()).map_err(EditError::Tree)?;
    let authors = authors(&listed);
    let mut slots = BTreeSet::new();
    let (mut lost, mut unresolved) = (Lost::new(), Vec::new());
    for Conflict { dirs, slot, .. } in listed {
        if !slots.insert((dirs.clone(), slot.clone())) {
            continue;
        }
        // As it is by now: what was decided of one name of a file bears on its others.
        let found = at_name(&edit.view(), &dirs, &slot).map_err(EditError::Tree)?;
        let mut asked = false;
        for mut conflict in found.into_iter().filter(|conflict| conflict.slot == slot) {
            for version in &mut conflict.versions {
                let content = version.entry.content.as_ref();
                let author = content.and_then(|content| authors.get(&content.id));
                if let Some(author) = author.filter(|_| version.op == op) {
                    version.op = *author;
                }
                version.local = local.knows(&version.op);
            }
            // Where a directory has the name there is nothing to choose from; else once for each name.
            let answer = match conflict.kind {
                ConflictKind::Type => {
                    asked = true;
                    Resolution::KeepBoth
                }
                ConflictKind::Content | ConflictKind::Name | ConflictKind::DeleteModify
                    if !std::mem::replace(&mut asked, true) =>
                {
                    resolver.resolve(&conflict, context)
                }
                _ => Resolution::KeepBoth,
            };
            match apply(&mut edit, &conflict, answer)? {
                Some(losers) => lost.extend(losers),
                None => unresolved.push(conflict),
            }
        }
    }
    let discarded = no_longer_shown(edit.tree(), policy, &lost).map_err(EditError::Tree)?;
    Ok(Resolved { edited: edit.finish(), discarded, unresolved })
}

/// Who wrote each version, before an answer writes it once more.
fn authors<B>(conflicts: &[Conflict<B>]) -> BTreeMap<ContentId, OpId> {
    let mut authors = BTreeMap::new();
    for version in conflicts.iter().flat_map(|conflict| &conflict.versions) {
        if let Some(content) = &version.entry.content {
            let latest = authors.entry(content.id).or_insert(version.op);
            *latest = version.op.max(*latest);
        }
    }
    authors
}

/// Versions that lose a name, each with the file it is a version of.
type Lost = Vec<(NodeId, ContentId)>;

/// Writes an answer. Returns what loses the name, or `None` if nothing changed.
fn apply<B: Body, T: Tree<B>>(
    edit: &mut Edit<'_, B, T>,
    conflict: &Conflict<B>,
    answer: Resolution<B>,
) -> Result<Option<Lost>, ResolveError<T::Error>> {
    let Some(winner) = conflict.versions.first() else { return Ok(None) };
    let chosen = |wanted: &dyn Fn(&ConflictVersion<B>) -> bool| {
        conflict.versions.iter().filter(|v| wanted(v)).max_by_key(|version| version.op)
    };
    let as_it_is = |version: Option<&ConflictVersion<B>>| {
        let entry = version.map(|version| version.entry.clone())?;
        let content = Content { auto: true, ..entry.content.clone()? };
        Some((entry, content))
    };
    let kept = match answer {
        Resolution::KeepBoth => return Ok(None),
        Resolution::RenameIncoming { new_path } => {
            rename_incoming(edit, conflict, &new_path)?;
            return Ok(Some(Lost::new()));
        }
        Resolution::SkipBoth => {
            let (entry, content) = as_it_is(Some(winner)).ok_or(ResolveError::UnknownVersion)?;
            edit.resolve(&entry, content)?;
            if let Some(entry) = find(edit, &conflict.dirs, &conflict.slot)? {
                edit.unlink(&entry)?;
            }
            return Ok(Some(losers(conflict, None)));
        }
        Resolution::UseBase => {
            as_it_is(chosen(&|version| version.local).or_else(|| chosen(&|_| true)))
        }
        Resolution::UseIncoming => as_it_is(chosen(&|version| !version.local)),
        Resolution::UseVersion(op) => {
            let version = chosen(&|version| version.op == op);
            as_it_is(Some(version.ok_or(ResolveError::UnknownVersion)?))
        }
        Resolution::Merged(content) => {
            Some((winner.entry.clone(), Content { auto: true, ..content }))
        }
        Resolution::MergedText(content) => {
            Some((winner.entry.clone(), Content { auto: false, ..content }))
        }
    };
    // Nothing, if only one side takes part, and not the one that was asked for.
    let Some((entry, content)) = kept else { return Ok(None) };
    let id = content.id;
    edit.resolve(&entry, content)?;
    Ok(Some(losers(conflict, Some(id))))
}

/// The versions of `conflict` but `kept`.
fn losers<B>(conflict: &Conflict<B>, kept: Option<ContentId>) -> Lost {
    let entries = conflict.versions.iter().map(|version| &version.entry);
    let versions = entries.filter_map(|entry| Some((entry, entry.content.as_ref()?.id)));
    let lost = versions.filter(|(_, id)| Some(*id) != kept);
    lost.flat_map(|(entry, id)| entry.owners.keys().map(move |owner| (*owner, id))).collect()
}

/// The contents of `lost` that their files show no more: one that lost a name keeps its others, and
/// what these show.
fn no_longer_shown<B: Body, T: Tree<B>>(
    tree: &T,
    policy: Policy<'_, B>,
    lost: &Lost,
) -> Result<Vec<ContentId>, T::Error> {
    let mut gone: BTreeSet<ContentId> = lost.iter().map(|(_, content)| *content).collect();
    for (file, content) in lost {
        if let Some(node) = tree.node(file)?
            && merged_versions(&node, policy.text).iter().any(|it| it.content.id == *content)
        {
            gone.remove(content);
        }
    }
    Ok(gone.into_iter().collect())
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
    let mut names = names_of(new_path).map_err(|_bad| ResolveError::BadPath)?;
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
