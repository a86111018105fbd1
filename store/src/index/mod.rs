//! The index: from a blob's name to its place in the log.
//!
//! It is derived from the packs and can be lost. It trails the log: a thread takes over what was
//! saved, some thousands of records at a time, and notes in the same transaction how far it got.
//! No save waits for it, unless it falls behind by more than memory should hold.
//!
//! # Invariants
//!
//! 1. The mark lies at the end of a batch that was durable before the mark was written.
//! 2. Every record before the mark is in the index.

mod backend;
mod trail;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
};
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, Open, remove_unfinished, unfinished};
use crate::error::{IoContext, is_gone, is_unreadable};
use crate::journal::{Loc, Pos};
use crate::order::{self, RwLock};
use crate::reserve::Reserve;
use crate::{BlobId, Error, Result, Seq};
use backend::Backend;
pub(crate) use trail::Trail;

const FILE: &str = "index.redb";
const BLOBS: TableDefinition<'_, &[u8; 32], &[u8; 12]> = TableDefinition::new("blobs");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const MARK: &str = "mark";
const LEFT: &str = "left";

/// How far the index has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// The end of the last batch it knows.
    pub(crate) end: Pos,
    /// That batch's save.
    pub(crate) seq: Seq,
    /// Where the save record lies.
    pub(crate) last_save: Option<Pos>,
    /// The newest checkpoint up to there.
    pub(crate) checkpoint: Option<Pos>,
}

/// What a repair has left of the saves from the newest checkpoint on that is whole. Others are missing
/// between them, so that predecessors do not lead from one to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Left {
    /// The save that the log ended with then.
    pub(crate) end: Option<Pos>,
    /// Those that can be read, in their order.
    pub(crate) saves: Vec<Pos>,
}

impl Left {
    /// Whether the log ended with this save then, and it could not be read: a header told where it was.
    pub(crate) fn lacks(&self, save: Option<Pos>) -> bool {
        self.end == save && self.saves.last().copied() != save
    }
}

#[derive(Debug)]
pub(crate) struct Index {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    cache_bytes: usize,
    db: RwLock<Opened, order::Index>,
    reserve: Option<Arc<Reserve>>,
}

/// The database, as it was opened last.
#[derive(Debug)]
struct Opened {
    /// `None` if it could not be opened again after it had failed.
    db: Option<Database>,
    /// How often it was opened: which of them it is that somebody saw fail.
    generation: u64,
}

impl Index {
    pub(crate) fn path(store_dir: &Path) -> PathBuf {
        store_dir.join(FILE)
    }

    /// Opens the index, or makes an empty one where there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Index`] if it is damaged; [`Self::remove`] it and open again.
    pub(crate) fn open(disk: &Arc<dyn Disk>, store_dir: &Path, cache_bytes: usize) -> Result<Self> {
        Self::open_at(disk, Self::path(store_dir), cache_bytes)
    }

    /// Makes an empty index beside the one that is there, until it [replaces](Self::replace) that.
    pub(crate) fn beside(
        disk: &Arc<dyn Disk>,
        store_dir: &Path,
        cache_bytes: usize,
    ) -> Result<Self> {
        Self::remove_unfinished(&**disk, store_dir)?;
        Self::open_at(disk, unfinished(&Self::path(store_dir)), cache_bytes)
    }

    /// Takes the place of the index of `store_dir`, beside which it was made, durably.
    pub(crate) fn replace(self, store_dir: &Path) -> Result<()> {
        let Self { disk, path, db, .. } = self;
        // It must be closed before another opens it by the other name.
        drop(db);
        disk.rename(&path, &Self::path(store_dir)).at("rename", &path)?;
        disk.sync_dir(store_dir).at("sync", store_dir)
    }

    /// Removes an index that was to replace another one and did not come to it.
    pub(crate) fn remove_unfinished(disk: &dyn Disk, store_dir: &Path) -> Result<()> {
        remove_unfinished(disk, &Self::path(store_dir)).map(|_was_there| ())
    }

    fn open_at(disk: &Arc<dyn Disk>, path: PathBuf, cache_bytes: usize) -> Result<Self> {
        let db = unless_it_panics(|| open_database(disk, &path, cache_bytes))?;
        let db = RwLock::new(Opened { db: Some(db), generation: 0 });
        Ok(Self { disk: Arc::clone(disk), path, cache_bytes, db, reserve: None })
    }

    /// With a reserve at hand where a full disk does not let it be opened again.
    pub(crate) fn with_reserve(self, reserve: &Arc<Reserve>) -> Self {
        Self { reserve: Some(Arc::clone(reserve)), ..self }
    }

