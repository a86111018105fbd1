//! A disk whose power can be cut while a real file system of the kernel runs on it.
//!
//! ```text
//!   ext4 -- blocks, barriers --> loop device --> file `disk` in a FUSE mount --> Platter
//! ```
//!
//! The loop device hands each write of the file system on at once and turns its barriers into
//! `fsync`, so that the [`Platter`] sees what a disk would see. What no barrier covers may get lost
//! in a cut, as on a disk with a cache. Neither device-mapper nor a virtual machine is needed, and
//! the file system above does not notice: a cut takes a picture, and life goes on.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io::Read,
    path::Path,
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    time::{Duration, SystemTime},
};

use fuser::{
    BackgroundSession, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, WriteFlags,
};
use parking_lot::Mutex;

use crate::Rng;

const PAGE: usize = 4096;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// The name of the one file.
const NAME: &str = "disk";
const DISK: INodeNo = INodeNo(2);
const TTL: Duration = Duration::from_secs(3600);

/// The bytes of a disk. Copies share what they have in common.
#[derive(Clone, Debug, Default)]
pub struct Platter {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
}

impl Platter {
    /// The bytes of a file.
    #[must_use]
    pub fn of_file(path: &Path) -> Self {
        let mut file = File::open(path).unwrap();
        let len = file.metadata().unwrap().len();
        let mut platter = Self { len, pages: BTreeMap::new() };
        let mut page = [0; PAGE];
        for number in 0..len / u64::try_from(PAGE).unwrap() {
            file.read_exact(&mut page).unwrap();
            if page != [0; PAGE] {
                platter.pages.insert(number, Arc::new(page));
            }
        }
        platter
    }

    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let rest = usize::try_from(self.len.saturating_sub(offset)).unwrap();
        let mut out = vec![0; len.min(rest)];
        for (number, within, piece) in pieces(offset, &mut out) {
            if let Some(page) = self.pages.get(&number) {
                piece.copy_from_slice(&page[within..within + piece.len()]);
            }
        }
        out
    }

    fn write(&mut self, offset: u64, bytes: &mut [u8]) {
        for (number, within, piece) in pieces(offset, bytes) {
            let page = self.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within..within + piece.len()].copy_from_slice(piece);
        }
    }

    /// Takes over the pages of `other` that hold `len` bytes from `offset` on.
    fn share(&mut self, other: &Self, offset: u64, len: usize) {
        let page = u64::try_from(PAGE).unwrap();
        let end = (offset + u64::try_from(len).unwrap()).div_ceil(page);
        for (number, page) in other.pages.range(offset / page..end) {
            self.pages.insert(*number, Arc::clone(page));
        }
    }
}

/// Cuts `bytes`, which begin at `offset`, at the pages' ends.
fn pieces(offset: u64, bytes: &mut [u8]) -> impl Iterator<Item = (u64, usize, &mut [u8])> {
    let page = u64::try_from(PAGE).unwrap();
    let (mut at, mut rest) = (offset, bytes);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let within = usize::try_from(at % page).unwrap();
        let len = rest.len().min(PAGE - within);
        let (piece, tail) = std::mem::take(&mut rest).split_at_mut(len);
        rest = tail;
        let number = at / page;
        at += u64::try_from(piece.len()).unwrap();
        Some((number, within, piece))
    })
}

/// What a disk holds for good, and what it has only taken.
#[derive(Debug)]
struct Cached {
    now: Platter,
    durable: Platter,
    /// Written since the last barrier, in order.
    pending: Vec<(u64, Vec<u8>)>,
    barriers: u64,
    /// Writes that cuts have lost or torn.
    lost: u64,
    /// When to take the next picture.
    moment: Option<Moment>,
}

/// What is durable, and what was written since.
type Picture = (Platter, Vec<(u64, Vec<u8>)>);

#[derive(Debug)]
struct Moment {
    /// Whether only barriers count, when there is most to lose.
    barrier: bool,
    /// Writes or barriers that pass before.
    events: u64,
    taken: SyncSender<Picture>,
}

impl Cached {
    fn picture(&self) -> Picture {
        (self.durable.clone(), self.pending.clone())
    }

