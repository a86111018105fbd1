//! Tells the kernel what a merge has changed behind its back.
//!
//! ```text
//!   writer --> Unheard::outdated --[list under a lock; wake-up, 1]--> notify --> /dev/fuse
//! ```
//!
//! # Invariants
//!
//! 1. Whoever merges never waits for the kernel: it takes locks of the directories and pages
//!    concerned, and a handler that holds one of them may be waiting for the writer.
//! 2. Nothing that is outdated is forgotten: the list has no bound but what merges have changed
//!    since the kernel last took it, and one entry of it costs less than the change itself.
//! 3. A file that is opened before the kernel has been told everything is read anew.

use std::{
    ffi::OsStr,
    io::{self, ErrorKind},
    mem,
    os::unix::ffi::OsStrExt,
    sync::Arc,
    thread,
};

use cairnfs_mount_core::{Ino, Observer, Outdated};
use crossbeam_channel::{Receiver, Sender, bounded};
use fuser::{INodeNo, Notifier};

use crate::{
    exit::plain,
    order::{self, Mutex},
};

/// What the kernel must hear of.
#[derive(Debug)]
pub(super) struct Unheard {
    state: Mutex<State, order::Outdated>,
    /// Holds at most one wake-up: the thread takes everything whenever it wakes.
    wake: Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Outdated>,
    /// Something that was taken from `waiting` is being told.
    telling: bool,
    closed: bool,
}

/// The kernel's side, or a test's.
trait Kernel {
    fn inval_inode(&self, ino: Ino) -> io::Result<()>;
    fn inval_entry(&self, dir: Ino, name: &[u8]) -> io::Result<()>;
    fn delete(&self, dir: Ino, ino: Ino, name: &[u8]) -> io::Result<()>;
}

impl Kernel for Notifier {
    fn inval_inode(&self, ino: Ino) -> io::Result<()> {
        // From the first byte to the last.
        Self::inval_inode(self, INodeNo(ino.0), 0, 0)
    }

    fn inval_entry(&self, dir: Ino, name: &[u8]) -> io::Result<()> {
        Self::inval_entry(self, INodeNo(dir.0), OsStr::from_bytes(name))
    }

    fn delete(&self, dir: Ino, ino: Ino, name: &[u8]) -> io::Result<()> {
        Self::delete(self, INodeNo(dir.0), INodeNo(ino.0), OsStr::from_bytes(name))
    }
}

impl Unheard {
    /// An empty one, and what wakes up the thread that empties it.
    pub(super) fn new() -> (Arc<Self>, Receiver<()>) {
        let (wake, woken) = bounded(1);
        (Arc::new(Self { state: Mutex::default(), wake }), woken)
    }

    /// Whether the kernel may still believe what is no longer so.
    pub(super) fn is_behind(&self) -> bool {
        let state = self.state.lock();
        state.telling || !state.waiting.is_empty()
    }

    /// The session is over: there is nobody to be told.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.waiting = Vec::new();
        drop(state);
        self.wake();
    }

    fn wake(&self) {
        // A wake-up that is under way serves for this as well.
        self.wake.try_send(()).ok();
    }

    /// Everything that waits; none when the session is over.
    fn take(&self) -> Option<Vec<Outdated>> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        let taken = mem::take(&mut state.waiting);
        state.telling = !taken.is_empty();
        Some(taken)
    }
}

impl Observer for Unheard {
    fn outdated(&self, mut what: Vec<Outdated>) {
        let mut state = self.state.lock();
        if state.closed || what.is_empty() {
            return;
        }
        state.waiting.append(&mut what);
        drop(state);
        self.wake();
    }
}

/// Starts the thread `notify`; it ends after [`Unheard::close`].
///
/// `is_alive` says whether an inode still has a name.
pub(super) fn start(
    unheard: Arc<Unheard>,
    woken: Receiver<()>,
    notifier: Notifier,
    is_alive: impl Fn(Ino) -> bool + Send + 'static,
) -> io::Result<()> {
    let work = move || work(&unheard, &woken, &notifier, &is_alive);
    thread::Builder::new().name("notify".to_owned()).spawn(work).map(drop)
}

