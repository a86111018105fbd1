//! A tree of files: one that is found on this machine, and what must be equal in its copy.

use std::{
    collections::BTreeMap,
    env, fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use crate::exit::{Failure, Result};

/// What is skipped, by the copy too: what a build or a version control keeps.
pub(super) const SKIPPED: [&str; 3] = ["target", "target-*", ".git"];

/// Trees of fewer files show little; larger ones take long.
const FILES: std::ops::RangeInclusive<usize> = 20..=20_000;
const BYTES_MAX: u64 = 96 << 20;

/// Files of the tree that is made where none is found.
const MADE_FILES: usize = 300;

/// Every path of a tree, with what it is.
#[derive(PartialEq, Eq, Debug, Default)]
pub(super) struct Tree {
    pub(super) entries: BTreeMap<PathBuf, Entry>,
    pub(super) bytes: u64,
}

/// What a copy must have at a path.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Entry {
    Dir,
    Link(PathBuf),
    File { len: u64, mode: u32, hash: blake3::Hash },
}

impl Tree {
    /// Reads and hashes everything below `root`.
    pub(super) fn read(root: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        tree.add(root, Path::new(""))?;
        Ok(tree)
    }

    fn add(&mut self, root: &Path, below: &Path) -> io::Result<()> {
        for entry in fs::read_dir(root.join(below))? {
            let entry = entry?;
            let name = entry.file_name();
            if is_skipped(name.as_bytes()) {
                continue;
            }
            let path = below.join(&name);
            let meta = entry.metadata()?;
            let it = if meta.is_dir() {
                self.add(root, &path)?;
                Entry::Dir
            } else if meta.is_symlink() {
                Entry::Link(fs::read_link(entry.path())?)
            } else if meta.is_file() {
                let mut hasher = blake3::Hasher::new();
                let len = io::copy(&mut fs::File::open(entry.path())?, &mut hasher)?;
                self.bytes += len;
                Entry::File { len, mode: meta.mode() & 0o777, hash: hasher.finalize() }
            } else {
                continue;
            };
            self.entries.insert(path, it);
            if self.entries.len() > *FILES.end() || self.bytes > BYTES_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
        Ok(())
    }

    /// The first path at which the two differ.
    pub(super) fn difference<'a>(&'a self, other: &'a Self) -> Option<&'a Path> {
        let paths = self.entries.keys().chain(other.entries.keys());
        paths.map(PathBuf::as_path).find(|path| self.entries.get(*path) != other.entries.get(*path))
    }
}

/// The source tree that the demo is started in, or else one that most systems have, or else one
/// that is made in `spare`.
pub(super) fn find(spare: &Path) -> Result<(PathBuf, Tree)> {
    let here = env::current_dir().unwrap_or_default();
    let source = here.ancestors().find(|dir| dir.join("Cargo.toml").is_file());
    let usual = ["/usr/include", "/usr/share/perl5", "/usr/share/doc", "/usr/lib/python3", "/etc"];
    let candidates = source.map(Path::to_owned).into_iter().chain(usual.iter().map(PathBuf::from));
    for dir in candidates {
        if let Ok(tree) = Tree::read(&dir)
            && FILES.contains(&tree.entries.len())
        {
            return Ok((dir, tree));
        }
    }
    let failed = |err: &io::Error| Failure::file("make a tree of files in", spare, err);
    make(spare).map_err(|err| failed(&err))?;
    Ok((spare.to_owned(), Tree::read(spare).map_err(|err| failed(&err))?))
}

fn make(dir: &Path) -> io::Result<()> {
    for number in 0..MADE_FILES {
        let folder = dir.join(format!("chapter-{}", number % 12));
        fs::create_dir_all(&folder)?;
        let line = format!("Line of the page {number}, written where no source tree was found.\n");
        fs::write(folder.join(format!("page-{number}.txt")), line.repeat(number + 1))?;
    }
    Ok(())
}

fn is_skipped(name: &[u8]) -> bool {
    SKIPPED.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start.as_bytes()),
        None => name == pattern.as_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_differs_where_one_byte_does() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        make(&one).unwrap();
        make(&other).unwrap();
        fs::create_dir(other.join("target")).unwrap();
        let before = Tree::read(&one).unwrap();
        assert_eq!(before.entries.len(), MADE_FILES + 12);
        assert_eq!(before.difference(&Tree::read(&other).unwrap()), None);
        fs::write(other.join("chapter-3/page-3.txt"), "other").unwrap();
        let after = Tree::read(&other).unwrap();
        assert_eq!(before.difference(&after), Some(Path::new("chapter-3/page-3.txt")));
    }
}
