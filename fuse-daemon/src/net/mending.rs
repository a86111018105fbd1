//! Mending what is damaged here, for somebody who waits: from one peer after the other, until nothing
//! lacks.
//!
//! A mend is a fetch of the newest version, and all before it, that reads everything here and wants what
//! cannot be read; what comes is stored again, and the index leads there. It takes its turns among the
//! fetches. Any fetch mends so what it must read of the version that it brings: versions, map nodes and
//! long nodes that are here already, but not chunks, which it does not read.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use cairnfs_mount_core::FetchProgress;
use crossbeam_channel::Sender;

use super::{
    Net,
    desk::Side,
    fetching::{self, Unfetched},
    sharing::Offered,
    tls::PeerKey,
    turns::Aside,
};
use crate::tell::tell;

/// What came of fetching what is damaged here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Mended {
    /// Blobs that came in the place of damaged ones.
    pub(crate) blobs: u64,
    /// Parts of older versions that came and were not here at all.
    pub(crate) absent: u64,
    /// Damaged blobs that nobody who was asked has.
    pub(crate) lacking: u64,
    /// Devices that were asked to the end.
    pub(crate) peers: u32,
}

/// A mend that has not come to its end.
#[derive(Debug)]
pub(super) struct Mending {
    /// Whoever waits; if nothing comes of it, the end of the channel says so.
    waits: Vec<Sender<Mended>>,
    mended: Mended,
    /// Peers that were asked to the end, or in vain.
    asked: BTreeSet<PeerKey>,
    /// Peers that were slow: others are asked before, and then these in this order.
    slow: Vec<PeerKey>,
}

impl Mending {
    pub(super) fn begin(waits: Vec<Sender<Mended>>) -> Self {
        let (mended, asked, slow) = Default::default();
        Self { waits, mended, asked, slow }
    }

    /// Who is asked next; nobody if all were.
    pub(super) fn next_side(&self, sides: &BTreeMap<PeerKey, Side>) -> Option<Side> {
        let open = sides.iter().filter(|(key, _)| !self.asked.contains(*key));
        // Who is not slow has no place in that order, which comes before the first.
        let next = open.min_by_key(|(key, _)| self.slow.iter().position(|slow| slow == *key));
        next.map(|(_, side)| side.clone())
    }

    /// Fetches from a peer for a turn, or to its end.
    pub(super) fn turn(
        mut self,
        net: &Net,
        offered: &Arc<Offered>,
        aside: &mut Aside,
        side: &Side,
    ) {
        let key = side.session.key;
        match fetching::mend(net, offered, aside, side) {
            Ok(progress) => {
                self.came(progress);
                log::info!(
                    "mend peer={key} blobs={} lacking={}",
                    progress.blobs,
                    progress.unavailable
                );
                // What others were asked for may have come.
                aside.drop_mends();
                if self.mended.lacking == 0 {
                    return self.end(aside);
                }
                self.asked.insert(key);
            }
            Err(Unfetched::StandsBack { is_slow }) => {
                log::debug!("mend peer={key} stands-back=yes slow={is_slow}");
                self.slow.retain(|slow| *slow != key);
                if is_slow {
                    self.slow.push(key);
                }
            }
            Err(Unfetched::Closed) => return,
            Err(why) => {
                log::warn!("mend peer={key} reason={why:?}");
                self.asked.insert(key);
            }
        }
        offered.mend_on(self);
    }

    fn came(&mut self, progress: FetchProgress) {
        self.mended.peers += 1;
        self.mended.blobs += progress.blobs.saturating_sub(progress.absent);
        self.mended.absent += progress.absent;
        self.mended.lacking = progress.unavailable;
    }

    /// Tells whoever waits what came of it.
    pub(super) fn end(mut self, aside: &mut Aside) {
        aside.drop_mends();
        for one in mem::take(&mut self.waits) {
            tell(&one, self.mended);
        }
    }
}
