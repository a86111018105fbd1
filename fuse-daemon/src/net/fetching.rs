//! Fetching from one peer at a time, for a turn or to the end.

use std::{sync::Arc, time::Instant};

use cairnfs_mount_core::{Error, FetchProgress, VersionId};
use cairnfs_store::KeyRing;

use super::{
    Net,
    desk::{Delivered, Heard, NoAnswer, Side},
    flight::Flight,
    message::{Answer, Ask, EPOCHS_MAX, GivenSecret, IDS_MAX},
    notices,
    replica::{Fetching, Replica},
    sharing::Offered,
    time_left::TimeLeft,
    turns::{Aside, Task, Turn},
};

/// How often [`Timing::stall`](super::timing::Timing) a peer may take to show what it has: four
/// minutes, in which 64 KiB a second are 15 MiB.
const FIND_STALLS: u32 = 4;

/// Why a version was not fetched.
#[derive(Debug)]
pub(super) enum Unfetched {
    /// It is not to be believed.
    Rejected(String),
    /// The peer does not keep to the protocol, or stalls.
    PeerWrong(String),
    PeerGone,
    /// The peer does not give it.
    Refused,
    /// The peer does not give the secret of this epoch, under which it is sealed.
    NoSecret(u16),
    /// The bucket is served here no longer.
    Closed,
    /// It failed here.
    Failed(Error),
    /// Others have their turn first.
    StandsBack {
        /// The peer brings little of what it was asked for.
        is_slow: bool,
    },
}

impl From<Error> for Unfetched {
    fn from(err: Error) -> Self {
        match err {
            Error::Rejected { why } => Self::Rejected(why),
            Error::Stopped => Self::Closed,
            err => Self::Failed(err),
        }
    }
}

impl From<NoAnswer> for Unfetched {
    fn from(none: NoAnswer) -> Self {
        match none {
            NoAnswer::Closed => Self::Closed,
            NoAnswer::PeerGone => Self::PeerGone,
            NoAnswer::Late => Self::PeerWrong("the peer does not answer what it is asked".into()),
        }
    }
}

/// Fetches all that is lacking of `version`, or goes on with what stood back. What has come is kept if
/// this ends early.
pub(super) fn fetch(
    net: &Net,
    offered: &Arc<Offered>,
    aside: &mut Aside,
    side: &Side,
    version: VersionId,
) -> Result<Box<dyn Fetching>, Unfetched> {
    Asker::open(net, offered, aside, side).bring(Task::Version(version))
}

/// Fetches what is damaged here, or goes on with what stood back. What has come is kept if this ends
/// early.
pub(super) fn mend(
    net: &Net,
    offered: &Arc<Offered>,
    aside: &mut Aside,
    side: &Side,
) -> Result<FetchProgress, Unfetched> {
    let mended = Asker::open(net, offered, aside, side).bring(Task::Mend)?;
    Ok(mended.progress())
}

/// Which of these blobs the peer does not have. What it has it sends, for there is no shorter way
/// to ask: so this is for few or small ones.
pub(super) fn lacking(
    net: &Net,
    offered: &Arc<Offered>,
    aside: &mut Aside,
    side: &Side,
    ids: &[[u8; 32]],
) -> Result<Vec<[u8; 32]>, Unfetched> {
    let mut asker = Asker::open(net, offered, aside, side);
    let mut lacking = Vec::new();
    let mut time = TimeLeft::at_most(net.timing.stall * FIND_STALLS);
    ids.chunks(IDS_MAX).try_for_each(|ids| asker.ask_for(ids, &mut lacking, &mut time))?;
    Ok(lacking)
}

/// Asks one peer, and hears what it answers.
struct Asker<'a> {
    net: &'a Net,
    offered: &'a Arc<Offered>,
    aside: &'a mut Aside,
    side: &'a Side,
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        self.side.session.want_no_more(self.offered);
        self.offered.set_transfer(None);
        self.aside.receive_later(self.offered);
    }
}

impl<'a> Asker<'a> {
    fn open(net: &'a Net, offered: &'a Arc<Offered>, aside: &'a mut Aside, side: &'a Side) -> Self {
        aside.receive_with(offered, &side.session);
        Self { net, offered, aside, side }
    }

    /// Fetches all of it, or until others have their turn.
    fn bring(&mut self, task: Task) -> Result<Box<dyn Fetching>, Unfetched> {
        let mut stood_back = self.aside.take_up(self.side, task);
        let turn_ends = Instant::now() + self.net.timing.turn;
        self.with_secrets(|asker| {
            // One secret after the other may be lacking.
            if turn_ends <= Instant::now() && asker.is_waited_for(task, true) {
                return Err(Unfetched::StandsBack { is_slow: true });
            }
            let flight = match stood_back.take() {
                Some(flight) => flight,
                None => asker.begin(task)?,
            };
            asker.fly(flight, task)
        })
    }

