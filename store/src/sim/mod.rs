//! A disk in memory that fails in the ways disks fail, the same way again for the same seed.
//!
//! A [`SimDisk`] keeps for every file what is durable and, in order, what was written since the
//! last barrier. [`SimDisk::crash`] answers with the disk as it might be found after the power
//! came back: of the writes since the barrier any subset has arrived, in pieces of a sector, and
//! of the directory's changes since [`Disk::sync_dir`] any subset. The disk it is asked of goes
//! on unharmed, so that one run of a workload can be cut in many places.
//!
//! A sector is written whole or not at all: that is the store's own assumption about the medium.

mod case;
mod faults;
mod file;
mod shrink;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

pub use case::{Case, outcome};
use faults::Faults;
pub use faults::{Call, Counters, Fault};
use file::{Inode, SimFile};
pub use shrink::shrink;

use crate::disk::{Disk, DiskFile, Lock, LockError, Open, Space};

/// Bytes that are written whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// A disk in memory; clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// The directory as the running system sees it.
    names: BTreeMap<PathBuf, u64>,
    /// The directory as the medium has it.
    durable_names: BTreeMap<PathBuf, u64>,
    /// What was done to the directory since it was last synced.
    name_ops: Vec<NameOp>,
    inodes: BTreeMap<u64, Inode>,
    /// How often each file is open. One that was removed lives on for whoever has it open.
    open: BTreeMap<u64, usize>,
    dirs: BTreeSet<PathBuf>,
    locked: BTreeSet<PathBuf>,
    next_inode: u64,
    capacity_bytes: u64,
    /// As the capacity, but none of which [`Disk::space`] knows.
    quota_bytes: u64,
    /// Whether what is written takes room also where something was written before.
    copies_on_write: bool,
    faults: Faults,
}

#[derive(Clone, Debug)]
enum NameOp {
    Link(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

impl NameOp {
    fn dir(&self) -> Option<&Path> {
        match self {
            Self::Link(path, _) | Self::Rename(path, _) | Self::Unlink(path) => path.parent(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::Unlink(path) => {
                names.remove(path);
            }
        }
    }
}

impl SimDisk {
    /// An empty disk without faults; `seed` decides what later chances bring.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_ops: Vec::new(),
            inodes: BTreeMap::new(),
            open: BTreeMap::new(),
            dirs: BTreeSet::new(),
            locked: BTreeSet::new(),
            next_inode: 1,
            capacity_bytes: u64::MAX,
            quota_bytes: u64::MAX,
            copies_on_write: false,
            faults: Faults::new(seed),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Limits what all files together may hold; a write beyond fails with `StorageFull`.
    pub fn set_capacity_bytes(&self, bytes: u64) {
        self.state.lock().capacity_bytes = bytes;
    }

    /// As [`Self::set_capacity_bytes`], but [`Disk::space`] does not say so, as under a user's quota.
    pub fn set_quota_bytes(&self, bytes: u64) {
        self.state.lock().quota_bytes = bytes;
    }

    /// From now on nothing is written in its place, as by some file systems: on a full disk every
    /// write is refused, and not only one that makes a file longer.
    pub fn set_copies_on_write(&self) {
        self.state.lock().copies_on_write = true;
    }

    /// The bytes all files hold now.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used_bytes()
    }

    /// Arms a fault.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.arm(fault);
    }

    /// How often the disk was called so far, by what.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.state.lock().faults.counters
    }

