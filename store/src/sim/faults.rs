//! What goes wrong on a simulated disk, and when.

use std::io;

/// A kind of call on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Opening or creating a file.
    Open,
    /// Listing a directory.
    List,
    /// Making a directory.
    CreateDir,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    Remove,
    /// Making a directory durable.
    SyncDir,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Cutting or growing a file.
    SetLen,
    /// A file's barrier.
    Barrier,
}

/// Something to go wrong.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The `nth` call of this kind from now (1 is the next one) fails, and it alone.
    Fail {
        /// Which calls are counted.
        call: Call,
        /// Which of them fails.
        nth: u64,
        /// With what: `StorageFull`, or `Other` for what else may go wrong. A place that cannot be
        /// read is a matter of [`super::SimDisk::spoil_sector`].
        kind: io::ErrorKind,
    },
    /// After so many more calls that change the disk, every call fails: the power is off.
    PowerOff {
        /// How many calls still work.
        after_calls: u64,
    },
    /// The `nth` barrier from now returns success and makes nothing durable.
    LieAtBarrier {
        /// Which one.
        nth: u64,
    },
    /// From now on every barrier returns success and makes nothing durable.
    LieAtEveryBarrier,
}

/// How often a disk was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Barriers of files.
    pub barriers: u64,
    /// Barriers of directories.
    pub dir_barriers: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes of those writes.
    pub written_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Every call that changes the disk or makes it durable.
    pub changes: u64,
}

#[derive(Debug)]
pub(super) struct Faults {
    armed: Vec<Fault>,
    off: bool,
    lie: bool,
    pub(super) counters: Counters,
    /// For chances that are taken while the disk runs.
    pub(super) rng: Rng,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            armed: Vec::new(),
            off: false,
            lie: false,
            counters: Counters::default(),
            rng: Rng::new(seed),
        }
    }

    pub(super) fn arm(&mut self, fault: Fault) {
        match fault {
            Fault::PowerOff { after_calls: 0 } => self.off = true,
            other => self.armed.push(other),
        }
    }

    /// Counts one call and says whether it fails.
    pub(super) fn call(&mut self, call: Call) -> io::Result<()> {
        if self.off {
            return Err(io::Error::other("the power is off"));
        }
        self.count(call);
        let changes = !matches!(call, Call::Read | Call::List);
        let mut failure = None;
        let mut off = false;
        let mut lie = false;
        self.armed.retain_mut(|fault| match fault {
            Fault::Fail { call: which, nth, kind } if *which == call => {
                *nth = nth.saturating_sub(1);
                if *nth == 0 {
                    failure = Some(*kind);
                }
                *nth > 0
            }
            Fault::LieAtEveryBarrier => {
                lie |= call == Call::Barrier;
                true
            }
            Fault::PowerOff { after_calls } if changes => {
                *after_calls = after_calls.saturating_sub(1);
                off |= *after_calls == 0;
                *after_calls > 0
            }
            Fault::LieAtBarrier { nth } if call == Call::Barrier => {
                *nth = nth.saturating_sub(1);
                lie |= *nth == 0;
                *nth > 0
            }
            _ => true,
        });
        self.off = off;
        self.lie = lie;
        failure.map_or(Ok(()), |kind| Err(io::Error::new(kind, "injected fault")))
    }

    /// Whether the power is off.
    pub(super) const fn is_off(&self) -> bool {
        self.off
    }

    /// Whether the barrier that was just called lies. Asked once.
    pub(super) fn take_lie(&mut self) -> bool {
        std::mem::take(&mut self.lie)
    }

    fn count(&mut self, call: Call) {
        match call {
            Call::Read => self.counters.reads += 1,
            Call::Write => self.counters.writes += 1,
            Call::Barrier => self.counters.barriers += 1,
            Call::SyncDir => self.counters.dir_barriers += 1,
            _ => (),
        }
        if !matches!(call, Call::Read | Call::List) {
            self.counters.changes += 1;
        }
    }
}

/// `SplitMix64` (Steele, Lea, Flood, OOPSLA 2014): small, and the same everywhere.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True once in `of` times.
    pub(super) const fn chance(&mut self, of: u64) -> bool {
        self.next().is_multiple_of(of)
    }
}
