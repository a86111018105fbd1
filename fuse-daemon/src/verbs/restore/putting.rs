//! Puts what a version holds into the file tree.
//!
//! A file is written under another name beside its place, synced, and renamed: what is there is the
//! old one or the new one, and never a part of it.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, symlink},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use cairnfs_mount_core::{Kind, PastEntry};
use parking_lot::Mutex;
use rustix::{
    fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags},
    process::geteuid,
};

use super::keeping::Keeping;
use crate::{
    exit::{Code, Failure, Result},
    interrupt::{self, OnInterrupt},
    ui,
};

/// Brings back one thing after the other.
pub(super) struct Putting<'p> {
    /// Where the folder or file goes whose path in the version is `from`.
    place: PathBuf,
    from: Vec<u8>,
    /// What was asked for; above it nothing that is there is touched.
    asked: Vec<u8>,
    /// In the mount: what is there must not be lost.
    keeping: Option<Keeping<'p>>,
    file: Option<Unfinished>,
    /// Folders from the outermost to the one that is being filled. They get their attributes last, as
    /// their times change with what is put into them.
    dirs: Vec<(PathBuf, PastEntry)>,
    /// Folders whose names have changed.
    changed: BTreeSet<PathBuf>,
    /// Folders that it made where nothing was.
    made: Made,
    /// Folders in which something did not come back.
    lacking: BTreeSet<PathBuf>,
    count: u64,
    bytes: u64,
}

/// A file that has another name until it is whole.
struct Unfinished {
    entry: PastEntry,
    file: File,
    place: PathBuf,
    fresh: Fresh,
}

/// Something under a name of its own; removed when dropped, unless it was renamed before.
struct Fresh {
    path: PathBuf,
    _removes: OnInterrupt,
}

impl<'p> Putting<'p> {
    /// What was at `path` becomes `place`.
    pub(super) fn elsewhere(place: PathBuf, path: &[u8]) -> Self {
        Self::new(place, path, path, None)
    }

    /// What was at `path` goes back there, in the bucket that is mounted at `dir`; `publish` seals
    /// what is there now.
    pub(super) fn in_place(dir: PathBuf, path: &[u8], publish: &'p dyn Fn() -> Result<()>) -> Self {
        Self::new(dir, b"", path, Some(Keeping::new(publish)))
    }

    fn new(place: PathBuf, from: &[u8], asked: &[u8], keeping: Option<Keeping<'p>>) -> Self {
        Self {
            place,
            from: from.to_vec(),
            asked: asked.to_vec(),
            keeping,
            file: None,
            dirs: Vec::new(),
            changed: BTreeSet::new(),
            made: Made::begin(),
            lacking: BTreeSet::new(),
            count: 0,
            bytes: 0,
        }
    }

    /// Where something of the version goes.
    pub(super) fn target(&self, path: &[u8]) -> PathBuf {
        let below = path.strip_prefix(self.from.as_slice()).unwrap_or(path);
        let below = below.strip_prefix(b"/").unwrap_or(below);
        if below.is_empty() {
            self.place.clone()
        } else {
            self.place.join(OsStr::from_bytes(below))
        }
    }

    /// Whether what stands in the place of `entry` has its length and time of change.
    pub(super) fn is_as(&self, entry: &PastEntry) -> bool {
        let Ok(meta) = fs::symlink_metadata(self.target(&entry.path)) else { return false };
        let mtime = (entry.mtime.seconds, i64::from(entry.mtime.nanos));
        (meta.mtime(), meta.mtime_nsec()) == mtime
            && (entry.kind != Kind::File || meta.len() == entry.len)
    }

    /// Bytes written so far.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next thing: all of it but a file's content.
    pub(super) fn begin(&mut self, entry: PastEntry) -> Result<()> {
        self.end_file()?;
        self.leave_dirs(|dir| !is_within(&entry.path, dir))?;
        let place = self.target(&entry.path);
        let failed = |err: &io::Error| Failure::file("bring back", &place, err);
        if entry.kind.is_dir() {
            return self.enter_dir(place, entry);
        }
        if let (None, Some(parent)) = (&self.keeping, place.parent()) {
            fs::create_dir_all(parent).map_err(|err| failed(&err))?;
        }
        let fresh = Fresh::beside(&place);
        if entry.kind == Kind::File && entry.same_as.is_none() {
            let mut options = OpenOptions::new();
            let file = {
                let _noted_before = interrupt::put_off();
                options.write(true).create_new(true).mode(0o600).open(&fresh.path)
            };
            let file = file.map_err(|err| failed(&err))?;
            self.file = Some(Unfinished { entry, file, place, fresh });
            return Ok(());
        }
        let made = {
            let _noted_before = interrupt::put_off();
            match &entry.same_as {
                Some(other) => fs::hard_link(self.target(other), &fresh.path),
                None => make_special(&entry, &fresh.path),
            }
        };
        made.map_err(|err| failed(&err))?;
        if entry.same_as.is_none() {
            describe(&entry, &fresh.path).map_err(|err| failed(&err))?;
        }
        self.put(&fresh, &place)
    }

