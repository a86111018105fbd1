//! A bucket served by the `cairnfs` binary: a real mount.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    os::unix::{fs::FileExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use cairnfs_mount_core::{Mount, Options};
use cairnfs_store::{DeviceKey, disk::RealDisk};

use crate::{
    bucket::{Ask, Places},
    noise::Noise,
    plain::barrier,
    rounds::Subject,
    systems::is_mounted,
};

/// How long a mount or an unmount may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A home with one bucket and room for its mount point.
#[derive(Debug)]
pub struct Home {
    binary: PathBuf,
    home: PathBuf,
    point: PathBuf,
}

/// A mounted bucket; unmounted when dropped.
#[derive(Debug)]
pub struct Served<'h> {
    home: &'h Home,
    daemon: Child,
}

impl Home {
    /// Makes a home below `dir` with a bucket in it.
    ///
    /// # Errors
    ///
    /// What the binary says.
    pub fn new(binary: &Path, dir: &Path, name: &str) -> Result<Self> {
        let home = Self::bare(binary, dir, name)?;
        let status = home
            .command(&[OsStr::new("create"), OsStr::new("b"), OsStr::new("--no-passphrase")])
            .status()?;
        ensure!(status.success(), "cairnfs create failed");
        Ok(home)
    }

    /// As [`Home::new`], without a bucket.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn bare(binary: &Path, dir: &Path, name: &str) -> Result<Self> {
        let home = Self {
            binary: binary.to_owned(),
            home: dir.join(name),
            point: dir.join(format!("{name}-mnt")),
        };
        fs::create_dir_all(&home.point)?;
        Ok(home)
    }

    /// Where its bucket is to be mounted.
    #[must_use]
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// What was said on stderr so far.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read_to_string(self.point.with_extension("log")).unwrap_or_default()
    }

    /// The command `cairnfs ARGS` on this home; its output goes nowhere.
    pub(crate) fn command(&self, args: &[&OsStr]) -> Command {
        let mut command = Command::new(&self.binary);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("CAIRNFS_") {
                command.env_remove(name);
            }
        }
        // What it says is kept for whoever looks for the reason of a failure.
        let log = File::options().append(true).create(true).open(self.point.with_extension("log"));
        command
            .args(args)
            .env("CAIRNFS_HOME", &self.home)
            // Nobody else on the network is to hear of what is measured.
            .env("CAIRNFS_LISTEN", "127.0.0.1:0")
            .env("CAIRNFS_DISCOVERY", "false")
            .stdout(Stdio::null())
            .stderr(log.map_or_else(|_| Stdio::inherit(), Stdio::from));
        command
    }

    /// Mounts the bucket with further `options`.
    ///
    /// # Errors
    ///
    /// What the binary says, or that it does not come up.
    pub fn mount(&self, options: &[&str]) -> Result<Served<'_>> {
        let mut args =
            vec![OsStr::new("mount"), OsStr::new("b"), self.point.as_os_str(), OsStr::new("-f")];
        args.extend(options.iter().map(OsStr::new));
        // Its own group, so that Ctrl-C ends the work and not what it is done on.
        let daemon = self.command(&args).process_group(0).spawn();
        let mut daemon = daemon.context("starting cairnfs")?;
        let start = Instant::now();
        while !is_mounted(&self.point)? {
            if let Some(status) = daemon.try_wait()? {
                anyhow::bail!("cairnfs mount ended: {status}: {}", self.said());
            }
            ensure!(start.elapsed() < PATIENCE, "cairnfs mount does not come up");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Served { home: self, daemon })
    }

    /// Serves the bucket without FUSE, by this process.
    ///
    /// # Errors
    ///
    /// As [`bucket::open`](crate::bucket::open); a missing device key.
    pub fn core(&self, options: Options) -> Result<Mount> {
        let device = DeviceKey::load(&RealDisk, &self.home.join("device.key"))?;
        crate::bucket::open(&self.home.join("buckets/b"), &Arc::new(device), options)
    }
}

