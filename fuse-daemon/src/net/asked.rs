//! What was asked on a connection and not answered yet, and who waits for room to ask more.
//!
//! Who waits is served in the order in which it came, one request each time: what is shared in many
//! buckets comes of all of them, and none is left behind.
//!
//! Plain data; nothing here waits.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::message::REQUESTS_MAX;

/// Requests without an answer, whatever came of who asked: of fewer than the other side lets wait.
const ASKED_MAX: usize = 48;
const _: () = assert!(ASKED_MAX < REQUESTS_MAX);

/// See the module's doc. `T` is who asks.
#[derive(Debug)]
pub(super) struct Asked<T> {
    next: u32,
    unanswered: HashMap<u32, Arc<T>>,
    /// Who waits for room, each once.
    queue: VecDeque<Arc<T>>,
}

impl<T> Default for Asked<T> {
    fn default() -> Self {
        Self { next: 0, unanswered: HashMap::new(), queue: VecDeque::new() }
    }
}

impl<T> Asked<T> {
    /// Takes the room for one request, whose number is returned; none if all there is, is taken or is
    /// for those who came before. Then `who` waits too, until it is among [`Asked::may_ask`] and calls
    /// this again, or [leaves](Asked::leave).
    pub(super) fn begin(&mut self, who: &Arc<T>) -> Option<u32> {
        let place = self.queue.iter().position(|it| Arc::ptr_eq(it, who));
        if place.unwrap_or(self.queue.len()) >= self.room() {
            if place.is_none() {
                self.queue.push_back(Arc::clone(who));
            }
            return None;
        }
        self.leave(who);
        let request = self.next;
        self.next = self.next.wrapping_add(1);
        self.unanswered.insert(request, Arc::clone(who));
        Some(request)
    }

    /// `who` does not wait any more.
    pub(super) fn leave(&mut self, who: &Arc<T>) {
        self.queue.retain(|it| !Arc::ptr_eq(it, who));
    }

    /// Who asked this, if it was asked and not answered yet. With the last part of its answer there is
    /// room again.
    pub(super) fn answered(&mut self, request: u32, is_last: bool) -> Option<Arc<T>> {
        match is_last {
            true => self.unanswered.remove(&request),
            false => self.unanswered.get(&request).cloned(),
        }
    }

    /// Those who wait and for whom there is room.
    pub(super) fn may_ask(&self) -> Vec<Arc<T>> {
        self.queue.iter().take(self.room()).cloned().collect()
    }

    /// Whether no answer is to come.
    pub(super) fn is_empty(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// No answer comes any more.
    pub(super) fn clear(&mut self) {
        self.unanswered.clear();
        self.queue.clear();
    }

    fn room(&self) -> usize {
        ASKED_MAX.saturating_sub(self.unanswered.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_asked_than_there_is_room_for() {
        let (mut asked, who) = (Asked::default(), Arc::new(()));
        let requests: Vec<_> = std::iter::from_fn(|| asked.begin(&who)).collect();
        assert_eq!(requests.len(), ASKED_MAX);
        assert!(asked.answered(requests[7], false).is_some());
        assert!(asked.begin(&who).is_none(), "the answer is not whole");
        assert!(asked.answered(requests[7], true).is_some());
        assert!(asked.answered(requests[7], true).is_none(), "it was answered");
        assert!(asked.begin(&who).is_some());
    }

    #[test]
    fn who_waits_asks_in_turn() {
        let mut asked = Asked::default();
        let [busy, one, other] = [0, 1, 2].map(Arc::new);
        let requests: Vec<_> = std::iter::from_fn(|| asked.begin(&busy)).collect();
        asked.leave(&busy);
        assert!(asked.begin(&one).is_none() && asked.begin(&other).is_none());
        assert!(asked.may_ask().is_empty());
        asked.answered(requests[0], true);
        assert_eq!(asked.may_ask(), [Arc::clone(&one)]);
        assert!(asked.begin(&busy).is_none() && asked.begin(&other).is_none(), "the room is taken");
        assert!(asked.begin(&one).is_some());
        asked.answered(requests[1], true);
        assert_eq!(asked.may_ask(), [Arc::clone(&other)]);
        asked.leave(&other);
        assert_eq!(asked.may_ask(), [busy], "who has left keeps nobody waiting");
    }
}
