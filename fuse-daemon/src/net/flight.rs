//! A version on its way from one peer: many requests in flight, in a window that follows what the
//! peer brings.

use std::{collections::HashMap, mem, time::Instant};

use cairnfs_mount_core::{Error, FetchProgress, VersionId};
use serde_bytes::ByteBuf;

use super::{
    desk::Delivered,
    fetching::{Unfetched, senseless},
    message::{Answer, Ask, IDS_MAX},
    replica::Fetching,
    time_left::TimeLeft,
    window::Window,
};

/// See the module's doc. Whoever drives it has the connection.
pub(super) struct Flight {
    fetching: Box<dyn Fetching>,
    /// The version that this device stands on.
    have: Vec<VersionId>,
    /// The request for a list of versions that was not answered yet.
    list_asked: Option<u32>,
    /// A version of whose list and blobs that there was no room to ask for yet.
    list_unasked: Option<VersionId>,
    blobs_unasked: Vec<[u8; 32]>,
    in_flight: HashMap<u32, InFlight>,
    blobs_in_flight: usize,
    window: Window,
    /// For the peer to bring something.
    pub(super) time: TimeLeft,
}

/// What is on its way for one request.
struct InFlight {
    asked: Instant,
    /// Blobs that have not come yet.
    blobs: usize,
    /// Bytes that have.
    bytes: u64,
}

impl Flight {
    pub(super) fn new(
        fetching: Box<dyn Fetching>,
        have: Option<VersionId>,
        time: TimeLeft,
    ) -> Self {
        Self {
            fetching,
            have: have.into_iter().collect(),
            list_asked: None,
            list_unasked: None,
            blobs_unasked: Vec::new(),
            in_flight: HashMap::new(),
            blobs_in_flight: 0,
            window: Window::default(),
            time,
        }
    }

    pub(super) fn progress(&self) -> FetchProgress {
        self.fetching.progress()
    }

    /// Whether this request is one of its own that was not answered yet.
    pub(super) fn awaits(&self, request: u32) -> bool {
        self.list_asked == Some(request) || self.in_flight.contains_key(&request)
    }

    /// Whether all is here. If not, something is on its way, or waits for room to be asked for.
    pub(super) fn is_complete(&self) -> Result<bool, Unfetched> {
        if !self.in_flight.is_empty() || !self.blobs_unasked.is_empty() {
            return Ok(false);
        }
        if self.fetching.is_complete() {
            return Ok(true);
        }
        let what = "a version that is being fetched: nothing is left to ask for";
        Err(Unfetched::Failed(Error::Damaged { what: what.into() }))
    }

    /// What was fetched, once it is complete.
    pub(super) fn into_fetched(self) -> Box<dyn Fetching> {
        self.fetching
    }

    /// Asks for as much as may be in flight, as long as `ask` has room for it.
    pub(super) fn fill_window(
        &mut self,
        ask: &dyn Fn(Ask) -> Option<u32>,
    ) -> Result<(), Unfetched> {
        let window = self.window.blobs(self.fetching.progress());
        loop {
            if self.blobs_unasked.is_empty() {
                let room = window.saturating_sub(self.blobs_in_flight).min(window / 4).min(IDS_MAX);
                // Few at a time would be many small requests.
                if room < (window / 4).min(IDS_MAX) && self.blobs_in_flight > 0 {
                    return Ok(());
                }
                self.blobs_unasked = self.fetching.wanted(room.max(1))?;
            }
            self.ask_for_list(ask);
            if self.blobs_unasked.is_empty() {
                return Ok(());
            }
            let Some(request) = ask(Ask::Blobs(self.blobs_unasked.clone())) else {
                return Ok(());
            };
            let blobs = mem::take(&mut self.blobs_unasked).len();
            self.in_flight.insert(request, InFlight { asked: Instant::now(), blobs, bytes: 0 });
            self.blobs_in_flight += blobs;
        }
    }

    /// Asks which versions come before one that is in no list, unless a list is on its way.
    fn ask_for_list(&mut self, ask: &dyn Fn(Ask) -> Option<u32>) {
        if self.list_asked.is_some() {
            return;
        }
        self.list_unasked = self.fetching.unlisted().or(self.list_unasked);
        if let Some(head) = self.list_unasked {
            let have = self.have.clone();
            self.list_asked = ask(Ask::Ancestry { head, have });
            self.list_unasked.take_if(|_| self.list_asked.is_some());
        }
    }

    /// Takes an answer; one to what another fetch had asked for is passed over.
    pub(super) fn take(&mut self, delivered: Delivered) -> Result<(), Unfetched> {
        let Delivered { request, answer, .. } = delivered;
        if self.list_asked.take_if(|asked| *asked == request).is_some() {
            return self.take_list(answer);
        }
        let Some(in_flight) = self.in_flight.get_mut(&request) else { return Ok(()) };
        let (blobs, missing, more) = match answer {
            Answer::Blobs { blobs, missing, more } => (blobs, missing, more),
            Answer::Refused => return Err(Unfetched::Refused),
            _ => return Err(senseless()),
        };
        let came = blobs.len() + missing.len();
        let left = in_flight.blobs.checked_sub(came).ok_or_else(senseless)?;
        if (left == 0) == more || (more && came == 0) {
            return Err(senseless());
        }
        in_flight.blobs = left;
        in_flight.bytes += blobs.iter().map(|blob| blob.len() as u64).sum::<u64>();
        if !more {
            self.window.answered(in_flight.asked.elapsed(), in_flight.bytes);
            self.in_flight.remove(&request);
        }
        self.blobs_in_flight -= came;
        let blobs: Vec<Vec<u8>> = blobs.into_iter().map(ByteBuf::into_vec).collect();
        if !blobs.is_empty() {
            self.fetching.supply(blobs)?;
            self.time.renew();
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

    fn take_list(&mut self, answer: Answer) -> Result<(), Unfetched> {
        match answer {
            Answer::Ancestry(versions) => self.fetching.expect_ancestors(&versions),
            // Only a hint: whether the version can be had is seen as it is asked for.
            Answer::Refused => (),
            _ => return Err(senseless()),
        }
        self.time.renew();
        Ok(())
    }
}
