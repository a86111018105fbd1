//! The versions that a fetch looks at, each once, those first that were named first: a history of
//! merges stays as narrow as it is, however long. They are named by the version that follows from
//! them, and by lists of the peer's, which hold many at once.

use std::collections::{HashSet, VecDeque};

use cairnfs_store::BlobId;

use super::rejected;
use crate::Result;

/// More versions than are ever fetched at once.
const VERSIONS_MAX: usize = 1 << 20;

/// See the module's doc.
#[derive(Default)]
pub(super) struct VersionQueue {
    todo: VecDeque<Queued>,
    /// All that were ever named, [`VERSIONS_MAX`] at the most.
    named: HashSet<BlobId>,
}

/// A version that is to be looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Queued {
    pub(super) id: BlobId,
    /// Whether a list of the peer's was the first to name it, which names those before it too.
    pub(super) is_listed: bool,
}

impl VersionQueue {
    /// Begins with `head`.
    pub(super) fn of(head: BlobId) -> Self {
        let first = Queued { id: head, is_listed: false };
        Self { todo: VecDeque::from([first]), named: HashSet::from([head]) }
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
        self.queue(Queued { id, is_listed: false });
        Ok(())
    }

    /// Queues a version of a list if there is room for it.
    pub(super) fn hint(&mut self, id: BlobId) {
        self.queue(Queued { id, is_listed: true });
    }

    fn queue(&mut self, version: Queued) {
        if self.named.len() < VERSIONS_MAX && self.named.insert(version.id) {
            self.todo.push_back(version);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Queued> {
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
        let pop = |queue: &mut VersionQueue| queue.pop().map(|version| version.id);
        assert_eq!([pop(&mut queue), pop(&mut queue)], [Some(id(0)), Some(id(1))]);
        queue.need(id(1)).unwrap();
        let last = [pop(&mut queue), pop(&mut queue), pop(&mut queue)];
        assert_eq!(last, [Some(id(2)), Some(id(3)), None]);
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
