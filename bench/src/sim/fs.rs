//! A simulated disk as a file system: names, and the calls that the store makes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use cairnfs_store::{
    disk::{Disk, DiskFile, Open},
    sim::SimDisk,
};
use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

use super::image::ROOT;

/// How long the kernel may believe what it was told: nobody else changes anything.
const TTL: Duration = Duration::from_secs(60);
const BLOCK_BYTES: u32 = 4096;
/// As large as the disk claims to be: 1 TiB, so that packs have their usual size.
const BLOCKS: u64 = 1 << 28;

/// Links the kernel's calls to a [`SimDisk`]. Directories are those that were there at the
/// beginning: the store makes none later.
#[derive(Debug)]
pub(super) struct SimFs {
    disk: SimDisk,
    names: Mutex<Names>,
}

#[derive(Debug, Default)]
struct Names {
    numbers: BTreeMap<PathBuf, u64>,
    nodes: BTreeMap<u64, Node>,
    last: u64,
}

#[derive(Clone, Debug)]
enum Node {
    Dir(PathBuf),
    /// Kept by the disk even without a name.
    File(Arc<dyn DiskFile>),
}

impl Names {
    fn add(&mut self, path: PathBuf, node: Node) -> u64 {
        self.last += 1;
        self.numbers.insert(path, self.last);
        self.nodes.insert(self.last, node);
        self.last
    }

    fn path(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        match self.nodes.get(&parent.0) {
            Some(Node::Dir(dir)) => Ok(dir.join(name)),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl SimFs {
    pub(super) fn new(disk: SimDisk, dirs: BTreeSet<PathBuf>) -> Result<Self> {
        let mut names = Names::default();
        // The root comes first, which gives it the number that it must have.
        for dir in dirs {
            names.add(dir.clone(), Node::Dir(dir));
        }
        for (path, _) in disk.files() {
            let file = disk.open(&path, Open::Existing)?;
            names.add(path, Node::File(file));
        }
        let root = names.numbers.get(Path::new(ROOT)).copied();
        root.filter(|root| *root == INodeNo::ROOT.0).context("a root")?;
        Ok(Self { disk, names: Mutex::new(names) })
    }

    fn node(&self, ino: INodeNo) -> io::Result<Node> {
        self.names.lock().nodes.get(&ino.0).cloned().ok_or(io::ErrorKind::NotFound.into())
    }

    fn file(&self, ino: INodeNo) -> io::Result<Arc<dyn DiskFile>> {
        match self.node(ino)? {
            Node::File(file) => Ok(file),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn attr(&self, ino: INodeNo) -> io::Result<FileAttr> {
        let (kind, perm, size) = match self.node(ino)? {
            Node::Dir(_) => (FileType::Directory, 0o700, 0),
            Node::File(file) => (FileType::RegularFile, 0o600, file.len()?),
        };
        let time = SystemTime::UNIX_EPOCH;
        Ok(FileAttr {
            ino,
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: 1,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        })
    }

    fn find(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let number = {
            let names = self.names.lock();
            names.numbers.get(&names.path(parent, name)?).copied()
        };
        self.attr(INodeNo(number.ok_or(io::ErrorKind::NotFound)?))
    }

    fn make(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let number = {
            let mut names = self.names.lock();
            let path = names.path(parent, name)?;
            let file = self.disk.open(&path, Open::New)?;
            names.add(path, Node::File(file))
        };
        self.attr(INodeNo(number))
    }

    fn remove(&self, parent: INodeNo, name: &OsStr) -> io::Result<()> {
        let mut names = self.names.lock();
        let path = names.path(parent, name)?;
        self.disk.remove(&path)?;
        // The node stays for whoever has it open.
        names.numbers.remove(&path);
        Ok(())
    }

    fn name_anew(&self, from: (INodeNo, &OsStr), to: (INodeNo, &OsStr)) -> io::Result<()> {
        let mut names = self.names.lock();
        let (from, to) = (names.path(from.0, from.1)?, names.path(to.0, to.1)?);
        self.disk.rename(&from, &to)?;
        if let Some(number) = names.numbers.remove(&from) {
            names.numbers.insert(to, number);
        }
        Ok(())
    }

    fn read_up_to(&self, ino: INodeNo, offset: u64, size: u32) -> io::Result<Vec<u8>> {
        let file = self.file(ino)?;
        let len = file.len()?.saturating_sub(offset).min(u64::from(size));
        let mut data = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        file.read_at(&mut data, offset)?;
        Ok(data)
    }

    fn list(&self, ino: INodeNo) -> io::Result<Vec<(u64, FileType, PathBuf)>> {
        let Node::Dir(dir) = self.node(ino)? else {
            return Err(io::ErrorKind::NotADirectory.into());
        };
        let names = self.names.lock();
        let inside = names.numbers.iter().filter(|(path, _)| path.parent() == Some(&dir));
        Ok(inside
            .map(|(path, number)| {
                let kind = match names.nodes.get(number) {
                    Some(Node::Dir(_)) => FileType::Directory,
                    _ => FileType::RegularFile,
                };
                (*number, kind, path.file_name().map(PathBuf::from).unwrap_or_default())
            })
            .collect())
    }
}

impl Filesystem for SimFs {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(parent, name) {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(err) => reply.error(errno(&err)),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(ino) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(err) => reply.error(errno(&err)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let cut = size.map_or(Ok(()), |size| self.file(ino)?.set_len(size));
        match cut.and_then(|()| self.attr(ino)) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(err) => reply.error(errno(&err)),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.make(parent, name) {
            Ok(attr) => {
                reply.created(&TTL, &attr, Generation(0), FileHandle(0), FopenFlags::empty());
            }
            Err(err) => reply.error(errno(&err)),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.remove(parent, name));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        answer(reply, self.name_anew((parent, name), (new_parent, new_name)));
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.read_up_to(ino, offset, size) {
            Ok(data) => reply.data(&data),
            Err(err) => reply.error(errno(&err)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.file(ino).and_then(|file| file.write_at(data, offset)) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(err) => reply.error(errno(&err)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, self.file(ino).and_then(|file| file.barrier()));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(
            reply,
            self.node(ino).and_then(|node| match node {
                Node::Dir(dir) => self.disk.sync_dir(&dir),
                Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
            }),
        );
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let entries = match self.list(ino) {
            Ok(entries) => entries,
            Err(err) => return reply.error(errno(&err)),
        };
        for ((number, kind, name), next) in entries.into_iter().zip(1..) {
            if next > offset && reply.add(INodeNo(number), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, 1 << 20, 1 << 20, BLOCK_BYTES, 255, BLOCK_BYTES);
    }
}

/// The disk's errors are kinds without a number, and a number is what the kernel takes.
fn errno(err: &io::Error) -> Errno {
    match err.kind() {
        io::ErrorKind::NotFound => Errno::ENOENT,
        io::ErrorKind::AlreadyExists => Errno::EEXIST,
        io::ErrorKind::IsADirectory => Errno::EISDIR,
        io::ErrorKind::NotADirectory => Errno::ENOTDIR,
        io::ErrorKind::StorageFull => Errno::ENOSPC,
        _ => Errno::EIO,
    }
}

fn answer(reply: ReplyEmpty, result: io::Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(err) => reply.error(errno(&err)),
    }
}
