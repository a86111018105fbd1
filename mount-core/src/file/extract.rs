//! Reading without the lock of the content.

use super::{
    base::Base,
    content::Content,
    pieces::{Pieces, to_usize},
    view::{View, block_start},
};
use crate::{Error, Result, Whence, vault::Vault};

/// What a reader took from a content: reads without its lock.
#[derive(Debug)]
pub(crate) struct Extract {
    base: Base,
    pieces: Pieces,
    /// Length of the whole content in bytes.
    len: u64,
    offset: u64,
    end: u64,
}

impl Extract {
    fn view<'a>(&'a self, vault: &'a Vault) -> View<'a> {
        View { base: &self.base, pieces: &self.pieces, len: self.len, vault }
    }

    /// The bytes; fewer than were asked for only at the end of the content.
    ///
    /// # Errors
    ///
    /// A chunk that is missing or damaged.
    pub(crate) fn read(&self, vault: &Vault) -> Result<Vec<u8>> {
        self.view(vault).read(self.offset, to_usize(self.end - self.offset))
    }

    /// The next data or hole at or after the offset, if all from there on was taken.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchOffset`] at or beyond the end, and where only holes follow.
    pub(crate) fn seek(&self, vault: &Vault, whence: Whence) -> Result<u64> {
        if self.offset >= self.len {
            return Err(Error::NoSuchOffset);
        }
        let view = self.view(vault);
        let data = view.next_data(self.offset)?;
        match whence {
            Whence::Data => data.ok_or(Error::NoSuchOffset),
            Whence::Hole if data == Some(self.offset) => view.data_end(self.offset, self.len),
            Whence::Hole => Ok(self.offset),
        }
    }
}

impl Content {
    /// What is needed to read `offset..offset + len`, without the lock.
    pub(crate) fn extract(&self, offset: u64, len: u64) -> Extract {
        let end = offset.saturating_add(len).min(self.len).max(offset);
        // Whether there is data at the offset depends on all of its block.
        let pieces = self.pieces.part(block_start(offset), end);
        Extract { base: self.base.clone(), pieces, len: self.len, offset, end }
    }
}
