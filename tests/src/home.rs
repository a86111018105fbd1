//! One device.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use crate::{
    Image, Outcome, Rng, Running, binary, mounts, need, process, run::run, sweeper,
    watchdog::Watchdog,
};

/// The ports that homes of this process were given.
#[allow(clippy::disallowed_types, reason = "nothing else here needs a lock")]
static PORTS: std::sync::Mutex<BTreeSet<u16>> = std::sync::Mutex::new(BTreeSet::new());

/// How long one call of the tool may take.
const CALL: Duration = Duration::from_secs(180);
/// How long a test may use one home, unless it says otherwise.
const TEST: Duration = Duration::from_secs(480);

/// A `CAIRNFS_HOME` of its own, room for mount points, and everything that runs on it.
#[derive(Debug)]
pub struct Home {
    root: Option<tempfile::TempDir>,
    home: PathBuf,
    image: Option<Image>,
    /// Where its daemon listens: the same after each start, so that peers find it again.
    port: u16,
    watchdog: Watchdog,
}

impl Home {
    /// A new, empty home in the temporary directory.
    #[must_use]
    pub fn new() -> Self {
        Self::build(None, TEST)
    }

    /// Has it killed in `limit`: what the test has done so far took no part of it.
    pub fn expires_within(&mut self, limit: Duration) {
        let root = self.beside("");
        assert!(!self.watchdog.stop(), "the test ran into its deadline");
        self.watchdog = Watchdog::start(self.home.clone(), root, limit);
    }

    /// As [`Home::new`], for a test that may take `limit`.
    #[must_use]
    pub fn within(limit: Duration) -> Self {
        Self::build(None, limit)
    }

    /// A new home whose state is on the disk `image`.
    #[must_use]
    pub fn on(image: Image) -> Self {
        Self::build(Some(image), TEST)
    }

    /// As [`Home::on`], for a test that may take `limit`.
    #[must_use]
    pub fn on_within(image: Image, limit: Duration) -> Self {
        Self::build(Some(image), limit)
    }

    fn build(image: Option<Image>, limit: Duration) -> Self {
        need::fuse();
        binary::path();
        let root = tempfile::Builder::new().prefix("home-").tempdir_in(sweeper::room()).unwrap();
        let root_path = root.path().canonicalize().unwrap();
        let home = image.as_ref().map_or(&*root_path, Image::path).join("home");
        let watchdog = Watchdog::start(home.clone(), root_path, limit);
        Self { root: Some(root), home, image, port: free_port(), watchdog }
    }