    /// The disk as it might be after a power cut now; which of the possible ones, `seed` says.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let state = self.state.lock();
        let mut rng = faults::Rng::new(seed);
        let mut names = state.durable_names.clone();
        for op in &state.name_ops {
            if rng.chance(2) {
                op.apply(&mut names);
            }
        }
        let inodes = state.inodes.iter().map(|(&number, inode)| (number, inode.crash(&mut rng)));
        let inodes = inodes.collect();
        Self { state: Arc::new(Mutex::new(state.after(names, inodes, seed))) }
    }

    /// The disk after `kill -9`: the process is gone, and every write reads back. What was on its way
    /// to the medium is so still: a power cut from here on may take it.
    #[must_use]
    pub fn kill(&self) -> Self {
        let state = self.state.lock();
        let mut after = state.after(state.names.clone(), state.inodes.clone(), 0);
        after.durable_names.clone_from(&state.durable_names);
        after.name_ops.clone_from(&state.name_ops);
        after.inodes.clone_from(&state.inodes);
        after.forget_unnamed();
        Self { state: Arc::new(Mutex::new(after)) }
    }

    /// The files there are, with their lengths.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.state.lock();
        let len = |inode: &u64| state.inodes.get(inode).map_or(0, |inode| inode.live.len() as u64);
        state.names.iter().map(|(path, inode)| (path.clone(), len(inode))).collect()
    }

    /// The content of a file, if it is there.
    #[must_use]
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let inode = state.names.get(path)?;
        state.inodes.get(inode).map(|inode| inode.live.clone())
    }

    /// Flips one bit of a file, durably, as rot does. Nothing happens beyond its end.
    pub fn flip_bit(&self, path: &Path, bit: u64) {
        let mut state = self.state.lock();
        let Some(&number) = state.names.get(path) else { return };
        if let Some(inode) = state.inodes.get_mut(&number) {
            inode.flip(bit);
        }
    }

    /// Makes the sector that holds the byte `offset` of a file unreadable, as on a disk that wears out.
    pub fn spoil_sector(&self, path: &Path, offset: usize) {
        let mut state = self.state.lock();
        let Some(&number) = state.names.get(path) else { return };
        if let Some(inode) = state.inodes.get_mut(&number) {
            inode.spoiled.insert(offset / SECTOR_BYTES);
        }
    }
}

impl State {
    /// What a new start finds, with these names and files on the medium: nothing is open or locked.
    fn after(
        &self,
        names: BTreeMap<PathBuf, u64>,
        inodes: BTreeMap<u64, Inode>,
        seed: u64,
    ) -> Self {
        let mut after = Self {
            durable_names: names.clone(),
            names,
            name_ops: Vec::new(),
            inodes,
            open: BTreeMap::new(),
            dirs: self.dirs.clone(),
            locked: BTreeSet::new(),
            next_inode: self.next_inode,
            capacity_bytes: self.capacity_bytes,
            quota_bytes: self.quota_bytes,
            copies_on_write: self.copies_on_write,
            faults: Faults::new(seed),
        };
        after.forget_unnamed();
        after
    }

    /// The bytes that can still be written.
    fn room_bytes(&self) -> u64 {
        self.capacity_bytes.min(self.quota_bytes).saturating_sub(self.used_bytes())
    }

    fn used_bytes(&self) -> u64 {
        self.inodes.values().map(|inode| inode.live.len() as u64).sum()
    }

    /// Drops what no name and no open file leads to.
    fn forget_unnamed(&mut self) {
        let named: BTreeSet<u64> =
            self.names.values().chain(self.durable_names.values()).copied().collect();
        let pending: BTreeSet<u64> = self
            .name_ops
            .iter()
            .filter_map(|op| if let NameOp::Link(_, inode) = op { Some(*inode) } else { None })
            .collect();
        self.inodes.retain(|number, _| {
            [&named, &pending].iter().any(|kept| kept.contains(number))
                || self.open.contains_key(number)
        });
    }

