//! Deliberate mistakes, to test the tests: each must be caught by a law.
//!
//! Without the feature `mutants` (only this crate's own tests turn it on) `is` is the constant
//! `false` and nothing of this is left in the build.

/// A rule that is broken on purpose.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A join keeps every value, as if nobody knew of anything.
    NoCausalContext,
    /// A node that one side removed is gone, whatever the other side did to it.
    DeleteWins,
    /// A join keeps only the latest of concurrent contents.
    LastWriterWins,
    /// Directories moved into each other stay there.
    NoCycleBreak,
    /// The winner of a name is whatever the merging peer had before.
    WinnerIsLocal,
    /// Two copies of one content with different stems are one node.
    CopyIdWithoutStem,
    /// Removing the winner of a name lets a copy slip into its place.
    NoPinOnUnlink,
    /// A change does not protect the directories it needs.
    NoAncestorTouch,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::NoCausalContext,
        Self::DeleteWins,
        Self::LastWriterWins,
        Self::NoCycleBreak,
        Self::WinnerIsLocal,
        Self::CopyIdWithoutStem,
        Self::NoPinOnUnlink,
        Self::NoAncestorTouch,
    ];
}

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Breaks a rule, or none, for the calling thread.
    #[doc(hidden)]
    pub fn set(mutant: Option<Mutant>) {
        ACTIVE.set(mutant);
    }

    pub(crate) fn is(mutant: Mutant) -> bool {
        ACTIVE.get() == Some(mutant)
    }

    thread_local! {
        static SWAPS: Cell<bool> = const { Cell::new(false) };
    }

    /// Says that the calling thread now acts for a peer that merges the other way round.
    #[doc(hidden)]
    pub fn set_swaps_winner(swaps: bool) {
        SWAPS.set(swaps);
    }

    pub(crate) fn swaps_winner() -> bool {
        SWAPS.get()
    }
}

#[cfg(not(feature = "mutants"))]
mod switch {
    use super::Mutant;

    pub(crate) const fn is(_mutant: Mutant) -> bool {
        false
    }

    pub(crate) const fn swaps_winner() -> bool {
        false
    }
}

pub(crate) use switch::{is, swaps_winner};
#[cfg(feature = "mutants")]
pub use switch::{set, set_swaps_winner};
