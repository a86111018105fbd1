//! Telling a pack that was only begun from one whose header is lost.
//!
//! A pack is begun on a full disk and given up, or the power goes before its header is durable. The first
//! save in it makes it so; whatever is there beforehand belongs to a batch that was never saved.

use super::Pos;
use super::header::HEADER_BYTES;
use super::packs::Packs;
use super::scan::Scan;
use super::torn::Torn;
use crate::{Error, Result};

/// The last of several packs, if it was only begun: its header is not there, and nothing in it was
/// saved. It may have come back after it was given up on a full disk, and the one before it, having
/// been written to since, need not end with its last record.
///
/// What lies before `seen` was saved. Costs reading the pack, where its header is not there.
pub(crate) fn begun(packs: &Packs, seen: Pos) -> Result<Option<u32>> {
    let numbers = packs.list()?;
    let [.., _, last] = *numbers.as_slice() else { return Ok(None) };
    if last <= seen.pack || has_header(packs, last)? {
        return Ok(None);
    }
    let mut scan = Scan::new(packs, last, 0)?;
    let begin = Pos { pack: last, offset: 0 };
    let is_torn = Torn::default().is_tail(&mut scan, begin, Some(HEADER_BYTES))?;
    Ok(is_torn.then_some(last))
}

/// Whether the header of a pack was ever durable, as damage of it says too.
fn has_header(packs: &Packs, number: u32) -> Result<bool> {
    match packs.header(number, None) {
        Err(Error::Damaged { .. } | Error::Newer { .. }) => Ok(true),
        header => header.map(|header| header.is_some()),
    }
}
