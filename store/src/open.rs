//! Making a store and opening one.

use std::path::Path;
use std::sync::Arc;

use crate::appender::Start;
use crate::check::{Damage, damage};
use crate::disk::{Disk, Lock, LockError};
use crate::error::IoContext;
use crate::index::{Index, Mark, Trail};
use crate::journal::header::{HEADER_BYTES_U32, PackHeader};
use crate::journal::packs::Packs;
use crate::journal::record::{self, Header, KIND_SAVE};
use crate::journal::recover::{self, Recovered, damaged};
use crate::journal::save::{self, SaveId};
use crate::journal::tail::Tail;
use crate::journal::{Chain, Loc, Pos};
use crate::keys::KeyRing;
use crate::reserve::Reserve;
use crate::{Appender, Blobs, Error, Result, seal};

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
    /// What was done.
    pub report: RecoveryReport,
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
    let index = Arc::new(Index::open(&disk, dir, options.index_cache_bytes)?);
    let file = packs.create(&header)?;
    file.barrier().at("sync", &packs.path(1))?;
    disk.sync_dir(dir).at("sync", dir)?;
    let tail = Arc::new(Tail::new(end));
    let mark = Mark { end, ..Mark::default() };
    let trail = Trail::start(&index, &tail, Vec::new(), 0, mark, options.index_thread)?;
    let blobs = Arc::new(Blobs::new(keys, packs, tail, index, lock));
    let mut reserve = Reserve::new(&disk, dir, options.reserve_bytes);
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

/// Opens the store in `dir`: replays what the index does not know, cuts off a torn tail.
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
    open_with(&disk, dir, keys, options, None)
}

/// As [`open`]; with `forgive`, damage is noted there and passed over.
pub(crate) fn open_with(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    keys: KeyRing,
    options: Options,
    mut forgive: Option<&mut Vec<Damage>>,
) -> Result<Opened> {
    let packs = Packs::new(Arc::clone(disk), dir);
    let numbers = packs.list()?;
    if numbers.is_empty() {
        return Err(Error::NotAStore { dir: dir.to_owned() });
    }
    let lock = lock(&**disk, dir)?;
    let bucket = keys.tag();
    for &number in [numbers.first(), numbers.last()].into_iter().flatten() {
        match packs.header(number, Some(bucket)) {
            Err(Error::Damaged { .. }) if forgive.is_some() => (),
            other => drop(other?),
        }
    }
    let mut reserve = Reserve::new(disk, dir, options.reserve_bytes);
    let (index, mark) = match open_index(disk, dir, &packs, options.index_cache_bytes) {
        // Whoever opens a bucket on a full disk may be about to delete something.
        Err(Error::NoSpace { .. }) if reserve.release()? => {
            open_index(disk, dir, &packs, options.index_cache_bytes)?
        }
        other => other?,
    };
    let index = Arc::new(index);
    let mut hand_over = |entries: &mut Vec<_>, mark: &Mark| {
        index.commit(entries, &[], mark)?;
        entries.clear();
        Ok(())
    };
    let recovered = recover::recover(&packs, bucket, mark, &mut hand_over, forgive.as_deref_mut())?;
    measure(&packs)?;
    let saves = saves(&packs, &keys, &recovered, mark, forgive)?;
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
    Ok(Opened { appender, blobs, saves, report })
}

fn start(
    keys: KeyRing,
    options: Options,
    packs: Packs,
    lock: Lock,
    index: Arc<Index>,
    recovered: Recovered,
    mut reserve: Reserve,
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
        Ok((Some(mark), index)) if fits(packs, &mark)? => return Ok((index, Some(mark))),
        Ok((None, index)) if index.len().is_ok_and(|len| len == 0) => return Ok((index, None)),
        Ok(_) => log::warn!("the index does not fit the log and is made anew"),
        Err(err @ Error::NoSpace { .. }) => return Err(err),
        Err(err) => log::warn!("the index is damaged and is made anew err={err:?}"),
    }
    Index::remove(&**disk, dir)?;
    Ok((Index::open(disk, dir, cache_bytes)?, None))
}

/// Whether the mark leads to the end of an intact save record of its number. A mark beyond the
/// end of the log is believed: it is the log that lacks something then, which recovery says.
fn fits(packs: &Packs, mark: &Mark) -> Result<bool> {
    let Some(at) = mark.last_save else { return Ok(true) };
    let len = mark.end.offset.checked_sub(at.offset).filter(|_| at.pack == mark.end.pack);
    let Some(len) = len else { return Ok(false) };
    let file_len = match packs.file(at.pack) {
        Ok(file) => file.len().at("read", &packs.path(at.pack))?,
        Err(_gone) => return Ok(true),
    };
    if file_len < u64::from(mark.end.offset) {
        return Ok(true);
    }
    let bytes = packs.read(Loc { at, len })?;
    let save = Header::decode(&bytes).filter(|header| header.kind == KIND_SAVE);
    let seq = save.map(|header| SaveId::decode(&header.id).seq);
    Ok(seq == Some(mark.seq) && record::is_intact(&bytes))
}

/// The payloads since the last checkpoint: those that were replayed, and those before them.
fn saves(
    packs: &Packs,
    keys: &KeyRing,
    recovered: &Recovered,
    mark: Option<Mark>,
    mut forgive: Option<&mut Vec<Damage>>,
) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for &at in recovered.saves.iter().rev() {
        match (read_save(packs, keys, at), &mut forgive) {
            (Err(Error::Damaged { .. }), Some(noted)) => noted.push(damage(packs, at, None)),
            (save, _) => found.push(save?.payload),
        }
    }
    let mut next = mark.filter(|_| !recovered.checkpoint_seen).and_then(|mark| mark.last_save);
    while let Some(at) = next {
        let save = read_save(packs, keys, at)?;
        next = if save.checkpoint { None } else { save.previous };
        found.push(save.payload);
    }
    found.reverse();
    Ok(found)
}

/// The first pack that a save needs: its own, or that of its first part.
pub(crate) fn first_pack_of(packs: &Packs, keys: &KeyRing, at: Pos) -> Result<u32> {
    Ok(read_save(packs, keys, at)?.first_pack)
}

struct Save {
    first_pack: u32,
    payload: Vec<u8>,
    previous: Option<Pos>,
    checkpoint: bool,
}

fn read_save(packs: &Packs, keys: &KeyRing, at: Pos) -> Result<Save> {
    let bad = || damaged(packs, at, "a save record");
    let mut head = [0; record::HEADER_BYTES];
    packs.read_into(at, &mut head).map_err(|_short| bad())?;
    let header = Header::decode(&head).filter(|header| header.kind == KIND_SAVE).ok_or_else(bad)?;
    let open = |loc| {
        let mut bytes = packs.read(loc)?;
        seal::open(keys, &mut bytes)?.ok_or_else(bad)
    };
    let opened = open(Loc { at, len: crate::bytes::len32(header.record_len()) })?;
    let (parts, end) = save::decode_content(&opened.plain).ok_or_else(bad)?;
    let id = SaveId::decode(&header.id);
    let first_pack = parts.iter().map(|part| part.at.pack).fold(at.pack, u32::min);
    let mut payload = Vec::new();
    for (part, index) in parts.into_iter().zip(0..) {
        let piece = open(part)?;
        if piece.header.id != save::part_id(id.seq, index) {
            return Err(bad());
        }
        payload.extend_from_slice(&piece.plain);
    }
    payload.extend_from_slice(end);
    Ok(Save { first_pack, payload, previous: id.previous, checkpoint: header.flags.checkpoint })
}
