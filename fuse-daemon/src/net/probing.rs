//! Whether those are there still with whom there is a connection.
//!
//! A connection whose other end has gone looks like one on which nothing is said, until a keep-alive is
//! missed; and while this machine sleeps the time for that does not pass. So whoever wants to know asks
//! for something, and waits for any word as long as one may take to prove its key.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Net,
    session::{Ended, Session},
    sharing::Offered,
};

/// Connections on which a word is waited for.
#[derive(Debug)]
pub(super) struct Probes {
    limit: Duration,
    open: Vec<Probe>,
    /// Those that were ended here, and may be on the roster still.
    ended: Vec<Arc<Session>>,
}

#[derive(Debug)]
struct Probe {
    session: Arc<Session>,
    /// A bucket that is shared on it, and what this side calls that.
    offered: Arc<Offered>,
    number: u32,
    /// What had come before.
    received: u64,
    asked: Option<Instant>,
}

impl Probes {
    /// Of all with whom one of these is shared. Each is to say something within `limit`.
    pub(super) fn begin(buckets: &[Arc<Offered>], limit: Duration) -> Self {
        let mut open = Vec::<Probe>::new();
        for offered in buckets {
            for side in offered.sides() {
                if open.iter().any(|probe| Arc::ptr_eq(&probe.session, &side.session)) {
                    continue;
                }
                open.push(Probe {
                    offered: Arc::clone(offered),
                    number: side.number,
                    received: side.session.received_bytes(),
                    session: side.session,
                    asked: None,
                });
            }
        }
        Self { limit, open, ended: Vec::new() }
    }

    /// Asks who was not asked yet, and ends the connections on which nothing came. Says whether some
    /// that were ended have gone: their peers can be dialled now.
    pub(super) fn pursue(&mut self, net: &Net) -> bool {
        let limit = self.limit;
        self.open.retain(|it| {
            it.session.received_bytes() == it.received && it.session.ended().is_none()
        });
        for probe in &mut self.open {
            // While much is sent or asked for there are other limits, and words that come late.
            if probe.asked.is_none() && probe.session.ask_for_a_word(&probe.offered, probe.number) {
                probe.asked = Some(Instant::now());
            }
        }
        let is_late = |it: &mut Probe| it.asked.is_some_and(|asked| asked.elapsed() >= limit);
        for Probe { session, .. } in self.open.extract_if(.., is_late) {
            session.end(Ended::Wrong("it does not answer".into()));
            self.ended.push(session);
        }
        let had_ended = self.ended.len();
        let roster = net.roster.lock();
        let is_there = |it: &Arc<Session>| {
            roster.sessions.get(&it.key).is_some_and(|current| Arc::ptr_eq(current, it))
        };
        self.ended.retain(is_there);
        self.ended.len() < had_ended
    }

    /// Whether all have said something, or have gone.
    pub(super) fn are_over(&self) -> bool {
        self.open.is_empty() && self.ended.is_empty()
    }
}
