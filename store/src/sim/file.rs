//! One file of a simulated disk: what is durable, and what is on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::faults::{Call, Rng};
use super::{SECTOR_BYTES, State};
use crate::disk::DiskFile;

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    /// What the running system reads.
    pub(super) live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Op>,
    /// Numbers of the sectors that cannot be read.
    pub(super) spoiled: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum Op {
    Write { offset: usize, data: Vec<u8> },
    SetLen(usize),
}

impl Op {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::SetLen(len) => bytes.resize(*len, 0),
            Self::Write { offset, data } => put(bytes, *offset, data),
        }
    }
}

impl Inode {
    /// What might be found of this file after a power cut.
    pub(super) fn crash(&self, rng: &mut Rng) -> Self {
        let mut found = self.durable.clone();
        // One time in eight nothing has arrived and one time in eight everything has: the plain
        // cases turn up even where many sectors are on their way.
        let mood = rng.next() % 8;
        for op in &self.pending {
            let arrives = |rng: &mut Rng| match mood {
                0 => false,
                1 => true,
                _ => rng.chance(2),
            };
            match op {
                Op::SetLen(len) => {
                    if arrives(rng) {
                        found.resize(*len, 0);
                    }
                }
                Op::Write { offset, data } => {
                    for (at, piece) in sectors(*offset, data) {
                        if arrives(rng) {
                            put(&mut found, at, piece);
                        }
                    }
                }
            }
        }
        let spoiled = self.spoiled.clone();
        Self { live: found.clone(), durable: found, pending: Vec::new(), spoiled }
    }

    /// Makes everything durable. Costs what was written since the last time.
    fn settle(&mut self) {
        for op in self.pending.drain(..) {
            op.apply(&mut self.durable);
        }
    }

    /// What a barrier that fails leaves: of what was written since the last one any part has arrived,
    /// and the rest never will, although it reads back (Rebello et al., ATC 2020). The file's length
    /// is on its way still.
    fn lose(&mut self, rng: &mut Rng) {
        let mut len = self.durable.len();
        for op in &mut self.pending {
            match op {
                Op::SetLen(to) => len = *to,
                Op::Write { offset, data } => {
                    len = len.max(*offset + data.len());
                    for (at, piece) in sectors(*offset, data) {
                        if rng.chance(2) {
                            put(&mut self.durable, at, piece);
                        }
                    }
                    *op = Op::SetLen(len);
                }
            }
        }
    }

    /// Takes what is durable for what the system has, but for what is on its way.
    fn forget_cached(&mut self) {
        self.live.clone_from(&self.durable);
        for op in &self.pending {
            op.apply(&mut self.live);
        }
    }

    pub(super) fn flip(&mut self, bit: u64) {
        let mask = 1u8 << (bit % 8);
        let Ok(at) = usize::try_from(bit / 8) else { return };
        for bytes in [&mut self.live, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= mask;
            }
        }
        // What is on its way must not undo it.
        for op in &mut self.pending {
            if let Op::Write { offset, data } = op
                && let Some(byte) = at.checked_sub(*offset).and_then(|at| data.get_mut(at))
            {
                *byte ^= mask;
            }
        }
    }
}

/// Cuts a write at the sectors' edges.
fn sectors(offset: usize, data: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let head = (SECTOR_BYTES - offset % SECTOR_BYTES).min(data.len());
    let (first, rest) = data.split_at(head);
    let rest = rest
        .chunks(SECTOR_BYTES)
        .enumerate()
        .map(move |(index, piece)| (offset + head + index * SECTOR_BYTES, piece));
    std::iter::once((offset, first)).filter(|(_, piece)| !piece.is_empty()).chain(rest)
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) number: u64,
}

impl SimFile {
    fn with<T>(
        &self,
        call: Call,
        act: impl FnOnce(&mut Inode, &mut super::Faults, u64) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.faults.call(call)?;
        let free = state.room_bytes();
        act(inode_of(&mut state.inodes, self.number), &mut state.faults, free)
    }
}

fn inode_of(inodes: &mut BTreeMap<u64, Inode>, number: u64) -> &mut Inode {
    inodes.get_mut(&number).expect("because a file that is open is not forgotten")
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.state.lock().close(self.number);
    }
}

fn to_usize(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|err| io::Error::new(io::ErrorKind::InvalidInput, err))
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(Call::Read, |inode, _, _| {
            let at = to_usize(offset)?;
            let end = at.saturating_add(buf.len());
            let found = inode.live.get(at..end).ok_or(io::ErrorKind::UnexpectedEof)?;
            let sectors = at / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES);
            if inode.spoiled.range(sectors).next().is_some() {
                return Err(rustix::io::Errno::IO.into());
            }
            buf.copy_from_slice(found);
            Ok(())
        })
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let in_place = !self.state.lock().copies_on_write;
        self.with(Call::Write, |inode, faults, free| {
            let offset = to_usize(offset)?;
            let growth = (offset + data.len()).saturating_sub(inode.live.len());
            if !in_place && data.len() as u64 > free {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let fits = if growth as u64 <= free {
                data.len()
            } else {
                // As much as there is room for arrives, at times; the rest is refused.
                let end = inode.live.len() + usize::try_from(free).unwrap_or(0);
                let room = end.saturating_sub(offset);
                if faults.rng.chance(2) { room.min(data.len()) } else { 0 }
            };
            let (taken, refused) = data.split_at(fits);
            faults.counters.written_bytes += taken.len() as u64;
            if !taken.is_empty() {
                put(&mut inode.live, offset, taken);
                inode.pending.push(Op::Write { offset, data: taken.to_vec() });
            }
            if refused.is_empty() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(Call::Read, |inode, _, _| Ok(inode.live.len() as u64))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(Call::SetLen, |inode, _, free| {
            let len = to_usize(len)?;
            if len.saturating_sub(inode.live.len()) as u64 > free {
                return Err(io::ErrorKind::StorageFull.into());
            }
            inode.live.resize(len, 0);
            inode.pending.push(Op::SetLen(len));
            Ok(())
        })
    }

    fn barrier(&self) -> io::Result<()> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let called = state.faults.call(Call::Barrier);
        let inode = inode_of(&mut state.inodes, self.number);
        match &called {
            Ok(()) if state.faults.take_lie() => (),
            Ok(()) => inode.settle(),
            Err(_) if state.faults.is_off() => (),
            Err(_) => inode.lose(&mut state.faults.rng),
        }
        called
    }

    fn forget_cached(&self) {
        inode_of(&mut self.state.lock().inodes, self.number).forget_cached();
    }
}
