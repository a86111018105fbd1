//! Which nodes were born lately, and how often the kernel was told of each.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::Ino;

/// How long nodes are counted at least once in a while: an editor's save takes less, and hardly ever falls
/// on the end of it.
const YOUNG_FOR: Duration = Duration::from_secs(60);
/// Counted nodes that outlive a version, at most: 1 MiB of them.
const YOUNG_MAX: usize = 1 << 15;

/// The counts, by number. Of whatever has one, all that the kernel was told is counted.
#[derive(Debug, Default)]
pub(super) struct Young {
    told: HashMap<Ino, u64>,
    since: Option<Instant>,
}

impl Young {
    /// The kernel was told `ino` once more.
    pub(super) fn told(&mut self, ino: Ino, newborn: bool) {
        if newborn {
            *self.told.entry(ino).or_default() += 1;
        } else if let Some(count) = self.told.get_mut(&ino) {
            *count += 1;
        }
    }

    pub(super) fn has(&self, ino: Ino) -> bool {
        self.told.contains_key(&ino)
    }

    /// The kernel gives back `count` of what it was told.
    pub(super) fn forget(&mut self, ino: Ino, count: u64) {
        if let Some(told) = self.told.get_mut(&ino) {
            *told = told.saturating_sub(count);
            if *told == 0 {
                self.told.remove(&ino);
            }
        }
    }

    /// Counts `ino` no longer.
    pub(super) fn take(&mut self, ino: Ino) -> Option<u64> {
        self.told.remove(&ino)
    }

    /// A version was begun at `now`.
    pub(super) fn grown_up(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) >= YOUNG_FOR || self.told.len() > YOUNG_MAX {
            *self = Self { told: HashMap::new(), since: Some(now) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_young_for_a_minute_or_until_there_are_many() {
        let mut young = Young::default();
        let (begun, ino) = (Instant::now(), Ino(7));
        young.grown_up(begun);
        young.told(ino, true);
        young.grown_up(begun + YOUNG_FOR / 2);
        assert!(young.has(ino));
        young.told(ino, false);
        young.forget(ino, 1);
        assert!(young.has(ino), "what it was told since is not counted");
        young.grown_up(begun + YOUNG_FOR);
        assert!(!young.has(ino));
        young.told(ino, false);
        assert!(!young.has(ino), "it was told before, and nobody has counted that");
        for ino in 0..=u64::try_from(YOUNG_MAX).unwrap() {
            young.told(Ino(ino), true);
        }
        young.grown_up(begun + YOUNG_FOR);
        assert!(young.told.is_empty(), "without bound");
    }
}
