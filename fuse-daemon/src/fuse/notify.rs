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
//! 3. A file that is opened before the kernel has been told everything is read anew, up to its new
//!    end.
//! 4. What an answer brings that is from before a merge is not believed for long, however late the
//!    kernel takes it in: see [`Again`].

use std::{
    ffi::OsStr,
    fmt,
    io::{self, ErrorKind},
    mem,
    os::unix::ffi::OsStrExt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use cairnfs_mount_core::{Ino, Observer, Outdated};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use fuser::{INodeNo, Notifier};

use super::again::Again;
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
    /// How often something was outdated. Orders nothing: who counts holds the lock of the mount.
    landings: AtomicU64,
    /// Set before the first call comes.
    kernel: OnceLock<Box<dyn Kernel>>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Outdated>,
    /// Something that was taken from `waiting` is being told.
    telling: bool,
    /// What is to be told once more.
    again: Again,
    closed: bool,
}

/// The kernel's side, or a test's.
trait Kernel: fmt::Debug + Send + Sync {
    fn inval_inode(&self, ino: Ino) -> io::Result<()>;
    /// Attributes without pages: waits for no lock but a spinning one.
    fn inval_attrs(&self, ino: Ino) -> io::Result<()>;
    fn inval_entry(&self, dir: Ino, name: &[u8]) -> io::Result<()>;
    fn delete(&self, dir: Ino, ino: Ino, name: &[u8]) -> io::Result<()>;
}

impl Kernel for Notifier {
    fn inval_inode(&self, ino: Ino) -> io::Result<()> {
        // From the first byte to the last.
        Self::inval_inode(self, INodeNo(ino.0), 0, 0)
    }

    fn inval_attrs(&self, ino: Ino) -> io::Result<()> {
        // A negative offset is how the protocol says so.
        Self::inval_inode(self, INodeNo(ino.0), -1, 0)
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
        let (state, landings, kernel) = (Mutex::default(), AtomicU64::new(0), OnceLock::new());
        (Arc::new(Self { state, wake, landings, kernel }), woken)
    }

    /// Whether the kernel may still believe of `ino` what is no longer so.
    pub(super) fn is_behind(&self, ino: Ino) -> bool {
        let state = self.state.lock();
        state.telling || !state.waiting.is_empty() || state.again.has(ino)
    }

    /// Changes whenever something becomes outdated.
    pub(super) fn landings(&self) -> u64 {
        self.landings.load(Ordering::Relaxed)
    }

    /// `ino` has been opened, of which the kernel is about to hear: whether the pages that it has may
    /// be kept. If not, it has been told that the length, at which it would end reads, may be old.
    ///
    /// For the thread that answers the kernel, which must not be kept waiting by it: pages are the
    /// caller's to give up, which waits for those that others are reading.
    pub(super) fn opened(&self, ino: Ino) -> bool {
        let is_behind = self.is_behind(ino);
        if is_behind && let Some(kernel) = self.kernel.get() {
            note(kernel.inval_attrs(ino));
        }
        !is_behind
    }

    /// The session is over: there is nobody to be told.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.waiting = Vec::new();
        state.again = Again::default();
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

    /// What was taken has been told.
    fn told(&self, taken: &[Outdated]) {
        let inodes = taken.iter().filter_map(|what| match what {
            Outdated::Inode(ino) => Some(*ino),
            Outdated::Name { .. } | Outdated::Gone { .. } => None,
        });
        let mut inodes: Vec<Ino> = inodes.collect();
        inodes.sort_unstable();
        let mut state = self.state.lock();
        state.telling = false;
        if !state.closed {
            state.again.add(inodes, Instant::now());
        }
    }

    /// Waits for a wake-up, or until something is to be told again.
    fn wait(&self, woken: &Receiver<()>) -> Result<(), RecvTimeoutError> {
        let wait = self.state.lock().again.wait(Instant::now());
        match wait {
            Some(wait) => match woken.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => Ok(()),
                woken => woken,
            },
            None => woken.recv().map_err(RecvTimeoutError::from),
        }
    }
}

