//! What is on a simulated disk, as bytes, and back in a directory.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cairnfs_store::{
    disk::{Disk, Open},
    sim::SimDisk,
};

/// The root of every simulated disk.
pub(super) const ROOT: &str = "/";

/// All files of a disk, after a power failure.
#[derive(Debug)]
pub struct Image {
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Image {
    pub(super) fn of(disk: &SimDisk) -> Self {
        let paths = disk.files().into_iter().map(|(path, _)| path);
        let files = paths.filter_map(|path| {
            let content = disk.content(&path)?;
            Some((path, content))
        });
        Self { files: files.collect() }
    }

    /// Writes all files below the new directory `dir`.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn write_to(&self, dir: &Path) -> Result<()> {
        for (path, content) in &self.files {
            let to = dir.join(path.strip_prefix(ROOT)?);
            if let Some(parent) = to.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            }
            let mut file = fs::OpenOptions::new();
            let file = file.write(true).create_new(true).mode(0o600).open(&to);
            std::io::Write::write_all(
                &mut file.with_context(|| to.display().to_string())?,
                content,
            )?;
        }
        Ok(())
    }
}

/// Takes what is below the directory `from` to `disk`, durably; says which directories there are.
pub(super) fn load(disk: &SimDisk, from: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut dirs = BTreeSet::new();
    let mut todo = vec![(from.to_owned(), PathBuf::from(ROOT))];
    while let Some((dir, at)) = todo.pop() {
        disk.create_dir(&at)?;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let to = at.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                todo.push((entry.path(), to));
                continue;
            }
            let file = disk.open(&to, Open::New)?;
            file.write_at(&fs::read(entry.path())?, 0)?;
            file.barrier()?;
        }
        disk.sync_dir(&at)?;
        dirs.insert(at);
    }
    Ok(dirs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workplace;

    #[test]
    fn what_is_loaded_survives_a_cut_and_what_follows_may_not() {
        let (from, to) = (workplace::in_memory().unwrap(), workplace::in_memory().unwrap());
        fs::create_dir(from.path().join("packs")).unwrap();
        fs::write(from.path().join("packs/a"), b"sealed").unwrap();
        let disk = SimDisk::new(1);
        let dirs = load(&disk, from.path()).unwrap();
        assert_eq!(dirs, BTreeSet::from([PathBuf::from("/"), PathBuf::from("/packs")]));
        let file = disk.open(Path::new("/packs/a"), Open::Existing).unwrap();
        file.write_at(b"SEALED", 0).unwrap();
        let found: BTreeSet<Vec<u8>> = (0..50)
            .map(|seed| {
                let dir = to.path().join(seed.to_string());
                Image::of(&disk.crash(seed)).write_to(&dir).unwrap();
                fs::read(dir.join("packs/a")).unwrap()
            })
            .collect();
        assert_eq!(found, BTreeSet::from([b"sealed".to_vec(), b"SEALED".to_vec()]));
    }
}