    /// The next thing does not come back.
    pub(super) fn lacks(&mut self, entry: &PastEntry) -> Result<()> {
        let place = self.target(&entry.path);
        self.lacking.extend(place.ancestors().skip(1).map(Path::to_owned));
        self.end_file()
    }

    /// Some content of the file begun last.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let Some(Unfinished { file, place, .. }) = &self.file else { return Ok(()) };
        file.write_all_at(bytes, offset).map_err(|err| Failure::file("bring back", place, &err))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Nothing follows although it is not all: a file that is not whole does not come back. Says how
    /// many did.
    pub(super) fn give_up(&mut self) -> Result<u64> {
        self.file = None;
        self.settle()
    }

    /// Nothing follows. Says how many files there were.
    pub(super) fn finish(&mut self) -> Result<u64> {
        let count = self.settle()?;
        self.made.keep(|dir| !self.lacking.contains(dir));
        Ok(count)
    }

    fn settle(&mut self) -> Result<u64> {
        self.end_file()?;
        self.leave_dirs(|_| true)?;
        for dir in &self.changed {
            let synced = File::open(dir).and_then(|dir| Ok(rustix::fs::fsync(&dir)?));
            synced.map_err(|err| Failure::file("sync", dir, &err))?;
        }
        Ok(self.count)
    }

    /// What follows is in this folder, which is made if it is not there.
    fn enter_dir(&mut self, place: PathBuf, entry: PastEntry) -> Result<()> {
        let made = !is_dir(&place)?;
        if made {
            let failed = |err: io::Error| Failure::file("bring back", &place, &err);
            {
                let _made_and_noted = interrupt::put_off();
                let made = DirBuilder::new().recursive(true).mode(0o700).create(&place);
                made.map_err(failed)?;
                if self.keeping.is_none() {
                    self.made.add(&place);
                }
            }
            // At once, in case this is interrupted; but for what would keep it from being filled.
            let open = PastEntry { mode: entry.mode | 0o700, ..entry.clone() };
            describe(&open, &place).map_err(failed)?;
            self.changed.extend(place.parent().map(Path::to_owned));
        }
        if made || is_within(&entry.path, &self.asked) {
            self.dirs.push((place, entry));
        }
        Ok(())
    }

    /// Gives folders their attributes that are `done`, the innermost first.
    fn leave_dirs(&mut self, done: impl Fn(&[u8]) -> bool) -> Result<()> {
        while let Some((dir, entry)) = self.dirs.pop_if(|(_, entry)| done(&entry.path)) {
            describe(&entry, &dir).map_err(|err| Failure::file("bring back", &dir, &err))?;
        }
        Ok(())
    }

    /// The file begun last is whole.
    pub(super) fn end_file(&mut self) -> Result<()> {
        let Some(Unfinished { entry, file, place, fresh }) = self.file.take() else {
            return Ok(());
        };
        let ended = file
            .set_len(entry.len)
            .and_then(|()| describe(&entry, &fresh.path))
            .and_then(|()| Ok(rustix::fs::fsync(&file)?));
        ended.map_err(|err| Failure::file("bring back", &place, &err))?;
        self.put(&fresh, &place)
    }

    fn put(&mut self, fresh: &Fresh, place: &Path) -> Result<()> {
        if let Some(keeping) = &mut self.keeping {
            keeping.keep(place)?;
        }
        fs::rename(&fresh.path, place).map_err(|err| Failure::file("bring back", place, &err))?;
        self.changed.extend(place.parent().map(Path::to_owned));
        self.count += 1;
        Ok(())
    }
}

/// Whether there is a folder at `place`. Fails if there is something else.
pub(super) fn is_dir(place: &Path) -> Result<bool> {
    match fs::symlink_metadata(place) {
        // A link is not followed: who knows where to.
        Ok(meta) if !meta.is_dir() => {
            let message = format!("{}: in the way of a folder", place.display());
            Err(Failure::new(Code::Failed, message))
        }
        found => Ok(found.is_ok()),
    }
}

