//! The calls of the kernel, one method each.
//!
//! One `impl` cannot be split, and signatures are most of it: whatever is more than unpacking is in
//! [`convert`], [`answer`] and [`xattr`].

use std::{
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use cairnfs_mount_core::{Error, Fh, FilePos, Ino, Mount, Result, SetAttr, Waited};
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};

use super::{
    answer, convert,
    negotiate::{self, TTL},
    notify::Unheard,
    set_id, xattr,
};
use crate::errno;

/// Links the kernel's calls to a [`Mount`].
#[derive(Debug)]
pub(super) struct Adapter {
    mount: Mount,
    unheard: Arc<Unheard>,
}

impl Adapter {
    /// Serves `mount`, of whose changes from outside the kernel hears through `unheard`.
    pub(super) fn new(mount: Mount, unheard: Arc<Unheard>) -> Self {
        Self { mount, unheard }
    }

    /// How long attributes are believed. Of a file that another one has replaced the kernel has two
    /// inodes, and what is changed by the number of the name changes the other too.
    fn ttl(&self, ino: Ino) -> Duration {
        if self.mount.is_replaced(ino) { Duration::ZERO } else { TTL }
    }

    /// How a file is opened. Pages stay valid from one open to the next (`keep`), unless the kernel is
    /// yet to be told what has changed. A handle that cannot write has nothing to flush, so closing it
    /// need not ask.
    fn handle_flags(keep: bool, write: bool) -> FopenFlags {
        let mut flags = FopenFlags::empty();
        flags.set(FopenFlags::FOPEN_KEEP_CACHE, keep);
        flags.set(FopenFlags::FOPEN_NOFLUSH, !write);
        flags
    }

