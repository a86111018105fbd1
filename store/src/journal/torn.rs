//! Telling a torn tail from damage.
//!
//! A batch that was being written when the power went may lack any of its sectors, and nothing
//! was promised about it: it is cut off. A batch that was saved may have rotted: it must not be
//! cut off. What tells them apart: ahead of the log there is nothing but zeros, so a sector that
//! was not written is zero (or beyond the end of the file) as far as it belongs to the record; rot
//! does not make such sectors. And behind a batch that was saved there may be others.
//!
//! This stands on two assumptions about the medium: a sector of 512 bytes is written whole or not
//! at all, and space that a file grew by reads as zeros until it is written.

use super::Pos;
use super::record::{HEADER_BYTES, Header, KIND_SAVE, MARKER};
use super::save::SaveId;
use super::scan::Scan;
use crate::Result;

const SECTOR: u64 = 512;
const STEP: u64 = 64 << 10;

/// Tells of the places of one pack, the last one, in ascending order.
#[derive(Default)]
pub(crate) struct Torn {
    /// Nothing before this place is torn: a batch that was saved goes on there, or may. Looked for once,
    /// from the first place on.
    saved: Option<Pos>,
}

impl Torn {
    /// Whether the bad record at `at` may be the torn tail of the log. Where something from there on cannot
    /// be read, that may be a save: then it is none.
    pub(crate) fn is_tail(
        &mut self,
        scan: &mut Scan<'_>,
        at: Pos,
        record_len: Option<usize>,
    ) -> Result<bool> {
        let saved = match self.saved {
            Some(saved) => saved,
            None => *self.saved.insert(saved_behind(scan, at)?),
        };
        if saved >= at {
            return Ok(false);
        }
        has_zero_sector(scan, u64::from(at.offset), record_len)
    }
}

/// Whether a record reaches beyond the end of the file, or has a sector of zeros.
fn has_zero_sector(scan: &mut Scan<'_>, at: u64, record_len: Option<usize>) -> Result<bool> {
    let end = at + record_len.unwrap_or(HEADER_BYTES) as u64;
    if end > scan.len() {
        return Ok(true);
    }
    let mut sector = at / SECTOR * SECTOR;
    while sector < end {
        // Writes begin and end with a record, so of one record a sector has all of its part or
        // nothing of it.
        let from = sector.max(at);
        let to = (sector + SECTOR).min(end);
        let Some(piece) = scan.bytes(from, usize::try_from(to - from).unwrap_or(0))? else {
            return Ok(false);
        };
        if piece.iter().all(|&byte| byte == 0) {
            return Ok(true);
        }
        sector += SECTOR;
    }
    Ok(false)
}

/// The last place that a save record which stands, or may stand, behind `at` tells to be saved: its
/// predecessor's, or the one just before it if that is sooner.
fn saved_behind(scan: &mut Scan<'_>, at: Pos) -> Result<Pos> {
    let before = |offset: u64| Pos { offset: u32::try_from(offset - 1).unwrap_or(u32::MAX), ..at };
    let mut saved = Pos::default();
    let mut from = u64::from(at.offset) + 1;
    while from < scan.len() {
        // Steps overlap by a header, so that none is missed at an edge.
        let len = (scan.len() - from).min(STEP + HEADER_BYTES as u64);
        let Some(piece) = scan.bytes(from, usize::try_from(len).unwrap_or(0))? else {
            saved = saved.max(before(from + len));
            from += STEP;
            continue;
        };
        let marks = piece.windows(MARKER.len()).enumerate().filter(|(_, found)| *found == MARKER);
        for (index, _) in marks {
            let Some(header) = Header::decode(&piece[index..]) else { continue };
            if header.kind != KIND_SAVE {
                continue;
            }
            if let Some(previous) = SaveId::decode(&header.id).previous {
                saved = saved.max(previous.min(before(from + index as u64)));
            }
        }
        from += STEP;
    }
    Ok(saved)
}
