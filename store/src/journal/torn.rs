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

/// Whether the bad record at `at`, in the last pack, may be the torn tail of the log.
pub(crate) fn is_tail(
    scan: &mut Scan<'_>,
    pack: u32,
    at: u32,
    record_len: Option<usize>,
) -> Result<bool> {
    if saved_behind(scan, Pos { pack, offset: at })? {
        return Ok(false);
    }
    let end = u64::from(at) + record_len.unwrap_or(HEADER_BYTES) as u64;
    if end > scan.len() {
        return Ok(true);
    }
    let mut sector = u64::from(at) / SECTOR * SECTOR;
    while sector < end {
        // Writes begin and end with a record, so of one record a sector has all of its part or
        // nothing of it.
        let from = sector.max(u64::from(at));
        let to = (sector + SECTOR).min(end);
        let piece = scan.bytes(from, usize::try_from(to - from).unwrap_or(0))?;
        if piece.iter().all(|&byte| byte == 0) {
            return Ok(true);
        }
        sector += SECTOR;
    }
    Ok(false)
}

/// Whether, behind `at`, a save record stands whose predecessor is behind `at` too: then the
/// batch around `at` was saved.
fn saved_behind(scan: &mut Scan<'_>, at: Pos) -> Result<bool> {
    let mut from = u64::from(at.offset) + 1;
    while from < scan.len() {
        // Steps overlap by a header, so that none is missed at an edge.
        let len = (scan.len() - from).min(STEP + HEADER_BYTES as u64);
        let piece = scan.bytes(from, usize::try_from(len).unwrap_or(0))?;
        let marks = piece.windows(MARKER.len()).enumerate().filter(|(_, found)| *found == MARKER);
        for (index, _) in marks {
            let Some(header) = Header::decode(&piece[index..]) else { continue };
            if header.kind != KIND_SAVE {
                continue;
            }
            if SaveId::decode(&header.id).previous.is_some_and(|previous| previous >= at) {
                return Ok(true);
            }
        }
        from += STEP;
    }
    Ok(false)
}
