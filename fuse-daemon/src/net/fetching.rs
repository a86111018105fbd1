//! Fetching one version from one peer: many requests in flight, in a window bounded in bytes.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use cairnfs_mount_core::{Error, FetchProgress, VersionId};
use serde_bytes::ByteBuf;

use super::{
    Net,
    desk::{Delivered, NoAnswer, Side},
    message::{Answer, Ask, EPOCHS_MAX, GivenSecret, IDS_MAX},
    replica::Fetching,
    sharing::Offered,
};

/// Bytes that may be on their way, as far as can be told before they come.
const WINDOW_BYTES: u64 = 8 << 20;
/// Blobs that may be on their way.
const WINDOW_BLOBS: u64 = 2048;
/// What a blob is taken to have before any has come: most of the first are small.
const BLOB_BYTES_GUESS: u64 = 16 << 10;

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
    /// The bucket is served here no longer.
    Closed,
    /// It failed here.
    Failed(Error),
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

/// Fetches all that is lacking of `version`. What has come is kept if this ends early.
pub(super) fn fetch(
    net: &Net,
    offered: &Arc<Offered>,
    side: &Side,
    version: VersionId,
) -> Result<Box<dyn Fetching>, Unfetched> {
    from_peer(net, offered, side, |desk| desk.fetch_once(version))
}

/// Fetches what is damaged here. What has come is kept if this ends early.
pub(super) fn mend(
    net: &Net,
    offered: &Arc<Offered>,
    side: &Side,
) -> Result<FetchProgress, Unfetched> {
    let mended = from_peer(net, offered, side, |desk| {
        let fetching = offered.with(|replica| replica.mend()).ok_or(Unfetched::Closed)?;
        desk.fetch_blobs(fetching?)
    });
    Ok(mended?.progress())
}

/// Which of these blobs the peer does not have. What it has it sends, for there is no shorter way
/// to ask: so this is for few or small ones.
pub(super) fn lacking(
    net: &Net,
    offered: &Arc<Offered>,
    side: &Side,
    ids: &[[u8; 32]],
) -> Result<Vec<[u8; 32]>, Unfetched> {
    offered.receive_from(&side.session);
    let desk = Desk { net, offered, side };
    let mut lacking = Vec::new();
    let asked = ids.chunks(IDS_MAX).try_for_each(|ids| desk.ask_for(ids, &mut lacking));
    offered.stop_receiving();
    asked.map(|()| lacking)
}

fn from_peer(
    net: &Net,
    offered: &Arc<Offered>,
    side: &Side,
    fetch_once: impl Fn(Desk<'_>) -> Result<Box<dyn Fetching>, Unfetched>,
) -> Result<Box<dyn Fetching>, Unfetched> {
    offered.receive_from(&side.session);
    let desk = Desk { net, offered, side };
    let mut asked = BTreeSet::new();
    let fetched = loop {
        match fetch_once(desk) {
            // What came before is kept, so that beginning again costs little.
            Err(Unfetched::Failed(Error::MissingSecret { epoch })) => {
                if !asked.insert(epoch) {
                    let why = "a blob that no secret opens which the peer gives";
                    break Err(Unfetched::Rejected(format!("{why} (epoch {epoch})")));
                }
                if let Err(err) = desk.learn_secret(epoch) {
                    break Err(err);
                }
            }
            other => break other,
        }
    };
    offered.stop_receiving();
    fetched
}

/// Where a fetch asks and hears.
#[derive(Clone, Copy)]
struct Desk<'a> {
    net: &'a Net,
    offered: &'a Arc<Offered>,
    side: &'a Side,
}

