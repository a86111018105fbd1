//! Small disks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{mounts, need, run::run};

/// A file system of a few MiB, mounted in a temporary directory until dropped.
#[derive(Debug)]
pub struct Image {
    dir: Option<tempfile::TempDir>,
    disk: PathBuf,
}

impl Image {
    /// A tmpfs of `size_mib`.
    #[must_use]
    pub fn tmpfs(size_mib: u32) -> Self {
        need::root("a small disk");
        let image = Self::empty();
        let size = format!("size={size_mib}m,mode=0700");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &size, "cairnfs-test-disk"]).arg(&image.disk);
        run(&mut command, Duration::from_secs(20)).ok();
        image
    }

    /// An ext4 of `size_mib` on a loop device.
    #[must_use]
    pub fn ext4(size_mib: u64) -> Self {
        need::root("a small disk");
        need::program("mkfs.ext4", "e2fsprogs");
        let image = Self::empty();
        let file = image.root().join("image");
        fs::File::create(&file).unwrap().set_len(size_mib << 20).unwrap();
        let limit = Duration::from_secs(30);
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&file), limit).ok();
        run(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(&image.disk), limit).ok();
        image
    }

    fn empty() -> Self {
        let dir = tempfile::Builder::new().prefix("cairnfs-disk-").tempdir().unwrap();
        let disk = dir.path().join("disk");
        fs::create_dir(&disk).unwrap();
        Self { dir: Some(dir), disk }
    }

    fn root(&self) -> &Path {
        self.dir.as_ref().expect("taken only when dropped").path()
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.disk
    }

    /// Bytes that can still be written.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.disk).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Mounts it again with the options `options`, such as `remount,ro`.
    pub fn remount(&self, options: &str) {
        let mut command = Command::new("mount");
        command.args(["-o", options]).arg(&self.disk);
        run(&mut command, Duration::from_secs(20)).ok();
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        mounts::detach_all(&self.disk);
        if mounts::is_mounted(&self.disk)
            && let Some(dir) = self.dir.take()
        {
            eprintln!("left behind, still mounted: {}", dir.keep().display());
        }
    }
}