impl Served<'_> {
    /// Where it is mounted.
    #[must_use]
    pub fn point(&self) -> &Path {
        &self.home.point
    }

    /// The process that serves it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// Seals what is saved as a version, and waits for it.
    ///
    /// # Errors
    ///
    /// What the binary says.
    pub fn publish(&self) -> Result<()> {
        let args = [OsStr::new("publish"), OsStr::new("b")];
        ensure!(self.home.command(&args).status()?.success(), "cairnfs publish failed");
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let args = [OsStr::new("umount"), self.home.point.as_os_str()];
        ensure!(self.home.command(&args).status()?.success(), "cairnfs umount failed");
        let start = Instant::now();
        while self.daemon.try_wait()?.is_none() {
            ensure!(start.elapsed() < PATIENCE, "cairnfs does not end");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        let Err(err) = self.end() else { return };
        crate::ui::progress(&format!("{err}; taking {} away", self.home.point.display()));
        let detach = Command::new("fusermount3").args(["-u", "-z"]).arg(&self.home.point).status();
        if let Err(err) = detach.and(self.daemon.kill()).and_then(|()| self.daemon.wait()) {
            crate::ui::progress(&format!("left behind: {err}"));
        }
    }
}

/// A file of a mount that is changed and saved.
#[derive(Debug)]
pub struct MountedFile {
    name: String,
    path: PathBuf,
    ask: Ask,
    places: Places,
    /// Stays open where closing is not what is timed.
    file: Option<File>,
}

impl MountedFile {
    /// The file at `path`, made with noise of `len` bytes unless it is there.
    ///
    /// # Errors
    ///
    /// What the mount says.
    pub fn new(name: impl Into<String>, path: PathBuf, len: u64, ask: Ask) -> Result<Self> {
        if !path.exists() {
            write_noise(&path, len, &mut Noise::new(len))?;
        }
        let file = match ask {
            Ask::Close => None,
            Ask::Fsync => Some(File::options().write(true).open(&path)?),
        };
        Ok(Self { name: name.into(), path, ask, places: Places::in_file(len), file })
    }

    /// Changes the file by `data` and waits for `close`, or for `fsync`. Opening is not timed.
    ///
    /// # Errors
    ///
    /// What the mount says.
    pub fn save(&mut self, data: &[u8]) -> Result<Duration> {
        let at = self.places.next(data.len());
        match &self.file {
            Some(file) => {
                let start = Instant::now();
                file.write_all_at(data, at)?;
                barrier(file)?;
                Ok(start.elapsed())
            }
            None => {
                let file = File::options().write(true).open(&self.path)?;
                let start = Instant::now();
                file.write_all_at(data, at)?;
                close(file)?;
                Ok(start.elapsed())
            }
        }
    }

    /// How it is saved.
    #[must_use]
    pub const fn ask(&self) -> Ask {
        self.ask
    }
}

/// Makes one empty file after the other in a directory.
#[derive(Debug)]
pub struct MountedDir {
    name: String,
    path: PathBuf,
    n: u32,
}

impl MountedDir {
    /// A new directory at `path` with `count` empty files in it.
    ///
    /// # Errors
    ///
    /// What the mount says.
    pub fn new(name: impl Into<String>, path: PathBuf, count: u32) -> Result<Self> {
        fs::create_dir(&path)?;
        let mut dir = Self { name: name.into(), path, n: 0 };
        while dir.n < count {
            dir.run(&[])?;
        }
        Ok(dir)
    }
}

impl Subject for MountedDir {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self, _: &[u8]) -> Result<Duration> {
        self.n += 1;
        let path = self.path.join(format!("file-{}", self.n));
        let start = Instant::now();
        close(File::create(path)?)?;
        Ok(start.elapsed())
    }
}

/// `close`, with its error, which dropping a file does not tell.
///
/// # Errors
///
/// What the file system says.
pub fn close(file: File) -> Result<()> {
    nix::unistd::close(file).context("close")
}

/// A new file of `len` bytes of `noise`.
///
/// # Errors
///
/// What the disk says.
pub fn write_noise(path: &Path, len: u64, noise: &mut Noise) -> Result<()> {
    let file = File::create(path)?;
    let mut at = 0;
    while at < len {
        let piece = noise.bytes(usize::try_from((len - at).min(1 << 20))?);
        file.write_all_at(&piece, at)?;
        at += piece.len() as u64;
    }
    Ok(())
}

impl Subject for MountedFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self, data: &[u8]) -> Result<Duration> {
        self.save(data)
    }
}
