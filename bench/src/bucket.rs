//! `mount-core` without FUSE.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use cairnfs_mount_core::{
    Bucket, Caller, Done, Error, Fh, Ino, Mount, OpenFlags, Options, Protection, Unlock,
};
use cairnfs_store::DeviceKey;

use crate::{interrupt, rounds::Subject};

/// Who all files belong to.
pub const CALLER: Caller = Caller { uid: 0, gid: 0 };

/// How files are opened.
pub const WRITING: OpenFlags =
    OpenFlags { sync: false, truncate: false, write: true, exclusive: false };

/// Makes a bucket in the new directory `dir` and serves it.
///
/// # Errors
///
/// What the disk says.
pub fn create(dir: &Path, options: Options) -> Result<(Mount, Arc<DeviceKey>)> {
    let device = Arc::new(DeviceKey::generate()?);
    Bucket::create(dir, &device, Protection::KeyFile)?;
    Ok((open(dir, &device, options)?, device))
}

/// Serves the bucket at `dir`.
///
/// # Errors
///
/// As [`Bucket::open`] and [`Mount::start`].
pub fn open(dir: &Path, device: &Arc<DeviceKey>, options: Options) -> Result<Mount> {
    let bucket = Bucket::open(dir, Arc::clone(device), Unlock::KeyFile)?;
    Ok(Mount::start(bucket, options)?)
}

/// Waits for the answer to a call that is answered after a barrier.
///
/// # Errors
///
/// What the call is answered with.
pub fn wait<T: Send + 'static>(call: impl FnOnce(Done<T>)) -> Result<T> {
    let (tell, told) = mpsc::sync_channel(1);
    call(Box::new(move |result| drop(tell.send(result))));
    Ok(told.recv().unwrap_or(Err(Error::Stopped))?)
}

/// Writes `data` to a new file, closes it without waiting, and returns its inode.
///
/// # Errors
///
/// As [`Mount::create`] and [`Mount::write`].
pub fn put(mount: &Mount, parent: Ino, name: &str, data: &[u8]) -> Result<Ino> {
    let (attr, fh) = mount.create(CALLER, parent, name.as_bytes(), 0o644, WRITING)?;
    let mut at = 0;
    for piece in data.chunks(1 << 20) {
        wait(|done| mount.write(attr.ino, fh, at, piece, false, done))?;
        at += piece.len() as u64;
    }
    wait(|done| mount.release(attr.ino, fh, done))?;
    Ok(attr.ino)
}

/// How a save is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// `close`: what that waits for is the policy's affair.
    Close,
    /// `fsync`: waits under every policy.
    Fsync,
}

/// An open file of a [`Mount`] that is changed and saved.
#[derive(Debug)]
pub struct CoreFile {
    name: String,
    mount: Mount,
    ino: Ino,
    fh: Fh,
    ask: Ask,
    places: Places,
}

/// Where in a file the next change goes.
#[derive(Clone, Debug)]
pub struct Places {
    noise: crate::noise::Noise,
    len: u64,
}

impl Places {
    /// Anywhere in a file of `len` bytes, at multiples of the change's length.
    #[must_use]
    pub const fn in_file(len: u64) -> Self {
        Self { noise: crate::noise::Noise::new(7), len }
    }

    /// The next one for a change of `change` bytes.
    pub fn next(&mut self, change: usize) -> u64 {
        let change = change.max(1) as u64;
        let places = (self.len / change).max(1);
        self.noise.below(places) * change
    }
}

impl CoreFile {
    /// Opens `ino`, which has `len` bytes.
    ///
    /// # Errors
    ///
    /// As [`Mount::open`].
    pub fn open(
        name: impl Into<String>,
        mount: &Mount,
        ino: Ino,
        len: u64,
        ask: Ask,
    ) -> Result<Self> {
        let fh = mount.open(ino, WRITING)?;
        let places = Places::in_file(len);
        Ok(Self { name: name.into(), mount: mount.clone(), ino, fh, ask, places })
    }

    /// Writes `data` and waits for what [`Ask`] waits for.
    ///
    /// # Errors
    ///
    /// What the save failed with.
    pub fn save(&mut self, data: &[u8]) -> Result<Duration> {
        let at = self.places.next(data.len());
        let (mount, ino, fh) = (&self.mount, self.ino, self.fh);
        let start = Instant::now();
        if !data.is_empty() {
            wait(|done| mount.write(ino, fh, at, data, false, done))?;
        }
        match self.ask {
            Ask::Close => wait(|done| mount.flush(ino, fh, done))?,
            Ask::Fsync => wait(|done| mount.fsync(fh, done))?,
        }
        Ok(start.elapsed())
    }
}

impl Subject for CoreFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self, data: &[u8]) -> Result<Duration> {
        self.save(data)
    }
}

impl Drop for CoreFile {
    fn drop(&mut self) {
        // The mount may have been stopped before; nobody waits for the answer.
        self.mount.release(self.ino, self.fh, Box::new(|_| ()));
    }
}

/// A directory with `count` files of 100 bytes, and one of `len` bytes named `measured`.
///
/// # Errors
///
/// As [`Mount::mkdir`] and [`put`].
pub fn directory(mount: &Mount, name: &str, count: u32, len: usize) -> Result<Ino> {
    let dir = mount.mkdir(CALLER, Ino::ROOT, name.as_bytes(), 0o755)?.ino;
    let mut noise = crate::noise::Noise::new(u64::from(count));
    for n in 1..count {
        interrupt::check()?;
        put(mount, dir, &format!("file-{n}"), &noise.bytes(100)).context("filling a directory")?;
    }
    put(mount, dir, "measured", &noise.bytes(len))
}
