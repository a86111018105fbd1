//! Reading a log to its end, and noting what is damaged.

use std::io::ErrorKind;

use super::{CheckReport, Progress, damage};
use crate::journal::header::HEADER_BYTES;
use crate::journal::links::Links;
use crate::journal::packs::Packs;
use crate::journal::record::{Header, KIND_SAVE, KIND_SAVE_PART};
use crate::journal::scan::{Found, Scan};
use crate::journal::torn::Torn;
use crate::journal::{Loc, Pos};
use crate::open::can_be_read;
use crate::{BlobId, Error, KeyRing, Result, seal};

pub(super) struct Reading<'a> {
    pub(super) packs: &'a Packs,
    pub(super) keys: Option<&'a KeyRing>,
    /// Of a store that is in use, where what is saved ends: what is behind that comes and goes.
    pub(super) end: Option<Pos>,
    /// What lies before was saved, and is no torn tail.
    pub(super) seen: Pos,
    /// A last pack that is no part of the log.
    pub(super) begun: Option<u32>,
    pub(super) links: Links,
    pub(super) report: CheckReport,
}

impl<'a> Reading<'a> {
    /// Reads on as long as `progress` says so.
    pub(super) fn run(
        mut self,
        indexed: &mut dyn FnMut(&BlobId, Loc) -> Result<bool>,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<CheckReport> {
        let mut numbers = self.packs.list()?;
        numbers.retain(|&number| {
            self.begun != Some(number) && self.end.is_none_or(|end| number <= end.pack)
        });
        let mut total_bytes = 0;
        for &number in &numbers {
            match self.scan(number) {
                Ok(scan) => total_bytes += scan.len(),
                Err(err) => self.unless_removed(err)?,
            }
        }
        // Where the pack before ends.
        let mut end = 0;
        for (index, &number) in numbers.iter().enumerate() {
            let last = index + 1 == numbers.len();
            let found = self.packs.header(number, self.keys.map(KeyRing::tag));
            let (header, scan) = match (found, self.scan(number)) {
                (Ok(Some(header)), Ok(scan)) => (Some(header), scan),
                (Ok(None) | Err(Error::Damaged { .. }), Ok(scan)) => {
                    self.damaged(number, 0, None);
                    (None, scan)
                }
                (Err(err), _) | (_, Err(err)) => {
                    self.unless_removed(err)?;
                    continue;
                }
            };
            if !self.links.pack(number, end, header.as_ref()) {
                self.damaged(number - 1, end, None);
            }
            let base = self.report.bytes;
            end = self.records(number, last, scan, indexed, &mut |done| {
                progress(Progress { done_bytes: base + done, total_bytes })
            })?;
            self.report.packs += 1;
        }
        // From a store that is in use packs go, and the checkpoint that allows it may be behind the end.
        if self.end.is_none() {
            for number in self.links.gaps().lost().to_vec() {
                self.damaged(number, 0, None);
            }
        }
        Ok(self.report)
    }

    /// `err`, which came of opening a pack, unless the pack has been removed meanwhile because
    /// nothing in it is needed.
    fn unless_removed(&self, err: Error) -> Result<()> {
        let absent =
            matches!(&err, Error::Io { source, .. } if source.kind() == ErrorKind::NotFound);
        // Of a store that nobody has open, nothing goes by itself.
        if absent && self.end.is_some() { Ok(()) } else { Err(err) }
    }

    /// Reads the records of one pack; says where they end.
    fn records(
        &mut self,
        number: u32,
        last: bool,
        mut scan: Scan<'_>,
        indexed: &mut dyn FnMut(&BlobId, Loc) -> Result<bool>,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<u32> {
        let mut torn = Torn::default();
        loop {
            match scan.next()? {
                Found::Record { at, header, bytes, checksum } => {
                    let loc = Loc {
                        at: Pos { pack: number, offset: at },
                        len: crate::bytes::len32(bytes.len()),
                    };
                    let authentic = match self.keys {
                        Some(keys) => seal::open(keys, &mut bytes.to_vec())?.is_some(),
                        None => true,
                    };
                    self.report.records += 1;
                    if !progress(u64::from(at) + u64::from(loc.len)) {
                        return Err(Error::Stopped);
                    }
                    let blob = !matches!(header.kind, KIND_SAVE | KIND_SAVE_PART);
                    if !authentic || !self.links.record(loc, &header, checksum) {
                        self.damaged(number, at, Some(&header));
                    } else if blob && !indexed(&header.id, loc)? {
                        self.report.missing_in_index += 1;
                    } else if header.flags.checkpoint {
                        self.report.has_checkpoint |= self.is_whole(loc.at)?;
                    }
                }
                Found::End { at } => {
                    let end = match self.end.filter(|end| end.pack == number) {
                        Some(end) => u64::from(end.offset),
                        // Only in the last pack are there zeros behind the records.
                        None if last => u64::from(at),
                        None => scan.len(),
                    };
                    if u64::from(at) < end {
                        self.damaged(number, at, None);
                    }
                    break;
                }
                Found::Bad { at, header } => {
                    let len = header.map(|header| header.record_len());
                    let here = Pos { pack: number, offset: at };
                    let may_be_torn = last && here >= self.seen;
                    if may_be_torn && torn.is_tail(&mut scan, here, len)? {
                        self.report.tail_bytes += scan.len() - u64::from(at);
                        break;
                    }
                    self.damaged(number, at, header.as_ref());
                    if !scan.resume(at, header.as_ref())? {
                        break;
                    }
                }
            }
        }
        self.report.bytes += scan.len();
        Ok(u32::try_from(scan.at()).unwrap_or(u32::MAX))
    }

    /// Whether a save that is intact is so with its parts.
    fn is_whole(&self, at: Pos) -> Result<bool> {
        self.keys.map_or(Ok(true), |keys| can_be_read(self.packs, keys, at))
    }

    /// The records of a pack, as far as they are read.
    fn scan(&self, number: u32) -> Result<Scan<'a>> {
        let scan = Scan::new(self.packs, number, HEADER_BYTES as u64)?;
        Ok(match self.end.filter(|end| end.pack == number) {
            Some(end) => scan.until(u64::from(end.offset)),
            None => scan,
        })
    }

    fn damaged(&mut self, number: u32, at: u32, header: Option<&Header>) {
        self.links.damaged();
        self.report.damage.push(damage(self.packs, Pos { pack: number, offset: at }, header));
    }
}
