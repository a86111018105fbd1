//! Telling what is where the mark of an index leads.
//!
//! The index learns of a save only when that is durable. So where its mark leads, there was a save; if
//! nothing that was saved stands there or behind it, it is lost: cut off, or zeros as ahead of the log.
//! Of saves that the index had not learned of yet nothing tells that they were there: those that are
//! zeros by now look as if they had never been written.

use super::begun::begun;
use super::header::HEADER_BYTES;
use super::packs::Packs;
use super::record::{self, Header, KIND_SAVE};
use super::save::SaveId;
use super::scan::{Found, Scan};
use super::torn::Torn;
use super::{Loc, Pos};
use crate::bytes::len32;
use crate::check::LostEnd;
use crate::error::{IoContext, is_gone, is_unreadable};
use crate::index::Mark;
use crate::{Error, Result};

/// What is where a mark leads.
pub(crate) enum Marked {
    /// Its save; of one that cannot be read whoever reads it says so.
    There,
    /// Nothing any more: the log ends before.
    Lost(LostEnd),
    /// Damage, of which this is the first.
    Damaged(Pos),
    /// The log of another index.
    Other,
}

impl Marked {
    /// Costs reading the pack of the mark's save, if that is not there.
    pub(crate) fn of(packs: &Packs, mark: &Mark) -> Result<Self> {
        let number = mark.end.pack;
        let pack = packs.path(number);
        let numbers = packs.list()?;
        let is_there = numbers.contains(&number);
        let len = if is_there { packs.file(number)?.len().at("read", &pack)? } else { 0 };
        let known_len = u64::from(mark.end.offset);
        if len < known_len {
            return Ok(Self::Lost(LostEnd { pack, len, known_len }));
        }
        let Some(save) = mark.last_save else { return Ok(Self::There) };
        if fits(packs, mark, save)? {
            return Ok(Self::There);
        }
        let begun = begun(packs, mark.end)?;
        let last = numbers.iter().rfind(|it| begun != Some(**it));
        search(packs, mark, save, last == Some(&save.pack))
    }
}

/// What is in the pack of `save`, the last one or not, which is not in its place.
fn search(packs: &Packs, mark: &Mark, save: Pos, is_last: bool) -> Result<Marked> {
    let mut scan = Scan::new(packs, save.pack, HEADER_BYTES as u64)?;
    let (mut torn, mut damage) = (Torn::default(), None);
    let end = loop {
        match scan.next()? {
            Found::Record { header, .. }
                if header.kind == KIND_SAVE && SaveId::decode(&header.id).seq >= mark.seq =>
            {
                return Ok(damage.map_or(Marked::Other, Marked::Damaged));
            }
            Found::Record { .. } => (),
            Found::End { at } => break at,
            Found::Bad { at, header } => {
                let here = Pos { pack: save.pack, offset: at };
                let len = header.map(|header| header.record_len());
                if is_last && torn.is_tail(&mut scan, here, len)? {
                    break at;
                }
                let first = *damage.get_or_insert(here);
                if !scan.resume(at, header.as_ref())? {
                    return Ok(Marked::Damaged(first));
                }
            }
        }
    };
    let end = Pos { pack: save.pack, offset: end };
    let (pack, len) = (packs.path(end.pack), u64::from(end.offset));
    Ok(match damage {
        _ if is_last && end < mark.end => {
            Marked::Lost(LostEnd { pack, len, known_len: u64::from(mark.end.offset) })
        }
        // A pack that others follow had its end when they were begun; replay compares the two.
        None if end <= save => Marked::Damaged(end),
        None => Marked::Other,
        Some(first) => Marked::Damaged(first),
    })
}

/// Whether an intact save record of the mark's number is at `at`, or was, in what is gone or cannot be read.
fn fits(packs: &Packs, mark: &Mark, at: Pos) -> Result<bool> {
    let Some(head) = unless_lost(packs.read(Loc { at, len: record::HEADER_BYTES_U32 }))? else {
        return Ok(true);
    };
    let Some(header) = Header::decode(&head).filter(|header| header.kind == KIND_SAVE) else {
        return Ok(false);
    };
    let len = len32(header.record_len());
    // Only a repair has the log go on further behind.
    let ends_before =
        at.offset.checked_add(len).is_some_and(|end| Pos { offset: end, ..at } <= mark.end);
    if !ends_before || SaveId::decode(&header.id).seq != mark.seq {
        return Ok(false);
    }
    Ok(unless_lost(packs.read(Loc { at, len }))?.is_none_or(|bytes| record::is_intact(&bytes)))
}

/// `None` for what is not there or cannot be read.
fn unless_lost<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(Error::Io { source, .. }) if is_gone(&source) || is_unreadable(&source) => Ok(None),
        read => read.map(Some),
    }
}
