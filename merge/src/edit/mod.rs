//! What a user's actions write.
//!
//! # Invariants
//!
//! 1. Whatever protects a node protects the directories it needs: a change puts its operation
//!    into the `live` register of the node and of every directory above it.
//! 2. A register changes without a touch only after its carries were spelled out.
//! 3. An action that fails changes nothing.
//! 4. An action at one name changes no other, but for those of the very file that is written.
//!
//! One operation id serves all actions until the caller publishes. So an action may meet values
//! of its own operation, and replaces them; and a node that only this operation keeps alive has
//! been touched already, with everything above it.

mod agree;
mod create;
mod decide;
mod detach;
mod links;
mod path;
mod remove;
mod rename;
mod touch;
mod write;

pub use self::create::NewNode;
pub use self::decide::Decision;
pub(crate) use self::path::{PathEdit, PathError, find_path, names_of};

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::derive::derive;
use crate::entry::Entry;
use crate::ids::{NodeId, OpId};
use crate::name::Name;
use crate::node::{Body, Node};
use crate::overlay::{NodeEdits, Overlay};
use crate::tree::{Displaced, IndexEdits, Tree};
use crate::view::{Policy, View};

/// Why an action was refused; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError<E: std::error::Error + 'static> {
    /// The tree could not be read.
    #[error("the tree cannot be read")]
    Tree(#[from] E),
    /// The name is taken.
    #[error("the name is taken")]
    Exists,
    /// The entry or directory is gone.
    #[error("no such file or directory")]
    NotFound,
    /// A directory was meant, and this is none.
    #[error("not a directory")]
    NotADirectory,
    /// Something other than a directory was meant.
    #[error("is a directory")]
    IsADirectory,
    /// Everything but a directory has a content, be it an empty one.
    #[error("a leaf needs a content")]
    NoContent,
    /// The directory has visible entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// A directory cannot be moved into itself.
    #[error("a directory cannot be moved into itself")]
    IntoSelf,
}

/// The result of an action on a tree whose reads fail with `E`.
pub type EditResult<V, E> = Result<V, EditError<E>>;

/// Actions on a tree, under one operation.
///
/// Reads through its own changes, so several actions may follow one another. Nothing reaches the
/// tree; [`Self::finish`] hands out the changed nodes and the index edits.
#[derive(Debug)]
pub struct Edit<'t, B, T> {
    tree: Overlay<'t, B, T>,
    policy: Policy<'t, B>,
    op: OpId,
    /// The changes of the action under way.
    pending: NodeEdits<B>,
    /// The nodes that the action under way has moved: where they were displaced to is history.
    moved: BTreeSet<NodeId>,
    /// The changes before the action under way, if it has put some into the tree already.
    before: Option<(Cow<'t, NodeEdits<B>>, Cow<'t, IndexEdits>)>,
}

/// Changed nodes with the index edits that belong to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited<B> {
    /// Changed nodes; `None` for one that is gone.
    pub nodes: NodeEdits<B>,
    /// What [`derive()`] says about them.
    pub index: IndexEdits,
}

/// What loses a name.
struct Rivals<B> {
    /// Those shown under other names.
    copies: Vec<Entry<B>>,
    /// Those that are not shown, because an entry of another name has the same bytes already.
    absorbed: Vec<Entry<B>>,
}

impl<'t, B: Body, T: Tree<B>> Edit<'t, B, T> {
    /// Acts on `tree` under `op`, which must be later than all the tree knows, or the operation
    /// that the caller has not published yet. Learning it into the version vector is the caller's.
    #[must_use]
    pub fn new(tree: &'t T, op: OpId) -> Self {
        Self::with_policy(tree, op, Policy::default())
    }

    /// As [`Self::new`], in a volume with a policy.
    #[must_use]
    pub fn with_policy(tree: &'t T, op: OpId, policy: Policy<'t, B>) -> Self {
        let (pending, moved) = (NodeEdits::new(), BTreeSet::new());
        Self { tree: Overlay::new(tree), policy, op, pending, moved, before: None }
    }

