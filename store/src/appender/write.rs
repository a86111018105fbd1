//! Writing at the log's end, and what a failure of it means.

use std::sync::Arc;

use super::{Ahead, Appender};
use crate::bytes::len32;
use crate::error::IoContext;
use crate::journal::Pos;
use crate::{Error, Result};

impl Appender {
    pub(super) const fn check_poison(&self) -> Result<()> {
        if self.poisoned { Err(Error::Poisoned) } else { Ok(()) }
    }

    /// Poisons the log unless the disk was merely full.
    pub(super) fn judge<T>(&mut self, outcome: Result<T>) -> Result<T> {
        if let Err(err) = &outcome
            && !matches!(err, Error::NoSpace { .. })
        {
            self.poison(err);
        }
        outcome
    }

    pub(super) fn poison(&mut self, err: &Error) {
        log::error!("log poisoned pack={} offset={} reason={err:?}", self.pack, self.written);
        self.poisoned = true;
    }

    /// Makes what was written durable. There is no second try: any failure poisons, a full disk
    /// included, for what was written before may be gone.
    pub(super) fn barrier(&mut self) -> Result<()> {
        let outcome = self.file.barrier();
        outcome.map_err(|source| {
            let err = Error::Io { what: "sync", path: self.blobs.packs.path(self.pack), source };
            self.poison(&err);
            err
        })
    }

    /// Hands the buffered bytes to the kernel. `closing` says that a barrier follows.
    pub(super) fn write_pending(&mut self, closing: bool) -> Result<()> {
        let blobs = Arc::clone(&self.blobs);
        let tail = blobs.tail.pending();
        if tail.pending.is_empty() {
            return Ok(());
        }
        let len = tail.pending.len() as u64;
        let outcome = self.ahead.write(&*self.file, self.written, &tail.pending, closing);
        drop(tail);
        let path = blobs.packs.path(self.pack);
        self.judge_write(outcome.at("write", &path))?;
        self.written += len;
        blobs.packs.set_size(self.pack, self.written);
        let base = Pos { pack: self.pack, offset: self.written_offset() };
        blobs.tail.written(base);
        Ok(())
    }

    /// After a write that found no room, takes back what of it has arrived, durably: recovery
    /// must find zeros behind the log's end, and never a mixture of two attempts.
    fn judge_write(&mut self, outcome: Result<()>) -> Result<()> {
        let full = matches!(outcome, Err(Error::NoSpace { .. }));
        if full {
            let path = self.blobs.packs.path(self.pack);
            let cut = self.file.set_len(self.written).and_then(|()| self.file.barrier());
            if let Err(source) = cut {
                let err = Error::Io { what: "cut", path, source };
                self.poison(&err);
                return Err(err);
            }
            self.ahead = Ahead::new(self.written);
        }
        self.judge(outcome)
    }

    fn written_offset(&self) -> u32 {
        u32::try_from(self.written).expect("because packs are kept below 4 GiB")
    }

    /// Where the next record goes.
    pub(super) fn end(&self) -> Pos {
        let pending = len32(self.blobs.tail.pending_len());
        Pos { pack: self.pack, offset: self.written_offset() + pending }
    }
}
