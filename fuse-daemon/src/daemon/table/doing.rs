//! What a thread does with a bucket whose place it has taken.

use std::fmt;

/// See the module's doc. `Display` says it after "the bucket is just".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::daemon) enum Doing {
    /// Of the daemon's own accord, or for a version that is to be shown.
    Opening,
    Closing,
    Mounting,
    Joining,
    BringingAnew,
    Dropping,
    Repairing,
    Checking,
    Protecting,
    Reading,
    Publishing,
    Syncing,
    Resolving,
    Changing,
}

impl Doing {
    /// Whether it is soon done, and nobody was told of it: whoever needs the bucket waits.
    pub(super) fn is_brief(self) -> bool {
        self == Self::Opening
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opening => "being opened",
            Self::Closing => "being closed",
            Self::Mounting => "being mounted",
            Self::Joining => "being joined",
            Self::BringingAnew => "being brought anew",
            Self::Dropping => "being dropped",
            Self::Repairing => "being repaired",
            Self::Checking => "being checked",
            Self::Protecting => "being given another passphrase",
            Self::Reading => "being read",
            Self::Publishing => "being published",
            Self::Syncing => "being synced",
            Self::Resolving => "being resolved",
            Self::Changing => "being changed",
        })
    }
}
