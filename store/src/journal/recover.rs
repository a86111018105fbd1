//! Reading the log again after it was closed, or cut off.
//!
//! # Invariants
//!
//! 1. A batch is taken whole or not at all.
//! 2. Nothing is cut off but the last batch, and only if it is incomplete in the way a power cut
//!    leaves it; anything else that is wrong is refused.
//! 3. What was cut off is gone for good before anything is appended.

use super::header::{HEADER_BYTES_U32, PackHeader};
use super::packs::Packs;
use super::record::{CHECKSUM_BYTES, Header, KIND_SAVE, KIND_SAVE_PART};
use super::save::SaveId;
use super::scan::{Found, Scan};
use super::torn;
use super::{Chain, Loc, Pos};
use crate::check::{Damage, damage};
use crate::error::IoContext;
use crate::index::Mark;
use crate::{BlobId, Error, Result, Seq};

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
    /// The save records read, from the last checkpoint on.
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
/// With `forgive`, damage is noted there and passed over; else it is an error.
pub(crate) fn recover(
    packs: &Packs,
    bucket: [u8; 16],
    mark: Option<Mark>,
    hand_over: HandOver<'_>,
    forgive: Option<&mut Vec<Damage>>,
) -> Result<Recovered> {
    let first = mark.map_or(0, |mark| mark.end.pack);
    let numbers = without_begun(packs, bucket, first)?;
    let mut replay = Replay::new(packs, bucket, mark, forgive);
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

/// The packs of the log. A last one that was only begun is removed first: it may have come back after
/// it was given up on a full disk, and the one before it, having been written to since, need not end
/// with its last record.
fn without_begun(packs: &Packs, bucket: [u8; 16], first: u32) -> Result<Vec<u32>> {
    let mut numbers = packs.list()?;
    if let [.., _, last] = *numbers.as_slice()
        && last > first
        && matches!(packs.header(last, Some(bucket)), Ok(None))
    {
        log::info!("recovery removes a pack that was only begun number={last}");
        packs.remove(last)?;
        numbers.pop();
    }
    Ok(numbers)
}

struct Replay<'a> {
    packs: &'a Packs,
    bucket: [u8; 16],
    chain: Chain,
    /// The pack before, and its length.
    previous: Option<(u32, u64)>,
    /// Where in the first pack to begin.
    begin: Option<Pos>,
    /// Records of the batch that is being read.
    batch: Vec<(BlobId, Loc)>,
    out: Recovered,
    /// Where the intact part of the log ends.
    end: Pos,
    forgive: Option<&'a mut Vec<Damage>>,
    /// Damage was passed over in this batch, so that its hash cannot be known.
    doubt: bool,
}

