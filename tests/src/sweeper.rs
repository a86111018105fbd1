//! Cleaning up after tests that were ended from outside, and could not do it themselves.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
};

/// Where the tests of this process have their temporary directories, and who empties it after them.
static ROOM: LazyLock<(PathBuf, Child)> = LazyLock::new(|| {
    let room = tempfile::Builder::new().prefix("cairnfs-test-").tempdir().unwrap().keep();
    let room = room.canonicalize().unwrap();
    // In a process group of its own: what is sent to the tests and all their children spares it.
    let sweeper = Command::new("sh")
        .args(["-c", include_str!("sweep.sh"), "sweeper"])
        .arg(&room)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    (room, sweeper.expect("there is a shell"))
});

/// A directory that is gone soon after this process has ended, even by kill -9, with every mount in
/// it and every process of a `CAIRNFS_HOME` in it.
pub(crate) fn room() -> &'static Path {
    &ROOM.0
}
