//! Packs that are missing: reclaimed, or lost.
//!
//! Only what a checkpoint has made needless is reclaimed. So what is missing was, if a checkpoint stands
//! behind it; else it is lost.

/// Is told of the packs that are there, ascending, and of the checkpoints in them.
pub(crate) struct Gaps {
    /// The number that the next pack should have.
    next: u32,
    /// The first pack of each gap behind which no checkpoint was met yet.
    lost: Vec<u32>,
}

impl Gaps {
    /// Of a log whose first pack should be this one.
    pub(crate) const fn new(first: u32) -> Self {
        Self { next: first, lost: Vec::new() }
    }

    /// A pack is there. False if others are missing before it.
    pub(crate) fn pack(&mut self, number: u32) -> bool {
        let follows = number <= self.next;
        if !follows {
            self.lost.push(self.next);
        }
        self.next = number.saturating_add(1);
        follows
    }

    /// A checkpoint is there, behind the packs so far or in the last of them.
    pub(crate) fn checkpoint(&mut self) {
        self.lost.clear();
    }

    /// The first pack of each gap that no reclaim has left, as far as is known by now.
    pub(crate) fn lost(&self) -> &[u32] {
        &self.lost
    }
}
