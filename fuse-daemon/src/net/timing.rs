//! How long is waited for what.

use std::time::Duration;

/// Shorter in tests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// For a connection to be made.
    pub(super) connect: Duration,
    /// From there until the other side has proved its key and said what it wants.
    pub(super) handshake: Duration,
    /// Without a byte in the middle of something.
    pub(super) stall: Duration,
    /// After which a fetch stands back if another peer waits: long beside the seconds that what is on
    /// its way takes, of which something may come twice, and short beside what a person waits for.
    pub(super) turn: Duration,
    /// After which something is sent if nothing else was.
    pub(super) keep_alive: Duration,
    /// Without a word: more than two times the other side's `keep_alive`.
    pub(super) silence: Duration,
    /// Until a peer is tried again, at first and at most; with jitter.
    pub(super) retry_min: Duration,
    pub(super) retry_max: Duration,
    /// Until something is tried again that failed here, such as for want of space, or that a peer did not
    /// give: that at first, and ever more rarely.
    pub(super) trouble: Duration,
    /// How long a verb waits for peers to be found.
    pub(super) search: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            handshake: Duration::from_secs(8),
            stall: Duration::from_secs(60),
            turn: Duration::from_secs(30),
            keep_alive: Duration::from_secs(120),
            silence: Duration::from_secs(300),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(240),
            trouble: Duration::from_secs(30),
            search: Duration::from_secs(3),
        }
    }
}
