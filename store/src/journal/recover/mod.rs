//! Reading the log again after it was closed, or cut off.
//!
//! # Invariants
//!
//! 1. A batch is taken whole or not at all.
//! 2. Nothing is cut off but the last batch, and only if it is incomplete in the way a power cut
//!    leaves it, or if a repair finds nothing intact in it; anything else that is wrong is refused.
//! 3. What was cut off is gone for good before anything is appended.
//! 4. A pack that is missing, and was not reclaimed, is lost, and so are the saves in it.

mod end;
mod joint;

use super::begun::begun;
use super::gaps::Gaps;
use super::header::{HEADER_BYTES_U32, PackHeader};
use super::packs::Packs;
use super::record::{CHECKSUM_BYTES, Header, KIND_SAVE, KIND_SAVE_PART};
use super::save::SaveId;
use super::scan::{Found, Scan};
use super::torn::Torn;
use super::{Chain, Loc, Pos};
use crate::check::{Damage, damage};
use crate::index::Mark;
use crate::open::can_be_read;
use crate::{BlobId, Error, KeyRing, Result, Seq};

/// Entries gathered before they are handed over, where the index is rebuilt: about 3 MiB.
const HAND_OVER: usize = 65_536;

/// Takes entries that have become too many to keep, with the mark they lead to.
pub(crate) type HandOver<'a> = &'a mut dyn FnMut(&mut Vec<(BlobId, Loc)>, &Mark) -> Result<()>;

/// The state of the log, after recovery.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// At the end of the log, where no batch is open.
    pub(crate) chain: Chain,
    /// Length of the last pack's file: the log's end, and zeros behind it.
    pub(crate) file_len: u64,
    /// Records of whole batches that were not handed over.
    pub(crate) entries: Vec<(BlobId, Loc)>,
    pub(crate) mark: Mark,
    /// The save records read, from the last checkpoint on; in a repair, from the last one that is
    /// whole.
    pub(crate) saves: Vec<Pos>,
    /// Whether a checkpoint was among what was read.
    pub(crate) checkpoint_seen: bool,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// Bytes of an incomplete batch that were cut off.
    pub(crate) cut_bytes: u64,
}

/// Reads the log from `mark`, or from its beginning, and cuts off a torn tail.
///
/// `hand_over` takes entries that have become too many to keep, with the mark they lead to.
///
/// With `forgive`, damage is noted there and passed over; else it is an error. What lies before `seen`
/// was saved, as an index told that is no more.
pub(crate) fn recover(
    packs: &Packs,
    keys: &KeyRing,
    mark: Option<Mark>,
    seen: Pos,
    hand_over: HandOver<'_>,
    forgive: Option<&mut Vec<Damage>>,
) -> Result<Recovered> {
    let seen = mark.map_or(seen, |mark| mark.end);
    let first = mark.map_or(0, |mark| mark.end.pack);
    let numbers = without_begun(packs, seen)?;
    let mut replay = Replay::new(packs, keys, mark, seen, forgive);
    if let Some(mark) = mark
        && !numbers.contains(&mark.end.pack)
    {
        return Err(damaged(packs, mark.end, "the index has seen more of the log than there is"));
    }
    for (index, &number) in numbers.iter().enumerate() {
        if number >= first {
            let last = index + 1 == numbers.len();
            replay.pack(number, last, hand_over)?;
        }
    }
    replay.finish()
}

/// The packs of the log. A last one that was only begun is removed first.
fn without_begun(packs: &Packs, seen: Pos) -> Result<Vec<u32>> {
    if let Some(begun) = begun(packs, seen)? {
        log::info!("pack removed number={begun} reason=only-begun");
        packs.remove(begun)?;
    }
    packs.list()
}

struct Replay<'a> {
    packs: &'a Packs,
    keys: &'a KeyRing,
    chain: Chain,
    /// The length of the pack before.
    previous_len: Option<u64>,
    /// Where in the first pack to begin.
    begin: Option<Pos>,
    /// What lies before was saved, and is no torn tail.
    seen: Pos,
    /// Records of the batch that is being read.
    batch: Vec<(BlobId, Loc)>,
    out: Recovered,
    /// Where the log ends: behind it there are zeros, or a torn tail.
    end: Pos,
    forgive: Option<&'a mut Vec<Damage>>,
    /// Damage was passed over, so that the chain is not known until a save or a header tells it.
    doubt: bool,
    /// Damage was passed over since the last save.
    is_hurt: bool,
    /// What a damaged header is taken to have said, until a save tells whether it did.
    guessed: Option<PackHeader>,
    gaps: Gaps,
}

impl<'a> Replay<'a> {
    fn new(
        packs: &'a Packs,
        keys: &'a KeyRing,
        mark: Option<Mark>,
        seen: Pos,
        forgive: Option<&'a mut Vec<Damage>>,
    ) -> Self {
        let chain = mark.map_or_else(Chain::default, |mark| Chain {
            seq: mark.seq,
            last_save: mark.last_save,
            batch_start: mark.end,
            hash: [0; 16],
        });
        let out = Recovered {
            chain,
            file_len: 0,
            entries: Vec::new(),
            mark: mark.unwrap_or_default(),
            saves: Vec::new(),
            checkpoint_seen: false,
            records: 0,
            bytes: 0,
            cut_bytes: 0,
        };
        let begin = mark.map(|mark| mark.end);
        let end = begin.unwrap_or_default();
        Self {
            packs,
            keys,
            chain,
            previous_len: None,
            begin,
            seen,
            batch: Vec::new(),
            out,
            end,
            forgive,
            doubt: false,
            is_hurt: false,
            guessed: None,
            gaps: Gaps::new(mark.map_or(1, |mark| mark.end.pack)),
        }
    }

