//! What other devices have of a bucket that is here: asked before it is dropped here.
//!
//! Only the word of devices that may write counts. That one has the newest version it just says, and
//! of older ones it shows the root of the tree, which it may have got from here a moment ago: neither
//! proves that it has the rest, and nothing would that it keeps it. Who may only read cannot take
//! anything from a bucket, and so not by such a word either; who may write can remove all of it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::RecvTimeoutError;

use super::{
    Net,
    joining::{interrupted, not_shared},
    meeting::{Search, TICK, UNREACHABLE},
    report::SyncProgress,
    sharing::Offered,
};
use crate::{exit::Result, home::BucketName};

/// How long a peer that asks for nothing may take to say whether it has the newest version.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// What those have of a bucket who can be reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Elsewhere {
    /// Whether one of them says that it has everything that is in the newest version.
    pub(crate) newest: bool,
    /// The blobs that none of them has.
    pub(crate) lacking: Vec<[u8; 32]>,
}

impl Net {
    /// Finds out who else has the newest version of a bucket that is served, and which of `blobs`
    /// nobody else has. `say` returns whether to go on.
    ///
    /// # Errors
    ///
    /// [`Code::NoPeer`](crate::exit::Code::NoPeer) if nobody can be reached;
    /// [`Code::NotFound`](crate::exit::Code::NotFound) if the bucket is not served.
    pub(crate) fn elsewhere(
        &self,
        bucket: &BucketName,
        blobs: Vec<[u8; 32]>,
        say: &mut dyn FnMut(SyncProgress) -> bool,
    ) -> Result<Elsewhere> {
        let offered = self.served(bucket)?;
        let newest = self.await_newest(&offered, say)?;
        let told = offered.find(blobs);
        loop {
            match told.recv_timeout(TICK) {
                Ok(lacking) => return Ok(Elsewhere { newest, lacking }),
                Err(RecvTimeoutError::Disconnected) => return Err(not_shared(bucket)),
                Err(RecvTimeoutError::Timeout) => go_on(say, SyncProgress::Connecting)?,
            }
        }
    }

    /// Waits until somebody has the newest version, or nobody seems to be going to: all have been
    /// tried, and none has asked for anything for a while. In the meantime others fetch what they
    /// lack; who is busy with it, or with something else, may still come to have it.
    fn await_newest(
        &self,
        offered: &Arc<Offered>,
        say: &mut dyn FnMut(SyncProgress) -> bool,
    ) -> Result<bool> {
        let others: BTreeMap<_, _> = offered.others().into_iter().collect();
        let search = Search::begin(self, &others);
        let mut moved = (Instant::now(), None);
        loop {
            let sides = offered.sides();
            let linked: Vec<_> = sides.iter().map(|side| side.session.key).collect();
            let head = offered.with(|replica| replica.head()).flatten();
            let writers = || sides.iter().filter(|side| offered.is_writer(&side.session.key));
            let has_newest = head.is_none() || writers().any(|side| side.said.seen == head);
            if !search.goes_on(self, &linked) {
                if sides.is_empty() {
                    return Err(self.nobody(UNREACHABLE));
                }
                let all_refuse = writers().all(|side| side.said.refuses(head).is_some());
                if has_newest || all_refuse || moved.0.elapsed() > ANSWER_WAIT {
                    return Ok(has_newest);
                }
            }
            let sent: u64 = sides.iter().map(|side| side.session.sent_bytes()).sum();
            if moved.1 != Some((sides.len(), sent)) {
                moved = (Instant::now(), Some((sides.len(), sent)));
            }
            let waiting = SyncProgress::Waiting { behind: 1, why: None };
            go_on(say, if sides.is_empty() { SyncProgress::Connecting } else { waiting })?;
            self.await_news(TICK);
        }
    }
}

fn go_on(say: &mut dyn FnMut(SyncProgress) -> bool, progress: SyncProgress) -> Result<()> {
    if say(progress) { Ok(()) } else { Err(interrupted()) }
}
