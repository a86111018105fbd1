//! Can this machine, and this user, mount anything?

use std::{
    env, fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::Finding;
use crate::exit::{Code, plain};

const DEVICE: &str = "/dev/fuse";

/// The device that a daemon serves its mounts through.
pub(super) fn device() -> Finding {
    match fs::OpenOptions::new().read(true).write(true).open(DEVICE) {
        Ok(_) => Finding::good("FUSE device: can be opened"),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Finding::bad(
            Code::NoFuse,
            format_args!("FUSE device: there is no {DEVICE}"),
            "load the module with 'modprobe fuse'; in a container, start it with --device \
             /dev/fuse --cap-add SYS_ADMIN",
        ),
        // The helper opens it with the rights of whoever called it.
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => Finding::bad(
            Code::NoFuse,
            format_args!("FUSE device: {DEVICE} is not open to this user"),
            "as root: chmod 666 /dev/fuse, as it is on most systems",
        ),
        Err(err) => Finding::bad(
            Code::NoFuse,
            format_args!("FUSE device: cannot open {DEVICE}: {}", plain(&err)),
            "load the module with 'modprobe fuse'",
        ),
    }
}

/// The program that mounts for users who may not.
pub(super) fn helper() -> Finding {
    let root = rustix::process::geteuid().is_root();
    match find("fusermount3") {
        Some(path) if root || is_set_uid(&path) => {
            Finding::good(format_args!("fusermount3: {}", path.display()))
        }
        Some(path) => Finding::bad(
            Code::NoFuse,
            format_args!("fusermount3: {} is not set-uid root", path.display()),
            "install the package fuse3 again, or 'chmod u+s' it as root",
        ),
        None if root => Finding::doubtful(
            "fusermount3: not installed; root can mount without it",
            "other users need it: apt install fuse3",
        ),
        None => Finding::bad(
            Code::NoFuse,
            "fusermount3: not installed",
            "apt install fuse3 (or your system's package of that name)",
        ),
    }
}

/// `--allow-other` of users who are not root.
pub(super) fn other_users() -> Finding {
    let config = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    let allowed = config.lines().any(|line| line.trim() == "user_allow_other");
    if allowed || rustix::process::geteuid().is_root() {
        Finding::good("--allow-other: possible")
    } else {
        Finding::doubtful(
            "--allow-other: not allowed to this user; all else works without it",
            "as root, write the line 'user_allow_other' into /etc/fuse.conf",
        )
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}

fn is_set_uid(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o4000 != 0)
}