fn is_within(path: &[u8], dir: &[u8]) -> bool {
    Path::new(OsStr::from_bytes(path)).starts_with(OsStr::from_bytes(dir))
}

/// Folders that were made in a new place. Those that are empty are removed when dropped, unless they are
/// to stay: so that nothing is left where nothing came back.
struct Made {
    dirs: Arc<Mutex<Vec<PathBuf>>>,
    _removes: OnInterrupt,
}

impl Made {
    fn begin() -> Self {
        let dirs = Arc::<Mutex<Vec<PathBuf>>>::default();
        let made = Arc::clone(&dirs);
        let remove = move || {
            for dir in made.lock().drain(..).rev() {
                // One that holds something stays.
                fs::remove_dir(dir).ok();
            }
        };
        Self { dirs, _removes: OnInterrupt::undo(remove) }
    }

    fn add(&self, dir: &Path) {
        self.dirs.lock().push(dir.to_owned());
    }

    /// Keeps those that are `whole`, and of the others what holds something.
    fn keep(&self, whole: impl Fn(&Path) -> bool) {
        self.dirs.lock().retain(|dir| !whole(dir));
    }
}

impl Fresh {
    /// A name that nothing has, in the same folder.
    fn beside(place: &Path) -> Self {
        let path = place.with_file_name(format!(".cairnfs-restore-{}", std::process::id()));
        let leftover = path.clone();
        let remove = move || {
            // Renamed by now, if all went well.
            fs::remove_file(leftover).ok();
        };
        Self { path, _removes: OnInterrupt::undo(remove) }
    }
}

/// Makes something other than a folder or a regular file.
fn make_special(entry: &PastEntry, path: &Path) -> io::Result<()> {
    let kind = match entry.kind {
        Kind::Symlink => return symlink(OsStr::from_bytes(&entry.target), path),
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharacterDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::Fifo | Kind::Dir | Kind::File => FileType::Fifo,
    };
    Ok(rustix::fs::mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, entry.rdev.into())?)
}

/// Gives what is at `path` the attributes that it had; its owner only if this is root.
fn describe(entry: &PastEntry, path: &Path) -> io::Result<()> {
    let link = AtFlags::SYMLINK_NOFOLLOW;
    if geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        rustix::fs::chownat(CWD, path, Some(uid), Some(gid), link)?;
    }
    for (name, value) in &entry.xattrs {
        let name = OsStr::from_bytes(name);
        if let Err(err) = rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()) {
            let name = name.display();
            ui::note(format_args!("{}: without its attribute {name}: {err}", path.display()));
        }
    }
    if entry.kind != Kind::Symlink {
        rustix::fs::chmod(path, Mode::from_raw_mode(entry.mode))?;
    }
    let mtime = Timespec { tv_sec: entry.mtime.seconds, tv_nsec: entry.mtime.nanos.into() };
    let times = Timestamps { last_access: mtime, last_modification: mtime };
    Ok(rustix::fs::utimensat(CWD, path, &times, link)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cairnfs_mount_core::Time;

    use super::*;

    fn entry(path: &str, kind: Kind) -> PastEntry {
        PastEntry {
            path: path.into(),
            kind,
            mode: 0o755,
            uid: geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mtime: Time::default(),
            len: 3,
            is_here: true,
            target: Vec::new(),
            rdev: 0,
            xattrs: BTreeMap::new(),
            links: 1,
            same_as: None,
            is_unchanged: false,
        }
    }

    #[test]
    fn a_file_that_is_whole_stays_though_what_follows_does_not_come() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        let mut putting = Putting::elsewhere(to.clone(), b"");
        putting.begin(entry("", Kind::Dir)).unwrap();
        putting.begin(entry("a", Kind::File)).unwrap();
        putting.write(0, b"abc").unwrap();
        putting.lacks(&entry("b", Kind::File)).unwrap();
        assert_eq!(putting.give_up().unwrap(), 1);
        drop(putting);
        assert_eq!(fs::read(to.join("a")).unwrap(), b"abc");
    }

    #[test]
    fn no_folder_is_left_in_which_nothing_came_back() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        let mut putting = Putting::elsewhere(to.clone(), b"");
        for path in ["", "empty", "lacking", "lacking/deep"] {
            putting.begin(entry(path, Kind::Dir)).unwrap();
        }
        putting.lacks(&entry("lacking/deep/file", Kind::File)).unwrap();
        assert_eq!(putting.finish().unwrap(), 0);
        drop(putting);
        assert!(to.join("empty").exists() && !to.join("lacking").exists());
    }
}
