//! What has been saved and not indexed, and the thread that indexes it.
//!
//! ```text
//!   Appender::save -- queue under a lock, "wake" --[bounded 1]--> index thread --> redb
//! ```
//!
//! The thread, named `index`, sleeps until it is woken: by enough records or bytes, or by the
//! appender's end, after which it commits what is left and ends too. Nothing wakes it on time.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::{Index, Mark};
use crate::error::IoContext;
use crate::journal::Loc;
use crate::journal::tail::Tail;
use crate::order::{self, Condvar, Mutex};
use crate::{BlobId, Result};

/// Records that are worth a commit.
const COMMIT_RECORDS: usize = 4096;
/// Bytes of log that are worth a commit: replaying them takes some 20 ms.
const COMMIT_BYTES: u64 = 32 << 20;
/// More than this waits for the index: about 6 MiB of memory.
const WAIT_RECORDS: usize = 65_536;

/// The queue between the appender and the index.
#[derive(Debug)]
pub(crate) struct Trail {
    shared: Arc<Shared>,
    /// `None`: commits are done by whoever saves.
    wake: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    index: Arc<Index>,
    tail: Arc<Tail>,
    queue: Mutex<Queue, order::Queue>,
    drained: Condvar,
    /// Held through a commit, and taken before `queue`: marks must not overtake each other.
    committing: Mutex<(), order::Committing>,
}

#[derive(Debug, Default)]
struct Queue {
    entries: Vec<(BlobId, Loc)>,
    log_bytes: u64,
    mark: Mark,
    failed: bool,
}

impl Trail {
    /// Begins with the records that recovery found beyond the index's mark.
    pub(crate) fn start(
        index: &Arc<Index>,
        tail: &Arc<Tail>,
        found: Vec<(BlobId, Loc)>,
        log_bytes: u64,
        mark: Mark,
        background: bool,
    ) -> Result<Self> {
        let queue = Queue { entries: found, log_bytes, mark, failed: false };
        let shared = Arc::new(Shared {
            index: Arc::clone(index),
            tail: Arc::clone(tail),
            queue: Mutex::new(queue),
            drained: Condvar::new(),
            committing: Mutex::new(()),
        });
        if !background {
            return Ok(Self { shared, wake: None, thread: None });
        }
        let (wake, inbox) = bounded(1);
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("index".to_owned())
            .spawn(move || theirs.run(&inbox))
            .at("start a thread for", &Index::path(std::path::Path::new("")))?;
        Ok(Self { shared, wake: Some(wake), thread: Some(thread) })
    }

    /// Takes over a batch that has become durable.
    ///
    /// Waits only when the index has fallen far behind.
    pub(crate) fn push(&self, batch: &mut Vec<(BlobId, Loc)>, bytes: u64, mark: Mark) {
        let mut queue = self.shared.queue.lock();
        queue.entries.append(batch);
        queue.log_bytes += bytes;
        queue.mark = mark;
        if queue.entries.len() < COMMIT_RECORDS && queue.log_bytes < COMMIT_BYTES {
            return;
        }
        let Some(wake) = &self.wake else {
            drop(queue);
            self.shared.commit_quietly();
            return;
        };
        match wake.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => (),
            // The thread ends only when this is dropped, or if it panicked.
            Err(TrySendError::Disconnected(())) => queue.failed = true,
        }
        while queue.entries.len() >= WAIT_RECORDS && !queue.failed {
            self.shared.drained.wait(&mut queue);
        }
    }

    /// Commits now what has been saved so far.
    pub(crate) fn flush(&self) -> Result<()> {
        self.shared.commit()
    }

    /// How far the log was saved, whether indexed or not.
    pub(crate) fn mark(&self) -> Mark {
        self.shared.queue.lock().mark
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        drop(self.wake.take());
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_panic)) => log::error!("index thread=panicked"),
            Some(Ok(())) => (),
            None => self.shared.commit_quietly(),
        }
    }
}

impl Shared {
    fn run(&self, inbox: &Receiver<()>) {
        for () in inbox {
            self.commit_quietly();
        }
        self.commit_quietly();
    }

    fn commit_quietly(&self) {
        if let Err(err) = self.commit() {
            // What is not indexed stays in the tail and in the packs: nothing is lost, and the
            // next commit tries again.
            log::warn!("index committed=no reason={err:?}");
        }
    }

    fn commit(&self) -> Result<()> {
        let _one_at_a_time = self.committing.lock();
        let (mut entries, bytes, mark) = {
            let mut queue = self.queue.lock();
            let bytes = std::mem::take(&mut queue.log_bytes);
            (std::mem::take(&mut queue.entries), bytes, queue.mark)
        };
        if entries.is_empty() && bytes == 0 {
            return Ok(());
        }
        let committed = self.index.commit(&mut entries, &[], &mark);
        if committed.is_ok() {
            log::debug!("index commit records={} seq={}", entries.len(), mark.seq);
            self.tail.forget(&entries);
        }
        let mut queue = self.queue.lock();
        queue.failed = committed.is_err();
        if committed.is_err() {
            entries.append(&mut queue.entries);
            queue.entries = entries;
            queue.log_bytes += bytes;
        }
        self.drained.notify_all();
        committed
    }
}
