//! Mount points from a verb's side: what a path means, and what a daemon that died left behind.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crossbeam_channel::bounded;
use rustix::{io::Errno, mount::UnmountFlags};

use crate::{
    exit::{Code, Failure, Result, plain},
    fuse::{SOURCE, unescape},
    home::Home,
    noted,
    tell::tell,
};

/// How long a mount may take to say that it is dead, which the kernel says for it at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// A cairnfs mount in the kernel's table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Listed {
    /// Where.
    pub(crate) dir: PathBuf,
    /// The bucket.
    pub(crate) bucket: String,
    /// The version, if it is an older one.
    pub(crate) version: Option<String>,
}

impl Listed {
    /// What is mounted: the bucket, with `@` and the id for a version.
    pub(crate) fn name(&self) -> String {
        match &self.version {
            Some(version) => format!("{}@{version}", self.bucket),
            None => self.bucket.clone(),
        }
    }

    /// Whether a daemon of `home` mounted it.
    pub(crate) fn is_of(&self, home: &Home) -> bool {
        noted::is_ours(home, &self.name(), &self.dir)
    }
}

/// The path without symlinks, as far as it exists; a dead mount is taken as it is written.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).map_err(|err| Failure::file("find", path, &err))?;
    // What does not exist has no symlinks.
    let real = path.ancestors().find_map(|above| {
        let (real, rest) = (fs::canonicalize(above).ok()?, path.strip_prefix(above).ok()?);
        Some(if rest.as_os_str().is_empty() { real } else { real.join(rest) })
    });
    Ok(real.unwrap_or(path))
}

/// The path with no symlink on the way to its last name, which stays as it is.
pub(crate) fn resolve_parent(path: &Path) -> Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            resolve(parent).map(|parent| parent.join(name))
        }
        _ => resolve(path),
    }
}

/// Refuses what can be refused before anybody types a passphrase.
pub(crate) fn examine(dir: &Path) -> Result<()> {
    let refuse = |why: &str| {
        let message = format!("{} {why}", dir.display());
        Err(Failure::new(Code::MountPoint, message))
    };
    match fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => refuse("is not a directory: name an empty directory"),
        Err(err) if err.kind() == ErrorKind::NotFound => {
            refuse("does not exist: make the directory first")
        }
        // A dead mount, which the daemon takes away.
        Err(err) if is_dead(&err) => Ok(()),
        Err(err) => refuse(&format!("cannot be mounted on: {}", plain(&err))),
    }
}

/// The mounts that no daemon serves any more, of those that `wanted` picks. The others are not
/// touched: one that hangs would hang this process too.
pub(crate) fn dead_mounts(wanted: impl Fn(&Listed) -> bool) -> Vec<Listed> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mut listed = parse(&table);
    listed.retain(|listed| wanted(listed) && answers_dead(&listed.dir));
    listed
}

/// Takes away what a daemon that died left at `dir`, and says what it was; tells what else is there.
pub(crate) fn take_away(dir: &Path) -> Result<Listed> {
    let table = fs::read("/proc/self/mountinfo")
        .map_err(|err| Failure::io("cannot read the table of mounts", &err))?;
    // The last one is on top.
    let Some(listed) = parse(&table).into_iter().rfind(|listed| listed.dir == dir) else {
        let message = format!(
            "no bucket is mounted at {} ('cairnfs list' shows what is mounted where)",
            dir.display()
        );
        return Err(Failure::new(Code::NotFound, message));
    };
    if !answers_dead(dir) {
        let message = format!(
            "{} is served by the daemon of another home: unmount it with that CAIRNFS_HOME",
            dir.display()
        );
        return Err(Failure::new(Code::NotFound, message));
    }
    let failed = |err: &io::Error| Failure::file("take away the dead mount at", dir, err);
    match rustix::mount::unmount(dir, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(listed),
        // Only root may, so let the set-uid helper do it.
        Err(Errno::PERM) => {
            let status = Command::new("fusermount3")
                .args(["-u", "-z", "--"])
                .arg(dir)
                .stdin(Stdio::null())
                .status()
                .map_err(|err| failed(&err))?;
            if status.success() {
                Ok(listed)
            } else {
                Err(failed(&io::Error::other(format!("fusermount3 failed ({status})"))))
            }
        }
        Err(err) => Err(failed(&err.into())),
    }
}

/// Reads the directory: attributes may still be cached when nobody answers any more.
///
/// Who does not answer at all is not dead: perhaps the stopped daemon of another home, for whom
/// nobody here is to wait. The thread that asks ends with the process.
fn answers_dead(dir: &Path) -> bool {
    let (reply, answered) = bounded(1);
    let dir = dir.to_owned();
    let ask = move || {
        let read = fs::read_dir(dir).and_then(|mut entries| entries.next().transpose());
        tell(&reply, read.is_err_and(|err| is_dead(&err)));
    };
    let asked = thread::Builder::new().name("dead-mount".into()).spawn(ask);
    asked.is_ok() && answered.recv_timeout(PATIENCE).unwrap_or(false)
}

fn is_dead(err: &io::Error) -> bool {
    let errno = Errno::from_io_error(err);
    matches!(errno, Some(Errno::NOTCONN | Errno::CONNABORTED | Errno::CONNREFUSED))
}

/// The cairnfs mounts of a table such as `/proc/self/mountinfo`.
pub(crate) fn parse(table: &[u8]) -> Vec<Listed> {
    table.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Listed> {
    let fields: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let name = fields.get(dash + 2)?.strip_prefix(SOURCE.as_bytes())?;
    fields.get(dash + 1)?.starts_with(b"fuse").then_some(())?;
    let name = String::from_utf8_lossy(name).into_owned();
    let (bucket, version) = match name.split_once('@') {
        Some((bucket, version)) => (bucket.to_owned(), Some(version.to_owned())),
        None => (name, None),
    };
    Some(Listed { dir: PathBuf::from(unescape(fields.get(4)?)), bucket, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_mounts_are_told_from_others() {
        let table = b"22 27 0:21 / /proc rw,relatime - proc proc rw\n\
            40 36 0:45 / /mnt\\0402 rw shared:7 - fuse.cairnfs cairnfs:photos rw,user_id=0\n\
            42 36 0:47 / /old ro - fuse.cairnfs cairnfs:photos@015123ebb9dfd241 ro,user_id=0\n\
            41 36 0:46 / /other rw - fuse.sshfs host:/ rw\n";
        let bucket = || "photos".to_owned();
        let live = Listed { dir: "/mnt 2".into(), bucket: bucket(), version: None };
        let version = Some("015123ebb9dfd241".to_owned());
        let old = Listed { dir: "/old".into(), bucket: bucket(), version };
        assert_eq!(parse(table), [live, old]);
    }

    #[test]
    fn what_is_no_mount_is_said_to_be_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(take_away(dir.path()).unwrap_err().code, Code::NotFound);
    }

    #[test]
    fn a_path_that_does_not_exist_resolves_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&real, real.join("link")).unwrap();
        assert_eq!(resolve(&real.join("link/none")).unwrap(), real.join("none"));
        assert_eq!(resolve(&real.join("link/none/below/it")).unwrap(), real.join("none/below/it"));
        assert_eq!(resolve(Path::new("/")).unwrap(), Path::new("/"));
    }
}
