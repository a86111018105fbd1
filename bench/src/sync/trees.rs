//! Trees of noise, the same on a plain disk and in a bucket.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use cairnfs_mount_core::{Ino, Mount};
use serde::Serialize;

use crate::{
    bucket::{self, CALLER},
    interrupt,
    noise::Noise,
    served::close,
};

/// Directories with files of equal length.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Shape {
    dirs: u32,
    files_per_dir: u32,
    file_bytes: u64,
}

impl Shape {
    pub(super) const fn new(dirs: u32, files_per_dir: u32, file_bytes: u64) -> Self {
        Self { dirs, files_per_dir, file_bytes }
    }

    pub(super) const fn files(self) -> u32 {
        self.dirs * self.files_per_dir
    }

    pub(super) const fn bytes(self) -> u64 {
        self.files() as u64 * self.file_bytes
    }

    pub(super) const fn file_bytes(self) -> u64 {
        self.file_bytes
    }

    /// The path of the file `n`, from the root of the tree.
    pub(super) fn path(self, n: u32) -> PathBuf {
        let (dir, file) = (n / self.files_per_dir, n % self.files_per_dir);
        PathBuf::from(format!("dir-{dir}")).join(format!("file-{file}"))
    }

    /// The bytes of the file `n` after its change number `change`.
    pub(super) fn content(self, n: u32, change: u32) -> Result<Vec<u8>> {
        let mut noise = Noise::new((u64::from(n) << 32) | u64::from(change));
        Ok(noise.bytes(usize::try_from(self.file_bytes)?))
    }

    /// Makes the tree below the new directory `root`.
    pub(super) fn make(self, root: &Path) -> Result<()> {
        for dir in 0..self.dirs {
            fs::create_dir_all(root.join(format!("dir-{dir}")))?;
        }
        for n in 0..self.files() {
            interrupt::check()?;
            fs::write(root.join(self.path(n)), self.content(n, 0)?)?;
        }
        Ok(())
    }

    /// Makes the tree in a bucket.
    pub(super) fn fill(self, mount: &Mount) -> Result<()> {
        for dir in 0..self.dirs {
            let name = format!("dir-{dir}");
            let parent = mount.mkdir(CALLER, Ino::ROOT, name.as_bytes(), 0o755)?.ino;
            for file in 0..self.files_per_dir {
                interrupt::check()?;
                let content = self.content(dir * self.files_per_dir + file, 0)?;
                bucket::put(mount, parent, &format!("file-{file}"), &content)?;
            }
        }
        mount.publish()?;
        Ok(())
    }

    /// Writes the bytes of change number `change` over the file `n`, and closes it.
    pub(super) fn change(self, root: &Path, n: u32, change: u32) -> Result<()> {
        let file = File::options().write(true).open(root.join(self.path(n)))?;
        file.write_all_at(&self.content(n, change)?, 0)?;
        close(file)
    }

    /// Checks that the file `n` is as after its change number `change`.
    pub(super) fn check(self, root: &Path, n: u32, change: u32) -> Result<()> {
        let path = root.join(self.path(n));
        ensure!(fs::read(&path)? == self.content(n, change)?, "{} differs", path.display());
        Ok(())
    }
}
