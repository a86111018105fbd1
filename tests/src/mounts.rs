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
    let table = fs::read("/proc/self/mountinfo").unwrap();
    let mounts = table.split(|byte| *byte == b'\n').filter_map(parse);
    let mut found: Vec<_> = mounts.filter(|mount| mount.dir.starts_with(dir)).collect();
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

fn parse(line: &[u8]) -> Option<MountInfo> {
    let fields: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text = |nth: usize| fields.get(nth).map(|it| String::from_utf8_lossy(it).into_owned());
    let minor = text(2)?.split_once(':')?.1.parse().ok()?;
    let dir = unescape(fields.get(4)?);
    Some(MountInfo { dir, kind: text(dash + 1)?, source: text(dash + 2)?, minor })
}

/// Blanks, tabs, line ends and backslashes stand as three octal digits.
fn unescape(bytes: &[u8]) -> PathBuf {
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
