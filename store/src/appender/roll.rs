//! Ending one pack and beginning the next.

use std::sync::Arc;

use super::{Ahead, Appender};
use crate::error::IoContext;
use crate::journal::Pos;
use crate::journal::header::{HEADER_BYTES, HEADER_BYTES_U32, PackHeader};
use crate::{Error, Result};

impl Appender {
    /// Begins a new pack. The one before is durable, and exactly as long as its records, before
    /// the new one exists: so only the last pack of a log can have a torn tail.
    ///
    /// Costs two barriers, every [`crate::Options::pack_bytes`].
    pub(super) fn roll(&mut self) -> Result<()> {
        self.write_pending(false)?;
        let blobs = Arc::clone(&self.blobs);
        let path = blobs.packs.path(self.pack);
        if self.ahead.prepared() > self.written {
            let cut = self.file.set_len(self.written).at("cut", &path);
            self.judge(cut)?;
            self.ahead = Ahead::new(self.written);
        }
        self.barrier()?;
        let header = PackHeader {
            number: self.pack + 1,
            bucket: blobs.keys.tag(),
            prev_len: self.written,
            chain: self.chain,
        };
        let created = blobs.packs.create(&header);
        let file = match created {
            // A directory that could not be synced is as bad as a barrier that failed.
            Err(err @ Error::NoSpace { .. }) => return Err(err),
            other => self.judge(other)?,
        };
        self.file = file;
        self.pack = header.number;
        self.written = HEADER_BYTES as u64;
        self.ahead = Ahead::new(self.written);
        blobs.tail.written(Pos { pack: self.pack, offset: HEADER_BYTES_U32 });
        log::debug!("pack begun number={}", self.pack);
        Ok(())
    }
}
