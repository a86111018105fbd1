//! Making a store and opening one.

mod saves;

use std::path::Path;
use std::sync::Arc;

use crate::appender::Start;
use crate::check::LostEnd;
use crate::disk::{Disk, Lock, LockError};
use crate::error::IoContext;
use crate::index::{Index, Mark, Trail, is_damaged};
use crate::journal::header::{HEADER_BYTES_U32, PackHeader};
use crate::journal::marked::Marked;
use crate::journal::packs::Packs;
use crate::journal::recover::{self, Recovered, damaged};
use crate::journal::settle::{Unsettled, settle};
use crate::journal::tail::Tail;
use crate::journal::{Chain, Pos};
use crate::keys::KeyRing;
use crate::reserve::Reserve;
use crate::{Appender, Blobs, Error, Result};
pub(crate) use saves::{can_be_read, first_pack_of, saves_left};

/// How a store is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where a new pack is begun. Between 64 KiB and 1 GiB.
    pub pack_bytes: u64,
    /// Kept aside for saves that delete, on a full disk.
    pub reserve_bytes: u64,
    /// Memory for pages of the index.
    pub index_cache_bytes: usize,
    /// Whether the index has a thread of its own. Without one whoever saves does its work now
    /// and then: for simulations, which are to run the same way again.
    pub index_thread: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pack_bytes: 64 << 20,
            reserve_bytes: 4 << 20,
            index_cache_bytes: 1 << 20,
            index_thread: true,
        }
    }
}

/// A store that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The writers' side.
    pub appender: Appender,
    /// The readers' side.
    pub blobs: Arc<Blobs>,
    /// The payloads of the saves from the last checkpoint on, that one included, in order.
    pub saves: Vec<Vec<u8>>,
    /// What a repair has left out of them.
    pub left_out: LeftOut,
    /// What was done.
    pub report: RecoveryReport,
}

/// Saves that a repair has left out of [`Opened::saves`].
///
/// What stands behind them tells of changes to something that nobody knows, until the repair: who has
/// saved since knew what was left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Before which of `saves` some are missing: their indexes, ascending.
    pub before: Vec<usize>,
    /// How many of `saves` are older than the repair; 0 if there was none.
    pub older: usize,
}

/// What opening had to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Records read because the index did not know them.
    pub replayed_records: u64,
    /// Their bytes.
    pub replayed_bytes: u64,
    /// Bytes of an incomplete batch that were cut off.
    pub cut_bytes: u64,
    /// Whether the index was lost or damaged, and made anew from the packs.
    pub index_rebuilt: bool,
}

/// Makes a store in `dir`, which may exist; durable when this returns.
///
/// # Errors
///
/// [`Error::Exists`] if there is one, [`Error::Locked`], [`Error::NoSpace`], [`Error::Io`].
#[allow(clippy::needless_pass_by_value, reason = "the store is the disk's user from here on")]
pub fn create(
    disk: Arc<dyn Disk>,
    dir: &Path,
    keys: KeyRing,
    options: Options,
) -> Result<(Appender, Arc<Blobs>)> {
    let packs = Packs::new(Arc::clone(&disk), dir);
    disk.create_dir(packs.dir()).at("create", packs.dir())?;
    let lock = lock(&*disk, dir)?;
    if !packs.list()?.is_empty() {
        return Err(Error::Exists { dir: dir.to_owned() });
    }
    Index::remove(&*disk, dir)?;
    let end = Pos { pack: 1, offset: HEADER_BYTES_U32 };
    let chain = Chain { batch_start: end, ..Chain::default() };
    let header = PackHeader { number: 1, bucket: keys.tag(), prev_len: 0, chain };
    let reserve = Arc::new(Reserve::new(&disk, dir, options.reserve_bytes));
    let index = Index::open(&disk, dir, options.index_cache_bytes)?;
    let index = Arc::new(index.with_reserve(&reserve));
    let file = packs.create(&header)?;
    file.barrier().at("sync", &packs.path(1))?;
    disk.sync_dir(dir).at("sync", dir)?;
    let tail = Arc::new(Tail::new(end));
    let mark = Mark { end, ..Mark::default() };
    let trail = Trail::start(&index, &tail, Vec::new(), 0, mark, options.index_thread)?;
    let blobs = Arc::new(Blobs::new(keys, packs, tail, index, lock));
    reserve.ensure();
    let appender = Appender::new(Start {
        trail,
        blobs: Arc::clone(&blobs),
        pack_bytes: bound(options.pack_bytes),
        file,
        file_len: u64::from(end.offset),
        chain,
        checkpoint: None,
        reserve,
    });
    Ok((appender, blobs))
}

