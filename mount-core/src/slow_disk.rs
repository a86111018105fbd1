//! A simulated disk before whose calls a thread is stopped, or something else is done.

use std::{
    fmt, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use cairnfs_store::{
    disk::{Disk, DiskFile, Lock, LockError, Open, Space},
    sim::{Call, SimDisk},
};
use parking_lot::{RwLock, RwLockWriteGuard};

/// Where threads wait.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    lock: RwLock<()>,
    waiting: AtomicUsize,
}

impl Gate {
    /// Lets nobody pass until what this gives is dropped.
    pub(crate) fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.lock.write()
    }

    pub(crate) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _pass = self.lock.read();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What is done before which calls of which thread.
struct Before {
    thread: &'static str,
    call: Call,
    act: Box<dyn Fn() + Send + Sync>,
}

impl Before {
    fn call(&self, call: Call) {
        if call == self.call && thread::current().name() == Some(self.thread) {
            (self.act)();
        }
    }
}

impl fmt::Debug for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Before({:?} of {})", self.call, self.thread)
    }
}

#[derive(Debug)]
pub(crate) struct SlowDisk {
    disk: SimDisk,
    before: Arc<Before>,
}

impl SlowDisk {
    /// Does `act` before each read or barrier of a file, whichever `call` is, by the thread `thread`.
    pub(crate) fn new(
        disk: &SimDisk,
        thread: &'static str,
        call: Call,
        act: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        let before = Arc::new(Before { thread, call, act: Box::new(act) });
        Arc::new(Self { disk: disk.clone(), before })
    }

    /// Lets the search for space read nothing while the gate is held.
    pub(crate) fn for_search(disk: &SimDisk) -> (Arc<Self>, Arc<Gate>) {
        let gate = Arc::new(Gate::default());
        let at = Arc::clone(&gate);
        (Self::new(disk, "search", Call::Read, move || at.pass()), gate)
    }
}

#[derive(Debug)]
struct SlowFile {
    file: Arc<dyn DiskFile>,
    before: Arc<Before>,
}

impl DiskFile for SlowFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.before.call(Call::Read);
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
        self.before.call(Call::Barrier);
        self.file.barrier()
    }

    fn forget_cached(&self) {
        self.file.forget_cached();
    }
}

impl Disk for SlowDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, how)?;
        Ok(Arc::new(SlowFile { file, before: Arc::clone(&self.before) }))
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
