//! When the kernel is told once more of inodes that a merge has changed.
//!
//! What a lookup or a change of attributes answers may be from before the merge, and reach the kernel
//! after it was told: an inode that it had not known begins with the old attributes then, one whose
//! attributes were just set goes back to them, and either is believed for
//! [`TTL`](super::negotiate::TTL). Nothing says when the kernel has taken an answer in, so it is told
//! several times, of attributes only: pages are read after a file was opened, and thus new.

use std::time::{Duration, Instant};

use cairnfs_mount_core::Ino;

/// How long after the time before: whoever looks sees old attributes as long as that at most, if they
/// came as late. The last is for threads that wait long for a processor.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(5),
    Duration::from_millis(40),
    Duration::from_millis(300),
    Duration::from_secs(2),
    Duration::from_secs(15),
];

/// What is to be told again. Costs eight bytes for each inode, for 18 seconds.
#[derive(Debug, Default)]
pub(super) struct Again {
    rounds: Vec<Round>,
}

/// What was told at one time.
#[derive(Debug)]
struct Round {
    /// Sorted.
    inodes: Vec<Ino>,
    /// Index in [`PAUSES`].
    pause: usize,
    due: Instant,
}

impl Round {
    fn has(&self, ino: Ino) -> bool {
        self.inodes.binary_search(&ino).is_ok()
    }
}

impl Again {
    /// `inodes`, which are sorted, have been told `now`. One that is to be told after the first pause
    /// already, as it changes all the time, is not noted twice.
    pub(super) fn add(&mut self, mut inodes: Vec<Ino>, now: Instant) {
        let first = |round: &&Round| round.pause == 0;
        inodes.retain(|ino| !self.rounds.iter().filter(first).any(|round| round.has(*ino)));
        if !inodes.is_empty() {
            self.rounds.push(Round { inodes, pause: 0, due: now + PAUSES[0] });
        }
    }

    /// Whether what the kernel believes of `ino` may be old.
    pub(super) fn has(&self, ino: Ino) -> bool {
        self.rounds.iter().any(|round| round.has(ino))
    }

    /// How long nothing is due; `None` if nothing will be.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.rounds.iter().map(|round| round.due.saturating_duration_since(now)).min()
    }

    /// What is to be told `now`. It counts as told.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Ino> {
        let mut due = Vec::new();
        self.rounds.retain_mut(|round| {
            if round.due > now {
                return true;
            }
            round.pause += 1;
            if let Some(pause) = PAUSES.get(round.pause) {
                round.due = now + *pause;
                due.extend(&round.inodes);
                return true;
            }
            due.append(&mut round.inodes);
            false
        });
        due.sort_unstable();
        due.dedup();
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_after_each_pause_and_then_let_go() {
        let (mut again, mut now) = (Again::default(), Instant::now());
        assert_eq!(again.wait(now), None);
        again.add(vec![Ino(2), Ino(5)], now);
        for pause in PAUSES {
            assert_eq!(again.wait(now), Some(pause));
            assert!(again.has(Ino(5)) && !again.has(Ino(3)));
            assert!(again.take(now).is_empty(), "too early");
            now += pause;
            assert_eq!(again.take(now), [Ino(2), Ino(5)]);
        }
        assert!(!again.has(Ino(5)));
        assert_eq!(again.wait(now), None);
    }

    #[test]
    fn what_changes_twice_is_told_once_at_a_time() {
        let (mut again, now) = (Again::default(), Instant::now());
        again.add(vec![Ino(2), Ino(5)], now);
        for _ in 0..1_000 {
            again.add(vec![Ino(2)], now);
        }
        assert_eq!(again.rounds.len(), 1);
        assert_eq!(again.take(now + PAUSES[0]), [Ino(2), Ino(5)]);
    }
}