    /// The directory in `CAIRNFS_HOME`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.home
    }

    /// The disk below, if it is a small one.
    #[must_use]
    pub fn image(&self) -> &Image {
        self.image.as_ref().expect("this home was made on an image")
    }

    /// A directory outside of the home for whatever the test keeps; removed with it.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.dir("scratch")
    }

    /// A directory `name` beside the home, made if missing; mount points go here.
    #[must_use]
    pub fn dir(&self, name: &str) -> PathBuf {
        let dir = self.beside(name);
        // A dead mount point cannot be looked at, but it is there.
        if !mounts::is_mounted(&dir) {
            fs::create_dir_all(&dir).unwrap();
        }
        dir
    }

    /// The path `name` beside the home, whether there is something or not.
    #[must_use]
    pub fn beside(&self, name: &str) -> PathBuf {
        let root = self.root.as_ref().expect("taken only when dropped").path();
        root.canonicalize().unwrap().join(name)
    }

    /// The command `cairnfs ARGS` on this home, not yet started.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(binary::path());
        command.args(args).current_dir("/");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CAIRNFS_") {
                command.env_remove(name);
            }
        }
        self.settle(&mut command);
        command
    }

    /// Has `command` use this home, and this machine's own network only: tests run beside each
    /// other, and beside whatever else is on the network.
    pub fn settle<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .env("CAIRNFS_HOME", &self.home)
            .env("CAIRNFS_LISTEN", format!("127.0.0.1:{}", self.port))
            .env("CAIRNFS_DISCOVERY", "false")
    }

    /// Runs `cairnfs ARGS`.
    pub fn cairnfs<S: AsRef<OsStr>>(&self, args: &[S]) -> Outcome {
        let outcome = run(&mut self.command(args), CALL);
        // Colour and progress are for terminals.
        let plain = !outcome.stdout.contains('\x1b') && !outcome.stderr.contains('\x1b');
        assert!(plain, "control sequences where no terminal is: {outcome}");
        outcome
    }

    /// Starts `cairnfs ARGS` and leaves it running.
    pub fn start<S: AsRef<OsStr>>(&self, args: &[S]) -> Running {
        Running::start(&mut self.command(args))
    }

    /// Makes a bucket without a passphrase.
    pub fn create(&self, name: &str) {
        self.cairnfs(&["create", name, "--no-passphrase"]).succeeds();
    }

    /// Mounts the bucket `name` at `dir`.
    #[track_caller]
    pub fn mount(&self, name: &str, dir: &Path, options: &[&str]) {
        self.try_mount(name, dir, options).succeeds();
        assert!(mounts::is_mounted(dir), "`mount` returned 0, and nothing is mounted");
    }

    /// Tries to mount the bucket `name` at `dir`.
    pub fn try_mount(&self, name: &str, dir: &Path, options: &[&str]) -> Outcome {
        let mut args = vec![OsStr::new("mount"), OsStr::new(name), dir.as_os_str()];
        args.extend(options.iter().map(OsStr::new));
        self.cairnfs(&args)
    }

    /// Unmounts `dir`.
    pub fn umount(&self, dir: &Path) -> Outcome {
        self.cairnfs(&[OsStr::new("umount"), dir.as_os_str()])
    }

    /// Unmounts `dir` as soon as nobody uses it: until a process that another test is just starting
    /// runs its program, it has copies of all descriptors that were open then.
    #[track_caller]
    pub fn umount_once_free(&self, dir: &Path) -> Outcome {
        let mut outcome = self.umount(dir);
        for _ in 0..500 {
            if outcome.code != Some(6) {
                break;
            }
            thread::sleep(Duration::from_millis(10));
            outcome = self.umount(dir);
        }
        let is_mounted = mounts::is_mounted(dir);
        assert!(!(outcome.code == Some(0) && is_mounted), "`umount` returned 0, and it is mounted");
        outcome
    }

    /// Kills every process of this home with -9; mounts stay behind, dead.
    pub fn kill(&self) {
        process::kill_home(&self.home);
    }

    /// The process that serves the mounts of this home.
    #[must_use]
    #[track_caller]
    pub fn pid(&self) -> u32 {
        process::serving(&self.home).expect("a process of this home serves a mount")
    }

    /// Every file below the home, with its length.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        let mut dirs = vec![self.home.clone()];
        while let Some(dir) = dirs.pop() {
            // What the daemon removes while we look is not there.
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let Ok(meta) = entry.path().symlink_metadata() else { continue };
                if meta.is_dir() {
                    dirs.push(entry.path());
                } else if meta.is_file() {
                    found.push((entry.path(), meta.len()));
                }
            }
        }
        found.sort();
        found
    }

    /// The pack files, the oldest first, with their lengths.
    #[must_use]
    pub fn packs(&self) -> Vec<(PathBuf, u64)> {
        let mut packs = self.files();
        packs.retain(|(path, _)| {
            path.extension().is_some_and(|ext| ext == "pack")
                || path.parent().is_some_and(|dir| dir.ends_with("packs"))
        });
        assert!(!packs.is_empty(), "no pack below {}: {:?}", self.home.display(), self.files());
        packs
    }

    /// What the home takes on its disk, in bytes.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let blocks = |path: &PathBuf| path.symlink_metadata().map_or(0, |meta| meta.blocks());
        self.files().iter().map(|(path, _)| blocks(path) * 512).sum()
    }
}

/// A port that nobody uses now, and that the system gives to nobody who does not ask for it.
fn free_port() -> u16 {
    let mut rng = Rng::new(Rng::seed_from_env() ^ u64::from(std::process::id()) << 32);
    loop {
        // Tests run beside each other in this process.
        let port = u16::try_from(10_000 + rng.below(20_000)).unwrap();
        if PORTS.lock().unwrap().insert(port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let expired = self.watchdog.stop();
        let root = self.root.take().expect("taken only here");
        process::kill_home(&self.home);
        let root_path = root.path().canonicalize().unwrap_or_else(|_| root.path().to_owned());
        mounts::detach_all(&root_path);
        // Invariant 2: removing through a mount would remove what is mounted.
        if !mounts::below(&root_path).is_empty() || std::env::var_os("CAIRNFS_TEST_KEEP").is_some()
        {
            eprintln!("left behind: {}", root.keep().display());
        }
        assert!(!expired || thread::panicking(), "the test ran into its deadline");
    }
}
