//! A home with one bucket, mounted.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Home, Image, Outcome, mounts, need, process};

/// Options of a mount that publishes only what it is asked to.
pub const UNPUBLISHED: [&str; 4] = ["--publish-quiet", "1h", "--publish-max", "1h"];

/// Options of a mount that saves and publishes only what it is asked to.
pub const UNASKED_NOTHING: [&str; 6] =
    ["--save", "interval:1h", "--publish-quiet", "1h", "--publish-max", "1h"];

/// A save policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Save {
    /// `close` returns after the barrier.
    Flush,
    /// `close` returns at once.
    Release,
    /// Saved this often.
    Interval(Duration),
}

impl Save {
    /// As the command line has it.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::Flush => "flush".into(),
            Self::Release => "release".into(),
            Self::Interval(every) => format!("interval:{}ms", every.as_millis()),
        }
    }

    /// The longest that a change may stay unsaved when nobody asks for a save.
    #[must_use]
    pub const fn max_age(self) -> Duration {
        match self {
            Self::Flush | Self::Release => Duration::from_secs(1),
            Self::Interval(every) => every,
        }
    }
}

/// A bucket named `photos`, mounted on a home of its own.
///
/// In plain mode (`CAIRNFS_TEST_DIR`) it is an ordinary directory, which nothing can kill: so a
/// test of files can be shown to ask for what an ordinary file system does.
#[derive(Debug)]
pub struct Peer {
    base: Base,
    options: Vec<String>,
}

#[derive(Debug)]
enum Base {
    Mounted { home: Home, dir: PathBuf },
    Plain { root: tempfile::TempDir },
}

/// The name of every peer's bucket.
pub const BUCKET: &str = "photos";

impl Peer {
    /// A new bucket, mounted under the policy `flush`.
    #[must_use]
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// A new bucket, mounted under `save`.
    #[must_use]
    pub fn saving(save: Save) -> Self {
        Self::with(&["--save", &save.text()])
    }

    /// A new bucket, mounted with `options`.
    #[must_use]
    pub fn with(options: &[&str]) -> Self {
        match need::plain_dir() {
            Some(parent) => Self::plain(parent),
            None => Self::on(Home::new(), options),
        }
    }

    /// As [`Peer::with`], for a test that may take `limit`.
    #[must_use]
    pub fn within(limit: Duration, options: &[&str]) -> Self {
        match need::plain_dir() {
            Some(parent) => Self::plain(parent),
            None => Self::on(Home::within(limit), options),
        }
    }

    /// As [`Peer::within`], on a disk whose barriers take no time: for a test of when the daemon begins,
    /// which others that use the disk must not delay.
    #[must_use]
    pub fn in_memory(limit: Duration, options: &[&str]) -> Self {
        match need::plain_dir() {
            Some(parent) => Self::plain(parent),
            None => Self::on(Home::on_within(Image::tmpfs(256), limit), options),
        }
    }

    /// A new bucket on `home`, mounted with `options`.
    #[must_use]
    pub fn on(home: Home, options: &[&str]) -> Self {
        home.create(BUCKET);
        Self::again(home, options)
    }

    /// The bucket that `home` has already, mounted with `options`.
    #[must_use]
    pub fn again(home: Home, options: &[&str]) -> Self {
        let dir = home.dir("mnt");
        let peer = Self {
            base: Base::Mounted { home, dir },
            options: options.iter().map(|&option| option.to_owned()).collect(),
        };
        peer.mount();
        peer
    }

    /// The bucket of `of`, joined on `home` by an invitation and mounted with `options`.
    #[must_use]
    #[track_caller]
    pub fn joining(home: Home, of: &Self, options: &[&str]) -> Self {
        let ticket = of.invite(&[]);
        home.cairnfs(&["join", &ticket, "--no-passphrase", "--name", BUCKET]).succeeds();
        Self::again(home, options)
    }

    /// A ticket for another device.
    #[must_use]
    #[track_caller]
    pub fn invite(&self, options: &[&str]) -> String {
        let mut args = vec!["invite", BUCKET];
        args.extend(options);
        let ticket = self.home().cairnfs(&args).succeeds().stdout;
        assert_eq!(ticket.lines().count(), 1, "a ticket is one line: {ticket:?}");
        ticket.trim().to_owned()
    }

