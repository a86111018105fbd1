//! Reading everything, to find what is damaged; and repairing what can be derived.
//!
//! A check stops at nothing: behind a damaged record it goes on at the next one. It needs the
//! keys only to see that the bytes are also authentic; rot shows without.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::IoContext;
use crate::index::Index;
use crate::journal::packs::Packs;
use crate::journal::record::{Header, KIND_SAVE, KIND_SAVE_PART};
use crate::journal::scan::{Found, Scan};
use crate::journal::{Loc, Pos, torn};
use crate::open::lock;
use crate::{BlobId, Blobs, Error, KeyRing, Kind, Options, Result, seal};

/// A place in a pack that cannot be read as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The pack file.
    pub pack: PathBuf,
    /// Where in it the damaged record begins, or began.
    pub offset: u64,
    /// The blob, where the record's header is intact and it is one.
    pub id: Option<BlobId>,
    /// What the blob is for.
    pub kind: Option<Kind>,
}

/// The log ends before a place up to which the index knew it: what was saved there is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostEnd {
    /// The pack file.
    pub pack: PathBuf,
    /// Its bytes, 0 if it is gone.
    pub len: u64,
    /// The bytes that the index knew of.
    pub known_len: u64,
}

/// How far a check has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of packs read.
    pub done_bytes: u64,
    /// Bytes of packs in all.
    pub total_bytes: u64,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Packs read.
    pub packs: u64,
    /// Intact records.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is damaged, in the order of the log.
    pub damage: Vec<Damage>,
    /// What the log has lost at its end. Of a store that is in use, nothing.
    pub lost_end: Option<LostEnd>,
    /// Bytes at the log's end of a batch that was never saved: no damage.
    pub tail_bytes: u64,
    /// Blobs that the index should know and does not. [`repair`] makes it anew.
    pub missing_in_index: u64,
}

impl CheckReport {
    /// Whether everything is as it should be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty() && self.lost_end.is_none() && self.missing_in_index == 0
    }
}

/// What [`repair`] could not bring back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// What is damaged, in the order of the log.
    pub damage: Vec<Damage>,
    /// What the log had lost at its end.
    pub lost_end: Option<LostEnd>,
}

/// Reads every record of a store that nobody has open; changes nothing in its log.
///
/// # Errors
///
/// [`Error::NotAStore`], [`Error::Locked`], [`Error::Newer`], [`Error::WrongBucket`], and
/// [`Error::Io`] where the disk itself refuses. Damage is no error.
pub fn check(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    keys: Option<&KeyRing>,
    progress: &mut dyn FnMut(Progress),
) -> Result<CheckReport> {
    let packs = Packs::new(Arc::clone(disk), dir);
    if packs.list()?.is_empty() {
        return Err(Error::NotAStore { dir: dir.to_owned() });
    }
    let _lock = lock(&**disk, dir)?;
    let lost_end = lost_end(disk, dir, &packs)?;
    let report = CheckReport { lost_end, ..CheckReport::default() };
    Check { packs: &packs, keys, end: None, report }.run(&mut |_, _| Ok(true), progress)
}

impl Blobs {
    /// As [`check`], of a store that is in use: reads what is saved, while others go on. A damaged
    /// record is none of its findings if the blob has been stored again.
    ///
    /// # Errors
    ///
    /// As [`check`].
    pub fn scrub(&self, progress: &mut dyn FnMut(Progress)) -> Result<CheckReport> {
        let end = self.tail.base();
        let mut missing = Vec::new();
        let check = Check {
            packs: &self.packs,
            keys: Some(&self.keys),
            end: Some(end),
            report: CheckReport::default(),
        };
        let mut report = check.run(
            &mut |id, loc| {
                let found = self.contains(id)?;
                if !found {
                    missing.push(loc.at.pack);
                }
                Ok(found)
            },
            progress,
        )?;
        let mut damage = Vec::new();
        for one in report.damage {
            if self.leads_to(&one)? {
                damage.push(one);
            }
        }
        report.damage = damage;
        // Of a pack that goes, the index forgets the records first.
        let _removing = self.removing.lock();
        let there = self.packs.list()?;
        let gone = missing.iter().filter(|pack| there.binary_search(pack).is_err()).count();
        report.missing_in_index -= gone as u64;
        Ok(report)
    }
}

impl Blobs {
    /// Whether what is damaged is what a reader would get: not if the blob was stored again.
    fn leads_to(&self, damage: &Damage) -> Result<bool> {
        let Some(id) = &damage.id else { return Ok(true) };
        let is_it = |loc: Loc| {
            u64::from(loc.at.offset) == damage.offset && self.packs.path(loc.at.pack) == damage.pack
        };
        Ok(self.find(id)?.is_none_or(is_it))
    }
}

