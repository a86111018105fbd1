//! Which versions of one leaf are shown, and which are hidden behind them.

use crate::ids::OpId;
use crate::node::{Content, Kind, Node, merge_hist};

/// Merges versions of one file into one, if the policy of the volume asks for it.
///
/// Must be a pure function of its arguments, the same on every peer, and must not depend on the
/// order of `sides`.
pub trait MergeContent<B> {
    /// The merged content, or `None` if the versions do not merge cleanly or the bytes are not at
    /// hand. History and operation are filled in by the caller.
    fn merge(&self, base: &Content<B>, sides: &[&Content<B>]) -> Option<Content<B>>;
}

/// One version of a leaf.
#[derive(Clone, Debug)]
pub(crate) struct Version<B> {
    /// Who wrote it; `None` for the carried version of a removed file.
    pub(crate) op: Option<OpId>,
    pub(crate) content: Content<B>,
}

/// The versions of one leaf.
#[derive(Clone, Debug)]
pub(crate) struct Versions<B> {
    /// Those that are shown.
    pub(crate) shown: Vec<Version<B>>,
    /// The operations of those that are not.
    pub(crate) hidden: Vec<OpId>,
}

/// Sorts out the versions of `node`: one whose id stands in the history of a shown version, and
/// which does not have that one's id in its own, is hidden. So an edit that was reverted is no
/// edit, and going on from the other's bytes is no conflict.
pub(crate) fn versions<B: Clone + Ord>(node: &Node<B>) -> Versions<B> {
    let all: Vec<_> = node.contents();
    if let [(op, content)] = all.as_slice() {
        let only = Version { op: *op, content: (*content).clone() };
        return Versions { shown: vec![only], hidden: Vec::new() };
    }
    let hides = |b: &(Option<OpId>, &Content<B>), a: &(Option<OpId>, &Content<B>)| {
        b.1.hist.contains(&a.1.id)
            && b.1.id != a.1.id
            && (!a.1.hist.contains(&b.1.id) || (b.0, b.1.id) > (a.0, a.1.id))
    };
    let mut top: Vec<_> =
        all.iter().filter(|a| !all.iter().any(|b| hides(b, a))).copied().collect();
    if top.is_empty() {
        top.extend(all.last());
    }
    let is_top = |a: &(Option<OpId>, &Content<B>)| top.iter().any(|b| b.0 == a.0 && b.1 == a.1);
    let (shown, hidden): (Vec<_>, Vec<_>) =
        all.iter().partition(|a| is_top(a) || !top.iter().any(|b| hides(b, a)));
    Versions {
        shown: shown.into_iter().map(|(op, c)| Version { op, content: c.clone() }).collect(),
        hidden: hidden.into_iter().filter_map(|(op, _)| op).collect(),
    }
}

/// Tries to make one version of several, if they have a common ancestor in their histories.
pub(crate) fn merge_versions<B: Clone + Ord>(
    node: &Node<B>,
    versions: Versions<B>,
    merger: &dyn MergeContent<B>,
) -> Versions<B> {
    let distinct = versions.shown.windows(2).any(|pair| pair[0].content.id != pair[1].content.id);
    if node.kind != Kind::File || !distinct {
        return versions;
    }
    match merged(&versions.shown, merger) {
        Some(whole) => {
            let ops = versions.shown.iter().filter_map(|version| version.op);
            let hidden = ops.filter(|op| Some(*op) != whole.op).chain(versions.hidden);
            Versions { hidden: hidden.collect(), shown: vec![whole] }
        }
        None => versions,
    }
}

fn merged<B: Clone + Ord>(
    shown: &[Version<B>],
    merger: &dyn MergeContent<B>,
) -> Option<Version<B>> {
    let last = shown.last()?;
    let first = shown.first()?;
    let in_all = |id| shown.iter().all(|version| version.content.hist.contains(id));
    let base = *first.content.hist.iter().find(|id| in_all(id))?;
    let base = Content { id: base, ..first.content.clone() };
    let mut sides: Vec<&Content<B>> = shown.iter().map(|version| &version.content).collect();
    sides.sort_by_key(|content| content.id);
    let mut whole = merger.merge(&base, &sides)?;
    let ids: Vec<_> = sides.iter().map(|content| content.id).collect();
    whole.hist = merge_hist(&[&ids, &first.content.hist]);
    whole.auto = false;
    Some(Version { op: last.op, content: whole })
}
