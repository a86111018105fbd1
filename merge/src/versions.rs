//! Which versions of one leaf are shown, and which are hidden behind them.

use crate::ids::{ContentId, OpId};
use crate::node::{Content, Kind, Node, merge_hist};

/// Merges versions of one file into one, if the policy of the volume asks for it.
///
/// Must be a pure function of its arguments, the same on every peer, and must not depend on the
/// order of `sides`.
pub trait MergeContent<B> {
    /// The merged content, or `None` if the versions do not merge cleanly or the bytes are not at
    /// hand. History and operation are filled in by the caller.
    ///
    /// `base` is what all `sides` came from. A tree holds no content that was replaced: who merges
    /// finds it by its id, in an older version for one.
    fn merge(&self, base: ContentId, sides: &[&Content<B>]) -> Option<Content<B>>;
}

/// One version of a leaf that is shown.
#[derive(Clone, Debug)]
pub(crate) struct Version<B> {
    /// Who wrote it; `None` for the carried version of a removed file.
    pub(crate) op: Option<OpId>,
    pub(crate) content: Content<B>,
    /// The operations of the versions that are not shown because of this one.
    pub(crate) behind: Vec<OpId>,
}

impl<B> Version<B> {
    /// The operations that go when this version goes.
    pub(crate) fn ops(&self) -> impl Iterator<Item = OpId> {
        self.op.into_iter().chain(self.behind.iter().copied())
    }
}

/// The versions of `node` that are shown. One whose id stands in the history of a shown version,
/// and which does not have that one's id in its own, is not. So an edit that was reverted is no
/// edit, and going on from the other's bytes is no conflict.
///
/// What is not shown belongs to those in front of it, and goes with any of them: it must not come
/// to light when they go.
pub(crate) fn versions<B: Clone + Ord>(node: &Node<B>) -> Vec<Version<B>> {
    let all: Vec<_> = node.contents();
    if let [(op, content)] = all.as_slice() {
        return vec![Version { op: *op, content: (*content).clone(), behind: Vec::new() }];
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
    let version = |b: &(Option<OpId>, &Content<B>)| {
        let behind = hidden.iter().filter(|a| hides(b, a)).filter_map(|a| a.0).collect();
        Version { op: b.0, content: b.1.clone(), behind }
    };
    shown.iter().map(version).collect()
}

/// The versions of `node` that are shown, merged into one where `merger` can.
pub(crate) fn merged_versions<B: Clone + Ord>(
    node: &Node<B>,
    merger: Option<&dyn MergeContent<B>>,
) -> Vec<Version<B>> {
    let shown = versions(node);
    let distinct = shown.windows(2).any(|pair| pair[0].content.id != pair[1].content.id);
    let merger = merger.filter(|_| node.kind == Kind::File && distinct);
    match merger.and_then(|merger| merged(&shown, merger)) {
        Some(whole) => vec![whole],
        None => shown,
    }
}

/// One version of several, if they have a common ancestor in their histories.
fn merged<B: Clone + Ord>(
    shown: &[Version<B>],
    merger: &dyn MergeContent<B>,
) -> Option<Version<B>> {
    let last = shown.last()?;
    let first = shown.first()?;
    let in_all = |id| shown.iter().all(|version| version.content.hist.contains(id));
    let base = *first.content.hist.iter().find(|id| in_all(id))?;
    let mut sides: Vec<&Content<B>> = shown.iter().map(|version| &version.content).collect();
    sides.sort_by_key(|content| content.id);
    let mut whole = merger.merge(base, &sides)?;
    let ids: Vec<_> = sides.iter().map(|content| content.id).collect();
    whole.hist = merge_hist(&[&ids, &first.content.hist]);
    whole.auto = false;
    let behind = shown.iter().flat_map(Version::ops).filter(|op| Some(*op) != last.op).collect();
    Some(Version { op: last.op, content: whole, behind })
}
