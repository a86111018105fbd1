//! What is to be said on a connection, and asked by the other side: the inbox of the thread that
//! writes. Nobody waits to put something in.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::message::{Ask, REQUESTS_MAX, Say};
use crate::order::{self, Condvar, Mutex};

/// Messages that wait to be sent; a connection on which more wait is not worth keeping.
const SAYS_MAX: usize = 4096;

/// What the writing thread does next.
#[derive(Debug)]
pub(super) enum Next {
    Send(Say),
    Answer(Request),
    /// Nothing was to be sent for a while.
    Idle,
    Closed,
}

/// Something that the other side wants.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) request: u32,
    pub(super) bucket: u32,
    pub(super) ask: Ask,
}

/// The outbox is full or closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refused;

#[derive(Debug, Default)]
struct State {
    says: VecDeque<Say>,
    requests: VecDeque<Request>,
    closed: bool,
    /// Whether the thread that writes waits for something to do.
    waits: bool,
}

/// See the module's doc.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State, order::Outbox>,
    bell: Condvar,
}

impl Outbox {
    /// Will say something. What a newer announcement makes idle is dropped.
    pub(super) fn say(&self, say: Say) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if let Say::Head { bucket, .. } = say {
            state.says.retain(|old| !matches!(old, Say::Head { bucket: b, .. } if *b == bucket));
        }
        if state.closed || state.says.len() >= SAYS_MAX {
            return Err(Refused);
        }
        state.says.push_back(say);
        drop(state);
        self.bell.notify_one();
        Ok(())
    }

    /// The other side wants something.
    pub(super) fn request(&self, request: Request) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.closed || state.requests.len() >= REQUESTS_MAX {
            return Err(Refused);
        }
        state.requests.push_back(request);
        drop(state);
        self.bell.notify_one();
        Ok(())
    }

    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.says.clear();
        state.requests.clear();
        drop(state);
        self.bell.notify_all();
    }

    /// Whether what is said now is sent at once.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.waits && state.says.is_empty() && state.requests.is_empty()
    }

    /// What is to be said before anything else, if there is something.
    pub(super) fn urgent(&self) -> Option<Say> {
        self.state.lock().says.pop_front()
    }

    /// Waits for something to do, at most for `idle`.
    pub(super) fn next(&self, idle: Duration) -> Next {
        let until = Instant::now() + idle;
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return Next::Closed;
            }
            if let Some(say) = state.says.pop_front() {
                return Next::Send(say);
            }
            if let Some(request) = state.requests.pop_front() {
                return Next::Answer(request);
            }
            state.waits = true;
            let is_idle = self.bell.wait_until(&mut state, until).timed_out();
            state.waits = false;
            if is_idle {
                return Next::Idle;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    fn head(bucket: u32, version: u8) -> Say {
        Say::Head { bucket, version: [version; 32] }
    }

    #[test]
    fn only_the_newest_version_is_announced() {
        let outbox = Outbox::default();
        for version in 0..100 {
            outbox.say(head(1, version)).unwrap();
            outbox.say(head(2, version)).unwrap();
        }
        assert_eq!(outbox.urgent(), Some(head(1, 99)));
        assert_eq!(outbox.urgent(), Some(head(2, 99)));
        assert_eq!(outbox.urgent(), None);
    }

    #[test]
    fn what_waits_is_bounded() {
        let outbox = Outbox::default();
        let ask = || Request { request: 0, bucket: 0, ask: Ask::Blobs(Vec::new()) };
        for _ in 0..REQUESTS_MAX {
            outbox.request(ask()).unwrap();
        }
        assert_eq!(outbox.request(ask()), Err(Refused));
        while outbox.say(Say::Ping).is_ok() {}
        assert!(matches!(outbox.next(SOON), Next::Send(Say::Ping)));
        outbox.close();
        assert!(matches!(outbox.next(SOON), Next::Closed));
        assert_eq!(outbox.say(Say::Ping), Err(Refused));
    }

    #[test]
    fn nothing_to_do_is_said_after_a_while() {
        assert!(matches!(Outbox::default().next(SOON), Next::Idle));
    }
}