    /// As [`Reserve::lacking_bytes`], of the reserve that is at hand.
    pub(crate) fn reserve_lacks_bytes(&self) -> u64 {
        self.reserve.as_ref().map_or(0, |reserve| reserve.lacking_bytes())
    }

    /// How far the index in `store_dir` has got. `None` if there is no index, or a damaged one.
    ///
    /// # Errors
    ///
    /// Whatever else keeps it from being read.
    pub(crate) fn mark_in(
        disk: &Arc<dyn Disk>,
        store_dir: &Path,
        cache_bytes: usize,
    ) -> Result<Option<Mark>> {
        // Opened as an index, it would be made where there is none.
        let path = Self::path(store_dir);
        let is_there = disk.open(&path, Open::Existing).at("open", &path);
        let index = is_there.and_then(|_file| Self::open(disk, store_dir, cache_bytes));
        match index.and_then(|index| index.mark()) {
            Err(err) if is_damaged(&err) => Ok(None),
            mark => mark,
        }
    }

    pub(crate) fn remove(disk: &dyn Disk, store_dir: &Path) -> Result<()> {
        let path = Self::path(store_dir);
        match disk.remove(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.at("remove", &path),
        }
    }

    fn read<T>(&self, get: impl Fn(&redb::ReadTransaction) -> Result<T, redb::Error>) -> Result<T> {
        self.ask(|db| get(&db.begin_read()?))
    }

