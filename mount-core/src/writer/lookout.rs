//! When to look for space: pure, told the time by its caller.
//!
//! A look reads everything, so that the pause after one is in proportion to how long it took, and is
//! a long one if nothing has changed that could free something.

use std::time::{Duration, Instant};

use cairnfs_store::BlobId;

/// The pause after a look if something has changed, in lengths of that look.
const PAUSE_LOOKS: u32 = 2;
/// The same if nothing has, or nobody was refused space.
const IDLE_PAUSE_LOOKS: u32 = 10;
/// The least pause of that kind.
const IDLE_PAUSE_MIN: Duration = Duration::from_secs(600);

/// What decides how much could be freed: as long as it stays the same, no more than before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kept {
    /// The newest version.
    pub(super) head: BlobId,
    /// Open files that have lost their last name.
    pub(super) nameless: usize,
    /// Older versions that were read, and no longer are.
    pub(super) let_go: u64,
}

/// Why there is a look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// Somebody was refused space.
    Refused,
    /// The disk is nearly full.
    Low,
}

/// Remembers the last look.
#[derive(Default)]
pub(super) struct Lookout {
    last: Option<Look>,
}

struct Look {
    ended: Instant,
    took: Duration,
    /// `None` if it was not ended.
    kept: Option<Kept>,
}

impl Lookout {
    /// A look that `took` so long has ended now; `kept` is as it was in the beginning, `None` if
    /// the look was given up before it had seen everything.
    pub(super) fn looked(&mut self, took: Duration, now: Instant, kept: Option<Kept>) {
        self.last = Some(Look { ended: now, took, kept });
    }

    /// Whether it is time for another look, and may be of use.
    pub(super) fn may_look(&self, now: Instant, cause: Cause, kept: Option<Kept>) -> bool {
        let Some(last) = &self.last else { return true };
        let changed = last.kept.is_none() || last.kept != kept;
        let pause = if changed && cause == Cause::Refused {
            last.took * PAUSE_LOOKS
        } else {
            (last.took * IDLE_PAUSE_LOOKS).max(IDLE_PAUSE_MIN)
        };
        now.saturating_duration_since(last.ended) >= pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn kept(version: u8) -> Option<Kept> {
        Some(Kept { head: BlobId([version; 32]), nameless: 0, let_go: 0 })
    }

    #[test]
    fn a_look_that_freed_nothing_is_not_repeated_while_nothing_changes() {
        let begun = Instant::now();
        let mut lookout = Lookout::default();
        assert!(lookout.may_look(begun, Cause::Refused, kept(1)));
        let ended = begun + SECOND;
        lookout.looked(SECOND, ended, kept(1));
        for seconds in [0, 3, 599] {
            assert!(!lookout.may_look(ended + seconds * SECOND, Cause::Refused, kept(1)));
        }
        assert!(lookout.may_look(ended + 600 * SECOND, Cause::Refused, kept(1)));
        // Deletes were published: it may be of use, but takes no more than a third of the time.
        assert!(!lookout.may_look(ended + SECOND, Cause::Refused, kept(2)));
        assert!(lookout.may_look(ended + 2 * SECOND, Cause::Refused, kept(2)));
        // An open file without a name was closed.
        let closed = kept(1).map(|kept| Kept { nameless: 1, ..kept });
        assert!(lookout.may_look(ended + 2 * SECOND, Cause::Refused, closed));
        assert!(!lookout.may_look(ended + 2 * SECOND, Cause::Low, kept(2)), "nobody waits");
    }

    #[test]
    fn the_longer_a_look_takes_the_later_is_the_next() {
        let mut lookout = Lookout::default();
        let ended = Instant::now();
        lookout.looked(3600 * SECOND, ended, kept(1));
        assert!(!lookout.may_look(ended + 3600 * SECOND, Cause::Refused, kept(2)));
        assert!(!lookout.may_look(ended + 7200 * SECOND, Cause::Refused, kept(1)));
        assert!(lookout.may_look(ended + 36_000 * SECOND, Cause::Low, kept(1)));
    }

    #[test]
    fn a_look_that_was_cut_short_is_made_again_soon() {
        let mut lookout = Lookout::default();
        let ended = Instant::now();
        lookout.looked(SECOND, ended, None);
        assert!(lookout.may_look(ended + 2 * SECOND, Cause::Refused, kept(1)));
    }
}
