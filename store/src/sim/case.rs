//! A load on a disk whose power goes, as a value: to be run again, cut down and shown.

use std::fmt;
use std::panic::{self, UnwindSafe};

use super::{Fault, SimDisk};

/// Calls, and what becomes of the disk below them.
#[derive(Clone, Debug)]
pub struct Case<Op> {
    /// What the disk and the load were made from.
    pub seed: u64,
    /// Whether every barrier lies.
    pub lies: bool,
    /// The calls.
    pub load: Vec<Op>,
    /// After how many calls that change the disk the power goes.
    pub cut: u64,
    /// Which of the disks that the cut may leave is found.
    pub luck: u64,
}

impl<Op> Case<Op> {
    /// Has the disk fail as this says.
    pub fn arm(&self, disk: &SimDisk) {
        if self.lies {
            disk.inject(Fault::LieAtEveryBarrier);
        }
        disk.inject(Fault::PowerOff { after_calls: self.cut });
    }
}

/// What `run` comes to; a panic is what went wrong, too.
///
/// # Errors
///
/// What went wrong.
pub fn outcome<T>(run: impl FnOnce() -> Result<T, String> + UnwindSafe) -> Result<T, String> {
    panic::catch_unwind(run).unwrap_or_else(|_panic| Err("it panicked".into()))
}

/// In the form of a literal, for a test of its own.
impl<Op: fmt::Debug> fmt::Display for Case<Op> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, lies, load, cut, luck } = self;
        writeln!(f, "seed: {seed}, lies: {lies}, cut: {cut}, luck: {luck}, load:")?;
        load.iter().try_for_each(|op| writeln!(f, "    {op:?},"))
    }
}
