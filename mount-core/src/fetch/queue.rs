//! The versions that a fetch looks at, each once, those first that were named first: a history of
//! merges stays as narrow as it is, however long.

use std::collections::{HashSet, VecDeque};

use cairnfs_store::BlobId;

use super::rejected;
use crate::Result;

/// More versions than are ever fetched at once.
const VERSIONS_MAX: usize = 1 << 20;

/// See the module's doc.
#[derive(Default)]
pub(super) struct VersionQueue {
    todo: VecDeque<BlobId>,
    /// All that were ever named, [`VERSIONS_MAX`] at the most.
    named: HashSet<BlobId>,
}

impl VersionQueue {
    /// Begins with `head`.
    pub(super) fn of(head: BlobId) -> Self {
        Self { todo: VecDeque::from([head]), named: HashSet::from([head]) }
    }

    /// Queues a version that another follows from.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`](crate::Error::Rejected) if there are too many.
    pub(super) fn need(&mut self, id: BlobId) -> Result<()> {
        if self.named.len() >= VERSIONS_MAX && !self.named.contains(&id) {
            return Err(rejected("more versions than any bucket has"));
        }
        self.hint(id);
        Ok(())
    }

    /// Queues a version if there is room for it.
    pub(super) fn hint(&mut self, id: BlobId) {
        if self.named.len() < VERSIONS_MAX && self.named.insert(id) {
            self.todo.push_back(id);
        }
    }

    pub(super) fn pop(&mut self) -> Option<BlobId> {
        self.todo.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.todo.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> BlobId {
        BlobId(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    #[test]
    fn each_version_is_looked_at_once_and_those_named_first_come_first() {
        let mut queue = VersionQueue::of(id(0));
        for n in [1, 2, 1, 0, 3] {
            queue.need(id(n)).unwrap();
        }
        assert_eq!([queue.pop(), queue.pop()], [Some(id(0)), Some(id(1))]);
        queue.need(id(1)).unwrap();
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some(id(2)), Some(id(3)), None]);
    }

    #[test]
    fn what_a_peer_can_have_named_is_bounded() {
        let mut queue = VersionQueue::of(id(0));
        let named = (1..).take_while(|n| queue.need(id(*n)).is_ok()).count() + 1;
        assert_eq!(named, VERSIONS_MAX);
        queue.hint(id(VERSIONS_MAX));
        assert_eq!(queue.todo.len(), VERSIONS_MAX);
        assert!(queue.need(id(7)).is_ok(), "it is among them");
    }
}
