//! What is on a simulated disk, as bytes, and back in a directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use cairnfs_store::{
    disk::{Disk, Open},
    sim::SimDisk,
};

/// The root of every simulated disk.
pub(super) const ROOT: &str = "/";

/// In pieces of so many bytes an image is compared with the one before.
const PIECE_BYTES: usize = 64 << 10;

/// All files of a disk, after a power failure.
#[derive(Debug)]
pub struct Image {
    files: BTreeMap<PathBuf, Vec<Arc<[u8]>>>,
}

impl Image {
    /// Holds only what differs from `before`, piece by piece; the rest is shared with it: most of a
    /// disk is a log that grows.
    pub(super) fn of(disk: &SimDisk, before: Option<&Self>) -> Self {
        let paths = disk.files().into_iter().map(|(path, _)| path);
        let files = paths.filter_map(|path| {
            let content = disk.content(&path)?;
            let mut known = before.and_then(|before| before.files.get(&path)).into_iter().flatten();
            let pieces = content.chunks(PIECE_BYTES).map(|piece| match known.next() {
                Some(same) if **same == *piece => Arc::clone(same),
                _ => Arc::from(piece),
            });
            Some((path, pieces.collect()))
        });
        Self { files: files.collect() }
    }

    /// Writes all files below the new directory `dir`.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn write_to(&self, dir: &Path) -> Result<()> {
        for (path, pieces) in &self.files {
            let to = dir.join(path.strip_prefix(ROOT)?);
            if let Some(parent) = to.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            }
            let mut options = fs::OpenOptions::new();
            let file = options.write(true).create_new(true).mode(0o600).open(&to);
            let mut file = file.with_context(|| to.display().to_string())?;
            for piece in pieces {
                file.write_all(piece)?;
            }
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
                Image::of(&disk.crash(seed), None).write_to(&dir).unwrap();
                fs::read(dir.join("packs/a")).unwrap()
            })
            .collect();
        assert_eq!(found, BTreeSet::from([b"sealed".to_vec(), b"SEALED".to_vec()]));
    }

    #[test]
    fn images_share_what_did_not_change_between_them() {
        let disk = SimDisk::new(1);
        let file = disk.open(Path::new("/log"), Open::New).unwrap();
        file.write_at(&[1; 3 * PIECE_BYTES], 0).unwrap();
        let before = Image::of(&disk, None);
        file.write_at(b"changed", PIECE_BYTES as u64).unwrap();
        file.write_at(b"grown", 3 * PIECE_BYTES as u64).unwrap();
        let after = Image::of(&disk, Some(&before));
        let pieces = |image: &Image| image.files[Path::new("/log")].clone();
        let shared: Vec<bool> =
            pieces(&before).iter().zip(&pieces(&after)).map(|(a, b)| Arc::ptr_eq(a, b)).collect();
        assert_eq!(shared, [true, false, true]);
        let content: Vec<u8> = pieces(&after).iter().flat_map(|piece| piece.to_vec()).collect();
        assert_eq!(Some(content), disk.content(Path::new("/log")));
    }
}
