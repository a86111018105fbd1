//! From a result to the kernel's reply.
//!
//! `op` is the name of the call, for the log.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, time::Duration};

use cairnfs_mount_core::{Attr, DirEntry, Done, Fh, Ino, Kind, Result};
use fuser::{
    FileHandle, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr,
};

use super::{convert, negotiate::TTL};
use crate::errno;

/// Tells two uses of one inode number apart; ours are not used again.
const GENERATION: Generation = Generation(0);

pub(super) fn entry(op: &'static str, reply: ReplyEntry, result: Result<Attr>, ttl: &Duration) {
    match result {
        Ok(attr) => {
            reply.entry(ttl, &convert::file_attr(&attr), GENERATION);
        }
        Err(err) => reply.error(errno::of(op, &err)),
    }
}

/// The name is absent, and the kernel may remember that.
pub(super) fn absent(reply: ReplyEntry) {
    // An entry with the number 0 is how the protocol says so.
    reply.entry(&TTL, &convert::bare_attr(Ino(0), Kind::File), GENERATION);
}

pub(super) fn attr(op: &'static str, reply: ReplyAttr, result: Result<Attr>, ttl: &Duration) {
    match result {
        Ok(attr) => reply.attr(ttl, &convert::file_attr(&attr)),
        Err(err) => reply.error(errno::of(op, &err)),
    }
}

pub(super) fn empty(op: &'static str, reply: ReplyEmpty, result: Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(err) => reply.error(errno::of(op, &err)),
    }
}

/// Answers when the result is known, from the thread that learns it.
pub(super) fn later(op: &'static str, reply: ReplyEmpty) -> Done {
    Box::new(move |result| empty(op, reply, result))
}

/// As [`later`], for a call that tells how many bytes it took.
pub(super) fn written_later(op: &'static str, reply: ReplyWrite) -> Done<u32> {
    Box::new(move |result| match result {
        Ok(count) => reply.written(count),
        Err(err) => reply.error(errno::of(op, &err)),
    })
}

pub(super) fn data(op: &'static str, reply: ReplyData, result: Result<Vec<u8>>) {
    match result {
        Ok(bytes) => reply.data(&bytes),
        Err(err) => reply.error(errno::of(op, &err)),
    }
}

pub(super) fn opened(op: &'static str, reply: ReplyOpen, result: Result<Fh>, flags: FopenFlags) {
    match result {
        Ok(fh) => reply.opened(FileHandle(fh.0), flags),
        Err(err) => reply.error(errno::of(op, &err)),
    }
}

pub(super) fn created(
    reply: ReplyCreate,
    result: Result<(Attr, Fh)>,
    flags: FopenFlags,
    ttl: &Duration,
) {
    match result {
        Ok((attr, fh)) => {
            reply.created(ttl, &convert::file_attr(&attr), GENERATION, FileHandle(fh.0), flags);
        }
        Err(err) => reply.error(errno::of("create", &err)),
    }
}

pub(super) fn offset(reply: ReplyLseek, result: Result<u64>) {
    match result.map(i64::try_from) {
        Ok(Ok(offset)) => reply.offset(offset),
        Ok(Err(_)) => reply.error(fuser::Errno::EOVERFLOW),
        Err(err) => reply.error(errno::of("lseek", &err)),
    }
}

pub(super) fn statfs(reply: ReplyStatfs, result: Result<cairnfs_mount_core::StatFs>) {
    match result {
        Ok(stat) => {
            // Files are limited by space only; 0 free ones would look like a full disk.
            let files = stat.blocks_free;
            let (blocks, free) = (stat.blocks, stat.blocks_free);
            let name_bytes_max = 255;
            reply.statfs(
                blocks,
                free,
                free,
                files,
                files,
                stat.block_bytes,
                name_bytes_max,
                stat.block_bytes,
            );
        }
        Err(err) => reply.error(errno::of("statfs", &err)),
    }
}

/// The value if it fits `room` bytes; its length if `room` is 0.
pub(super) fn xattr(op: &'static str, reply: ReplyXattr, result: Result<Vec<u8>>, room: u32) {
    let value = match result {
        Ok(value) => value,
        Err(err) => return reply.error(errno::of(op, &err)),
    };
    match u32::try_from(value.len()) {
        Ok(len) if room == 0 => reply.size(len),
        Ok(len) if len <= room => reply.data(&value),
        _ => reply.error(fuser::Errno::ERANGE),
    }
}

/// Adds `entry` to a listing; says whether it fitted.
pub(super) fn add(reply: &mut ReplyDirectory, entry: &DirEntry) -> bool {
    let name = OsStr::from_bytes(&entry.name);
    !reply.add(INodeNo(entry.ino.0), entry.next, convert::file_type(entry.kind), name)
}

/// As [`add`], with the attributes: for the kernel that is a lookup of the name as well.
pub(super) fn add_plus(reply: &mut ReplyDirectoryPlus, entry: &DirEntry) -> bool {
    let (attr, ttl) = match &entry.attr {
        Some(attr) => (convert::file_attr(attr), TTL),
        // Of `.` and `..` the kernel looks up nothing. Of what is damaged it must ask again, so that
        // whoever looks at it hears of that.
        None => (convert::bare_attr(entry.ino, entry.kind), Duration::ZERO),
    };
    let name = OsStr::from_bytes(&entry.name);
    !reply.add(INodeNo(entry.ino.0), entry.next, name, &ttl, &attr, GENERATION)
}
