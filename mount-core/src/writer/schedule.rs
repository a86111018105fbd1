//! When to save and when to publish: pure, told the time by its caller.

use std::time::{Duration, Instant};

use crate::Options;

/// Time without a change after which a version is published while a peer waits for it: long enough
/// for a program that writes several files at once.
const HURRY_QUIET: Duration = Duration::from_millis(100);

/// The clock of the writer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    save_after: Duration,
    publish_quiet: Duration,
    /// Whether somebody waits for versions.
    hurry: bool,
    publish_max: Duration,
    /// Bytes of save records after which a version makes them redundant: who opens the bucket after
    /// a crash holds them all.
    journal_max: u64,
    /// Bytes of them since the last version.
    journaled: u64,
    unsaved_since: Option<Instant>,
    /// Since when there is something saved that no version holds.
    unpublished_since: Option<Instant>,
    not_before: Option<Instant>,
    given_up: bool,
}

impl Schedule {
    /// `journaled` are the bytes of the saves that no version holds yet, if there are any.
    pub(crate) fn new(options: &Options, journaled: Option<u64>, now: Instant) -> Self {
        Self {
            save_after: options.policy.max_age(),
            publish_quiet: options.publish_quiet,
            hurry: false,
            publish_max: options.publish_max,
            journal_max: options.limits.dirty_bytes,
            journaled: journaled.unwrap_or(0),
            unsaved_since: None,
            unpublished_since: journaled.map(|_| now),
            not_before: None,
            given_up: false,
        }
    }

    /// Somebody waits for versions, or nobody does.
    pub(crate) fn hurry(&mut self, hurry: bool) {
        self.hurry = hurry;
    }

    /// Something has changed.
    pub(crate) fn dirty(&mut self, now: Instant) {
        self.unsaved_since.get_or_insert(now);
    }

    /// There was nothing to save.
    pub(crate) fn unchanged(&mut self) {
        self.unsaved_since = None;
        self.not_before = None;
    }

    /// Everything that was changed before the save began is durable, by a record of so many bytes.
    pub(crate) fn saved(&mut self, now: Instant, bytes: u64) {
        self.unchanged();
        self.carried(now, bytes);
    }

    /// A record of so many bytes has made something durable that the newest version lacks.
    pub(crate) fn carried(&mut self, now: Instant, bytes: u64) {
        self.journaled += bytes;
        self.unpublished_since.get_or_insert(now);
    }

    /// A version holds everything that was saved and that can be published.
    pub(crate) fn published(&mut self) {
        self.unpublished_since = None;
        self.not_before = None;
        self.journaled = 0;
    }

    /// The disk refused; nothing is tried by the clock before `at`.
    pub(crate) fn retry(&mut self, at: Instant) {
        self.not_before = Some(at);
    }

    /// Nothing will ever be written again.
    pub(crate) fn give_up(&mut self) {
        self.given_up = true;
    }

    fn save_at(&self) -> Option<Instant> {
        let at = self.unsaved_since? + self.save_after;
        Some(self.not_before.map_or(at, |earliest| earliest.max(at)))
    }

    fn publish_at(&self, last_change: Instant) -> Option<Instant> {
        let since = self.unpublished_since?;
        let quiet =
            if self.hurry { self.publish_quiet.min(HURRY_QUIET) } else { self.publish_quiet };
        let latest =
            if self.journaled > self.journal_max { since } else { since + self.publish_max };
        let at = (last_change.max(since) + quiet).min(latest);
        Some(self.not_before.map_or(at, |earliest| earliest.max(at)))
    }

    /// When to look again if nobody asks for anything; `None` if nothing is pending.
    pub(crate) fn deadline(&self, last_change: Instant) -> Option<Instant> {
        if self.given_up {
            return None;
        }
        self.save_at().into_iter().chain(self.publish_at(last_change)).min()
    }

    pub(crate) fn save_due(&self, now: Instant) -> bool {
        !self.given_up && self.save_at().is_some_and(|at| at <= now)
    }

    pub(crate) fn publish_due(&self, now: Instant, last_change: Instant) -> bool {
        !self.given_up && self.publish_at(last_change).is_some_and(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SavePolicy;

    const SECOND: Duration = Duration::from_secs(1);

    fn schedule(policy: SavePolicy, now: Instant) -> Schedule {
        Schedule::new(&Options { policy, ..Options::default() }, None, now)
    }

    #[test]
    fn nothing_is_due_while_nothing_is_dirty() {
        let now = Instant::now();
        let schedule = schedule(SavePolicy::Flush, now);
        assert_eq!(schedule.deadline(now), None);
        assert!(!schedule.save_due(now + 100 * SECOND));
    }

    #[test]
    fn a_change_is_saved_within_the_time_of_its_policy() {
        let now = Instant::now();
        for (policy, age) in [
            (SavePolicy::Flush, SECOND),
            (SavePolicy::Release, SECOND),
            (SavePolicy::Interval(30 * SECOND), 30 * SECOND),
        ] {
            let mut schedule = schedule(policy, now);
            schedule.dirty(now);
            schedule.dirty(now + age / 2);
            assert_eq!(schedule.deadline(now), Some(now + age), "the first change counts");
            assert!(schedule.save_due(now + age));
        }
    }

    #[test]
    fn publishing_waits_for_quiet_but_not_for_ever() {
        let start = Instant::now();
        let mut schedule = schedule(SavePolicy::Flush, start);
        schedule.saved(start, 1);
        assert!(!schedule.publish_due(start + SECOND, start + SECOND / 2));
        assert!(schedule.publish_due(start + SECOND, start));
        let late = start + 10 * SECOND;
        assert!(schedule.publish_due(late, late), "somebody is always writing");
        schedule.published();
        assert_eq!(schedule.deadline(late), None);
    }

    #[test]
    fn a_version_ends_a_journal_that_grows_long() {
        let start = Instant::now();
        let mut schedule = schedule(SavePolicy::Flush, start);
        let half = Options::default().limits.dirty_bytes / 2;
        for _ in 0..2 {
            schedule.saved(start, half);
            schedule.saved(start, half);
            assert!(!schedule.publish_due(start, start));
            schedule.saved(start, 1);
            assert!(schedule.publish_due(start, start));
            schedule.published();
        }
    }

    #[test]
    fn a_version_is_published_sooner_while_a_peer_waits_for_it() {
        let start = Instant::now();
        let mut schedule = schedule(SavePolicy::Flush, start);
        schedule.saved(start, 1);
        schedule.hurry(true);
        assert_eq!(schedule.deadline(start), Some(start + HURRY_QUIET));
        schedule.hurry(false);
        assert_eq!(schedule.deadline(start), Some(start + SECOND));
    }

    #[test]
    fn a_full_disk_is_not_asked_all_the_time() {
        let now = Instant::now();
        let mut schedule = schedule(SavePolicy::Flush, now);
        schedule.dirty(now);
        schedule.retry(now + 5 * SECOND);
        assert_eq!(schedule.deadline(now), Some(now + 5 * SECOND));
        schedule.give_up();
        assert_eq!(schedule.deadline(now), None);
    }
}