    /// Takes a picture if the moment has come.
    fn happens(&mut self, barrier: bool) {
        match &mut self.moment {
            Some(moment) if !barrier && moment.barrier => (),
            Some(moment) if moment.events > 0 => moment.events -= 1,
            Some(moment) => {
                let taken = moment.taken.clone();
                // Who asked may have given up waiting.
                drop(taken.try_send(self.picture()));
                self.moment = None;
            }
            None => (),
        }
    }
}

/// A disk in use.
#[derive(Debug)]
pub struct PowerDisk {
    shared: Arc<Mutex<Cached>>,
    _session: BackgroundSession,
}

impl PowerDisk {
    /// Shows `platter` as the file `disk` in the directory `dir`, until dropped.
    #[must_use]
    pub fn serve(platter: Platter, dir: &Path) -> Self {
        let shared = Arc::new(Mutex::new(Cached {
            now: platter.clone(),
            durable: platter,
            pending: Vec::new(),
            barriers: 0,
            lost: 0,
            moment: None,
        }));
        let served = Served(Arc::clone(&shared));
        let session = fuser::Session::new(served, dir, &fuser::Config::default())
            .and_then(fuser::Session::spawn)
            .unwrap_or_else(|err| panic!("cannot serve a disk at {}: {err}", dir.display()));
        Self { shared, _session: session }
    }

    /// What is left when the power goes about now: all that a barrier covers, and of the writes
    /// since any, whole or torn between sectors.
    ///
    /// The moment is that of some next write or barrier, before it has an effect, because between
    /// them there is little to lose.
    #[must_use]
    pub fn cut(&self, rng: &mut Rng) -> Platter {
        let (taken, picture) = sync_channel(1);
        let moment = Moment { barrier: rng.below(3) > 0, events: rng.below(30), taken };
        self.shared.lock().moment = Some(moment);
        let (mut left, pending) = match picture.recv_timeout(Duration::from_secs(2)) {
            Ok(picture) => picture,
            // A disk at rest.
            Err(_) => self.shared.lock().picture(),
        };
        let kind = rng.below(5);
        let first = rng.index(pending.len() + 1);
        let mut lost = 0;
        for (n, (offset, mut bytes)) in pending.into_iter().enumerate() {
            let arrives = match kind {
                0 => false,
                1 => true,
                2 => n < first,
                _ => rng.below(2) == 0,
            };
            if arrives {
                left.write(offset, &mut bytes);
                continue;
            }
            lost += 1;
            if kind == 4 {
                for (sector, bytes) in bytes.chunks_mut(SECTOR).enumerate() {
                    if rng.below(2) == 0 {
                        left.write(offset + u64::try_from(sector * SECTOR).unwrap(), bytes);
                    }
                }
            }
        }
        self.shared.lock().lost += lost;
        left
    }

    /// How many barriers there were, and how many writes cuts have lost.
    #[must_use]
    pub fn barriers_and_lost(&self) -> (u64, u64) {
        let cached = self.shared.lock();
        (cached.barriers, cached.lost)
    }
}

/// The file system with the one file.
struct Served(Arc<Mutex<Cached>>);

impl Served {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let disk = ino == DISK;
        let size = if disk { self.0.lock().now.len } else { 0 };
        let then = SystemTime::UNIX_EPOCH;
        FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: then,
            mtime: then,
            ctime: then,
            crtime: then,
            kind: if disk { FileType::RegularFile } else { FileType::Directory },
            perm: if disk { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&TTL, &self.attr(DISK), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Nothing may stay in the kernel between the loop device and here.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.data(&self.0.lock().now.read(offset, usize::try_from(size).unwrap()));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut bytes = data.to_vec();
        let mut cached = self.0.lock();
        cached.now.write(offset, &mut bytes);
        cached.pending.push((offset, bytes));
        cached.happens(false);
        drop(cached);
        reply.written(u32::try_from(data.len()).unwrap());
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut cached = self.0.lock();
        cached.happens(true);
        let Cached { now, durable, pending, barriers, .. } = &mut *cached;
        for (offset, bytes) in pending.drain(..) {
            durable.share(now, offset, bytes.len());
        }
        *barriers += 1;
        drop(cached);
        reply.ok();
    }
}
