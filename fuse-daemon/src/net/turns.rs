//! Taking turns: nobody waits for hours for the end of another one's fetch, because that one has
//! much to give, is slow, or wants it so.
//!
//! When a turn is over, a fetch stands back if another peer waits with another version, which may be
//! a small one. With the same version nobody is quicker than who is at it already, and to bring it
//! from two has all of it looked at twice: then it stands back only if it was slow.
//!
//! What stands back asks for nothing more, and keeps its place. What it had asked for is taken as it
//! comes, also while others have their turn, so that nothing is sent twice over a slow link, and
//! something that takes longer than a turn arrives too. While something is merged it is kept; if that
//! is too much, it is dropped, and the fetch begins anew in its turn.
//!
//! A mend of what is damaged here takes turns with those fetches, one in each round of them. It stands
//! back as well if the peer is slow, so that another one is asked.
//!
//! So who has something waits at most for one turn of each other peer and one of a mend. A turn is
//! [`Timing::turn`](super::timing::Timing), and the answer if a secret is lacking may take
//! [`Timing::stall`](super::timing::Timing) more. What is seen before a bucket is dropped takes no turns:
//! what peers have.
//!
//! No pack is emptied while there is a fetch. So when writes are refused for want of space, those that
//! stand back are let go of at the end of a turn, and so is the one whose turn it is if it is slow: one
//! that is not comes to its end, or to that of the space.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cairnfs_mount_core::VersionId;

use super::{
    desk::{Delivered, Side, Taking},
    flight::Flight,
    session::Session,
    sharing::Offered,
};

/// What is fetched from a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Task {
    /// What is lacking of this version.
    Version(VersionId),
    /// What is damaged here.
    Mend,
}

/// Who brings less in a second is slow: a home line of 2 Mbit/s, so that whoever has a better one
/// gets a chance.
const SLOW_BYTES: u64 = 256 << 10;

/// One turn of one fetch.
#[derive(Debug)]
pub(super) struct Turn {
    began: Instant,
    lasts: Duration,
    /// What had come before it.
    bytes: u64,
    /// How long answers were waited for.
    waited: Duration,
}

impl Turn {
    /// Begins now.
    pub(super) fn begin(lasts: Duration, flight: &Flight) -> Self {
        let bytes = flight.progress().bytes;
        Self { began: Instant::now(), lasts, bytes, waited: Duration::ZERO }
    }

    pub(super) fn ends(&self) -> Instant {
        self.began + self.lasts
    }

    pub(super) fn is_over(&self) -> bool {
        self.ends() <= Instant::now()
    }

    /// So long was waited for an answer.
    pub(super) fn pass(&mut self, waited: Duration) {
        self.waited += waited;
    }

    /// Whether it was spent on waiting, and little came.
    pub(super) fn is_slow(&self, flight: &Flight) -> bool {
        let came = flight.progress().bytes.saturating_sub(self.bytes);
        let is_little = u128::from(came) * 1000 < u128::from(SLOW_BYTES) * self.waited.as_millis();
        // Else what takes so long is to see what is lacking here, or to store it.
        is_little && self.waited > self.began.elapsed() / 2
    }
}

/// Fetches that stand back, at most: no pack is emptied while there is one, and each takes memory.
const ASIDE_MAX: usize = 4;

/// One for which nothing has come for so long is let go of.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// The fetches that stand back: of a peer one of a version at most, and one that mends. Of one that is let go of, what came is kept:
/// in its turn it begins anew.
#[derive(Default)]
pub(super) struct Aside(Vec<StandsBack>);

struct StandsBack {
    side: Side,
    task: Task,
    flight: Flight,
    /// Since when nothing has come for it.
    idle: Instant,
}

impl Aside {
    pub(super) fn put(&mut self, side: &Side, task: Task, flight: Flight) {
        if self.0.len() >= ASIDE_MAX {
            // For this one nothing is on its way any more, most likely.
            let idlest = self.0.iter().enumerate().min_by_key(|(_, it)| it.idle);
            if let Some(at) = idlest.map(|(at, _)| at) {
                self.0.remove(at);
            }
        }
        self.0.push(StandsBack { side: side.clone(), task, flight, idle: Instant::now() });
    }

    /// What is being fetched from this peer, which is ended first: the peer may have gone on
    /// meanwhile, as it may in any fetch.
    pub(super) fn version(&self, side: &Side) -> Option<VersionId> {
        self.0.iter().filter(|it| it.side.link == side.link).find_map(|it| match it.task {
            Task::Version(version) => Some(version),
            Task::Mend => None,
        })
    }

    /// It is its turn again, or it is wanted no more.
    pub(super) fn take_up(&mut self, side: &Side, task: Task) -> Option<Flight> {
        let at = self.0.iter().position(|it| it.side.link == side.link && it.task == task)?;
        Some(self.0.remove(at).flight)
    }

    /// Lets go of what mends: something else was mended meanwhile, or nobody waits for it any more.
    pub(super) fn drop_mends(&mut self) {
        self.0.retain(|it| it.task != Task::Mend);
    }

    /// Lets go of all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Lets go of those that do not have another turn: the bucket is not shared with the peer any more,
    /// or was not in between, or it stands on a version that was rejected; and of those for which
    /// nothing comes. Answers are waited for by the others only.
    pub(super) fn keep_open(&mut self, offered: &Offered) {
        self.0.retain(|it| offered.is_open(&it.side, it.task) && it.idle.elapsed() < IDLE_MAX);
        self.receive_later(offered);
    }

    /// Has answers to what they have asked for taken as they come, and those on this connection.
    pub(super) fn receive_with(&mut self, offered: &Offered, session: &Arc<Session>) {
        let mut sessions = self.sessions();
        sessions.push(Arc::clone(session));
        let overrun = offered.receive_from(sessions, Taking::AtOnce);
        self.let_go_of(&overrun);
    }

    /// Has answers to what they have asked for kept until they are taken.
    pub(super) fn receive_later(&mut self, offered: &Offered) {
        let overrun = offered.receive_from(self.sessions(), Taking::Later);
        self.let_go_of(&overrun);
    }

    fn sessions(&self) -> Vec<Arc<Session>> {
        self.0.iter().map(|it| Arc::clone(&it.side.session)).collect()
    }

    /// Lets go of those that do not get all that they have asked for.
    fn let_go_of(&mut self, overrun: &[Arc<Session>]) {
        self.0.retain(|it| !overrun.iter().any(|one| Arc::ptr_eq(one, &it.side.session)));
    }

    /// Takes an answer to what one of them has asked for; any other is given back.
    pub(super) fn take(&mut self, delivered: Delivered) -> Option<Delivered> {
        let is_its = |it: &StandsBack| {
            Arc::ptr_eq(&it.side.session, &delivered.session) && it.flight.awaits(delivered.request)
        };
        let Some(at) = self.0.iter().position(is_its) else { return Some(delivered) };
        let taken = self.0.get_mut(at).map(|it| {
            it.idle = Instant::now();
            it.flight.take(delivered)
        });
        if let Some(Err(why)) = taken {
            // In its turn it begins anew, and what is wrong is met again and told.
            log::debug!("stands-back given-up=yes reason={why:?}");
            self.0.remove(at);
        }
        None
    }
}