impl Observer for Unheard {
    fn outdated(&self, mut what: Vec<Outdated>) {
        self.landings.fetch_add(1, Ordering::Relaxed);
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
    unheard.kernel.set(Box::new(notifier)).expect("because a session is started once");
    let work = move || work(&unheard, &woken, &is_alive);
    thread::Builder::new().name("notify".to_owned()).spawn(work).map(drop)
}

fn work(unheard: &Unheard, woken: &Receiver<()>, is_alive: &impl Fn(Ino) -> bool) {
    let kernel = unheard.kernel.get().expect("because it is set before there is a thread").as_ref();
    while unheard.wait(woken).is_ok() {
        loop {
            let Some(taken) = unheard.take() else { return };
            for one in &taken {
                tell(kernel, one, is_alive);
            }
            unheard.told(&taken);
            let again = unheard.state.lock().again.take(Instant::now());
            for ino in again {
                note(kernel.inval_attrs(ino));
            }
            if taken.is_empty() {
                break;
            }
        }
    }
}

fn tell(kernel: &dyn Kernel, what: &Outdated, is_alive: &impl Fn(Ino) -> bool) {
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
    note(told);
}

fn note(told: io::Result<()>) {
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

    #[derive(Clone, Default, Debug)]
    struct Heard {
        lines: Arc<Mutex<Vec<String>>>,
        refuses_delete: bool,
    }

    impl Kernel for Heard {
        fn inval_inode(&self, ino: Ino) -> io::Result<()> {
            self.lines.lock().push(format!("inode {}", ino.0));
            Err(ErrorKind::NotFound.into())
        }

        fn inval_attrs(&self, ino: Ino) -> io::Result<()> {
            self.lines.lock().push(format!("attrs {}", ino.0));
            Ok(())
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

    /// Runs the thread until `is_done`.
    fn work_until(unheard: &Unheard, woken: &Receiver<()>, is_done: impl Fn() -> bool) {
        thread::scope(|scope| {
            let worker = thread::Builder::new();
            let worker = worker.spawn_scoped(scope, || work(unheard, woken, &|_| false)).unwrap();
            while !is_done() && !worker.is_finished() {
                thread::yield_now();
            }
            unheard.close();
            worker.join().unwrap();
        });
    }

    #[test]
    fn nothing_is_forgotten_and_order_is_kept_however_late_the_kernel_is() {
        let (unheard, woken) = Unheard::new();
        let kernel = Heard::default();
        unheard.kernel.set(Box::new(kernel.clone())).unwrap();
        assert!(!unheard.is_behind(Ino(7)));
        // Many lists, one wake-up, and none of the senders waits.
        for ino in 1..=100 {
            unheard.outdated(vec![Outdated::Inode(Ino(ino)), Outdated::Inode(Ino(ino + 1000))]);
        }
        assert!(unheard.is_behind(Ino(7)));
        work_until(&unheard, &woken, || !unheard.is_behind(Ino(2000)));
        let mut told = kernel.lines.lock().clone();
        // What was told again while that was seen.
        told.retain(|line| line.starts_with("inode"));
        let expected: Vec<_> =
            (1..=100).flat_map(|ino| [ino, ino + 1000]).map(|ino| format!("inode {ino}")).collect();
        assert_eq!(told, expected);
        unheard.outdated(vec![gone(1)]);
        assert!(!unheard.is_behind(Ino(1)), "kept for a session that is over");
    }

    #[test]
    fn of_what_has_changed_the_kernel_is_told_again_for_answers_that_were_under_way() {
        let (unheard, woken) = Unheard::new();
        let kernel = Heard::default();
        unheard.kernel.set(Box::new(kernel.clone())).unwrap();
        unheard.outdated(vec![gone(1), Outdated::Inode(Ino(3))]);
        let is_told_again = || kernel.lines.lock().len() >= 4;
        work_until(&unheard, &woken, is_told_again);
        let lines = kernel.lines.lock();
        assert_eq!(lines[..4], ["delete 1 1 f", "inode 3", "attrs 3", "attrs 3"]);
    }

    #[test]
    fn what_is_opened_before_the_kernel_was_told_ends_where_it_does_now() {
        let (unheard, _woken) = Unheard::new();
        let kernel = Heard::default();
        unheard.kernel.set(Box::new(kernel.clone())).unwrap();
        assert!(unheard.opened(Ino(3)), "pages are dropped for nothing");
        assert!(kernel.lines.lock().is_empty());
        unheard.outdated(vec![Outdated::Inode(Ino(3))]);
        assert!(!unheard.opened(Ino(3)));
        let taken = unheard.take().unwrap();
        assert!(!unheard.opened(Ino(3)));
        unheard.told(&taken);
        assert!(!unheard.opened(Ino(3)), "an answer from before may be under way");
        assert!(unheard.opened(Ino(4)));
        assert_eq!(*kernel.lines.lock(), ["attrs 3", "attrs 3", "attrs 3"]);
    }
}
