//! Which mounts are this home's. The kernel's table names a bucket only, and another home may have
//! one of that name: so the daemon notes each mount, for when it has died and cannot be asked.
//!
//! A note is an empty file, named by what is mounted and where. One that stays although nothing is
//! mounted there says nothing.

use std::{
    fs::{self, File},
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::{
    exit::{Failure, Result},
    home::Home,
};

/// Notes that the daemon of `home` has mounted `name` at `dir`. Need not last longer than the mount
/// can: a crash of the machine takes both.
pub(crate) fn add(home: &Home, name: &str, dir: &Path) -> Result<()> {
    let path = path(home, name, dir);
    let made = fs::create_dir_all(notes_dir(home)).and_then(|()| File::create(&path));
    made.map(drop).map_err(|err| Failure::file("write", &path, &err))
}

/// Nothing of `name` is mounted at `dir` any more.
pub(crate) fn remove(home: &Home, name: &str, dir: &Path) {
    let path = path(home, name, dir);
    match fs::remove_file(&path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            log::warn!("unnote reason={:?}", Failure::file("remove", &path, &err).message);
        }
        _ => (),
    }
}

/// Whether a daemon of `home` has mounted `name` at `dir`.
pub(crate) fn is_ours(home: &Home, name: &str, dir: &Path) -> bool {
    path(home, name, dir).exists()
}

fn path(home: &Home, name: &str, dir: &Path) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    // No name has a zero byte.
    hasher.update(name.as_bytes()).update(&[0]).update(dir.as_os_str().as_bytes());
    notes_dir(home).join(hasher.finalize().to_hex().as_str())
}

fn notes_dir(home: &Home) -> PathBuf {
    home.run_dir().join("mounts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_ours_from_its_note_on_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(dir.path())).unwrap();
        home.prepare().unwrap();
        let at = Path::new("/mnt");
        assert!(!is_ours(&home, "b", at));
        add(&home, "b", at).unwrap();
        add(&home, "b", at).unwrap();
        assert!(is_ours(&home, "b", at));
        assert!(!is_ours(&home, "b@1", at) && !is_ours(&home, "b", Path::new("/mnt/b")));
        remove(&home, "b", at);
        remove(&home, "b", at);
        assert!(!is_ours(&home, "b", at));
    }
}