    /// Fetches, and again with a secret more whenever one is lacking. What came before is kept, so
    /// that beginning again costs little; it ends, as there is not room for many secrets.
    fn with_secrets(
        &mut self,
        mut fetch_once: impl FnMut(&mut Self) -> Result<Box<dyn Fetching>, Unfetched>,
    ) -> Result<Box<dyn Fetching>, Unfetched> {
        loop {
            match fetch_once(self) {
                Err(Unfetched::Failed(Error::MissingSecret { epoch, record: Some(record) })) => {
                    self.learn_secret(epoch, record)?;
                }
                other => return other,
            }
        }
    }

    fn begin(&self, task: Task) -> Result<Flight, Unfetched> {
        let begin = |replica: &dyn Replica| match task {
            Task::Version(version) => replica.fetch(version),
            Task::Mend => replica.mend(),
        };
        let begun = self.offered.with(|replica| (begin(replica), replica.head()));
        let (fetching, head) = begun.ok_or(Unfetched::Closed)?;
        let mut fetching = fetching?;
        fetching.give_up_when(self.offered.leaving());
        Ok(Flight::new(fetching, head, self.time_left()))
    }

    /// Fetches to the end, or until others have their turn.
    fn fly(&mut self, mut flight: Flight, task: Task) -> Result<Box<dyn Fetching>, Unfetched> {
        let lasts = self.net.timing.turn;
        let mut turn = Turn::begin(lasts, &flight);
        while !self.ask_for_more(&mut flight)? {
            let asked = Instant::now();
            let answer = self.answer_by(&mut flight.time, Some(turn.ends()))?;
            turn.pass(asked.elapsed());
            if let Some(delivered) = answer {
                flight.take(delivered)?;
            }
            if turn.is_over() {
                let is_slow = turn.is_slow(&flight);
                self.make_room(is_slow)?;
                if self.is_waited_for(task, is_slow) {
                    self.aside.put(self.side, task, flight);
                    return Err(Unfetched::StandsBack { is_slow });
                }
                turn = Turn::begin(lasts, &flight);
            }
        }
        Ok(flight.into_fetched())
    }

    /// If writes are refused for want of space, lets go of what holds up that some is found: what stands
    /// back, and by its error the fetch whose turn it is.
    fn make_room(&mut self, is_slow: bool) -> Result<(), Unfetched> {
        if !self.offered.with(|replica| replica.lacks_space()).ok_or(Unfetched::Closed)? {
            return Ok(());
        }
        self.aside.clear();
        if is_slow { Err(Unfetched::Failed(Error::NoSpace)) } else { Ok(()) }
    }

    /// Whether others should have their turn now.
    fn is_waited_for(&self, task: Task, is_slow: bool) -> bool {
        self.offered.is_waited_for(&self.side.session.key, task, is_slow)
    }

    /// Says whether nothing more is to come.
    fn ask_for_more(&self, flight: &mut Flight) -> Result<bool, Unfetched> {
        flight.fill_window(&|ask| self.ask(ask))?;
        self.offered.set_transfer(Some((self.side.session.key, flight.progress())));
        self.net.bump();
        flight.is_complete()
    }

    fn ask(&self, ask: Ask) -> Option<u32> {
        self.side.session.ask(self.offered, self.side.number, ask)
    }

    /// Asks as soon as there is room for it; what comes meanwhile is of a fetch that was given up.
    fn ask_in_turn(&mut self, ask: &Ask, time: &mut TimeLeft) -> Result<u32, Unfetched> {
        loop {
            if let Some(request) = self.ask(ask.clone()) {
                return Ok(request);
            }
            self.answer_by(time, None)?;
        }
    }

    fn time_left(&self) -> TimeLeft {
        TimeLeft::new(self.net.timing.stall, self.side.session.received_bytes())
    }

    fn next_answer(&mut self, time: &mut TimeLeft) -> Result<Delivered, Unfetched> {
        loop {
            if let Some(delivered) = self.answer_by(time, None)? {
                return Ok(delivered);
            }
        }
    }

