//! Small disks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    mounts, need,
    platter::{Platter, PowerDisk},
    run::{Outcome, run},
    sweeper,
};

/// A file system of a few MiB, mounted in a temporary directory until dropped.
#[derive(Debug)]
pub struct Image {
    dir: Option<tempfile::TempDir>,
    disk: PathBuf,
    power: Option<Box<PowerDisk>>,
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
        run(&mut command, Duration::from_secs(20)).succeeds();
        image
    }

    /// An ext4 of `size_mib` on a loop device.
    #[must_use]
    pub fn ext4(size_mib: u64) -> Self {
        let image = Self::empty();
        let file = image.make_ext4(size_mib);
        image.mount_loop(&file).succeeds();
        image
    }

    /// An ext4 of `size_mib` on a disk whose power can be cut.
    #[must_use]
    pub fn ext4_with_power(size_mib: u64) -> Self {
        let image = Self::empty();
        let file = image.make_ext4(size_mib);
        let platter = Platter::of_file(&file);
        fs::remove_file(&file).unwrap();
        image.with_power(platter).unwrap_or_else(|outcome| panic!("{outcome}"))
    }

    /// What is on `platter`, mounted as after a power cut.
    ///
    /// # Errors
    ///
    /// What `mount` said, if it could not.
    pub fn after_cut(platter: Platter) -> Result<Self, Outcome> {
        Self::empty().with_power(platter)
    }

    fn with_power(mut self, platter: Platter) -> Result<Self, Outcome> {
        need::root("a disk whose power can be cut");
        need::fuse();
        let below = self.root().join("below");
        fs::create_dir(&below).unwrap();
        self.power = Some(Box::new(PowerDisk::serve(platter, &below)));
        let outcome = self.mount_loop(&below.join("disk"));
        if outcome.code == Some(0) { Ok(self) } else { Err(outcome) }
    }

    fn make_ext4(&self, size_mib: u64) -> PathBuf {
        need::root("a small disk");
        need::program("mkfs.ext4", "e2fsprogs");
        let file = self.root().join("image");
        fs::File::create(&file).unwrap().set_len(size_mib << 20).unwrap();
        let limit = Duration::from_secs(30);
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&file), limit).succeeds();
        file
    }

    fn mount_loop(&self, file: &Path) -> Outcome {
        let mut command = Command::new("mount");
        command.args(["-t", "ext4", "-o", "loop"]).arg(file).arg(&self.disk);
        run(&mut command, Duration::from_secs(30))
    }

    fn empty() -> Self {
        let dir = tempfile::Builder::new().prefix("disk-").tempdir_in(sweeper::room()).unwrap();
        let disk = dir.path().join("disk");
        fs::create_dir(&disk).unwrap();
        Self { dir: Some(dir), disk, power: None }
    }

    fn root(&self) -> &Path {
        self.dir.as_ref().expect("taken only when dropped").path()
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.disk
    }

    /// The disk below, of one whose power can be cut.
    #[must_use]
    pub fn power(&self) -> &PowerDisk {
        self.power.as_ref().expect("this image was made with power")
    }

    /// Mounts it again with the options `options`, such as `remount,ro`.
    pub fn remount(&self, options: &str) {
        let mut command = Command::new("mount");
        command.args(["-o", options]).arg(&self.disk);
        run(&mut command, Duration::from_secs(20)).succeeds();
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        mounts::detach_all(&self.disk);
        let root = self.root().canonicalize().unwrap();
        if self.power.is_some() {
            // The loop device lets go of its file some time after ext4 is unmounted, and what the
            // file system still has to write must find its disk.
            let disk = root.join("below/disk");
            crate::eventually("the loop device is free", Duration::from_secs(60), || {
                !mounts::is_behind_a_loop(&disk)
            });
            mounts::detach_all(&root);
            drop(self.power.take());
        }
        if !mounts::below(&root).is_empty()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("left behind, still mounted: {}", dir.keep().display());
        }
    }
}
