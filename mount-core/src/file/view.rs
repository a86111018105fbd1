//! The content as a reader sees it: dirty pieces over sealed bytes, zeroes elsewhere.

use super::{
    base::Base,
    pieces::{Fill, Pieces, to_usize},
};
use crate::{Result, vault::Vault};

/// Holes are told from data in blocks of this many bytes, as on other file systems.
pub(crate) const BLOCK_BYTES: u64 = 4096;

pub(crate) fn block_start(pos: u64) -> u64 {
    pos - pos % BLOCK_BYTES
}

pub(crate) fn block_end(pos: u64) -> u64 {
    pos.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX)
}

/// One consistent state of a file's content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) base: &'a Base,
    pub(crate) pieces: &'a Pieces,
    pub(crate) len: u64,
    pub(crate) vault: &'a Vault,
}

impl View<'_> {
    /// Reads `start..start + len`, which must end within the content.
    ///
    /// # Errors
    ///
    /// A chunk that is missing or damaged.
    pub(crate) fn read(&self, start: u64, len: usize) -> Result<Vec<u8>> {
        let mut out = vec![0; len];
        let end = start + len as u64;
        // Sealed bytes first, and only where no piece hides them.
        let mut at = start;
        for (piece_start, piece) in self.pieces.over(start, end) {
            self.read_base(at, piece_start.max(at), start, &mut out)?;
            let piece_end = piece_start + piece.fill.len();
            if let Fill::Bytes(bytes) = &piece.fill {
                let (from, to) = (piece_start.max(start), piece_end.min(end));
                out[to_usize(from - start)..to_usize(to - start)].copy_from_slice(
                    &bytes[to_usize(from - piece_start)..to_usize(to - piece_start)],
                );
            }
            at = piece_end.max(at);
        }
        self.read_base(at, end.max(at), start, &mut out)?;
        Ok(out)
    }

    /// Copies the sealed bytes of `from..to` into `out`, which begins at offset `origin`.
    fn read_base(&self, from: u64, to: u64, origin: u64, out: &mut [u8]) -> Result<()> {
        let to = to.min(self.base.visible);
        if let Some(bytes) = self.base.inline() {
            if from < to {
                out[to_usize(from - origin)..to_usize(to - origin)]
                    .copy_from_slice(&bytes[to_usize(from)..to_usize(to)]);
            }
            return Ok(());
        }
        let mut at = from;
        while at < to {
            let Some(extent) = self.base.chunk_after(self.vault, at)? else { break };
            let (start, end) = (extent.start.max(at), extent.end().min(to));
            if start >= to {
                break;
            }
            let chunk = self.vault.chunk(&extent.blob)?;
            out[to_usize(start - origin)..to_usize(end - origin)].copy_from_slice(
                &chunk[to_usize(start - extent.start)..to_usize(end - extent.start)],
            );
            at = end;
        }
        Ok(())
    }

    /// The first offset at or after `pos` whose block holds data; `None` if only holes follow.
    pub(crate) fn next_data(&self, pos: u64) -> Result<Option<u64>> {
        // A block is data if any byte of it is, so the search begins at the block's start.
        let mut at = block_start(pos);
        loop {
            if at >= self.len {
                return Ok(None);
            }
            let sealed = self.base.data_after(self.vault, at)?.map(|(start, _)| start);
            // No farther than what is sealed: there may be many holes.
            let piece = self
                .pieces
                .over(at, sealed.unwrap_or(self.len).min(self.len))
                .find(|(_, piece)| matches!(piece.fill, Fill::Bytes(_)))
                .map(|(start, _)| start.max(at));
            let Some(found) = sealed.into_iter().chain(piece).min() else { return Ok(None) };
            match self.pieces.over(found, found + 1).next() {
                Some((start, piece)) if matches!(piece.fill, Fill::Hole(_)) => {
                    at = start + piece.fill.len();
                }
                _ => return Ok(Some(block_start(found).max(pos)).filter(|at| *at < self.len)),
            }
        }
    }

    /// The end of the data that begins at `pos` (which is data): the next block that is a hole,
    /// the end of the file, or somewhere at or after `limit`.
    pub(crate) fn data_end(&self, pos: u64, limit: u64) -> Result<u64> {
        let mut at = block_end(pos + 1).min(self.len);
        while at < limit.min(self.len) {
            match self.data_extent(at)? {
                Some(end) => at = block_end(end).min(self.len),
                // The block begins with a hole, but data may follow inside it.
                None => match self.next_data(at)? {
                    Some(next) if next == at => at = block_end(at + 1).min(self.len),
                    _ => break,
                },
            }
        }
        Ok(at)
    }

    /// Where the contiguous data that covers `pos` ends; `None` if `pos` itself is in a hole.
    fn data_extent(&self, pos: u64) -> Result<Option<u64>> {
        if let Some((start, piece)) = self.pieces.over(pos, pos + 1).next() {
            return Ok(match piece.fill {
                Fill::Bytes(_) => Some(start + piece.fill.len()),
                Fill::Hole(_) => None,
            });
        }
        let Some((start, end)) = self.base.data_after(self.vault, pos)? else { return Ok(None) };
        if start > pos {
            return Ok(None);
        }
        let next_piece = self.pieces.over(pos, end).next().map_or(end, |(start, _)| start);
        Ok(Some(end.min(next_piece)))
    }
}