fn work(
    unheard: &Unheard,
    woken: &Receiver<()>,
    kernel: &impl Kernel,
    is_alive: &impl Fn(Ino) -> bool,
) {
    while woken.recv().is_ok() {
        loop {
            let Some(taken) = unheard.take() else { return };
            if taken.is_empty() {
                break;
            }
            for one in &taken {
                tell(kernel, one, is_alive);
            }
        }
    }
}

fn tell(kernel: &impl Kernel, what: &Outdated, is_alive: &impl Fn(Ino) -> bool) {
    let told = match what {
        Outdated::Inode(ino) => kernel.inval_inode(*ino),
        Outdated::Name { dir, name } => kernel.inval_entry(*dir, name),
        // The kernel takes a deleted inode for dead, so one that has only moved must not be.
        Outdated::Gone { dir, name, ino } if is_alive(*ino) => kernel.inval_entry(*dir, name),
        Outdated::Gone { dir, name, ino } => kernel
            .delete(*dir, *ino, name)
            // A directory with something in it, a mount point, or a kernel that cannot.
            .or_else(|_| kernel.inval_entry(*dir, name)),
    };
    match told {
        Ok(()) => (),
        // It had not remembered it.
        Err(err) if err.kind() == ErrorKind::NotFound => (),
        // At the end of a session.
        Err(err) => log::debug!("notify told=no reason={:?}", plain(&err)),
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Heard {
        lines: Mutex<Vec<String>>,
        refuses_delete: bool,
    }

    impl Kernel for Heard {
        fn inval_inode(&self, ino: Ino) -> io::Result<()> {
            self.lines.lock().push(format!("inode {}", ino.0));
            Err(ErrorKind::NotFound.into())
        }

        fn inval_entry(&self, dir: Ino, name: &[u8]) -> io::Result<()> {
            let name = String::from_utf8_lossy(name);
            self.lines.lock().push(format!("entry {} {name}", dir.0));
            Ok(())
        }

        fn delete(&self, dir: Ino, ino: Ino, name: &[u8]) -> io::Result<()> {
            let name = String::from_utf8_lossy(name);
            self.lines.lock().push(format!("delete {} {} {name}", dir.0, ino.0));
            if self.refuses_delete { Err(ErrorKind::DirectoryNotEmpty.into()) } else { Ok(()) }
        }
    }

    fn gone(ino: u64) -> Outdated {
        Outdated::Gone { dir: Ino(1), name: b"f".to_vec(), ino: Ino(ino) }
    }

    fn told(kernel: &Heard, what: &Outdated) -> Vec<String> {
        tell(kernel, what, &|ino| ino == Ino(7));
        mem::take(&mut *kernel.lines.lock())
    }

    #[test]
    fn what_has_moved_is_not_declared_dead() {
        let kernel = Heard::default();
        assert_eq!(told(&kernel, &gone(8)), ["delete 1 8 f"]);
        assert_eq!(told(&kernel, &gone(7)), ["entry 1 f"]);
        let kernel = Heard { refuses_delete: true, ..Heard::default() };
        assert_eq!(told(&kernel, &gone(8)), ["delete 1 8 f", "entry 1 f"]);
    }

    #[test]
    fn nothing_is_forgotten_and_order_is_kept_however_late_the_kernel_is() {
        let (unheard, woken) = Unheard::new();
        assert!(!unheard.is_behind());
        // Many lists, one wake-up, and none of the senders waits.
        for ino in 1..=100 {
            unheard.outdated(vec![Outdated::Inode(Ino(ino)), Outdated::Inode(Ino(ino + 1000))]);
        }
        assert!(unheard.is_behind());
        let kernel = Heard::default();
        thread::scope(|scope| {
            let worker = thread::Builder::new();
            let work = || work(&unheard, &woken, &kernel, &|_| false);
            let worker = worker.spawn_scoped(scope, work).unwrap();
            while unheard.is_behind() && !worker.is_finished() {
                thread::yield_now();
            }
            unheard.close();
            worker.join().unwrap();
        });
        let expected: Vec<_> =
            (1..=100).flat_map(|ino| [ino, ino + 1000]).map(|ino| format!("inode {ino}")).collect();
        assert_eq!(*kernel.lines.lock(), expected);
        unheard.outdated(vec![gone(1)]);
        assert!(!unheard.is_behind(), "kept for a session that is over");
    }
}
