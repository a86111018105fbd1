//! The kernel's table of mounts, `/proc/self/mountinfo`.
//!
//! A mount is told from a later one at the same path by all that the table says of it: the kernel
//! gives the lowest free mount id and device number, so each alone comes back soon.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// One mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// Mount id, unique among the mounts of the moment.
    pub(super) id: u64,
    /// `major:minor` of the superblock.
    pub(super) device: String,
    /// Where it is mounted.
    pub(super) point: PathBuf,
    /// The file system's type with its subtype, such as `fuse.cairnfs`.
    pub(super) fs_type: String,
    /// What is mounted, such as `cairnfs:NAME`.
    pub(super) source: OsString,
}

impl Entry {
    /// Whether it is a FUSE mount, of whatever program.
    pub(super) fn is_fuse(&self) -> bool {
        self.fs_type == "fuse" || self.fs_type == "fuseblk" || self.fs_type.starts_with("fuse.")
    }

    /// Whether a cairnfs daemon made it, this one or an earlier one.
    pub(super) fn is_cairnfs(&self) -> bool {
        self.is_fuse() && self.source.as_bytes().starts_with(super::SOURCE.as_bytes())
    }

    /// Whether the table still lists this very mount.
    pub(super) fn is_there(&self) -> io::Result<bool> {
        Ok(read()?.contains(self))
    }
}

/// All mounts in the order of the table: what covers a mount comes after it.
pub(super) fn read() -> io::Result<Vec<Entry>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// The mount that is seen at `dir`, if `dir` is a mount point.
pub(super) fn on_top(entries: &[Entry], dir: &Path) -> Option<Entry> {
    entries.iter().rfind(|entry| entry.point == dir).cloned()
}

/// Lines that are not understood are left out.
fn parse(table: &[u8]) -> Vec<Entry> {
    table.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /point rw,noatime shared:1 - ext3 /dev/root rw`, with any number of fields
/// before the dash (`proc_pid_mountinfo(5)`).
fn parse_line(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = text(fields.next()?)?.parse().ok()?;
    let device = text(fields.nth(1)?)?.to_owned();
    let point = PathBuf::from(unescape(fields.nth(1)?));
    let mut fields = fields.skip_while(|&field| field != b"-").skip(1);
    let fs_type = text(fields.next()?)?.to_owned();
    let source = unescape(fields.next()?);
    Some(Entry { id, device, point, fs_type, source })
}

fn text(field: &[u8]) -> Option<&str> {
    OsStr::from_bytes(field).to_str()
}

/// Undoes `\040` and the like, which the kernel writes for space, tab, newline, `\` and `#`.
pub(crate) fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        match (byte, octal(after)) {
            (b'\\', Some(escaped)) => {
                plain.push(escaped);
                rest = &after[3..];
            }
            _ => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(plain)
}

/// The byte that three octal digits at the beginning of `digits` stand for.
fn octal(digits: &[u8]) -> Option<u8> {
    let digits = digits.get(..3)?;
    if !digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
        return None;
    }
    u8::from_str_radix(text(digits)?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
        22 27 0:21 / /proc rw,relatime - proc proc rw\n\
        36 27 98:0 /mnt1 /mnt\\0402/a\\134b rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=x\n\
        40 36 0:45 / /mnt\\0402/a\\134b rw - fuse.cairnfs cairnfs:a\\043b rw,user_id=0\n\
        nonsense\n\
        41 36 0:46 / /unfinished rw -\n";

    #[test]
    fn escapes_and_optional_fields_are_understood() {
        let entries = parse(TABLE);
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[1].point, Path::new("/mnt 2/a\\b"));
        assert_eq!(entries[1].source, "/dev/root");
        assert_eq!(entries[2].source, "cairnfs:a#b");
        assert!(entries[2].is_cairnfs() && !entries[1].is_fuse());
    }

    #[test]
    fn the_mount_on_top_is_the_last_one() {
        let entries = parse(TABLE);
        assert_eq!(on_top(&entries, Path::new("/mnt 2/a\\b")).unwrap().id, 40);
        assert_eq!(on_top(&entries, Path::new("/mnt 2")), None);
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(unescape(b"a\\04"), "a\\04");
        assert_eq!(unescape(b"a\\049"), "a\\049");
        assert_eq!(unescape(b"a\\777"), "a\\777");
        assert_eq!(unescape(b"\\040\\040"), "  ");
    }
}
