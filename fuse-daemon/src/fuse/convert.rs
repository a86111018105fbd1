//! Between the kernel's numbers and the words of `mount-core`.

use std::time::SystemTime;

use cairnfs_mount_core::{
    Attr, Caller, Fallocate, Fh, Ino, Kind, OpenFlags, RenameMode, SetXattr, Time, TimeOrNow,
    Whence,
};
use fuser::{FileAttr, FileHandle, FileType, INodeNo, RenameFlags, Request};
use rustix::fs::{FallocateFlags, OFlags, XattrFlags};

/// The permission bits of `st_mode`, with set-id and sticky.
pub(super) const MODE_BITS: u32 = 0o7777;

/// The kernel's number is ours: both call the root 1.
pub(super) fn ino(ino: INodeNo) -> Ino {
    Ino(ino.0)
}

pub(super) fn fh(fh: FileHandle) -> Fh {
    Fh(fh.0)
}

pub(super) fn caller(req: &Request) -> Caller {
    Caller { uid: req.uid(), gid: req.gid() }
}

/// What `stat` is to show.
pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.into(),
        mtime: attr.mtime.into(),
        ctime: attr.ctime.into(),
        crtime: attr.btime.into(),
        kind: file_type(attr.kind),
        perm: u16::try_from(attr.mode & MODE_BITS).expect("because 12 bits fit in 16"),
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        // The kernel's own 32-bit form, which mknod hands in as well.
        rdev: attr.rdev,
        blksize: 4096,
        flags: 0,
    }
}

/// Attributes of which only the number and the type count: of `.` and `..` in a listing, whose
/// others the kernel ignores, and of a name that is absent.
pub(super) fn bare_attr(ino: Ino, kind: Kind) -> FileAttr {
    let time = Time::default();
    file_attr(&Attr {
        ino,
        kind,
        mode: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
    })
}

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Dir => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// What `mknod` is to make by the type bits of its mode; nothing for those that have calls of
/// their own.
pub(super) fn node_kind(mode: u32) -> Option<Kind> {
    use rustix::fs::FileType as Type;
    match Type::from_raw_mode(mode) {
        Type::RegularFile => Some(Kind::File),
        Type::Fifo => Some(Kind::Fifo),
        Type::Socket => Some(Kind::Socket),
        Type::CharacterDevice => Some(Kind::CharDevice),
        Type::BlockDevice => Some(Kind::BlockDevice),
        Type::Directory | Type::Symlink | Type::Unknown => None,
    }
}

/// The access mode has been checked by the kernel; of the rest, what matters below.
pub(super) fn open_flags(flags: i32) -> OpenFlags {
    let flags = OFlags::from_bits_retain(flags.cast_unsigned());
    OpenFlags {
        // O_SYNC is O_DSYNC and one bit more.
        sync: flags.intersects(OFlags::SYNC | OFlags::DSYNC),
        truncate: flags.contains(OFlags::TRUNC),
        write: flags.intersects(OFlags::WRONLY | OFlags::RDWR),
        exclusive: flags.contains(OFlags::EXCL),
    }
}

/// Whether a write with `flags` goes to the end of the file.
pub(super) fn appends(flags: i32) -> bool {
    OFlags::from_bits_retain(flags.cast_unsigned()).contains(OFlags::APPEND)
}

pub(super) fn time_or_now(time: fuser::TimeOrNow) -> TimeOrNow {
    match time {
        fuser::TimeOrNow::Now => TimeOrNow::Now,
        fuser::TimeOrNow::SpecificTime(time) => TimeOrNow::At(received_time(time)),
    }
}

/// The time that the kernel sent, from what fuser 0.18 made of it.
///
/// For times before 1970 fuser takes the nanoseconds off instead of adding them: -1.2 s, sent as
/// -2 s and 800,000,000 ns, becomes -2.8 s. Both numbers are still in there.
fn received_time(time: SystemTime) -> Time {
    match SystemTime::UNIX_EPOCH.duration_since(time) {
        Ok(before) if !before.is_zero() => Time {
            seconds: 0_i64.checked_sub_unsigned(before.as_secs()).unwrap_or(i64::MIN),
            nanos: before.subsec_nanos(),
        },
        _ => time.into(),
    }
}

