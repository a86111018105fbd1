//! Unmounting: only what is still ours, and by whoever may.

use std::{
    io::{self, ErrorKind},
    process::{Command, Stdio},
};

use rustix::{io::Errno, mount::UnmountFlags};

use super::{
    UnmountError,
    mountinfo::{self, Entry},
};

/// What becomes of a mount that is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// It stays, and the call fails.
    Plain,
    /// Its name goes at once; what is open stays usable until it is closed.
    Lazy,
}

/// Takes `entry` out of the table of mounts, if it is there and nothing covers it.
///
/// The kernel may write back mapped pages meanwhile, so this must not be called by a thread that
/// answers it.
pub(super) fn unmount(entry: &Entry, mode: Mode) -> Result<(), UnmountError> {
    let dir = &entry.point;
    let io = |source: io::Error| UnmountError::Io { dir: dir.clone(), source };
    let entries = mountinfo::read().map_err(io)?;
    if !entries.contains(entry) {
        return Err(UnmountError::NotMounted(dir.clone()));
    }
    // The kernel goes by the path, and takes what is on top.
    if mountinfo::on_top(&entries, dir).as_ref() != Some(entry) {
        return Err(UnmountError::Covered(dir.clone()));
    }
    let flags = match mode {
        Mode::Plain => UnmountFlags::NOFOLLOW,
        Mode::Lazy => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
    };
    match rustix::mount::unmount(dir, flags) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(UnmountError::Busy(dir.clone())),
        // Gone meanwhile, or under a mount on a directory above, where the path leads elsewhere.
        Err(Errno::INVAL | Errno::NOENT) => Err(match entry.is_there() {
            Ok(true) => UnmountError::Covered(dir.clone()),
            _ => UnmountError::NotMounted(dir.clone()),
        }),
        // Only root may, so let the set-uid helper do it.
        Err(Errno::PERM) => through_fusermount(entry, mode),
        Err(err) => Err(io(err.into())),
    }
}

fn through_fusermount(entry: &Entry, mode: Mode) -> Result<(), UnmountError> {
    let dir = &entry.point;
    let io = |source: io::Error| UnmountError::Io { dir: dir.clone(), source };
    let output = Command::new("fusermount3")
        .args(match mode {
            Mode::Plain => ["-u", "--"].as_slice(),
            Mode::Lazy => ["-u", "-z", "--"].as_slice(),
        })
        .arg(dir)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output();
    let output = match output {
        Err(err) if err.kind() == ErrorKind::NotFound => {
            return Err(io(io::Error::new(err.kind(), "fusermount3 is not installed")));
        }
        other => other.map_err(io)?,
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(())
    } else if said.contains("busy") {
        Err(UnmountError::Busy(dir.clone()))
    } else {
        Err(io(io::Error::other(said.trim().to_owned())))
    }
}
