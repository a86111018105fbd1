//! Small files that are written as a whole: keys, and what a bucket is called.
//!
//! The bytes go into a file of another name first, which then takes the name in one step.

use std::io;
use std::path::{Path, PathBuf};

use super::{Disk, Open};
use crate::Result;
use crate::error::IoContext;

/// Writes a file that must not exist yet; durable when this returns.
pub(crate) fn write_new_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    match disk.open(path, Open::Existing) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => replace_file(disk, path, bytes),
        Err(err) => Err(err).at("create", path),
        Ok(_file) => Err(io::Error::from(io::ErrorKind::AlreadyExists)).at("create", path),
    }
}

/// Writes a file of mode 0600 in the place of what has the name, whose owner it gets: afterwards,
/// and after a crash at any moment, there is the old content or the new. Durable when this returns.
///
/// A failure leaves nothing beside it. What a crash has left there, under the name with `.new` behind
/// it, the next call removes.
///
/// # Errors
///
/// [`Error::NoSpace`](crate::Error::NoSpace), [`Error::Io`](crate::Error::Io).
pub fn replace_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    // It may be one that others can read.
    remove_unfinished(disk, path)?;
    let fresh = unfinished(path);
    let replaced = write_like(disk, &fresh, path, bytes)
        .and_then(|()| disk.rename(&fresh, path).at("rename", &fresh));
    if let Err(err) = replaced {
        if let Err(left) = remove_unfinished(disk, path) {
            log::warn!("replace left-behind reason={left}");
        }
        return Err(err);
    }
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => disk.sync_dir(dir).at("sync", dir),
        _ => disk.sync_dir(Path::new(".")).at("sync", path),
    }
}

/// Removes what a crash in [`replace_file`] has left; says whether there was anything.
pub(crate) fn remove_unfinished(disk: &dyn Disk, path: &Path) -> Result<bool> {
    let fresh = unfinished(path);
    match disk.remove(&fresh) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed.at("remove", &fresh).map(|()| true),
    }
}

/// Writes `fresh`, for the owner of the file at `path`.
fn write_like(disk: &dyn Disk, fresh: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    let file = disk.open(fresh, Open::New).at("create", fresh)?;
    disk.give_to_owner_of(fresh, path).at("change the owner of", fresh)?;
    file.write_at(bytes, 0).at("write", fresh)?;
    file.barrier().at("sync", fresh)
}

/// The name of a file that is to take that of `path`.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;
    use crate::sim::{Call, Fault, SimDisk};

    const OLD: &[u8] = b"what was there";
    const NEW: &[u8] = b"what takes its place, and is longer";

    fn path() -> &'static Path {
        Path::new("/dir/file")
    }

    fn disk_with_old() -> SimDisk {
        let disk = SimDisk::new(1);
        disk.create_dir(Path::new("/dir")).unwrap();
        write_new_file(&disk, path(), OLD).unwrap();
        disk
    }

    #[test]
    fn after_a_power_cut_at_any_moment_there_is_the_old_file_or_the_new_one() {
        let (mut old, mut new) = (0, 0);
        for after_calls in 1.. {
            let disk = disk_with_old();
            disk.inject(Fault::PowerOff { after_calls });
            let replaced = replace_file(&disk, path(), NEW);
            for seed in 0..20 {
                let cut = disk.crash(seed);
                match cut.content(path()).as_deref() {
                    Some(OLD) if replaced.is_err() => old += 1,
                    Some(NEW) => new += 1,
                    found => panic!("{found:?} after {after_calls} calls, seed {seed}"),
                }
                remove_unfinished(&cut, path()).unwrap();
                assert_eq!(cut.files().len(), 1);
                replace_file(&cut, path(), NEW).unwrap();
                assert_eq!(cut.content(path()).as_deref(), Some(NEW));
            }
            if replaced.is_ok() {
                break;
            }
        }
        assert!(old > 20 && new > 20, "{old} times the old one, {new} times the new one");
    }

    #[test]
    fn a_call_that_fails_leaves_the_old_file_and_nothing_beside_it() {
        for call in [Call::Open, Call::Write, Call::Barrier, Call::Rename] {
            let disk = disk_with_old();
            disk.inject(Fault::Fail { call, nth: 1, kind: io::ErrorKind::StorageFull });
            let replaced = replace_file(&disk, path(), NEW);
            assert!(
                matches!(replaced, Err(crate::Error::NoSpace { .. })),
                "{call:?}: {replaced:?}"
            );
            assert_eq!(disk.files(), [(path().to_owned(), OLD.len() as u64)], "{call:?}");
            assert_eq!(disk.content(path()).as_deref(), Some(OLD), "{call:?}");
        }
    }

    #[test]
    fn nobody_reads_the_new_file_because_of_what_a_crash_has_left() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_new_file(&RealDisk, &path, OLD).unwrap();
        let left = unfinished(&path);
        std::fs::write(&left, "left").unwrap();
        std::fs::set_permissions(&left, PermissionsExt::from_mode(0o644)).unwrap();
        let somebody = std::fs::File::open(&left).unwrap();
        replace_file(&RealDisk, &path, NEW).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), NEW);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(io::read_to_string(somebody).unwrap(), "left");
    }
}