    /// Does `work` with the database, which is opened anew if something had failed in it before: a
    /// commit on a full disk, for one.
    fn ask<T>(&self, work: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T> {
        let answer = match self.try_ask(&work) {
            (seen, Err(redb::Error::PreviousIo)) => {
                self.reopen(seen)?;
                self.try_ask(&work).1
            }
            (_, answer) => answer,
        };
        answer.map_err(Error::index)
    }

    /// Does `work` with the database as it is, and says which one that was.
    fn try_ask<T>(
        &self,
        work: &impl Fn(&Database) -> Result<T, redb::Error>,
    ) -> (u64, Result<T, redb::Error>) {
        let opened = self.db.read();
        let db = opened.db.as_ref().ok_or(redb::Error::PreviousIo);
        (opened.generation, unless_it_panics(|| db.and_then(work)))
    }

    /// Opens the database anew, unless another thread has done that since it was `seen`.
    ///
    /// After a failed write, read or barrier redb refuses every further access of the file, for good,
    /// and serves what it has in memory. A transaction that it begins does not tell whether that is so.
    fn reopen(&self, seen: u64) -> Result<()> {
        let mut opened = self.db.write();
        if opened.generation == seen {
            // It must be closed before it is opened.
            opened.db = None;
            let open =
                || unless_it_panics(|| open_database(&self.disk, &self.path, self.cache_bytes));
            opened.db = Some(match (open(), &self.reserve) {
                // What was saved can be read on a full disk too, and deleting needs the index as well.
                (Err(Error::NoSpace { .. }), Some(reserve)) if reserve.release()? => open()?,
                (db, _) => db?,
            });
            opened.generation += 1;
        }
        Ok(())
    }

    pub(crate) fn mark(&self) -> Result<Option<Mark>> {
        self.read(|txn| {
            let table = txn.open_table(META)?;
            let bytes = table.get(MARK)?;
            Ok(bytes.and_then(|bytes| postcard::from_bytes(bytes.value()).ok()))
        })
    }

    /// What the repair that made this index has left.
    pub(crate) fn left(&self) -> Result<Option<Left>> {
        self.read(|txn| {
            let table = txn.open_table(META)?;
            let bytes = table.get(LEFT)?;
            Ok(bytes.and_then(|bytes| postcard::from_bytes(bytes.value()).ok()))
        })
    }

    /// Takes note of what a repair has left, durably.
    pub(crate) fn set_left(&self, left: &Left) -> Result<()> {
        self.ask(|db| {
            let txn = db.begin_write()?;
            let bytes = postcard::to_stdvec(left).expect("because places are plain numbers");
            txn.open_table(META)?.insert(LEFT, bytes.as_slice())?;
            Ok(txn.commit()?)
        })
    }

    /// Where the blob lies, if the index knows it. Costs about 4 us, found or not.
    pub(crate) fn find(&self, id: &BlobId) -> Result<Option<Loc>> {
        self.read(|txn| {
            let table = txn.open_table(BLOBS)?;
            Ok(table.get(&id.0)?.map(|value| decode(value.value())))
        })
    }

    /// How many records the index knows.
    pub(crate) fn len(&self) -> Result<u64> {
        self.read(|txn| Ok(txn.open_table(BLOBS)?.len()?))
    }

    /// Takes in `put`, takes out `cut`, and moves the mark: durable when this returns.
    ///
    /// `quick_repair` costs about 7 ms a commit and saves reading the whole index when it is
    /// opened after a crash (measured with a million entries: 14 ms instead of 236); commits are
    /// rare, and opening must not depend on the size of the bucket.
    pub(crate) fn commit(
        &self,
        put: &mut [(BlobId, Loc)],
        cut: &[(BlobId, Loc)],
        mark: &Mark,
    ) -> Result<()> {
        // Ascending order makes neighbours share pages. The sort is stable, for of two records of
        // one name the later one counts: the earlier may be damaged, or about to be removed.
        put.sort_by_key(|(id, _)| *id);
        self.ask(|db| commit(db, put, cut, mark))
    }
}

fn commit(
    db: &Database,
    put: &[(BlobId, Loc)],
    cut: &[(BlobId, Loc)],
    mark: &Mark,
) -> Result<(), redb::Error> {
    let mut txn = db.begin_write()?;
    txn.set_durability(Durability::Immediate)?;
    txn.set_quick_repair(true);
    {
        let mut table = txn.open_table(BLOBS)?;
        for (id, loc) in cut {
            let here = table.get(&id.0)?.map(|value| decode(value.value()));
            // Its length may have rotted.
            if here.is_some_and(|here| here.at == loc.at) {
                table.remove(&id.0)?;
            }
        }
        for (id, loc) in put {
            table.insert(&id.0, &encode(*loc))?;
        }
        let mut meta = txn.open_table(META)?;
        let bytes = postcard::to_stdvec(mark).expect("because a mark is plain numbers");
        meta.insert(MARK, bytes.as_slice())?;
    }
    Ok(txn.commit()?)
}

/// Whether an error of opening or reading an index says that it is lost, in whole or in part, as opposed
/// to what may pass, as a full disk does.
pub(crate) fn is_damaged(err: &Error) -> bool {
    let is_lost = |err: &io::Error| is_gone(err) || is_unreadable(err);
    match err {
        Error::Io { source, .. } => is_lost(source),
        Error::Index { source } => match &**source {
            redb::Error::PreviousIo => false,
            // Of these, redb has the first for a file that is not its own, and the disk the second for a
            // place that there is not.
            redb::Error::Io(err) => {
                matches!(err.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
                    || is_lost(err)
            }
            _ => true,
        },
        _ => false,
    }
}

/// redb takes the pages it reads for its own, and may panic at one that has rotted. The index is made
/// anew at the next opening; until then it is an error to whoever asks it.
fn unless_it_panics<T, E: From<redb::Error>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    outcome
        .unwrap_or_else(|_| Err(redb::Error::Corrupted("a page that makes no sense".into()).into()))
}

fn open_database(disk: &Arc<dyn Disk>, path: &Path, cache_bytes: usize) -> Result<Database> {
    let file = disk.open(path, Open::OrCreate).at("open", path)?;
    // redb takes what it reads for durable, and writes to the pages that were free then.
    let synced = file.barrier().at("sync", path);
    file.forget_cached();
    synced?;
    let db = redb::Builder::new()
        .set_cache_size(cache_bytes)
        .create_with_backend(Backend::new(file))
        .map_err(Error::index)?;
    // The tables are there from the first day on, so that a reader need not ask.
    let txn = db.begin_read().map_err(Error::index)?;
    if let (Ok(_), Ok(_)) = (txn.open_table(BLOBS), txn.open_table(META)) {
        return Ok(db);
    }
    let txn = db.begin_write().map_err(Error::index)?;
    txn.open_table(BLOBS).map_err(Error::index)?;
    txn.open_table(META).map_err(Error::index)?;
    txn.commit().map_err(Error::index)?;
    Ok(db)
}

fn encode(loc: Loc) -> [u8; 12] {
    let mut out = [0; 12];
    out[..4].copy_from_slice(&loc.at.pack.to_le_bytes());
    out[4..8].copy_from_slice(&loc.at.offset.to_le_bytes());
    out[8..].copy_from_slice(&loc.len.to_le_bytes());
    out
}

fn decode(bytes: &[u8; 12]) -> Loc {
    let [pack, offset, len] = [0, 4, 8]
        .map(|at| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
    Loc { at: Pos { pack, offset }, len }
}