impl<'a> Replay<'a> {
    fn new(
        packs: &'a Packs,
        bucket: [u8; 16],
        mark: Option<Mark>,
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
            bucket,
            chain,
            previous: None,
            begin,
            batch: Vec::new(),
            out,
            end,
            forgive,
            doubt: false,
        }
    }

    /// Reads one pack.
    fn pack(&mut self, number: u32, last: bool, hand_over: HandOver<'_>) -> Result<()> {
        let header = match self.packs.header(number, Some(self.bucket)) {
            Err(Error::Damaged { .. }) if self.forgive.is_some() => Some(self.guess(number)),
            other => other?,
        };
        let Some(header) = header else {
            let here = Pos { pack: number, offset: 0 };
            return Err(damaged(self.packs, here, "the pack's header is missing"));
        };
        let from = match (self.begin.take(), self.previous) {
            (Some(begin), _) => begin,
            (None, None) => {
                self.chain = header.chain;
                if self.chain.batch_start == Pos::default() {
                    self.chain.batch_start = first_of(number);
                }
                first_of(number)
            }
            (None, Some((before, len))) => {
                self.joint(number, header.prev_len, header.chain, before, len)?;
                first_of(number)
            }
        };
        let len = self.records(number, from, last, hand_over)?;
        self.previous = Some((number, len));
        Ok(())
    }

    /// What a damaged header may have said.
    fn guess(&mut self, number: u32) -> PackHeader {
        let at = Pos { pack: number, offset: 0 };
        if let Some(noted) = self.forgive.as_mut() {
            noted.push(damage(self.packs, at, None));
        }
        self.doubt = true;
        PackHeader { number, bucket: self.bucket, prev_len: 0, chain: self.chain }
    }

    /// Checks that a pack goes on where the one before it ended.
    fn joint(
        &mut self,
        number: u32,
        prev_len: u64,
        chain: Chain,
        before: u32,
        len: u64,
    ) -> Result<()> {
        if number == before + 1 {
            if self.doubt {
                self.chain = chain;
            } else if prev_len != len || chain != self.chain {
                let end = Pos { pack: before, offset: self.end.offset };
                return Err(damaged(self.packs, end, "the pack has lost its end"));
            }
            return Ok(());
        }
        // The packs between were reclaimed. If the batch that was open before them is not open
        // behind them, it was saved there.
        if chain.batch_start != self.chain.batch_start {
            self.out.entries.append(&mut self.batch);
        }
        self.chain = chain;
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
            return Err(damaged(
                self.packs,
                from,
                "the index has seen more of the log than there is",
            ));
        }
        self.out.file_len = scan.len();
        loop {
            match scan.next()? {
                Found::Record { at, header, bytes, checksum } => {
                    let loc = Loc {
                        at: Pos { pack: number, offset: at },
                        len: crate::bytes::len32(bytes.len()),
                    };
                    self.record(loc, &header, checksum)?;
                    if self.out.entries.len() >= HAND_OVER && header.kind == KIND_SAVE {
                        hand_over(&mut self.out.entries, &self.out.mark)?;
                    }
                }
                Found::End { at } => {
                    self.end = Pos { pack: number, offset: at };
                    let clean = last || u64::from(at) == scan.len();
                    if !clean {
                        return Err(damaged(self.packs, self.end, "zeros where records should be"));
                    }
                    return Ok(u64::from(at));
                }
                Found::Bad { at, header } => {
                    let here = Pos { pack: number, offset: at };
                    self.end = here;
                    if last && torn::is_tail(&mut scan, number, at, header.map(|h| h.record_len()))?
                    {
                        self.out.cut_bytes += scan.len() - u64::from(at);
                        return Ok(u64::from(at));
                    }
                    let Some(noted) = self.forgive.as_mut() else {
                        return Err(damaged(self.packs, here, "a record's checksum"));
                    };
                    noted.push(damage(self.packs, here, header.as_ref()));
                    self.doubt = true;
                    if !scan.resume(at, header.as_ref())? {
                        if last {
                            // Nothing intact follows: it is the last batch, and goes.
                            self.out.cut_bytes += scan.len() - u64::from(at);
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
                if std::mem::take(&mut self.doubt) {
                    self.chain.seq = Seq(id.seq.0.saturating_sub(1));
                } else if id != SaveId::closing(&self.chain) {
                    return Err(damaged(self.packs, loc.at, "a save that does not fit its batch"));
                }
                self.save(loc, header.flags.checkpoint);
            }
            KIND_SAVE_PART => self.chain.add(checksum),
            _ => {
                self.chain.add(checksum);
                self.batch.push((header.id, loc));
            }
        }
        Ok(())
    }

    fn save(&mut self, loc: Loc, checkpoint: bool) {
        self.chain.close(loc.at, end_of(loc));
        self.out.entries.append(&mut self.batch);
        if checkpoint {
            self.out.saves.clear();
            self.out.checkpoint_seen = true;
            self.out.mark.checkpoint = Some(loc.at);
        }
        self.out.saves.push(loc.at);
        self.out.mark.end = self.chain.batch_start;
        self.out.mark.seq = self.chain.seq;
        self.out.mark.last_save = self.chain.last_save;
    }

    /// Cuts off what belongs to no whole batch.
    fn finish(mut self) -> Result<Recovered> {
        let start = self.chain.batch_start;
        // A batch may have begun in a pack before the last one.
        while let Some(&number) = self.packs.list()?.last()
            && number > start.pack
        {
            log::info!("recovery removes a pack of an unsaved batch number={number}");
            self.out.cut_bytes += self.packs.file(number)?.len().at("read", self.packs.dir())?;
            self.packs.remove(number)?;
            self.out.file_len = 0;
        }
        let torn = self.end != start || self.out.cut_bytes > 0;
        if torn {
            let path = self.packs.path(start.pack);
            let file = self.packs.file(start.pack)?;
            self.out.cut_bytes += u64::from(self.end.offset.saturating_sub(start.offset));
            file.set_len(u64::from(start.offset)).at("cut", &path)?;
            file.barrier().at("sync", &path)?;
            self.out.file_len = u64::from(start.offset);
            log::info!("recovery cut an unsaved batch bytes={}", self.out.cut_bytes);
        }
        self.packs.set_size(start.pack, u64::from(start.offset));
        self.chain.hash = [0; 16];
        self.out.chain = self.chain;
        // The same as before, or, where no save was read, the beginning of the log.
        self.out.mark.end = start;
        self.out.mark.seq = self.chain.seq;
        self.out.mark.last_save = self.chain.last_save;
        Ok(self.out)
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