    fn close(&mut self, number: u64) {
        let Some(times) = self.open.get_mut(&number) else { return };
        *times -= 1;
        if *times == 0 {
            self.open.remove(&number);
            self.forget_unnamed();
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.faults.call(Call::Open)?;
        let number = match (state.names.get(path).copied(), how) {
            (Some(_), Open::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(number), _) => number,
            (None, Open::Existing) => return Err(io::ErrorKind::NotFound.into()),
            (None, Open::OrCreate | Open::New) => {
                let number = state.next_inode;
                state.next_inode += 1;
                state.inodes.insert(number, Inode::default());
                state.names.insert(path.to_owned(), number);
                state.name_ops.push(NameOp::Link(path.to_owned(), number));
                number
            }
        };
        *state.open.entry(number).or_default() += 1;
        drop(state);
        Ok(Arc::new(SimFile { state: Arc::clone(&self.state), number }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state.lock();
        state.faults.call(Call::List)?;
        if !state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.faults.call(Call::CreateDir)?;
        // Directories are made once, when a bucket is, so their loss is not simulated.
        state.dirs.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.faults.call(Call::Rename)?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let op = NameOp::Rename(from.to_owned(), to.to_owned());
        op.apply(&mut state.names);
        state.name_ops.push(op);
        state.forget_unnamed();
        Ok(())
    }

    fn give_to_owner_of(&self, _path: &Path, _like: &Path) -> io::Result<()> {
        // Everything on it belongs to one.
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.faults.call(Call::Remove)?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let op = NameOp::Unlink(path.to_owned());
        op.apply(&mut state.names);
        state.name_ops.push(op);
        state.forget_unnamed();
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.faults.call(Call::SyncDir)?;
        let ops = std::mem::take(&mut state.name_ops);
        for op in ops {
            if op.dir() == Some(dir) {
                op.apply(&mut state.durable_names);
            } else {
                state.name_ops.push(op);
            }
        }
        state.forget_unnamed();
        Ok(())
    }

    fn space(&self, _dir: &Path) -> io::Result<Space> {
        let state = self.state.lock();
        let free_bytes = state.capacity_bytes.saturating_sub(state.used_bytes());
        Ok(Space { free_bytes, total_bytes: state.capacity_bytes })
    }

    fn lock(&self, path: &Path) -> Result<Lock, LockError> {
        if !self.state.lock().locked.insert(path.to_owned()) {
            return Err(LockError::Held(Some(std::process::id())));
        }
        Ok(Box::new(SimLock { state: Arc::clone(&self.state), path: path.to_owned() }))
    }
}

/// Gives the lock back when dropped.
#[derive(Debug)]
struct SimLock {
    state: Arc<Mutex<State>>,
    path: PathBuf,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.state.lock().locked.remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_and_the_rest_may_not() {
        let disk = SimDisk::new(0);
        let path = Path::new("/d/file");
        disk.create_dir(Path::new("/d")).unwrap();
        let file = disk.open(path, Open::New).unwrap();
        file.write_at(&[1; 1024], 0).unwrap();
        file.barrier().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_at(&[2; 1536], 512).unwrap();
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let after = disk.crash(seed).content(path).unwrap();
            assert_eq!(after[..512], [1; 512]);
            let sectors: Vec<u8> = after[512..].chunks(512).map(|sector| sector[0]).collect();
            for sector in after[512..].chunks(512) {
                assert!(sector.iter().all(|&byte| byte == sector[0]), "a sector is whole");
            }
            seen.insert(sectors);
        }
        assert!(seen.len() >= 6, "every subset turns up: {seen:?}");
        assert_eq!(disk.content(path).unwrap()[512..], [2; 1536], "the disk itself goes on");
    }

    #[test]
    fn a_name_that_was_not_synced_may_be_missing() {
        let disk = SimDisk::new(0);
        disk.create_dir(Path::new("/d")).unwrap();
        disk.open(Path::new("/d/a"), Open::New).unwrap().barrier().unwrap();
        let there = (0..50).filter(|&seed| !disk.crash(seed).files().is_empty()).count();
        assert!((1..50).contains(&there));
    }

    #[test]
    fn armed_faults_come_at_the_call_they_were_armed_for() {
        let disk = SimDisk::new(0);
        let file = disk.open(Path::new("/a"), Open::New).unwrap();
        disk.inject(Fault::Fail { call: Call::Write, nth: 2, kind: io::ErrorKind::Other });
        file.write_at(b"x", 0).unwrap();
        assert!(file.write_at(b"x", 0).is_err());
        file.write_at(b"x", 0).unwrap();
        disk.inject(Fault::LieAtBarrier { nth: 1 });
        file.barrier().unwrap();
        assert!((0..20).any(|seed| disk.crash(seed).files().iter().all(|(_, len)| *len == 0)));
        disk.set_capacity_bytes(100);
        let full = file.write_at(&[0; 200], 0).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        disk.inject(Fault::PowerOff { after_calls: 1 });
        file.len().unwrap();
        file.write_at(b"y", 0).unwrap();
        assert!(file.write_at(b"y", 0).is_err());
        assert!(file.barrier().is_err());
    }

    #[test]
    fn a_file_that_was_removed_lives_on_for_whoever_has_it_open() {
        let disk = SimDisk::new(0);
        disk.create_dir(Path::new("/d")).unwrap();
        let file = disk.open(Path::new("/d/a"), Open::New).unwrap();
        file.write_at(&[1; 100], 0).unwrap();
        disk.remove(Path::new("/d/a")).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        let mut found = [0; 100];
        file.read_at(&mut found, 0).unwrap();
        assert_eq!((found, disk.used_bytes(), disk.kill().used_bytes()), ([1; 100], 100, 0));
        drop(file);
        assert_eq!(disk.used_bytes(), 0);
    }

    #[test]
    fn a_write_beyond_the_end_of_a_file_finds_no_room_for_the_gap() {
        let disk = SimDisk::new(0);
        let file = disk.open(Path::new("/a"), Open::New).unwrap();
        disk.set_capacity_bytes(100);
        for offset in [90, 500] {
            let full = file.write_at(&[1; 20], offset).unwrap_err();
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
            assert!(disk.used_bytes() <= 100);
        }
    }
}
