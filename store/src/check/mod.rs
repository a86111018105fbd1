//! Reading everything, to find what is damaged; and repairing what can be derived, in `repair.rs`.
//!
//! A check stops at nothing: behind a damaged record it goes on at the next one. It needs the
//! keys only to see that the bytes are also authentic; rot shows without.

mod reading;
mod repair;
mod scrub;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::IoContext;
use crate::index::Index;
use crate::journal::links::Links;
use crate::journal::marked::Marked;
use crate::journal::packs::Packs;
use crate::journal::record::Header;
use crate::journal::settle::{Unsettled, settle};
use crate::journal::{Pos, begun};
use crate::open::lock;
use crate::{BlobId, Error, KeyRing, Kind, Options, Result};
use reading::Reading;
pub use repair::{Repaired, repair};

/// A place in a pack that cannot be read as it was written: of one that is missing, its beginning.
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
    /// Where the log ends in it, 0 if it is gone.
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
    /// What is damaged, in the order of the log, and then what is missing of it.
    pub damage: Vec<Damage>,
    /// What the log has lost at its end. Of a store that is in use, nothing.
    pub lost_end: Option<LostEnd>,
    /// Bytes at the log's end of a batch that was never saved: no damage.
    pub tail_bytes: u64,
    /// Whether there is a checkpoint that is whole. Of a store without any, nothing can be opened but by
    /// another one.
    pub has_checkpoint: bool,
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

/// Reads every record of a store that nobody has open; changes nothing in its log.
///
/// # Errors
///
/// [`Error::NotAStore`], [`Error::Locked`], [`Error::Newer`], [`Error::WrongBucket`], and
/// [`Error::Io`], [`Error::NoSpace`] or [`Error::Index`] where the disk itself refuses. Damage is no error.
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
    settle(&packs, Unsettled::Any)?;
    let Told { lost_end, seen } = told(disk, dir, &packs)?;
    let mut report = CheckReport { lost_end, ..CheckReport::default() };
    let begun = begun::begun(&packs, seen)?;
    if let Some(begun) = begun {
        report.tail_bytes = packs.file(begun)?.len().at("read", &packs.path(begun))?;
    }
    let links = Links::new();
    let reading = Reading { packs: &packs, keys, end: None, seen, begun, links, report };
    reading.run(&mut |_, _| Ok(true), &mut |read| {
        progress(read);
        true
    })
}

/// What an index tells of the log, as far as there is one that can be read.
#[derive(Default)]
struct Told {
    /// What the log has lost at its end.
    lost_end: Option<LostEnd>,
    /// The end of a save that is there still: nothing before it is a torn tail.
    seen: Pos,
}

fn told(disk: &Arc<dyn Disk>, dir: &Path, packs: &Packs) -> Result<Told> {
    let cache_bytes = Options::default().index_cache_bytes;
    let Some(mark) = Index::mark_in(disk, dir, cache_bytes)? else { return Ok(Told::default()) };
    Ok(match Marked::of(packs, &mark)? {
        Marked::There | Marked::Damaged(_) => Told { lost_end: None, seen: mark.end },
        Marked::Lost(lost) => Told { lost_end: Some(lost), seen: Pos::default() },
        Marked::Other => Told::default(),
    })
}

/// Describes a damaged place.
pub(crate) fn damage(packs: &Packs, at: Pos, header: Option<&Header>) -> Damage {
    let kind = header.and_then(|header| Kind::from_u8(header.kind));
    let id = header.filter(|_| kind.is_some()).map(|header| header.id);
    Damage { pack: packs.path(at.pack), offset: u64::from(at.offset), id, kind }
}
