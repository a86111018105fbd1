//! The mount point: is it fit to be mounted on, and if not, what is it?

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use super::{MountError, detach, mountinfo};

/// Makes sure that `dir` is an empty directory that no FUSE file system covers, and returns it
/// without symlinks. What a cairnfs daemon that died has left there is taken away first.
///
/// Other file systems may be mounted on it: in a container the mount point is often a volume.
///
/// Blocks as long as a file system that is already mounted there takes to answer.
pub(super) fn prepare(dir: &Path) -> Result<PathBuf, MountError> {
    let dir = real_path(dir).map_err(|err| unfit(dir, err))?;
    // Dead mounts can lie on top of each other.
    while let Err(err) = list(&dir) {
        if !is_dead(&err) {
            return Err(unfit(&dir, err));
        }
        take_away(&dir)?;
    }
    if let Some(entry) = top(&dir)?
        && entry.is_fuse()
    {
        return Err(MountError::AlreadyMounted(dir));
    }
    match list(&dir) {
        Ok(0) => Ok(dir),
        Ok(_) => Err(MountError::NotEmpty(dir)),
        Err(err) => Err(unfit(&dir, err)),
    }
}

/// Resolves symlinks, also where `dir` itself is a dead mount and cannot be looked at.
fn real_path(dir: &Path) -> io::Result<PathBuf> {
    match (fs::canonicalize(dir), dir.parent(), dir.file_name()) {
        (Err(err), Some(parent), Some(name)) if is_dead(&err) => {
            Ok(fs::canonicalize(parent)?.join(name))
        }
        (result, ..) => result,
    }
}

/// 0 for an empty directory, 1 for one that is not.
///
/// Reads the directory: attributes may still be cached when nobody answers any more.
fn list(dir: &Path) -> io::Result<usize> {
    match fs::read_dir(dir)?.next() {
        None => Ok(0),
        Some(entry) => entry.map(|_| 1),
    }
}

/// Whether this is the answer of a FUSE mount without its daemon.
fn is_dead(err: &io::Error) -> bool {
    let errno = Errno::from_io_error(err);
    matches!(errno, Some(Errno::NOTCONN | Errno::CONNABORTED | Errno::CONNREFUSED))
}

/// Detaches the dead mount at `dir` if it was one of ours.
fn take_away(dir: &Path) -> Result<(), MountError> {
    let Some(entry) = top(dir)? else {
        // Somebody else took it away meanwhile.
        return Ok(());
    };
    if !entry.is_cairnfs() {
        return Err(MountError::Stale(dir.to_owned()));
    }
    log::info!("detach dead_mount={}", entry.id);
    detach::unmount(&entry, detach::Mode::Lazy).map_err(|err| {
        let source = io::Error::other(err);
        MountError::Io { doing: "take away the dead mount at", dir: dir.to_owned(), source }
    })
}

fn top(dir: &Path) -> Result<Option<mountinfo::Entry>, MountError> {
    let entries = mountinfo::read().map_err(|source| {
        let doing = "read /proc/self/mountinfo for";
        MountError::Io { doing, dir: dir.to_owned(), source }
    })?;
    Ok(mountinfo::on_top(&entries, dir))
}

fn unfit(dir: &Path, source: io::Error) -> MountError {
    let dir = dir.to_owned();
    match source.kind() {
        ErrorKind::NotFound => MountError::MissingDir(dir),
        ErrorKind::NotADirectory => MountError::NotADir(dir),
        _ => MountError::Io { doing: "mount on", dir, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_directory_is_fit() {
        let temp = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(temp.path()).unwrap();
        assert_eq!(prepare(&dir).unwrap(), dir);

        let file = dir.join("file");
        fs::write(&file, b"x").unwrap();
        assert!(matches!(prepare(&dir), Err(MountError::NotEmpty(_))));
        assert!(matches!(prepare(&file), Err(MountError::NotADir(_))));
        assert!(matches!(prepare(&dir.join("none")), Err(MountError::MissingDir(_))));
    }

    #[test]
    fn a_link_to_a_directory_stands_for_it() {
        let temp = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(temp.path()).unwrap();
        fs::create_dir(dir.join("real")).unwrap();
        std::os::unix::fs::symlink("real", dir.join("link")).unwrap();
        assert_eq!(prepare(&dir.join("link")).unwrap(), dir.join("real"));
    }
}