    fn plain(parent: &Path) -> Self {
        let root = tempfile::Builder::new().prefix("plain-").tempdir_in(parent).unwrap();
        fs::create_dir(root.path().join("mnt")).unwrap();
        fs::create_dir(root.path().join("scratch")).unwrap();
        Self { base: Base::Plain { root }, options: Vec::new() }
    }

    /// Whether this is an ordinary directory.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(self.base, Base::Plain { .. })
    }

    /// Its home.
    #[must_use]
    #[track_caller]
    pub fn home(&self) -> &Home {
        match &self.base {
            Base::Mounted { home, .. } => home,
            Base::Plain { .. } => panic!("this test needs a real mount, not CAIRNFS_TEST_DIR"),
        }
    }

    /// The mount point.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        match &self.base {
            Base::Mounted { dir, .. } => dir.clone(),
            Base::Plain { root } => root.path().join("mnt"),
        }
    }

    /// The path of `name` in the mount.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir().join(name)
    }

    /// A directory on an ordinary disk.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        match &self.base {
            Base::Mounted { home, .. } => home.scratch(),
            Base::Plain { root } => root.path().join("scratch"),
        }
    }

    /// Writes a whole file: open, write, close. Unlike `fs::write` it fails when `close` does.
    #[track_caller]
    pub fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        if let Err(err) = write(&path, bytes.as_ref()) {
            panic!("write {}: {err}", path.display());
        }
    }

    /// Reads a whole file.
    #[must_use]
    #[track_caller]
    pub fn read(&self, name: impl AsRef<Path>) -> Vec<u8> {
        let path = self.path(name);
        fs::read(&path).unwrap_or_else(|err| panic!("read {}: {err}", path.display()))
    }

    /// The names in a directory, sorted.
    #[must_use]
    #[track_caller]
    pub fn names(&self, dir: impl AsRef<Path>) -> Vec<String> {
        let path = self.path(dir);
        let entries = fs::read_dir(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Mounts with the options of the beginning.
    #[track_caller]
    pub fn mount(&self) {
        if let Base::Mounted { home, dir } = &self.base {
            let options: Vec<_> = self.options.iter().map(String::as_str).collect();
            home.mount(BUCKET, dir, &options);
        }
    }

    /// Unmounts cleanly.
    #[track_caller]
    pub fn umount(&self) {
        if let Base::Mounted { home, dir } = &self.base {
            home.umount_once_free(dir).succeeds();
        }
    }

    /// Unmounts cleanly and mounts again.
    #[track_caller]
    pub fn remount(&self) {
        self.umount();
        self.mount();
    }

    /// Unmounts and stops the daemon: nothing of this home runs or holds a lock afterwards.
    #[track_caller]
    pub fn stop(&self) {
        self.umount();
        let home = self.home();
        home.cairnfs(&["stop"]).succeeds();
        process::ended(home.path());
    }

    /// Kills the daemon with -9.
    pub fn kill(&self) {
        if let Base::Mounted { home, .. } = &self.base {
            home.kill();
        }
    }

    /// Kills the daemon with -9 and mounts again.
    #[track_caller]
    pub fn kill_and_remount(&self) {
        self.kill();
        self.mount_again();
    }

    /// Mounts after a kill.
    #[track_caller]
    pub fn mount_again(&self) {
        if let Base::Mounted { dir, .. } = &self.base {
            mounts::detach_all(dir);
            self.mount();
        }
    }

    /// The daemon's process.
    #[must_use]
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.home().pid()
    }

    /// Waits until the tool says that everything is safe.
    #[track_caller]
    pub fn wait_safe(&self) {
        if let Base::Mounted { home, .. } = &self.base {
            home.cairnfs(&["status", BUCKET, "--wait-safe"]).succeeds();
        }
    }

    /// Reads and verifies everything that is stored.
    pub fn check(&self) -> Outcome {
        self.home().cairnfs(&["check", BUCKET])
    }
}

impl Default for Peer {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes a whole file and reports what `close` says.
///
/// # Errors
///
/// Those of `open`, `write` and `close`.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use io::Write;
    let mut file = fs::File::create(path)?;
    file.write_all(bytes)?;
    close(file)
}

/// Closes `file` and says what `close` said, which dropping it does not.
///
/// # Errors
///
/// What `close` reports.
pub fn close(file: fs::File) -> io::Result<()> {
    Ok(nix::unistd::close(file)?)
}