impl Desk<'_> {
    fn ask(&self, ask: Ask) -> u32 {
        self.side.session.ask(self.offered, self.side.number, ask)
    }

    fn next_answer(&self) -> Result<Delivered, Unfetched> {
        let until = Instant::now() + self.net.timing.stall;
        Ok(self.offered.next_answer(&self.side.session, until)?)
    }

    /// Asks, and waits for the answer; others that come are of a fetch that was given up.
    fn ask_and_wait(&self, ask: Ask) -> Result<Answer, Unfetched> {
        let asked = self.ask(ask);
        loop {
            match self.next_answer()? {
                Delivered { request, answer } if request == asked => return Ok(answer),
                _ => (),
            }
        }
    }

    /// Asks for blobs and adds those to `lacking` that the peer does not have.
    fn ask_for(&self, ids: &[[u8; 32]], lacking: &mut Vec<[u8; 32]>) -> Result<(), Unfetched> {
        let asked = self.ask(Ask::Blobs(ids.to_vec()));
        let mut left = ids.len();
        loop {
            let Delivered { request, answer } = self.next_answer()?;
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

    fn fetch_once(self, version: VersionId) -> Result<Box<dyn Fetching>, Unfetched> {
        let begun = self.offered.with(|replica| (replica.fetch(version), replica.head()));
        let (fetching, head) = begun.ok_or(Unfetched::Closed)?;
        let mut fetching = fetching?;
        let have = head.into_iter().collect();
        match self.ask_and_wait(Ask::Ancestry { head: version, have })? {
            Answer::Ancestry(versions) => fetching.expect_ancestors(&versions),
            // Only a hint: it is seen below whether the version can be had.
            Answer::Refused => (),
            _ => return Err(senseless()),
        }
        self.fetch_blobs(fetching)
    }

    fn fetch_blobs(self, mut fetching: Box<dyn Fetching>) -> Result<Box<dyn Fetching>, Unfetched> {
        fetching.give_up_when(self.offered.leaving());
        let in_flight = HashMap::new();
        let mut blobs = Blobs { desk: self, fetching, in_flight, blobs_in_flight: 0 };
        blobs.ask_all()?;
        Ok(blobs.fetching)
    }

    fn learn_secret(&self, epoch: u16) -> Result<(), Unfetched> {
        let have = self.offered.with(|replica| replica.epochs());
        let mut have = have.ok_or(Unfetched::Closed)?;
        // Of this one there may be a secret here too, but another one.
        have.retain(|known| *known != epoch);
        // Of more than can be named the newest: to be given the others again does no harm.
        have.sort_unstable_by(|one, other| other.cmp(one));
        have.truncate(EPOCHS_MAX);
        let given = match self.ask_and_wait(Ask::Secrets(have))? {
            Answer::Secrets(given) => given,
            Answer::Refused => return Err(Unfetched::Refused),
            _ => return Err(senseless()),
        };
        if !given.iter().any(|one| one.epoch == epoch) {
            let why = "it is sealed under a secret that the peer does not give";
            return Err(Unfetched::Rejected(format!("{why} (epoch {epoch})")));
        }
        let secrets = GivenSecret::unpack(&given);
        let learnt = self.offered.with(|replica| replica.learn_secrets(secrets));
        Ok(learnt.ok_or(Unfetched::Closed)??)
    }
}

struct Blobs<'a> {
    desk: Desk<'a>,
    fetching: Box<dyn Fetching>,
    /// How many blobs each request still lacks.
    in_flight: HashMap<u32, usize>,
    blobs_in_flight: usize,
}

impl Blobs<'_> {
    fn ask_all(&mut self) -> Result<(), Unfetched> {
        loop {
            self.fill_window()?;
            let progress = self.fetching.progress();
            self.desk.offered.set_transfer(Some((self.desk.side.session.key, progress)));
            self.desk.net.bump();
            if !self.in_flight.is_empty() {
                let delivered = self.desk.next_answer()?;
                self.take(delivered)?;
            } else if self.fetching.is_complete() {
                return Ok(());
            } else {
                let what = "a version that is being fetched: nothing is left to ask for";
                return Err(Unfetched::Failed(Error::Damaged { what: what.into() }));
            }
        }
    }

    /// Asks for as much as may be in flight.
    fn fill_window(&mut self) -> Result<(), Unfetched> {
        let progress = self.fetching.progress();
        let usual = progress.bytes.checked_div(progress.blobs).unwrap_or(BLOB_BYTES_GUESS);
        let window = (WINDOW_BYTES / usual.max(1)).clamp(8, WINDOW_BLOBS);
        let window = usize::try_from(window).unwrap_or(usize::MAX);
        loop {
            let room = window.saturating_sub(self.blobs_in_flight).min(window / 4).min(IDS_MAX);
            // Few at a time would be many small requests.
            if room < (window / 4).min(IDS_MAX) && self.blobs_in_flight > 0 {
                return Ok(());
            }
            let ids = self.fetching.wanted(room.max(1))?;
            if ids.is_empty() {
                return Ok(());
            }
            let count = ids.len();
            let request = self.desk.ask(Ask::Blobs(ids));
            self.in_flight.insert(request, count);
            self.blobs_in_flight += count;
        }
    }

    fn take(&mut self, delivered: Delivered) -> Result<(), Unfetched> {
        let Delivered { request, answer } = delivered;
        let Some(lacking) = self.in_flight.get_mut(&request) else {
            // Of a fetch that was given up.
            return Ok(());
        };
        let (blobs, missing, more) = match answer {
            Answer::Blobs { blobs, missing, more } => (blobs, missing, more),
            Answer::Refused => return Err(Unfetched::Refused),
            _ => return Err(senseless()),
        };
        let came = blobs.len() + missing.len();
        let Some(left) = lacking.checked_sub(came) else { return Err(senseless()) };
        if (left == 0) == more || (more && came == 0) {
            return Err(senseless());
        }
        *lacking = left;
        if !more {
            self.in_flight.remove(&request);
        }
        self.blobs_in_flight -= came;
        let blobs: Vec<Vec<u8>> = blobs.into_iter().map(ByteBuf::into_vec).collect();
        if !blobs.is_empty() {
            self.fetching.supply(blobs)?;
        }
        if !missing.is_empty() {
            self.fetching.unavailable(&missing).map_err(|err| match err {
                // What a peer has lost is no forgery.
                Error::Rejected { .. } => Unfetched::Refused,
                err => err.into(),
            })?;
        }
        Ok(())
    }
}

fn senseless() -> Unfetched {
    Unfetched::PeerWrong("the peer's answer is not what was asked for".into())
}
