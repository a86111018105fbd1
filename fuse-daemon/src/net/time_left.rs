//! How long a peer that is asked for something is still waited for.

use std::time::{Duration, Instant};

/// What a peer has to bring in a second at the least, in the long run. A word takes some 50 bytes on
/// the wire, and the slowest lines that are in use bring several times as much.
const LEAST_BYTES: u32 = 1 << 10;

/// Whole again with each thing that is of use. Of what comes in between nobody can tell yet what it
/// is: bytes of something large, of which the rest is on its way, or the last of a fetch that was
/// given up. It only makes up for the time that it may have been on its way, so that a slow link is
/// waited for and nobody is made to wait by a word now and then.
#[derive(Debug)]
pub(super) struct TimeLeft {
    whole: Duration,
    left: Duration,
    /// Bytes that have come from the peer since it is connected, of whatever; none if they do not count.
    arrived: Option<u64>,
}

impl TimeLeft {
    /// All of it, for a peer from which so many bytes have come.
    pub(super) fn new(whole: Duration, arrived: u64) -> Self {
        Self { whole, left: whole, arrived: Some(arrived) }
    }

    /// So long and no longer, whatever comes: for an answer that fetches of others wait for.
    pub(super) fn at_most(whole: Duration) -> Self {
        Self { whole, left: whole, arrived: None }
    }

    /// Until when somebody waits who begins now, if nothing comes.
    pub(super) fn until(&self, now: Instant) -> Instant {
        now + self.left
    }

    /// Whether it was waited for long enough.
    pub(super) fn is_up(&self) -> bool {
        self.left.is_zero()
    }

    /// So long was waited; what is done here between the answers does not count.
    pub(super) fn pass(&mut self, waited: Duration) {
        self.left = self.left.saturating_sub(waited);
    }

    /// Something that was wanted has come.
    pub(super) fn renew(&mut self) {
        self.left = self.whole;
    }

    /// So many bytes have come by now.
    pub(super) fn arrived(&mut self, bytes: u64) {
        let Some(arrived) = &mut self.arrived else { return };
        let more = bytes.saturating_sub(*arrived);
        *arrived = bytes;
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let worth = Duration::from_secs(1) * more / LEAST_BYTES;
        self.left = (self.left + worth).min(self.whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Duration = Duration::from_secs(60);
    const SECOND: Duration = Duration::from_secs(1);

    /// Whether a peer is waited for through an hour in which so many bytes come at the end of each
    /// second and nothing is whole.
    fn lasts(bytes_a_second: u64) -> bool {
        let mut time = TimeLeft::new(WHOLE, 7);
        (1..=3600).all(|second| {
            let is_waited_for = time.left > SECOND;
            time.pass(SECOND);
            time.arrived(7 + second * bytes_a_second);
            is_waited_for
        })
    }

    #[test]
    fn a_word_a_second_is_not_waited_for_and_a_slow_link_is() {
        assert!(!lasts(0) && !lasts(50) && !lasts(900));
        assert!(lasts(1 << 10) && lasts(4 << 10));
    }

    #[test]
    fn nothing_is_saved_up() {
        let mut time = TimeLeft::new(WHOLE, 0);
        time.arrived(u64::MAX);
        assert_eq!(time.left, WHOLE);
        time.pass(SECOND);
        time.arrived(u64::MAX);
        assert_eq!(time.left, WHOLE - SECOND);
        time.renew();
        assert_eq!(time.left, WHOLE);
    }
}