    /// Waits for the next answer on this connection, at most until then or until more may be asked.
    /// Meanwhile does what is due at once, and takes what comes for those that stand back.
    fn answer_by(
        &mut self,
        time: &mut TimeLeft,
        by: Option<Instant>,
    ) -> Result<Option<Delivered>, Unfetched> {
        let session = &self.side.session;
        loop {
            let now = Instant::now();
            if by.is_some_and(|by| by <= now) {
                return Ok(None);
            }
            let until = time.until(now);
            let heard = self.offered.next_answer(self.side, by.map_or(until, |by| by.min(until)));
            time.pass(now.elapsed());
            time.arrived(session.received_bytes());
            match heard {
                Ok(Heard::Answer(delivered)) => {
                    let others = self.aside.take(delivered);
                    let own = others.filter(|it| Arc::ptr_eq(&it.session, session));
                    if own.is_some() {
                        return Ok(own);
                    }
                }
                Ok(Heard::Room) => return Ok(None),
                Ok(Heard::Notice(notice)) => notices::give(self.net, self.offered, notice),
                // Something comes, and is not whole yet; or the time is not up.
                Err(NoAnswer::Late) if !time.is_up() => (),
                Err(none) => return Err(none.into()),
            }
        }
    }

    /// Asks for little, and waits for the answer; others that come are of a fetch that was given up.
    /// Whoever has something waits too, so the peer does not get more time by what it says meanwhile.
    fn ask_and_wait(&mut self, ask: &Ask) -> Result<Answer, Unfetched> {
        let asked = self.ask_in_turn(ask, &mut TimeLeft::at_most(self.net.timing.stall))?;
        let mut time = TimeLeft::at_most(self.net.timing.stall);
        loop {
            let Delivered { request, answer, .. } = self.next_answer(&mut time)?;
            if request == asked {
                return Ok(answer);
            }
        }
    }

    /// Asks for blobs and adds those to `lacking` that the peer does not have.
    fn ask_for(
        &mut self,
        ids: &[[u8; 32]],
        lacking: &mut Vec<[u8; 32]>,
        time: &mut TimeLeft,
    ) -> Result<(), Unfetched> {
        let asked = self.ask_in_turn(&Ask::Blobs(ids.to_vec()), time)?;
        let mut left = ids.len();
        loop {
            let Delivered { request, answer, .. } = self.next_answer(time)?;
            if request != asked {
                continue;
            }
            let (blobs, missing, more) = match answer {
                Answer::Blobs { blobs, missing, more } => (blobs, missing, more),
                Answer::Refused => return Err(Unfetched::Refused),
                _ => return Err(senseless()),
            };
            let came = blobs.len() + missing.len();
            let names: Option<Vec<_>> = self
                .offered
                .with(|replica| blobs.iter().map(|blob| replica.name_of(blob)).collect())
                .ok_or(Unfetched::Closed)?;
            // What it has it must show: the last copy may be dropped for it.
            let names = names.ok_or_else(senseless)?;
            let is_asked_for = names.iter().chain(&missing).all(|id| ids.contains(id));
            left = left.checked_sub(came).filter(|_| is_asked_for).ok_or_else(senseless)?;
            if (left == 0) == more || (more && came == 0) {
                return Err(senseless());
            }
            lacking.extend(missing);
            if !more {
                return Ok(());
            }
        }
    }

    /// Asks for the secret that opens `record`, and keeps no other that is given with it.
    fn learn_secret(&mut self, epoch: u16, record: Vec<u8>) -> Result<(), Unfetched> {
        let have = self.offered.with(|replica| replica.epochs());
        let mut have = have.ok_or(Unfetched::Closed)?;
        // Of this one there may be a secret here too, but another one.
        have.retain(|known| *known != epoch);
        // Of more than can be named the newest: to be given the others again does no harm.
        have.sort_unstable_by(|one, other| other.cmp(one));
        have.truncate(EPOCHS_MAX);
        let given = match self.ask_and_wait(&Ask::Secrets(have))? {
            Answer::Secrets(given) => given,
            Answer::Refused => return Err(Unfetched::Refused),
            _ => return Err(senseless()),
        };
        let mut secrets = GivenSecret::unpack(&given);
        secrets.retain(|(of, _)| *of == epoch);
        if secrets.len() > KeyRing::OF_ONE_EPOCH_MAX {
            return Err(senseless());
        }
        let learnt = self.offered.with(|replica| replica.learn_secret(record, secrets));
        if learnt.ok_or(Unfetched::Closed)?? {
            return Ok(());
        }
        Err(Unfetched::NoSecret(epoch))
    }
}

pub(super) fn senseless() -> Unfetched {
    Unfetched::PeerWrong("the peer's answer is not what was asked for".into())
}
