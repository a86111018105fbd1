//! What is mounted where, told by the kernel without touching the mounts.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::run::run;

/// A line of `/proc/self/mountinfo`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountInfo {
    /// The mount point.
    pub dir: PathBuf,
    /// The type, `fuse.cairnfs` or `fuse` for ours.
    pub kind: String,
    /// What is mounted, as the type understands it.
    pub source: String,
    /// The minor number of its device: the id of a FUSE connection.
    pub minor: u32,
}

/// Everything mounted at or below `dir`, the last mounted first.
#[must_use]
pub fn below(dir: &Path) -> Vec<MountInfo> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut found: Vec<_> =
        table.lines().filter_map(parse).filter(|mount| mount.dir.starts_with(dir)).collect();
    found.reverse();
    found
}

/// Whether something is mounted at exactly `dir`.
#[must_use]
pub fn is_mounted(dir: &Path) -> bool {
    below(dir).iter().any(|mount| mount.dir == dir)
}

/// Whether a loop device shows `file`.
#[must_use]
pub fn is_behind_a_loop(file: &Path) -> bool {
    let devices = fs::read_dir("/sys/block").unwrap().flatten();
    devices.map(|device| device.path().join("loop/backing_file")).any(|backing| {
        // A device that nobody uses has no such file.
        fs::read(backing).is_ok_and(|name| name.trim_ascii_end() == file.as_os_str().as_bytes())
    })
}

/// Takes everything at or below `dir` off the tree, busy or dead.
pub fn detach_all(dir: &Path) {
    for mount in below(dir) {
        if rustix::mount::unmount(&mount.dir, rustix::mount::UnmountFlags::DETACH).is_err() {
            let mut command = Command::new("fusermount3");
            command.args(["-u", "-z"]).arg(&mount.dir);
            let outcome = run(&mut command, Duration::from_secs(10));
            if outcome.code != Some(0) {
                eprintln!("cannot detach {}: {outcome}", mount.dir.display());
            }
        }
    }
}

fn parse(line: &str) -> Option<MountInfo> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let minor = left.nth(2)?.split_once(':')?.1.parse().ok()?;
    let dir = unescape(left.nth(1)?);
    let mut right = right.split(' ');
    let (kind, source) = (right.next()?.to_owned(), right.next()?.to_owned());
    Some(MountInfo { dir, kind, source, minor })
}

/// Blanks, tabs, line ends and backslashes stand as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\').then(|| tail.get(..3)).flatten();
        let code = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}
