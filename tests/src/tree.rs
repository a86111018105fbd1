//! What a directory holds, to be compared with another.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

/// Everything below a directory: names, kinds, modes, times, contents.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    kind: &'static str,
    mode: u32,
    len: u64,
    /// Seconds and nanoseconds; nothing for directories, whose times change with their entries.
    mtime: Option<(i64, i64)>,
    /// The hash of a file, the target of a link.
    content: Vec<u8>,
}

impl Tree {
    /// Reads everything below `dir`.
    ///
    /// # Panics
    ///
    /// If something there cannot be read.
    #[must_use]
    #[track_caller]
    pub fn of(dir: &Path) -> Self {
        Self::try_of(dir).unwrap_or_else(|err| panic!("{err}"))
    }

    /// As [`Tree::of`], where somebody may remove or rename what is being read.
    ///
    /// # Errors
    ///
    /// Names what cannot be read.
    pub fn try_of(dir: &Path) -> io::Result<Self> {
        let mut entries = BTreeMap::new();
        let mut dirs = vec![dir.to_owned()];
        while let Some(at) = dirs.pop() {
            for entry in fs::read_dir(&at).map_err(|err| of(&at, &err))? {
                let path = entry.map_err(|err| of(&at, &err))?.path();
                let read = Entry::of(&path).map_err(|err| of(&path, &err))?;
                if read.kind == "dir" {
                    dirs.push(path.clone());
                }
                entries.insert(path.strip_prefix(dir).unwrap().to_owned(), read);
            }
        }
        Ok(Self { entries })
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The same without the times of change.
    #[must_use]
    pub fn without_times(mut self) -> Self {
        for entry in self.entries.values_mut() {
            entry.mtime = None;
        }
        self
    }

    /// Fails, naming what differs, unless `other` is the same.
    #[track_caller]
    pub fn same_as(&self, other: &Self) {
        let paths = self.entries.keys().chain(other.entries.keys());
        let mut differ: Vec<_> =
            paths.filter(|&path| self.entries.get(path) != other.entries.get(path)).collect();
        differ.sort();
        differ.dedup();
        let shown: Vec<_> = differ
            .iter()
            .take(8)
            .map(|&path| {
                let (ours, theirs) = (self.entries.get(path), other.entries.get(path));
                format!("{}\n  wanted {ours:?}\n  found  {theirs:?}", path.display())
            })
            .collect();
        assert!(differ.is_empty(), "{} entries differ:\n{}", differ.len(), shown.join("\n"));
    }
}

fn of(path: &Path, err: &io::Error) -> io::Error {
    io::Error::new(err.kind(), format!("{}: {err}", path.display()))
}

impl Entry {
    fn of(path: &Path) -> io::Result<Self> {
        let meta = path.symlink_metadata()?;
        let kind = meta.file_type();
        let (kind, content) = if kind.is_dir() {
            ("dir", Vec::new())
        } else if kind.is_symlink() {
            use std::os::unix::ffi::OsStringExt;
            ("symlink", fs::read_link(path)?.into_os_string().into_vec())
        } else if kind.is_file() {
            let mut hasher = blake3::Hasher::new();
            io::copy(&mut fs::File::open(path)?, &mut hasher)?;
            ("file", hasher.finalize().as_bytes().to_vec())
        } else if kind.is_fifo() {
            ("fifo", Vec::new())
        } else {
            ("special", meta.rdev().to_string().into_bytes())
        };
        Ok(Self {
            kind,
            mode: meta.mode(),
            len: if kind == "dir" { 0 } else { meta.len() },
            mtime: (kind != "dir").then(|| (meta.mtime(), meta.mtime_nsec())),
            content,
        })
    }
}
