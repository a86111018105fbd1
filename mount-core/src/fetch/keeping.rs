//! Blobs on their way into the store: the writer puts them while more is received.
//!
//! # Invariants
//!
//! 1. At most [`AHEAD_BYTES_MAX`] wait for the writer, but for one hand-over.
//! 2. What a blob is needed for is looked into only when it is in the store.
//! 3. A failure is told by the call that hears of it, and what waits behind it is given up: whoever
//!    fetches begins again.

use std::collections::{HashSet, VecDeque};

use cairnfs_store::{BlobId, CheckedBlob};
use crossbeam_channel::{Receiver, TryRecvError, bounded};

use super::walk::Need;
use crate::{
    Error, Result,
    writer::{Command, Errand, inbox::Inbox},
};

/// Bytes that come while the writer waits for the disk: half of what it makes durable at a time.
const AHEAD_BYTES_MAX: usize = 16 << 20;

/// See the module's doc.
pub(super) struct Keeping {
    inbox: Inbox,
    /// In the order in which the writer takes them.
    handed: VecDeque<Handed>,
    bytes: usize,
    ids: HashSet<BlobId>,
    failed: bool,
}

/// What was handed over at once.
struct Handed {
    ids: Vec<BlobId>,
    bytes: usize,
    needs: Vec<Need>,
    answer: Receiver<Result<()>>,
}

impl Keeping {
    pub(super) fn new(inbox: Inbox) -> Self {
        Self { inbox, handed: VecDeque::new(), bytes: 0, ids: HashSet::new(), failed: false }
    }

    /// Hands blobs to the writer, with what they are needed for.
    pub(super) fn hand(&mut self, blobs: Vec<CheckedBlob>, needs: Vec<Need>) {
        if blobs.is_empty() {
            return;
        }
        let ids: Vec<BlobId> = blobs.iter().map(|blob| blob.blob().id).collect();
        let bytes = blobs.iter().map(|blob| blob.as_bytes().len()).sum();
        let (reply, answer) = bounded(1);
        self.inbox.send(Command::Errand(Errand::Keep(blobs, reply)));
        self.ids.extend(&ids);
        self.bytes += bytes;
        self.handed.push_back(Handed { ids, bytes, needs, answer });
    }

    /// Whether this one may not be in the store yet.
    pub(super) fn holds(&self, id: &BlobId) -> bool {
        self.ids.contains(id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.handed.is_empty()
    }

    /// Whether all that was ever handed over has been put.
    pub(super) fn is_done(&self) -> bool {
        self.is_empty() && !self.failed
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes > AHEAD_BYTES_MAX
    }

    /// What the next blobs are needed for that have been put; none if there are none yet.
    ///
    /// # Errors
    ///
    /// What the writer says of them; [`Error::Stopped`].
    pub(super) fn poll(&mut self) -> Result<Option<Vec<Need>>> {
        let Some(next) = self.handed.front() else { return Ok(None) };
        match next.answer.try_recv() {
            Ok(answer) => self.settle(answer).map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Error::Stopped),
        }
    }

    /// As [`Keeping::poll`], but waits for the writer; nothing if nothing was handed over.
    ///
    /// # Errors
    ///
    /// As [`Keeping::poll`].
    pub(super) fn wait(&mut self) -> Result<Vec<Need>> {
        let Some(next) = self.handed.front() else { return Ok(Vec::new()) };
        let answer = next.answer.recv().unwrap_or(Err(Error::Stopped));
        self.settle(answer)
    }

    fn settle(&mut self, answer: Result<()>) -> Result<Vec<Need>> {
        let Some(Handed { ids, bytes, needs, .. }) = self.handed.pop_front() else {
            return Ok(Vec::new());
        };
        for id in &ids {
            self.ids.remove(id);
        }
        self.bytes -= bytes;
        self.failed |= answer.is_err();
        answer.map(|()| needs)
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use cairnfs_store::{KeyRing, Kind, Options, create, sim::SimDisk};

    use super::*;
    use crate::writer::inbox::{Commands, inbox};

    /// Blobs as a peer may send them, each a batch of its own.
    fn batches(count: u8, len: usize) -> Vec<Vec<CheckedBlob>> {
        let (disk, keys) = (Arc::new(SimDisk::new(1)), KeyRing::generate().unwrap());
        let (mut appender, blobs) =
            create(disk, Path::new("/there"), keys, Options::default()).unwrap();
        let mut sealed = |n: u8| {
            let mut noise = vec![0; len];
            blake3::Hasher::new().update(&[n]).finalize_xof().fill(&mut noise);
            let id = appender.put(Kind::Chunk, &noise).unwrap().id;
            vec![blobs.check(blobs.get_sealed(&id).unwrap()).unwrap()]
        };
        (0..count).map(&mut sealed).collect()
    }

    fn writer() -> (Keeping, Commands) {
        let (inbox, commands) = inbox(100);
        (Keeping::new(inbox), commands)
    }

    fn answer(commands: &Commands, with: Result<()>) {
        let Ok(Command::Errand(Errand::Keep(_, reply))) = commands.inbox().try_recv() else {
            panic!("nothing to keep")
        };
        reply.send(with).unwrap();
    }

    #[test]
    fn what_a_blob_is_needed_for_is_told_only_once_it_is_put() {
        let (mut keeping, commands) = writer();
        for batch in batches(2, 100) {
            let id = batch[0].blob().id;
            keeping.hand(batch, vec![Need::Version(id)]);
            assert!(keeping.holds(&id));
        }
        assert!(keeping.poll().unwrap().is_none());
        answer(&commands, Ok(()));
        let needs = keeping.poll().unwrap().unwrap();
        assert!(matches!(&needs[..], [Need::Version(id)] if !keeping.holds(id)));
        assert!(keeping.poll().unwrap().is_none() && !keeping.is_empty());
        answer(&commands, Ok(()));
        assert_eq!(keeping.wait().unwrap().len(), 1);
        assert!(keeping.is_done() && keeping.wait().unwrap().is_empty());
    }

    #[test]
    fn what_waits_for_the_writer_is_bounded() {
        let (mut keeping, commands) = writer();
        let mut handed = 0;
        for batch in batches(20, 1 << 20) {
            if keeping.is_full() {
                break;
            }
            keeping.hand(batch, Vec::new());
            handed += 1;
        }
        assert_eq!(handed, 16, "of one MiB, and what sealing adds");
        answer(&commands, Ok(()));
        keeping.wait().unwrap();
        assert!(!keeping.is_full());
    }

    #[test]
    fn what_the_writer_could_not_do_is_told_and_so_is_that_it_has_ended() {
        let (mut keeping, commands) = writer();
        let mut batches = batches(3, 100).into_iter();
        let mut hand = |keeping: &mut Keeping| keeping.hand(batches.next().unwrap(), Vec::new());
        hand(&mut keeping);
        answer(&commands, Err(Error::NoSpace));
        assert!(matches!(keeping.poll(), Err(Error::NoSpace)));
        hand(&mut keeping);
        drop(commands.inbox().recv());
        assert!(matches!(keeping.wait(), Err(Error::Stopped)));
        drop(commands);
        hand(&mut keeping);
        assert!(matches!(keeping.wait(), Err(Error::Stopped)));
    }
}