    /// Reads one pack.
    fn pack(&mut self, number: u32, last: bool, hand_over: HandOver<'_>) -> Result<()> {
        let follows = self.gaps.pack(number);
        let from = match self.begin.take() {
            // The index knows what the header told; a repair could not always bring that back.
            Some(begin) => begin,
            None => self.joint(number, follows)?,
        };
        let len = self.records(number, from, last, hand_over)?;
        self.previous_len = Some(len);
        Ok(())
    }

    /// Reads the records of one pack. Answers with its length as far as it is used.
    fn records(
        &mut self,
        number: u32,
        from: Pos,
        last: bool,
        hand_over: HandOver<'_>,
    ) -> Result<u64> {
        let mut scan = Scan::new(self.packs, number, u64::from(from.offset))?;
        if scan.len() < u64::from(from.offset) {
            if self.forgive.is_some() && !last {
                // The header that is not there was noted; nothing else is lost that can be named.
                return Ok(scan.len());
            }
            return Err(damaged(
                self.packs,
                from,
                "the index has seen more of the log than there is",
            ));
        }
        self.out.file_len = scan.len();
        let mut torn = Torn::default();
        loop {
            match scan.next()? {
                Found::Record { at, header, bytes, checksum } => {
                    let loc = Loc {
                        at: Pos { pack: number, offset: at },
                        len: crate::bytes::len32(bytes.len()),
                    };
                    self.record(loc, &header, checksum)?;
                    // The mark would hide a gap from who opens the log next.
                    let may_hand_over = header.kind == KIND_SAVE && self.gaps.lost().is_empty();
                    if self.out.entries.len() >= HAND_OVER && may_hand_over {
                        hand_over(&mut self.out.entries, &self.out.mark)?;
                    }
                }
                Found::End { at } => {
                    self.end = Pos { pack: number, offset: at };
                    let clean = last || u64::from(at) == scan.len();
                    if !clean {
                        self.forgive(self.end, None, "zeros where records should be")?;
                    }
                    return Ok(u64::from(at));
                }
                Found::Bad { at, header } => {
                    let here = Pos { pack: number, offset: at };
                    self.end = here;
                    let may_be_torn = last && here >= self.seen;
                    let len = header.map(|header| header.record_len());
                    if may_be_torn && torn.is_tail(&mut scan, here, len)? {
                        self.out.cut_bytes += scan.len() - u64::from(at);
                        return Ok(u64::from(at));
                    }
                    self.forgive(here, header.as_ref(), "a record's checksum")?;
                    if !scan.resume(at, header.as_ref())? {
                        if last {
                            let offset = u32::try_from(scan.len()).unwrap_or(u32::MAX);
                            self.end = Pos { pack: number, offset };
                        }
                        return Ok(u64::from(at));
                    }
                }
            }
        }
    }

    fn record(&mut self, loc: Loc, header: &Header, checksum: [u8; CHECKSUM_BYTES]) -> Result<()> {
        self.out.records += 1;
        self.out.bytes += u64::from(loc.len);
        self.end = end_of(loc);
        match header.kind {
            KIND_SAVE => {
                let id = SaveId::decode(&header.id);
                let fits = match self.doubt {
                    true => id.seq > self.chain.seq,
                    false => id == SaveId::closing(&self.chain),
                };
                if !fits {
                    return self.forgive(loc.at, None, "a save that does not fit its batch");
                }
                self.mend_header(loc, &id)?;
                self.doubt = false;
                self.is_hurt = false;
                self.chain.seq = Seq(id.seq.0.saturating_sub(1));
                self.save(loc, header.flags.checkpoint)?;
            }
            KIND_SAVE_PART => self.chain.add(checksum),
            _ => {
                self.chain.add(checksum);
                self.batch.push((header.id, loc));
            }
        }
        Ok(())
    }

    /// Notes damage, and that it was passed over; an error if nobody forgives it.
    fn forgive(&mut self, at: Pos, header: Option<&Header>, reason: &'static str) -> Result<()> {
        let Some(noted) = self.forgive.as_mut() else {
            return Err(damaged(self.packs, at, reason));
        };
        noted.push(damage(self.packs, at, header));
        self.doubt = true;
        self.is_hurt = true;
        Ok(())
    }

    fn save(&mut self, loc: Loc, checkpoint: bool) -> Result<()> {
        self.chain.close(loc.at, end_of(loc));
        self.out.entries.append(&mut self.batch);
        // Of a long one a part may be damaged: then what was saved before it is still needed.
        if checkpoint && (self.forgive.is_none() || can_be_read(self.packs, self.keys, loc.at)?) {
            self.gaps.checkpoint();
            self.out.saves.clear();
            self.out.checkpoint_seen = true;
            self.out.mark.checkpoint = Some(loc.at);
        }
        self.out.saves.push(loc.at);
        self.out.mark.end = self.chain.batch_start;
        self.out.mark.seq = self.chain.seq;
        self.out.mark.last_save = self.chain.last_save;
        Ok(())
    }
}

const fn first_of(pack: u32) -> Pos {
    Pos { pack, offset: HEADER_BYTES_U32 }
}

pub(crate) const fn end_of(loc: Loc) -> Pos {
    Pos { pack: loc.at.pack, offset: loc.at.offset + loc.len }
}

pub(crate) fn damaged(packs: &Packs, at: Pos, reason: &'static str) -> Error {
    Error::Damaged { pack: packs.path(at.pack), offset: u64::from(at.offset), reason }
}