/// Nothing for combinations that make no sense or are not offered, whiteouts among them.
pub(super) fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    if flags.is_empty() {
        Some(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Some(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Some(RenameMode::Exchange)
    } else {
        None
    }
}

/// Nothing for modes that are not offered (collapse, insert, unshare).
pub(super) fn fallocate(mode: i32) -> Option<Fallocate> {
    let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
    let keep_size = mode.contains(FallocateFlags::KEEP_SIZE);
    let rest = mode - FallocateFlags::KEEP_SIZE;
    if rest.is_empty() {
        Some(Fallocate::Allocate { keep_size })
    } else if rest == FallocateFlags::ZERO_RANGE {
        Some(Fallocate::Zero { keep_size })
    } else if rest == FallocateFlags::PUNCH_HOLE && keep_size {
        Some(Fallocate::PunchHole)
    } else {
        None
    }
}

/// The kernel answers the other whences itself.
pub(super) fn whence(whence: i32) -> Option<Whence> {
    // SEEK_DATA and SEEK_HOLE of lseek(2).
    match whence {
        3 => Some(Whence::Data),
        4 => Some(Whence::Hole),
        _ => None,
    }
}

pub(super) fn set_xattr(flags: i32) -> Option<SetXattr> {
    let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
    if flags.is_empty() {
        Some(SetXattr::Any)
    } else if flags == XattrFlags::CREATE {
        Some(SetXattr::Create)
    } else if flags == XattrFlags::REPLACE {
        Some(SetXattr::Replace)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What fuser 0.18 hands over when the kernel sends `seconds` and `nanos`.
    fn as_fuser_does(seconds: i64, nanos: u32) -> SystemTime {
        let span = Duration::new(seconds.unsigned_abs(), nanos);
        if seconds >= 0 { SystemTime::UNIX_EPOCH + span } else { SystemTime::UNIX_EPOCH - span }
    }

    #[test]
    fn times_before_1970_arrive_as_they_were_sent() {
        for (seconds, nanos) in
            [(0, 0), (0, 1), (1, 999_999_999), (-1, 0), (-1, 1), (-2, 800_000_000), (1 << 40, 7)]
        {
            let received = received_time(as_fuser_does(seconds, nanos));
            assert_eq!(received, Time { seconds, nanos });
        }
    }

    #[test]
    fn o_dsync_waits_as_o_sync_does() {
        const O_DSYNC: i32 = 0o10_000;
        const O_SYNC: i32 = 0o4_010_000;
        assert!(open_flags(O_DSYNC).sync && open_flags(O_SYNC).sync && !open_flags(0).sync);
    }

    #[test]
    fn open_modes_and_flags_are_told_apart() {
        let bits = 0o2 | 0o2000 | 0o1000 | 0o200;
        let flags = open_flags(bits);
        assert!(flags.write && flags.truncate && flags.exclusive);
        assert!(appends(bits) && !appends(0o2));
        assert_eq!(open_flags(0), OpenFlags::default());
    }

    #[test]
    fn unknown_modes_of_fallocate_are_refused() {
        assert_eq!(fallocate(0), Some(Fallocate::Allocate { keep_size: false }));
        assert_eq!(fallocate(0x1), Some(Fallocate::Allocate { keep_size: true }));
        assert_eq!(fallocate(0x3), Some(Fallocate::PunchHole));
        assert_eq!(fallocate(0x11), Some(Fallocate::Zero { keep_size: true }));
        // A hole that would change the length, collapse, insert, unshare, and what is to come.
        for mode in [0x2, 0x8, 0x20, 0x40, 0x12, 0x80] {
            assert_eq!(fallocate(mode), None, "{mode:#x}");
        }
    }

    #[test]
    fn a_whiteout_is_no_rename() {
        assert_eq!(rename_mode(RenameFlags::empty()), Some(RenameMode::Replace));
        assert_eq!(rename_mode(RenameFlags::RENAME_EXCHANGE), Some(RenameMode::Exchange));
        assert_eq!(rename_mode(RenameFlags::RENAME_WHITEOUT), None);
        assert_eq!(rename_mode(RenameFlags::all()), None);
    }
}
