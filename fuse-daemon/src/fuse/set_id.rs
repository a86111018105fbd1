//! Set-id bits end with the owner or the content that they were given for.
//!
//! The kernel could see to it alone, but then asks for `security.capability` before every write: a
//! write of 4 KiB took 49 us instead of 15 us (a file system in memory, Linux 6.18). With
//! `FUSE_HANDLE_KILLPRIV_V2` it asks once and leaves the bits to us, and capabilities to itself.
//! How it says that they must go, as Linux 6.18 was seen to do:
//!
//! | call | request |
//! |---|---|
//! | write, fallocate, copy by one who may not keep them | an empty `setattr` first |
//! | the same, once more | a flag in the `write` |
//! | chown, also of nothing (-1, -1) | the `setattr`, whoever asks |
//! | truncate by one who may not keep them | a flag in the `setattr`, which fuser 0.18 drops |
//!
//! The answer to a `setattr` tells the kernel the new mode. The flag of a `write` alone would not:
//! the kernel would go on believing the old one, and run the changed program with it.

use cairnfs_mount_core::{Attr, Caller, Kind, SetAttr};

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o0010;

/// Whether `changes`, asked for by `caller`, end the set-id bits of a file.
///
/// Who may keep them on truncation is told by the user id, for want of the flag: root may.
pub(super) fn end_with(changes: &SetAttr, caller: Caller) -> bool {
    let SetAttr { mode, uid, gid, size, atime, mtime } = changes;
    let chown = uid.is_some() || gid.is_some();
    let truncate = size.is_some() && caller.uid != 0;
    let empty = size.is_none() && atime.is_none() && mtime.is_none();
    mode.is_none() && (chown || truncate || empty)
}

/// The mode of `attr` without them, if it is a file that has any.
///
/// Without execution by the group, set-gid is a mark for locking and stays, as in Linux.
pub(super) fn without(attr: &Attr) -> Option<u32> {
    let group = SET_GID | GROUP_EXECUTE;
    let gone = if attr.mode & group == group { SET_UID | SET_GID } else { SET_UID };
    (attr.kind == Kind::File && attr.mode & gone != 0).then_some(attr.mode & !gone)
}

#[cfg(test)]
mod tests {
    use cairnfs_mount_core::{Ino, Time, TimeOrNow};

    use super::*;

    const ROOT: Caller = Caller { uid: 0, gid: 0 };
    const USER: Caller = Caller { uid: 1000, gid: 1000 };

    fn attr(kind: Kind, mode: u32) -> Attr {
        let time = Time::default();
        Attr {
            ino: Ino(2),
            kind,
            mode,
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
        }
    }

    #[test]
    fn a_new_owner_ends_them_and_new_times_do_not() {
        let none = SetAttr::default();
        assert!(end_with(&SetAttr { uid: Some(1), ..none }, ROOT));
        assert!(end_with(&SetAttr { gid: Some(1), ..none }, USER));
        assert!(end_with(&none, ROOT));
        assert!(!end_with(&SetAttr { mtime: Some(TimeOrNow::Now), ..none }, USER));
        assert!(!end_with(&SetAttr { mode: Some(0o4755), ..none }, USER));
    }

    #[test]
    fn truncation_ends_them_unless_root_asks() {
        let cut = SetAttr { size: Some(0), ..SetAttr::default() };
        assert!(end_with(&cut, USER));
        assert!(!end_with(&cut, ROOT));
    }

    #[test]
    fn set_gid_without_group_execution_stays() {
        assert_eq!(without(&attr(Kind::File, 0o6755)), Some(0o755));
        assert_eq!(without(&attr(Kind::File, 0o6745)), Some(0o2745));
        assert_eq!(without(&attr(Kind::File, 0o2745)), None);
        assert_eq!(without(&attr(Kind::File, 0o755)), None);
        assert_eq!(without(&attr(Kind::Dir, 0o6775)), None);
    }
}
