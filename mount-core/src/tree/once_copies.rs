//! Contested names under which files hang that once were conflict copies: a copy of one of them is
//! called after what it was a copy of, and not after its name, so that looking a copy up needs them.
//!
//! Finding them reads all contested names of the directory. So what was found is kept and follows
//! the changes. It may name more than there are by now: whoever asks looks.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cairnfs_merge::{IndexEdits, Name, NodeId, Tree};

use super::LiveTree;
use crate::{
    Result,
    order::{self, Mutex},
};

/// Directories of which they are kept.
const DIRS_MAX: usize = 1024;

/// The names in one directory, by the stem of their copies.
type ByStem = BTreeMap<Name, BTreeSet<Name>>;

/// The names, by directory. Its lock is taken under that of the tree and last.
#[derive(Debug, Default)]
pub(super) struct OnceCopies(Mutex<HashMap<NodeId, ByStem>, order::OnceCopies>);

impl OnceCopies {
    fn names(&self, dir: &NodeId, stem: &Name) -> Option<Vec<Name>> {
        let dirs = self.0.lock();
        let names = dirs.get(dir)?.get(stem);
        Some(names.into_iter().flatten().cloned().collect())
    }

    /// The names that `edits` give somebody, or make contested, where names are kept.
    pub(super) fn touched(&mut self, edits: &IndexEdits) -> BTreeSet<(NodeId, Name)> {
        let dirs = self.0.get_mut();
        let came = edits.children.iter().filter(|(_, kind)| kind.is_some());
        let contested = edits.contested.iter().filter(|(_, is)| **is);
        came.map(|((dir, name, _), _)| (dir, name))
            .chain(contested.map(|((dir, name), _)| (dir, name)))
            .filter(|(dir, _)| dirs.contains_key(dir))
            .map(|(dir, name)| (*dir, name.clone()))
            .collect()
    }

    fn keep(&self, dir: NodeId, names: ByStem) {
        let mut dirs = self.0.lock();
        if dirs.len() >= DIRS_MAX {
            dirs.clear();
        }
        dirs.insert(dir, names);
    }
}

impl LiveTree {
    /// The names in `dir` whose copies may be called after `stem`.
    ///
    /// Costs all contested names of `dir` where nothing was looked up there since the last merge.
    pub(super) fn find_once_copies(&self, dir: &NodeId, stem: &Name) -> Result<Vec<Name>> {
        if let Some(names) = self.once_copies.names(dir, stem) {
            return Ok(names);
        }
        let mut found = ByStem::new();
        for name in self.contested(dir)? {
            self.add_once_copies(&mut found, dir, &name)?;
        }
        let names = found.get(stem).into_iter().flatten().cloned().collect();
        self.once_copies.keep(*dir, found);
        Ok(names)
    }

    fn add_once_copies(&self, found: &mut ByStem, dir: &NodeId, name: &Name) -> Result<()> {
        for (id, _) in self.named(dir, name)? {
            if let Some(stem) = self.node(&id)?.and_then(|node| node.origin.clone()) {
                found.entry(stem).or_default().insert(name.clone());
            }
        }
        Ok(())
    }

    /// Has what is kept follow edits that are part of the tree by now.
    pub(super) fn follow_once_copies(&mut self, touched: BTreeSet<(NodeId, Name)>) {
        let mut dirs = std::mem::take(self.once_copies.0.get_mut());
        for (dir, name) in touched {
            let Some(found) = dirs.get_mut(&dir) else { continue };
            // Looked for again by who asks next, who hears of the damage.
            if self.add_once_copies(found, &dir, &name).is_err() {
                dirs.remove(&dir);
            }
        }
        *self.once_copies.0.get_mut() = dirs;
    }
}