    /// The tree with the changes so far.
    #[must_use]
    pub const fn tree(&self) -> &Overlay<'t, B, T> {
        &self.tree
    }

    /// The visible tree with the changes so far.
    #[must_use]
    pub const fn view(&self) -> View<'_, B, Overlay<'t, B, T>> {
        View::with_policy(&self.tree, self.policy)
    }

    /// The changes.
    #[must_use = "the tree itself has not changed"]
    pub fn finish(self) -> Edited<B> {
        let (nodes, index) = self.tree.into_parts();
        Edited { nodes, index }
    }

    /// Runs one action, and keeps its changes if it succeeds.
    fn act<V>(
        &mut self,
        action: impl FnOnce(&mut Self) -> EditResult<V, T::Error>,
    ) -> EditResult<V, T::Error> {
        let outcome = action(self).and_then(|value| {
            self.commit()?;
            Ok(value)
        });
        let before = self.before.take();
        if outcome.is_err() {
            self.pending.clear();
            self.moved.clear();
            if let Some((nodes, index)) = before {
                (self.tree.nodes, self.tree.index) = (nodes, index);
            }
        }
        outcome
    }

    /// Takes the pending changes into the tree in the middle of an action, to read it anew.
    fn commit_part(&mut self) -> Result<(), T::Error> {
        if self.before.is_none() {
            self.before = Some((self.tree.nodes.clone(), self.tree.index.clone()));
        }
        self.commit()
    }

    /// Takes the pending changes into the tree.
    fn commit(&mut self) -> Result<(), T::Error> {
        let pending = std::mem::take(&mut self.pending);
        self.moved.clear();
        let index = derive(&self.tree, &pending)?;
        self.tree.nodes.to_mut().extend(pending);
        self.tree.index.to_mut().then(index);
        Ok(())
    }

    fn node(&self, id: &NodeId) -> Result<Option<Arc<Node<B>>>, T::Error> {
        self.pending.get(id).map_or_else(|| self.tree.node(id), |node| Ok(node.clone()))
    }

    fn put(&mut self, id: NodeId, node: Node<B>) {
        self.pending.insert(id, Some(Arc::new(node)));
    }

    fn kill(&mut self, id: NodeId) {
        self.pending.insert(id, None);
    }

    /// Changes the registers of a node that is alive. Without a touch, so carries are spelled out.
    fn change(&mut self, id: &NodeId, change: impl FnOnce(&mut Node<B>)) -> Result<(), T::Error> {
        if let Some(node) = self.node(id)? {
            let mut node = Arc::unwrap_or_clone(node);
            node.change(change);
            self.put(*id, node);
        }
        Ok(())
    }

    /// The links of a node that do not hang where they say; this action's moves have settled that.
    fn displaced(&self, id: &NodeId) -> Result<Option<Displaced>, T::Error> {
        if self.moved.contains(id) { Ok(None) } else { self.tree.displaced(id) }
    }

    /// What loses the name that `entry` holds to it; nothing if it is a copy itself.
    fn rivals(&self, entry: &Entry<B>) -> Result<Rivals<B>, T::Error> {
        let mut rivals = Rivals { copies: Vec::new(), absorbed: Vec::new() };
        if !entry.is_copy() {
            let view = self.view();
            rivals.absorbed = view.slot(&entry.dirs, &entry.name)?.take_losers();
            if !rivals.absorbed.is_empty() {
                rivals.copies = view.copies(&entry.dirs, &entry.name)?;
                let copies = &rivals.copies;
                rivals.absorbed.retain(|loser| !copies.iter().any(|copy| copy.same_bytes(loser)));
            }
        }
        Ok(rivals)
    }

    /// The directory of a group in which new entries are made.
    fn home(&self, dirs: &[NodeId]) -> EditResult<NodeId, T::Error> {
        let dir = dirs.first().ok_or(EditError::NotFound)?;
        if *dir != NodeId::Root {
            let node = self.node(dir)?.ok_or(EditError::NotFound)?;
            if !node.kind.is_dir() {
                return Err(EditError::NotADirectory);
            }
        }
        Ok(*dir)
    }

    fn must_be_free(&self, dirs: &[NodeId], name: &Name) -> EditResult<(), T::Error> {
        match self.view().lookup(dirs, name)? {
            Some(_) => Err(EditError::Exists),
            None => Ok(()),
        }
    }
}
