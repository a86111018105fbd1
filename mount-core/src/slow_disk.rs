//! A simulated disk that lets the search for space wait.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use cairnfs_store::{
    disk::{Disk, DiskFile, Lock, LockError, Open, Space},
    sim::SimDisk,
};
use parking_lot::{RwLock, RwLockWriteGuard};

/// A disk; clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct SlowDisk {
    disk: SimDisk,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    lock: RwLock<()>,
    waiting: AtomicUsize,
}

impl SlowDisk {
    pub(crate) fn new(disk: &SimDisk) -> Self {
        Self { disk: disk.clone(), gate: Arc::default() }
    }

    /// Lets the thread `search` read nothing until what this gives is dropped.
    pub(crate) fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.lock.write()
    }

    pub(crate) fn is_waited_for(&self) -> bool {
        self.gate.waiting.load(Ordering::SeqCst) > 0
    }
}

#[derive(Debug)]
struct SlowFile {
    file: Arc<dyn DiskFile>,
    gate: Arc<Gate>,
}

impl DiskFile for SlowFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if thread::current().name() == Some("search") {
            self.gate.waiting.fetch_add(1, Ordering::SeqCst);
            let _pass = self.gate.lock.read();
            self.gate.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(data, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn barrier(&self) -> io::Result<()> {
        self.file.barrier()
    }
}

impl Disk for SlowDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, how)?;
        Ok(Arc::new(SlowFile { file, gate: Arc::clone(&self.gate) }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn give_to_owner_of(&self, path: &Path, like: &Path) -> io::Result<()> {
        self.disk.give_to_owner_of(path, like)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.disk.space(dir)
    }

    fn lock(&self, path: &Path) -> Result<Lock, LockError> {
        self.disk.lock(path)
    }
}
