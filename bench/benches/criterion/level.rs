//! A bucket at one of two levels: without FUSE, or through a real mount of the binary.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use cairnfs_bench::{
    binary,
    bucket::{Ask, CoreFile},
    rounds::Subject,
    served::{Home, MountedFile, Served},
};
use cairnfs_mount_core::{Ino, Mount, Options, SavePolicy};

/// Where a save is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Core,
    Mount,
}

pub(crate) const LEVELS: [Level; 2] = [Level::Core, Level::Mount];

/// The policies, with what a program does to know that its bytes are saved.
pub(crate) const POLICIES: [(SavePolicy, Ask); 3] = [
    (SavePolicy::Flush, Ask::Close),
    (SavePolicy::Release, Ask::Fsync),
    (SavePolicy::Interval(Duration::from_secs(10)), Ask::Fsync),
];

impl Level {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Core => "mount-core",
            Self::Mount => "mount",
        }
    }
}

/// A home whose bucket `fill` has put something in.
pub(crate) fn home(dir: &Path, name: &str, fill: impl FnOnce(&Mount)) -> Home {
    let home = Home::new(&binary::path().unwrap(), dir, name).unwrap();
    let mount = home.core(Options::default()).unwrap();
    fill(&mount);
    mount.publish().unwrap();
    mount.stop().unwrap();
    home
}

/// A served bucket.
pub(crate) enum Opened<'h> {
    Core(Mount),
    Mount(Served<'h>),
}

impl<'h> Opened<'h> {
    pub(crate) fn new(home: &'h Home, level: Level, policy: SavePolicy) -> Self {
        match level {
            Level::Core => {
                let options = Options { policy, ..Options::default() };
                Self::Core(home.core(options).unwrap())
            }
            Level::Mount => Self::Mount(home.mount(&["--save", &policy.to_string()]).unwrap()),
        }
    }

    /// The file at `path`, which has `len` bytes.
    pub(crate) fn file(&self, path: &str, len: u64, ask: Ask) -> Box<dyn Subject + Send> {
        match self {
            Self::Core(mount) => {
                let ino = path
                    .split('/')
                    .fold(Ino::ROOT, |dir, name| mount.lookup(dir, name.as_bytes()).unwrap().ino);
                Box::new(CoreFile::open(path, mount, ino, len, ask).unwrap())
            }
            Self::Mount(served) => {
                let at: PathBuf = served.point().join(path);
                Box::new(MountedFile::new(path, at, len, ask).unwrap())
            }
        }
    }

    /// Ends it; a mount ends when it is dropped.
    pub(crate) fn end(self) {
        if let Self::Core(mount) = self {
            mount.stop().unwrap();
        }
    }
}
