//! Fetching a version for a bucket that is not real.

use std::{
    collections::BTreeSet,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use cairnfs_mount_core::{Error, FetchProgress, MergeOutcome, MergeStep, Result, Role, VersionId};

use super::{FakeBucket, Id, decode, dominates, encode, name_of};
use crate::net::replica::{Fetching, Replica};

pub(super) struct FakeFetch {
    bucket: FakeBucket,
    closed: Arc<AtomicBool>,
    head: Id,
    /// Whether a list of those before the head was asked for.
    is_listed: bool,
    to_ask: Vec<Id>,
    asked: BTreeSet<Id>,
    progress: FetchProgress,
}

impl Drop for FakeFetch {
    fn drop(&mut self) {
        self.bucket.state.lock().open_fetches -= 1;
    }
}

impl FakeFetch {
    pub(super) fn begin(bucket: FakeBucket, head: Id) -> Self {
        let mut fetch = Self {
            bucket,
            closed: Arc::default(),
            head,
            is_listed: false,
            to_ask: Vec::new(),
            asked: BTreeSet::new(),
            progress: FetchProgress::default(),
        };
        fetch.lacking(head);
        fetch
    }

    /// Will ask for a blob, or for what it names if it is here.
    fn lacking(&mut self, id: Id) {
        let here = self.bucket.state.lock().blobs.get(&id).cloned();
        match here {
            Some(blob) => {
                for next in decode(&blob).into_iter().flat_map(|it| it.items) {
                    if !self.bucket.state.lock().blobs.contains_key(&next) {
                        self.lacking(next);
                    }
                }
            }
            None if self.to_ask.contains(&id) => (),
            None => self.to_ask.push(id),
        }
    }
}

impl Fetching for FakeFetch {
    fn give_up_when(&mut self, closed: Arc<AtomicBool>) {
        self.closed = closed;
    }

    fn unlisted(&mut self) -> Option<VersionId> {
        let was_listed = mem::replace(&mut self.is_listed, true);
        (!was_listed).then_some(self.head)
    }

    fn expect_ancestors(&mut self, _ids: &[VersionId]) {}

    fn wanted(&mut self, max: usize) -> Result<Vec<Id>> {
        while self.bucket.state.lock().endless {
            if self.closed.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            thread::sleep(Duration::from_millis(1));
        }
        let at = self.to_ask.len().saturating_sub(max);
        let ids = self.to_ask.split_off(at);
        self.asked.extend(&ids);
        Ok(ids)
    }

    fn supply(&mut self, blobs: Vec<Vec<u8>>) -> Result<()> {
        if let Some(err) = self.bucket.state.lock().fails.clone() {
            return Err(err);
        }
        for blob in blobs {
            let id = name_of(&blob);
            if self.bucket.state.lock().too_large == Some(id) {
                return Err(Error::NoSpace);
            }
            if let Some(version) = decode(&blob)
                && !self.bucket.state.lock().secrets.contains_key(&version.epoch)
            {
                return Err(Error::MissingSecret { epoch: version.epoch, record: Some(blob) });
            }
            if !self.asked.remove(&id) {
                return Err(Error::Rejected { why: "not what was asked for".into() });
            }
            self.progress.blobs += 1;
            self.progress.bytes += blob.len() as u64;
            self.bucket.state.lock().blobs.insert(id, blob);
            self.lacking(id);
        }
        Ok(())
    }

    fn unavailable(&mut self, _ids: &[Id]) -> Result<()> {
        Err(Error::Rejected { why: "the peer does not have all of it".into() })
    }

    fn is_complete(&self) -> bool {
        self.to_ask.is_empty() && self.asked.is_empty()
    }

    fn progress(&self) -> FetchProgress {
        let lacking = self.to_ask.len() + self.asked.len();
        FetchProgress { lacking: lacking as u64, ..self.progress }
    }

    fn merge(self: Box<Self>) -> Result<MergeOutcome> {
        let (bucket, version) = (self.bucket.clone(), self.head);
        // It has ended.
        drop(self);
        let mut state = bucket.state.lock();
        state.is_merging = true;
        bucket.wait_while(&mut state, |state| state.merges_held);
        state.is_merging = false;
        let theirs = state.blobs.get(&version).and_then(|blob| decode(blob)).unwrap();
        let known = if state.head.is_some() { &state.version.members } else { &theirs.members };
        let author = known.iter().find(|member| member.key.0 == theirs.author);
        if author.is_none_or(|member| member.role == Role::Reader) {
            return Err(Error::Rejected { why: "its author may not write".into() });
        }
        let step = if state.head.is_some() && dominates(&state.version.vv, &theirs.vv) {
            MergeStep::Nothing
        } else if dominates(&theirs.vv, &state.version.vv) {
            state.version = theirs.clone();
            MergeStep::FastForward
        } else {
            for (device, count) in &theirs.vv {
                let ours = state.version.vv.entry(*device).or_default();
                *ours = (*ours).max(*count);
            }
            state.version.items.extend(&theirs.items);
            state.version.parents = state.head.into_iter().chain([version]).collect();
            state.version.author = bucket.me.0;
            MergeStep::Merged
        };
        if step == MergeStep::Nothing {
            drop(state);
        } else {
            let blob = encode(&state.version);
            bucket.stand_on(state, blob);
        }
        let head = bucket.head().unwrap_or_default();
        Ok(MergeOutcome { head, step, conflicts: 0 })
    }
}