/// Makes the index anew, from whatever of the packs can be read: afterwards the store opens, and
/// what is damaged is an error only for who reads it.
///
/// A save record that is damaged is lost with its payload; the blobs of its batch are kept.
///
/// # Errors
///
/// As [`crate::open`], but not for damaged records.
pub fn repair(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    keys: KeyRing,
    options: Options,
) -> Result<Repaired> {
    let mut repaired = Repaired::default();
    {
        let packs = Packs::new(Arc::clone(disk), dir);
        let _lock = if packs.list()?.is_empty() {
            return Err(Error::NotAStore { dir: dir.to_owned() });
        } else {
            lock(&**disk, dir)?
        };
        // Once the index is gone, nothing tells that there was more.
        repaired.lost_end = lost_end(disk, dir, &packs)?;
        Index::remove(&**disk, dir)?;
    }
    drop(crate::open::open_with(disk, dir, keys, options, Some(&mut repaired.damage))?);
    Ok(repaired)
}

/// What the log has lost at its end, as far as there is an index that can be read.
fn lost_end(disk: &Arc<dyn Disk>, dir: &Path, packs: &Packs) -> Result<Option<LostEnd>> {
    let cache_bytes = Options::default().index_cache_bytes;
    let Some(mark) = Index::mark_in(disk, dir, cache_bytes) else { return Ok(None) };
    let number = mark.end.pack;
    let pack = packs.path(number);
    let len = if packs.list()?.contains(&number) {
        packs.file(number)?.len().at("read", &pack)?
    } else {
        0
    };
    let known_len = u64::from(mark.end.offset);
    Ok((len < known_len).then_some(LostEnd { pack, len, known_len }))
}

struct Check<'a> {
    packs: &'a Packs,
    keys: Option<&'a KeyRing>,
    /// Where to stop; `None` at the end.
    end: Option<Pos>,
    report: CheckReport,
}

impl Check<'_> {
    fn run(
        mut self,
        indexed: &mut dyn FnMut(&BlobId, Loc) -> Result<bool>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<CheckReport> {
        let numbers = self.packs.list()?;
        let mut total_bytes = 0;
        for &number in &numbers {
            match self.packs.file(number) {
                Ok(file) => total_bytes += file.len().at("read", &self.packs.path(number))?,
                Err(err) => self.unless_removed(err)?,
            }
        }
        for (index, &number) in numbers.iter().enumerate() {
            if self.end.is_some_and(|end| number > end.pack) {
                break;
            }
            let last = index + 1 == numbers.len();
            match self.packs.header(number, self.keys.map(KeyRing::tag)) {
                Ok(_) => (),
                Err(Error::Damaged { .. }) => self.damaged(number, 0, None),
                Err(err) => {
                    self.unless_removed(err)?;
                    continue;
                }
            }
            let base = self.report.bytes;
            self.pack(number, last, indexed, &mut |done| {
                progress(Progress { done_bytes: base + done, total_bytes });
            })?;
            self.report.packs += 1;
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

    fn pack(
        &mut self,
        number: u32,
        last: bool,
        indexed: &mut dyn FnMut(&BlobId, Loc) -> Result<bool>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let first = crate::journal::header::HEADER_BYTES as u64;
        let mut scan = Scan::new(self.packs, number, first)?;
        loop {
            if self.end.is_some_and(|end| number == end.pack && scan.at() >= u64::from(end.offset))
            {
                break;
            }
            match scan.next()? {
                Found::Record { at, header, bytes, .. } => {
                    let loc = Loc {
                        at: Pos { pack: number, offset: at },
                        len: crate::bytes::len32(bytes.len()),
                    };
                    let authentic = match self.keys {
                        Some(keys) => seal::open(keys, &mut bytes.to_vec())?.is_some(),
                        None => true,
                    };
                    self.report.records += 1;
                    progress(u64::from(at) + u64::from(loc.len));
                    let blob = !matches!(header.kind, KIND_SAVE | KIND_SAVE_PART);
                    if !authentic {
                        self.damaged(number, at, Some(&header));
                    } else if blob && !indexed(&header.id, loc)? {
                        self.report.missing_in_index += 1;
                    }
                }
                Found::End { .. } => break,
                Found::Bad { at, header } => {
                    let len = header.map(|header| header.record_len());
                    if last && torn::is_tail(&mut scan, number, at, len)? {
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
        Ok(())
    }

    fn damaged(&mut self, number: u32, at: u32, header: Option<&Header>) {
        self.report.damage.push(damage(self.packs, Pos { pack: number, offset: at }, header));
    }
}

/// Describes a damaged place.
pub(crate) fn damage(packs: &Packs, at: Pos, header: Option<&Header>) -> Damage {
    let kind = header.and_then(|header| Kind::from_u8(header.kind));
    let id = header.filter(|_| kind.is_some()).map(|header| header.id);
    Damage { pack: packs.path(at.pack), offset: u64::from(at.offset), id, kind }
}
