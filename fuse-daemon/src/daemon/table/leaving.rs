//! The end of a mount, and of all: who does it, and when the place is free.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{SETTLE, Served, Slot, State, Table};
use crate::exit::{Code, Failure, Result};

impl Table {
    /// Marks `served` as being unmounted, so that one thread alone does it. When the daemon ends that
    /// is the thread that ends it.
    pub(in crate::daemon) fn leave(&self, served: &Served) -> Result<()> {
        let mut state = self.state.lock();
        if state.ending { Err(just_leaving(served)) } else { state.leave(served) }
    }

    /// As [`Table::leave`], for the thread that ends the daemon.
    pub(in crate::daemon) fn leave_at_end(&self, served: &Served) -> Result<()> {
        self.state.lock().leave(served)
    }

    /// It stays mounted after all. Says whether the kernel has let go of it meanwhile: then others have
    /// unmounted it, and nobody else ends it any more.
    #[must_use = "somebody has to end it"]
    pub(in crate::daemon) fn stay(&self, served: &Served) -> bool {
        let mut state = self.state.lock();
        let mut is_let_go = false;
        if let Some(slot) = state.slots.get_mut(&served.bucket)
            && let Slot::Leaving(it) = slot
            && it.serial == served.serial
        {
            *slot = Slot::Served(Arc::clone(it));
            is_let_go = state.let_go.contains(&served.serial);
        }
        drop(state);
        self.freed.notify_all();
        is_let_go
    }

    /// It is mounted no longer. Its place is free once the kernel has let go of it too.
    pub(in crate::daemon) fn gone(&self, served: &Served) {
        let mut state = self.state.lock();
        let is_let_go = state.let_go.remove(&served.serial);
        if state.slots.get(&served.bucket).is_some_and(|slot| is(slot, served)) {
            if is_let_go {
                state.slots.remove(&served.bucket);
            } else {
                let lingering = Slot::Lingering(served.serial, served.dir.clone());
                state.slots.insert(served.bucket.clone(), lingering);
            }
        }
        drop(state);
        served.end.lock().take();
        self.freed.notify_all();
    }

    /// The kernel has let go of the mount with this number, whoever unmounted it.
    pub(in crate::daemon) fn let_go(&self, serial: u64) {
        let mut state = self.state.lock();
        let it = state.slots.iter().find_map(|(bucket, slot)| match slot {
            Slot::Served(served) | Slot::Leaving(served) if served.serial == serial => {
                Some((bucket.clone(), false))
            }
            Slot::Lingering(number, _) if *number == serial => Some((bucket.clone(), true)),
            _ => None,
        });
        match it {
            Some((bucket, true)) => drop(state.slots.remove(&bucket)),
            Some((_, false)) => drop(state.let_go.insert(serial)),
            None => (),
        }
        drop(state);
        self.freed.notify_all();
    }

    /// Waits until the kernel has let go of the mount with this number, but not for ever; says
    /// whether it has, as far as somebody hears of it: when the daemon ends nobody does.
    pub(in crate::daemon) fn wait_let_go(&self, serial: u64, limit: Duration) -> bool {
        let mut state = self.state.lock();
        let lingers = |state: &mut State| {
            let mut slots = state.slots.values();
            !state.ending
                && slots.any(|slot| matches!(slot, Slot::Lingering(number, _) if *number == serial))
        };
        !self.freed.wait_while_for(&mut state, lingers, limit).timed_out()
    }

    /// The mount with this number, if nobody is unmounting it; from now on the caller is.
    pub(in crate::daemon) fn leave_serial(&self, serial: u64) -> Option<Arc<Served>> {
        let served = self.all().into_iter().find(|served| served.serial == serial)?;
        self.leave(&served).ok().map(|()| served)
    }

    /// Lets nothing new begin, and waits a while for what has begun; for what is being unmounted
    /// however long that takes, as it is being saved, telling so now and then. Answers with those that
    /// were.
    pub(in crate::daemon) fn end(
        &self,
        tick: Duration,
        tell: &mut dyn FnMut(&Served),
    ) -> BTreeMap<u64, Arc<Served>> {
        let deadline = Instant::now() + SETTLE;
        let mut waited_for = BTreeMap::new();
        let mut state = self.state.lock();
        state.ending = true;
        self.freed.notify_all();
        loop {
            let leaving = state.leaving();
            let others = state.slots.values().any(|slot| matches!(slot, Slot::Busy(_)))
                || state.views.values().any(|shown| shown.leaving);
            if leaving.is_empty() && (!others || Instant::now() >= deadline) {
                if others {
                    log::warn!("end waited_s={}", SETTLE.as_secs());
                }
                return waited_for;
            }
            waited_for.extend(leaving.iter().map(|served| (served.serial, Arc::clone(served))));
            if self.freed.wait_until(&mut state, Instant::now() + tick).timed_out() {
                drop(state);
                for served in &leaving {
                    tell(served);
                }
                state = self.state.lock();
            }
        }
    }

    /// Whether nothing new begins any more.
    pub(in crate::daemon) fn is_ending(&self) -> bool {
        self.state.lock().ending
    }
}

impl State {
    fn leave(&mut self, served: &Served) -> Result<()> {
        match self.slots.get_mut(&served.bucket) {
            Some(slot @ Slot::Served(_)) if is(slot, served) => {
                if let Slot::Served(it) = slot {
                    *slot = Slot::Leaving(Arc::clone(it));
                }
                Ok(())
            }
            Some(Slot::Leaving(_)) => Err(just_leaving(served)),
            _ => Err(not_mounted(&served.dir)),
        }
    }

    fn leaving(&self) -> Vec<Arc<Served>> {
        let leaving = self.slots.values().filter_map(|slot| match slot {
            Slot::Leaving(served) => Some(Arc::clone(served)),
            _ => None,
        });
        leaving.collect()
    }
}

fn is(slot: &Slot, served: &Served) -> bool {
    match slot {
        Slot::Served(it) | Slot::Leaving(it) => it.serial == served.serial,
        Slot::Busy(_) | Slot::Kept(_) | Slot::Viewed(..) | Slot::Lingering(..) => false,
    }
}

fn just_leaving(served: &Served) -> Failure {
    Failure::new(Code::InUse, format_args!("{} is just being unmounted", served.dir.display()))
}

/// The refusal of a directory that is no mount of this home.
pub(in crate::daemon) fn not_mounted(dir: &Path) -> Failure {
    Failure::new(
        Code::NotFound,
        format_args!(
            "nothing is mounted at {} ('cairnfs list' shows what is mounted where)",
            dir.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::table::Doing;

    #[test]
    fn nothing_begins_when_the_daemon_ends() {
        let table = Table::default();
        let waited_for = table.end(SETTLE, &mut |_| ());
        assert!(waited_for.is_empty() && table.is_ending());
        assert!(table.claim(&"b".parse().unwrap(), Doing::Mounting).is_err());
    }
}
