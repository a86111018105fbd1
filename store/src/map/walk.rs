//! Everything that a map consists of.

use std::sync::Arc;

use super::node::{MapNode, Slice};
use super::{MapReader, Root};
use crate::{BlobRef, Error, Result};

impl MapReader {
    /// Visits every node of a map, and every entry.
    ///
    /// `node` is called before a node is read and says whether to read it and go on below: a
    /// caller who walks over many maps says no to what it has seen. `entry` gets key and value of
    /// every entry of the leaves that are read, ascending within each. Both are handed `seen`. The
    /// nodes on the way stay in the cache only as far as it has room.
    ///
    /// # Errors
    ///
    /// As [`MapReader::load`], and what the callbacks return.
    pub fn walk<S, E: From<Error>>(
        &self,
        root: &Root,
        seen: &mut S,
        node: impl Fn(&mut S, &BlobRef) -> Result<bool, E>,
        entry: impl Fn(&mut S, &[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        // Nodes whose children are still to be visited, with the next child. The levels fall, so
        // there are never more than the root's level.
        let mut stack: Vec<(Arc<MapNode>, usize)> = Vec::new();
        let mut next = root.0.map(|root| (root, None));
        loop {
            if let Some((child, level)) = next.take()
                && node(seen, &child)?
            {
                let loaded = self.load(&child)?;
                if level.is_some_and(|level| loaded.level() != level) {
                    return Err(Error::BadNode { id: child.id, reason: "level" }.into());
                }
                if loaded.level() == 0 {
                    for index in 0..loaded.len() {
                        entry(seen, loaded.key(index), loaded.value(index))?;
                    }
                } else {
                    stack.push((loaded, 0));
                }
            }
            let Some((parent, index)) = stack.last_mut() else { return Ok(()) };
            if *index < parent.len() {
                next = parent.child(*index).map(|child| (child, parent.level().checked_sub(1)));
                *index += 1;
            } else {
                stack.pop();
            }
        }
    }

    /// All entries of a map, ascending.
    pub fn iter(&self, root: &Root) -> impl Iterator<Item = Result<(Slice, Slice)>> + use<> {
        self.range(root, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded)
    }
}