/// Opens the store in `dir`: replays what the index does not know, cuts off a torn tail. What it finds
/// is durable when this returns.
///
/// Costs what is not indexed (at most some 32 MiB of log, unless the index is lost) and the saves
/// since the last checkpoint, not the size of the bucket.
///
/// # Errors
///
/// - [`Error::NotAStore`], [`Error::Locked`], [`Error::WrongBucket`], [`Error::Newer`]
/// - [`Error::Damaged`] if something other than the tail is damaged
/// - [`Error::Io`], [`Error::Index`], [`Error::UnknownEpoch`]
#[allow(clippy::needless_pass_by_value, reason = "the store is the disk's user from here on")]
pub fn open(disk: Arc<dyn Disk>, dir: &Path, keys: KeyRing, options: Options) -> Result<Opened> {
    let packs = Packs::new(Arc::clone(&disk), dir);
    let lock = lock_packs(&packs, dir, &keys, Unsettled::Last)?;
    Index::remove_unfinished(&*disk, dir)?;
    let reserve = Arc::new(Reserve::new(&disk, dir, options.reserve_bytes));
    let (index, mark) = match open_index(&disk, dir, &packs, options.index_cache_bytes) {
        // Whoever opens a bucket on a full disk may be about to delete something.
        Err(Error::NoSpace { .. }) if reserve.release()? => {
            open_index(&disk, dir, &packs, options.index_cache_bytes)?
        }
        other => other?,
    };
    let index = Arc::new(index.with_reserve(&reserve));
    let mut hand_over = |entries: &mut Vec<_>, mark: &Mark| {
        index.commit(entries, &[], mark)?;
        entries.clear();
        Ok(())
    };
    let recovered = recover::recover(&packs, &keys, mark, Pos::default(), &mut hand_over, None)?;
    measure(&packs)?;
    let (saves, left_out) = saves::saves(&packs, &keys, &index, &recovered, mark)?;
    let report = RecoveryReport {
        replayed_records: recovered.records,
        replayed_bytes: recovered.bytes,
        cut_bytes: recovered.cut_bytes,
        index_rebuilt: mark.is_none(),
    };
    log::info!(
        "opened seq={} replayed={} cut_bytes={} index_rebuilt={}",
        recovered.chain.seq,
        report.replayed_records,
        report.cut_bytes,
        report.index_rebuilt
    );
    let appender = start(keys, options, packs, lock, index, recovered, reserve)?;
    let blobs = Arc::clone(appender.blobs());
    Ok(Opened { appender, blobs, saves, left_out, report })
}

/// Takes the store in `dir` from all others, if there is one, of the bucket that `keys` are of, and makes
/// what is found of its log durable.
pub(crate) fn lock_packs(
    packs: &Packs,
    dir: &Path,
    keys: &KeyRing,
    which: Unsettled,
) -> Result<Lock> {
    let numbers = packs.list()?;
    if numbers.is_empty() {
        return Err(Error::NotAStore { dir: dir.to_owned() });
    }
    let lock = lock(packs.disk(), dir)?;
    settle(packs, which)?;
    for &number in [numbers.first(), numbers.last()].into_iter().flatten() {
        match packs.header(number, Some(keys.tag())) {
            // Where it is needed, recovery says so.
            Err(Error::Damaged { .. }) => (),
            other => drop(other?),
        }
    }
    Ok(lock)
}

fn start(
    keys: KeyRing,
    options: Options,
    packs: Packs,
    lock: Lock,
    index: Arc<Index>,
    recovered: Recovered,
    reserve: Arc<Reserve>,
) -> Result<Appender> {
    let end = recovered.chain.batch_start;
    let tail = Arc::new(Tail::new(end));
    tail.extend(&recovered.entries);
    let trail = Trail::start(
        &index,
        &tail,
        recovered.entries,
        recovered.bytes,
        recovered.mark,
        options.index_thread,
    )?;
    let file = packs.file(end.pack)?;
    let blobs = Arc::new(Blobs::new(keys, packs, tail, index, lock));
    reserve.ensure();
    Ok(Appender::new(Start {
        trail,
        blobs,
        pack_bytes: bound(options.pack_bytes),
        file,
        file_len: recovered.file_len.max(u64::from(end.offset)),
        chain: recovered.chain,
        checkpoint: recovered.mark.checkpoint,
        reserve,
    }))
}

fn bound(pack_bytes: u64) -> u64 {
    pack_bytes.clamp(64 << 10, 1 << 30)
}

/// Takes the store in `dir` from all others, as [`open`] does, without opening it.
///
/// # Errors
///
/// [`Error::Locked`] if somebody has it; [`Error::Io`].
pub fn lock(disk: &dyn Disk, dir: &Path) -> Result<Lock> {
    let path = dir.join("lock");
    disk.lock(&path).map_err(|err| match err {
        LockError::Held(pid) => Error::Locked { pid },
        LockError::Io(source) => Error::Io { what: "lock", path, source },
    })
}

/// Notes how long every pack is.
fn measure(packs: &Packs) -> Result<()> {
    let known = packs.sizes();
    for number in packs.list()? {
        if !known.contains_key(&number) {
            let len = packs.file(number)?.len().at("read", &packs.path(number))?;
            packs.set_size(number, len);
        }
    }
    Ok(())
}

/// Opens the index, with its mark; an index that cannot be believed is made anew.
fn open_index(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    packs: &Packs,
    cache_bytes: usize,
) -> Result<(Index, Option<Mark>)> {
    match Index::open(disk, dir, cache_bytes).and_then(|index| Ok((index.mark()?, index))) {
        Ok((Some(mark), index)) => match Marked::of(packs, &mark)? {
            Marked::There => return Ok((index, Some(mark))),
            // The index stays, here too: it alone tells that there was more.
            Marked::Lost(LostEnd { pack, len, .. }) => {
                let reason = "the index has seen more of the log than there is";
                return Err(Error::Damaged { pack, offset: len, reason });
            }
            Marked::Damaged(_) if index.left()?.is_some_and(|left| left.lacks(mark.last_save)) => {
                return Ok((index, Some(mark)));
            }
            Marked::Damaged(at) => return Err(damaged(packs, at, "a record's checksum")),
            Marked::Other => log::warn!("index made=anew reason=other-log"),
        },
        Ok((None, index)) if index.len().is_ok_and(|len| len == 0) => return Ok((index, None)),
        Ok((None, _)) => log::warn!("index made=anew reason=no-mark"),
        Err(err) if is_damaged(&err) => {
            log::warn!("index made=anew reason={err:?}");
        }
        Err(err) => return Err(err),
    }
    Index::remove(&**disk, dir)?;
    Ok((Index::open(disk, dir, cache_bytes)?, None))
}