    /// Answers a call that changes the tree: once there is memory for more, if it has changed it.
    fn answer_change<T: Send + 'static>(
        &self,
        result: Result<T>,
        answer: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        self.answer_attrs(result, |result, _| answer(result));
    }

    /// As [`Self::answer_change`], with attributes that may not be what they were any more when the
    /// answer is given: how long the kernel may believe them.
    fn answer_attrs<T: Send + 'static>(
        &self,
        result: Result<T>,
        answer: impl FnOnce(Result<T>, &Duration) + Send + 'static,
    ) {
        if result.is_err() {
            return answer(result, &TTL);
        }
        self.mount.answer_when_room(move |waited| match waited {
            Waited::No => answer(result, &TTL),
            Waited::ForRoom => answer(result, &Duration::ZERO),
        });
    }

    /// Clears the set-id bits of a file that is about to be written to.
    fn end_set_id(&self, ino: Ino, fh: Fh) -> Result<()> {
        if let Some(mode) = set_id::without(&self.mount.getattr(ino)?) {
            let changes = SetAttr { mode: Some(mode), ..SetAttr::default() };
            self.mount.setattr(ino, Some(fh), changes)?;
        }
        Ok(())
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate::agree(config)
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.mount.lookup(convert::ino(parent), name.as_bytes()) {
            Err(Error::NotFound) => answer::absent(reply),
            result => answer::entry("lookup", reply, result, &TTL),
        }
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.mount.forget(convert::ino(ino), count);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let result = self.mount.getattr(convert::ino(ino));
        answer::attr("getattr", reply, result, &self.ttl(convert::ino(ino)));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        // Comes with a writeback cache only.
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (caller, fh) = (convert::caller(req), fh.map(convert::fh));
        let mut changes = SetAttr {
            mode: mode.map(|mode| mode & convert::MODE_BITS),
            uid,
            gid,
            size,
            atime: atime.map(convert::time_or_now),
            mtime: mtime.map(convert::time_or_now),
        };
        if set_id::end_with(&changes, caller) {
            match self.mount.getattr(convert::ino(ino)) {
                Ok(attr) => changes.mode = set_id::without(&attr),
                Err(err) => return reply.error(errno::of("setattr", &err)),
            }
        }
        let result = self.mount.setattr(convert::ino(ino), fh, changes);
        let most = self.ttl(convert::ino(ino));
        self.answer_attrs(result, move |result, ttl| {
            answer::attr("setattr", reply, result, ttl.min(&most));
        });
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        answer::data("readlink", reply, self.mount.readlink(convert::ino(ino)));
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let Some(kind) = convert::node_kind(mode) else {
            return reply.error(Errno::EINVAL);
        };
        let (caller, parent) = (convert::caller(req), convert::ino(parent));
        let mode = mode & convert::MODE_BITS;
        let result = self.mount.mknod(caller, parent, name.as_bytes(), kind, mode, rdev);
        self.answer_attrs(result, move |result, ttl| answer::entry("mknod", reply, result, ttl));
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let (caller, parent) = (convert::caller(req), convert::ino(parent));
        let mode = mode & convert::MODE_BITS;
        let result = self.mount.mkdir(caller, parent, name.as_bytes(), mode);
        self.answer_attrs(result, move |result, ttl| answer::entry("mkdir", reply, result, ttl));
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let (caller, parent) = (convert::caller(req), convert::ino(parent));
        let target = target.as_os_str().as_bytes();
        let result = self.mount.symlink(caller, parent, name.as_bytes(), target);
        self.answer_attrs(result, move |result, ttl| answer::entry("symlink", reply, result, ttl));
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (caller, parent) = (convert::caller(req), convert::ino(parent));
        let (mode, flags) = (mode & convert::MODE_BITS, convert::open_flags(flags));
        let result = self.mount.create(caller, parent, name.as_bytes(), mode, flags);
        // Its attributes come with the handle, and so does its length.
        let keep = result.as_ref().is_ok_and(|(attr, _)| !self.unheard.is_behind(attr.ino));
        let how = Self::handle_flags(keep, flags.write);
        self.answer_attrs(result, move |result, ttl| answer::created(reply, result, how, ttl));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let result = self.mount.unlink(convert::ino(parent), name.as_bytes());
        self.answer_change(result, move |result| answer::empty("unlink", reply, result));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let result = self.mount.rmdir(convert::ino(parent), name.as_bytes());
        self.answer_change(result, move |result| answer::empty("rmdir", reply, result));
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
        let Some(mode) = convert::rename_mode(flags) else {
            return reply.error(Errno::EINVAL);
        };
        let (parent, new_parent) = (convert::ino(parent), convert::ino(new_parent));
        let (name, new_name) = (name.as_bytes(), new_name.as_bytes());
        let result = self.mount.rename(parent, name, new_parent, new_name, mode);
        self.answer_change(result, move |result| answer::empty("rename", reply, result));
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let (ino, new_parent) = (convert::ino(ino), convert::ino(new_parent));
        let result = self.mount.link(ino, new_parent, new_name.as_bytes());
        self.answer_attrs(result, move |result, ttl| answer::entry("link", reply, result, ttl));
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let flags = convert::open_flags(flags.0);
        let result = self.mount.open(convert::ino(ino), flags);
        // Asked once it is open: what merged before that has been heard of, what merges afterwards
        // leaves the number to what was opened.
        let keep = self.unheard.opened(convert::ino(ino));
        let mut how = Self::handle_flags(keep, flags.write);
        if self.mount.is_replaced(convert::ino(ino)) {
            // The kernel looked the name up, and then it was renamed over: past its pages and length.
            how = FopenFlags::FOPEN_DIRECT_IO;
        }
        answer::opened("open", reply, result, how);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        len: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let result = self.mount.read(convert::fh(fh), offset, len);
        answer::data("read", reply, result);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID)
            && let Err(err) = self.end_set_id(convert::ino(ino), convert::fh(fh))
        {
            return reply.error(errno::of("write", &err));
        }
        let (ino, fh) = (convert::ino(ino), convert::fh(fh));
        let cached = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let done = answer::written_later("write", reply);
        // Those of this write: `fcntl` changes O_APPEND of an open file.
        if convert::appends(flags.0) && !cached {
            self.mount.append(ino, fh, data, done);
        } else {
            self.mount.write(ino, fh, offset, data, cached, done);
        }
    }

    // The replies of the next three travel to the writer and are answered after the barrier, so
    // this thread is free while the disk works.
    fn flush(&self, _: &Request, ino: INodeNo, fh: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.mount.flush(convert::ino(ino), convert::fh(fh), answer::later("flush", reply));
    }

    /// Data and attributes are saved by the same record, so `fdatasync` is no less than `fsync`.
    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.mount.fsync(convert::fh(fh), answer::later("fsync", reply));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.mount.fsyncdir(convert::ino(ino), answer::later("fsyncdir", reply));
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        // Nobody waits for this answer, and what went wrong can be told to the log only. But
        // unanswered it holds one of the few places for reads ahead, so a slow barrier would stall
        // readers.
        self.mount.release(
            convert::ino(ino),
            convert::fh(fh),
            Box::new(|result| {
                if let Err(err) = result {
                    errno::log_unasked("release", &err);
                }
            }),
        );
        reply.ok();
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let Some(mode) = convert::fallocate(mode) else {
            return reply.error(Errno::EOPNOTSUPP);
        };
        let done = answer::later("fallocate", reply);
        self.mount.fallocate(convert::ino(ino), convert::fh(fh), mode, (offset, len), done);
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let Some(whence) = convert::whence(whence) else {
            return reply.error(Errno::EINVAL);
        };
        // Before the beginning of a file is nothing (lseek(2)).
        let Ok(offset) = u64::try_from(offset) else {
            return reply.error(Errno::ENXIO);
        };
        let result = self.mount.seek(convert::fh(fh), offset, whence);
        answer::offset(reply, result);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let from = FilePos { ino: convert::ino(ino_in), fh: convert::fh(fh_in), offset: offset_in };
        let to =
            FilePos { ino: convert::ino(ino_out), fh: convert::fh(fh_out), offset: offset_out };
        self.mount.copy_range(from, to, len, answer::written_later("copy_file_range", reply));
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let result = self.mount.opendir(convert::ino(ino));
        answer::opened("opendir", reply, result, FopenFlags::empty());
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let result =
            self.mount.readdir(convert::ino(ino), convert::fh(fh), offset, false, &mut |entry| {
                answer::add(&mut reply, &entry)
            });
        match result {
            Ok(()) => reply.ok(),
            Err(err) => reply.error(errno::of("readdir", &err)),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let (landings, mut is_empty) = (self.unheard.landings(), true);
        let result =
            self.mount.readdir(convert::ino(ino), convert::fh(fh), offset, true, &mut |entry| {
                // What was found before a merge is answered soon after, however slow the disk is.
                let is_over = !is_empty && self.unheard.landings() != landings;
                is_empty = false;
                !is_over && answer::add_plus(&mut reply, &entry)
            });
        match result {
            Ok(()) => reply.ok(),
            Err(err) => reply.error(errno::of("readdirplus", &err)),
        }
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.mount.releasedir(convert::fh(fh));
        reply.ok();
    }

    fn statfs(&self, _: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        answer::statfs(reply, self.mount.statfs());
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let name = name.as_bytes();
        if !xattr::is_kept(name) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let Some(mode) = convert::set_xattr(flags) else {
            return reply.error(Errno::EINVAL);
        };
        let result = self.mount.setxattr(convert::ino(ino), name, value, mode);
        self.answer_change(result, move |result| answer::empty("setxattr", reply, result));
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, room: u32, reply: ReplyXattr) {
        if !xattr::is_kept(name.as_bytes()) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let result = self.mount.getxattr(convert::ino(ino), name.as_bytes());
        answer::xattr("getxattr", reply, result, room);
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, room: u32, reply: ReplyXattr) {
        let result = self.mount.listxattr(convert::ino(ino));
        let visible = result.map(|list| xattr::visible(list, req.uid()));
        answer::xattr("listxattr", reply, visible, room);
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if !xattr::is_kept(name.as_bytes()) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let result = self.mount.removexattr(convert::ino(ino), name.as_bytes());
        self.answer_change(result, move |result| answer::empty("removexattr", reply, result));
    }

    /// Programs ask every file whether it is a terminal; fuser would log each time.
    fn ioctl(
        &self,
        _: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    /// Files are always ready, which the kernel answers itself once it has been told.
    fn poll(
        &self,
        _: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }
}
