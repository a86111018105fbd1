//! What a thread does with a bucket whose place it has taken.

use std::fmt;

/// See the module's doc. `Display` says it after "the bucket is just".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::daemon) enum Doing {
    /// Of the daemon's own accord, or for a version that is to be shown.
    Opening,
    Closing,
    Mounting,
    /// Of the daemon's own accord, when it starts.
    MountingAtStart,
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
        matches!(self, Self::Opening | Self::MountingAtStart)
    }

    /// Whether it waits for whatever else is done with the bucket: nobody is there to try again.
    pub(super) fn is_patient(self) -> bool {
        self == Self::MountingAtStart
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opening => "being opened",
            Self::Closing => "being closed",
            Self::Mounting | Self::MountingAtStart => "being mounted",
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
