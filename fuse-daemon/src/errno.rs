//! The one table from what went wrong to the errno that a program sees.

use cairnfs_mount_core::Error;
use fuser::Errno;

/// The errno of `err`, which came of the call `op`.
///
/// What no program could have asked for is logged as a warning: with numbers and ids, never with
/// names or keys.
pub(crate) fn of(op: &'static str, err: &Error) -> Errno {
    log_unasked(op, err);
    errno(err)
}

/// Logs an error as [`of`] does, where no program is told.
pub(crate) fn log_unasked(op: &'static str, err: &Error) {
    if is_unasked(err) {
        log::warn!("{op} errno={} reason={err}", errno(err).code());
    }
}

fn errno(err: &Error) -> Errno {
    match err {
        Error::NotFound => Errno::ENOENT,
        // The kernel looks the path up again before it tells anybody.
        Error::Stale => Errno::ESTALE,
        Error::Exists => Errno::EEXIST,
        Error::NotDir => Errno::ENOTDIR,
        Error::IsDir => Errno::EISDIR,
        Error::NotEmpty => Errno::ENOTEMPTY,
        Error::Invalid(_) => Errno::EINVAL,
        Error::NameTooLong => Errno::ENAMETOOLONG,
        Error::TooLarge => Errno::EFBIG,
        Error::TooManyLinks => Errno::EMLINK,
        Error::NoSuchOffset => Errno::ENXIO,
        Error::NoXattr => Errno::NO_XATTR,
        // E2BIG is the kernel's own answer beyond 64 KiB; setxattr(2) has ERANGE for a bound that
        // the file system sets.
        Error::XattrTooLarge => Errno::ERANGE,
        Error::NotPermitted => Errno::EPERM,
        // Never ENOSYS: the kernel takes that for the whole call and does not ask again while the
        // mount lasts.
        Error::NotSupported(_) => Errno::EOPNOTSUPP,
        Error::BadHandle => Errno::EBADF,
        Error::ReadOnly { .. } => Errno::EROFS,
        // Not EDQUOT, though the disk may lie on a quota: the remedy is the same, and programs
        // know what to say of ENOSPC.
        Error::NoSpace => Errno::ENOSPC,
        Error::Damaged { .. }
        | Error::LogDamaged { .. }
        | Error::KeyFileDamaged
        | Error::Io(_)
        | Error::Unstorable(_)
        | Error::Random => Errno::EIO,
        // The bytes of the caller may be among those that were lost. EROFS would tell it only that
        // nothing more can be written, and callers of fsync look for EIO.
        Error::Poisoned => Errno::EIO,
        // What the kernel itself answers for a mount whose daemon is gone.
        Error::Stopped => Errno::ENOTCONN,
        // Of opening a bucket or merging into it; no call of a mount ends in these.
        Error::ClockExhausted
        | Error::Rejected { .. }
        | Error::PutBack
        | Error::WrittenTwice
        | Error::MissingSecret { .. }
        | Error::Locked { .. }
        | Error::NoBucket(_)
        | Error::NoKeyFile(_)
        | Error::WrongKeyFile { .. }
        | Error::NoPacks(_)
        | Error::WrongPassphrase
        | Error::KeyFileReplaced
        | Error::NeedsPassphrase
        | Error::Busy
        | Error::Changed
        | Error::Newer { .. } => Errno::EIO,
    }
}

fn is_unasked(err: &Error) -> bool {
    err.is_damage()
        || matches!(
            err,
            Error::Io(_) | Error::Poisoned | Error::Unstorable(_) | Error::Random | Error::NoSpace
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_asked_for_is_not_a_warning() {
        for err in [Error::NotFound, Error::Exists, Error::NoXattr, Error::NotEmpty] {
            assert!(!is_unasked(&err), "{err}");
        }
        assert!(is_unasked(&Error::NoSpace));
        assert!(is_unasked(&Error::Damaged { what: "blob".to_owned() }));
    }

    #[test]
    fn nothing_is_answered_enosys() {
        // The kernel would never ask for that call again.
        for err in [Error::NotSupported("x"), Error::Stopped, Error::Invalid("x")] {
            assert_ne!(errno(&err), Errno::ENOSYS, "{err}");
        }
    }

    #[test]
    fn a_lost_write_is_eio_and_a_full_disk_enospc() {
        assert_eq!(errno(&Error::Poisoned), Errno::EIO);
        assert_eq!(errno(&Error::Io(String::new())), Errno::EIO);
        assert_eq!(errno(&Error::NoSpace), Errno::ENOSPC);
        assert_eq!(errno(&Error::ReadOnly { reason: "x" }), Errno::EROFS);
        assert_eq!(errno(&Error::NoSuchOffset), Errno::ENXIO);
    }
}
