//! Ctrl-C in a verb: undo what must be undone, then exit with 130.

use std::{
    io, process,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use parking_lot::Mutex;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{
    exit::{Code, Failure, Result},
    ui,
};

/// Says how the process ends, if not as interrupted.
type Undo = Box<dyn FnOnce() -> Option<Result<()>> + Send>;

/// What is to be done, oldest first.
static PENDING: Mutex<Vec<(u64, Undo)>> = Mutex::new(Vec::new());

/// Whether signals are somebody else's by now. Nothing else is ordered by it.
static HANDED_OVER: AtomicBool = AtomicBool::new(false);

/// Whether the process is ending by itself. Only set and read with `PENDING` held.
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// Handles SIGINT, SIGTERM and SIGHUP in a thread of its own, for the rest of the process or until
/// [`hand_over`].
pub(crate) fn watch() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let watch = move || {
        let mut wanted = signals.forever().filter(|_| !HANDED_OVER.load(Ordering::Relaxed));
        if wanted.next().is_some() {
            end();
        }
    };
    thread::Builder::new().name("interrupt".into()).spawn(watch).map(drop)
}

/// Leaves signals to whoever else watches them.
pub(crate) fn hand_over() {
    HANDED_OVER.store(true, Ordering::Relaxed);
}

/// Puts an interruption off until what this returns is dropped: what is made meanwhile, and noted as
/// something to be undone, is not left behind. Nothing may be pushed or dropped meanwhile.
#[must_use = "dropping it lets interruptions through"]
pub(crate) fn put_off() -> impl Sized {
    PENDING.lock()
}

/// Whoever calls this has the last word, and what it says is said once: a process that was interrupted
/// meanwhile ends here.
pub(crate) fn last_word() {
    let _pending = PENDING.lock();
    IS_OVER.store(true, Ordering::Relaxed);
}

/// Ends the process, unless it is ending already.
fn end() {
    // The lock stays held, so that nothing is begun or undone twice meanwhile.
    let mut pending = PENDING.lock();
    if IS_OVER.load(Ordering::Relaxed) {
        return;
    }
    let mut outcome = None;
    while let Some((_, undo)) = pending.pop() {
        outcome = undo().or(outcome);
    }
    match outcome.unwrap_or_else(|| Err(Failure::new(Code::Interrupted, "interrupted"))) {
        Ok(()) => process::exit(0),
        Err(failure) => {
            ui::failure(&failure);
            process::exit(i32::from(failure.code.number()))
        }
    }
}

/// Something to be done when the process is interrupted.
#[must_use = "dropping it takes it back"]
pub(crate) struct OnInterrupt {
    id: u64,
    is_undo: bool,
}

impl OnInterrupt {
    /// Will call `undo` once: when interrupted, or else when dropped.
    pub(crate) fn undo(undo: impl FnOnce() + Send + 'static) -> Self {
        let undo = || {
            undo();
            None
        };
        Self { id: push(Box::new(undo)), is_undo: true }
    }

    /// When interrupted, will call `finish`, whose result becomes that of the process.
    pub(crate) fn finish(finish: impl FnOnce() -> Result<()> + Send + 'static) -> Self {
        Self { id: push(Box::new(|| Some(finish()))), is_undo: false }
    }
}

fn push(undo: Undo) -> u64 {
    let mut pending = PENDING.lock();
    let id = pending.last().map_or(0, |(last, _)| last + 1);
    pending.push((id, undo));
    id
}

impl Drop for OnInterrupt {
    fn drop(&mut self) {
        let mut pending = PENDING.lock();
        let index = pending.iter().position(|(id, _)| *id == self.id);
        let undo = index.map(|index| pending.remove(index).1);
        drop(pending);
        if let Some(undo) = undo.filter(|_| self.is_undo) {
            undo();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicU32};

    use super::*;

    #[test]
    fn dropping_undoes_once_and_finishes_never() {
        let undone = Arc::new(AtomicU32::new(0));
        let (undo, finish) = (Arc::clone(&undone), Arc::clone(&undone));
        let guard = OnInterrupt::undo(move || {
            undo.fetch_add(1, Ordering::Relaxed);
        });
        let finish =
            OnInterrupt::finish(move || unreachable!("nothing was interrupted: {finish:?}"));
        drop(finish);
        assert_eq!(undone.load(Ordering::Relaxed), 0);
        drop(guard);
        assert_eq!(undone.load(Ordering::Relaxed), 1);
        assert_eq!(Arc::strong_count(&undone), 1, "nothing of it is kept");
    }
}
