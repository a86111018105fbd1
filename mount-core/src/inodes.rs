//! Inode numbers: how the kernel names nodes.
//!
//! Nearly every number is the node's own id, packed: no table has to remember what the kernel has
//! seen, the numbers are the same after a remount, and a million cached entries cost nothing here.
//!
//! ```text
//!   63       62..56          55..24           23..0
//!   0   index of device    lamport time    counter        a node born by an operation
//!   1   --------------- running number --------------     bound: see below
//! ```
//!
//! A number is *bound* where packing does not do: the id does not fit, the kernel knows a node under
//! the number of another one (a temporary file renamed over it, whose node has gone), or an open
//! file has lost its last name.

mod young;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use cairnfs_merge::{ContentId, DeviceId, Node, NodeId, OpId};

use self::young::Young;
use crate::{
    Ino,
    file::{Data, File},
};

const BOUND: u64 = 1 << 63;
const DEVICE_SHIFT: u32 = 56;
const DEVICES_MAX: usize = 1 << 7;
const LAMPORT_SHIFT: u32 = 24;
const LAMPORT_MAX: u64 = (1 << 32) - 1;
const N_MAX: u32 = (1 << 24) - 1;
/// As often as the kernel is taken to have been told of a number that nobody has counted: it is never
/// forgotten, as the kernel may give back any part of it.
const UNCOUNTED: u64 = u64::MAX / 2;

/// Directories that merges have removed and that the kernel may know, at most: some 2 MiB of them.
pub(crate) const GONE_DIRS_MAX: usize = 4096;

/// What is shown under a name: a node, or one of the versions of its content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Shown {
    pub(crate) node: NodeId,
    /// Which version, if the name is that of a conflict copy.
    pub(crate) copy: Option<ContentId>,
}

impl Shown {
    pub(crate) fn node(node: NodeId) -> Self {
        Self { node, copy: None }
    }
}

/// An open file without a name: what is left of its node, and its content.
#[derive(Clone, Debug)]
pub(crate) struct Orphan {
    /// What its last name showed.
    pub(crate) shown: Shown,
    pub(crate) node: Arc<Node<Data>>,
    pub(crate) file: Arc<File>,
}

/// What a bound number stands for.
#[derive(Clone, Debug)]
pub(crate) enum Bound {
    Shown(Shown),
    Orphan(Orphan),
    /// A directory that was removed while somebody stands in it or has it open.
    RemovedDir(Shown, Arc<Node<Data>>),
    /// A file that was replaced by this one: whoever was just about to open it opens what has its
    /// name now. The kernel may have pages of it, which must not be mixed with those.
    Replaced(Shown),
}

impl Bound {
    /// Whether it is the open file without a name that has this content.
    fn is_orphan(&self, file: &Arc<File>) -> bool {
        matches!(self, Self::Orphan(orphan) if Arc::ptr_eq(&orphan.file, file))
    }
}

/// The numbers that are not packed ids, and what packing needs.
#[derive(Debug, Default)]
pub(crate) struct Inodes {
    /// Devices in the order in which they got their index.
    devices: Vec<DeviceId>,
    bound: HashMap<Ino, (Bound, u64)>,
    by_shown: BTreeMap<Shown, Ino>,
    next_bound: u64,
    /// Nodes born lately: only these can become what they are renamed over, and then their numbers
    /// live on.
    young: Young,
    /// The directories that merges have removed while nobody had them open, the oldest first. Somebody
    /// may stand in one; most were never heard of by the kernel, which will not forget them then.
    gone_dirs: VecDeque<Ino>,
}

impl Inodes {
    /// `devices` in the order that an earlier mount gave them, so that numbers stay the same.
    pub(crate) fn new(devices: Vec<DeviceId>) -> Self {
        Self { devices, ..Self::default() }
    }

    /// The devices in the order of their index, to be remembered with the next version.
    pub(crate) fn devices(&self) -> &[DeviceId] {
        &self.devices
    }

    /// The number of what is shown.
    pub(crate) fn number(&mut self, shown: Shown) -> Ino {
        if shown == Shown::node(NodeId::Root) {
            return Ino::ROOT;
        }
        if let Some(ino) = self.by_shown.get(&shown) {
            return *ino;
        }
        match self.pack(&shown) {
            Some(ino) if !self.bound.contains_key(&ino) => ino,
            // The kernel may still know the packed number as something else.
            _ => self.bind(shown, 0),
        }
    }

    /// The kernel was told `ino` once more; `newborn` if its node was born since the last version.
    pub(crate) fn told(&mut self, ino: Ino, newborn: bool) {
        match self.bound.get_mut(&ino) {
            Some((_, count)) => *count += 1,
            None => self.young.told(ino, newborn),
        }
    }

    /// Whether `shown` was born lately, and all that the kernel was told of it has been counted.
    pub(crate) fn is_young(&self, shown: &Shown) -> bool {
        self.known(shown).is_some_and(|ino| self.young.has(ino))
    }

    /// The kernel gives back `count` of what it was told.
    pub(crate) fn forget(&mut self, ino: Ino, count: u64) {
        self.young.forget(ino, count);
        if let Some((bound, told)) = self.bound.get_mut(&ino) {
            *told = told.saturating_sub(count);
            match bound {
                Bound::Shown(_) if *told == 0 => self.unbind(ino),
                // It has no name that it could be looked up by: this is the end of it.
                Bound::RemovedDir(..) => drop(self.bound.remove(&ino)),
                Bound::Replaced(_) if *told == 0 => drop(self.bound.remove(&ino)),
                Bound::Shown(_) | Bound::Orphan(_) | Bound::Replaced(_) => (),
            }
        }
    }

    /// What `ino` stands for, if it can be told without the tree.
    pub(crate) fn resolve(&self, ino: Ino) -> Option<Bound> {
        if ino == Ino::ROOT {
            return Some(Bound::Shown(Shown::node(NodeId::Root)));
        }
        if let Some((bound, _)) = self.bound.get(&ino) {
            return Some(bound.clone());
        }
        self.unpack(ino).map(|node| Bound::Shown(Shown::node(node)))
    }

    /// `from` was renamed over `to` and became it: the kernel goes on using the number of `from`.
    pub(crate) fn replace(&mut self, from: Shown, to: Shown) {
        let old = self.by_shown.get(&to).copied().or_else(|| self.pack(&to));
        if let Some(old) = old {
            let (bound, _) = self.bound.entry(old).or_insert((Bound::Replaced(to), 0));
            // One that is open keeps its number.
            if !matches!(bound, Bound::Orphan(_)) {
                *bound = Bound::Replaced(to);
            }
        }
        let ino = self.number(from);
        let told = match self.bound.remove(&ino) {
            Some((_, told)) => told,
            None => self.young.take(ino).unwrap_or(1),
        };
        self.by_shown.remove(&from);
        self.bound.insert(ino, (Bound::Shown(to), told));
        self.by_shown.insert(to, ino);
    }

    /// What was `from` is `to` from now on, under the same number and those of what it has replaced.
    /// Costs a look at all that is bound.
    pub(crate) fn rebind(&mut self, from: Shown, to: Shown) {
        let ino = self.number(from);
        let told = self.count(ino);
        self.by_shown.remove(&from);
        self.bound.insert(ino, (Bound::Shown(to), told));
        self.by_shown.insert(to, ino);
        for (bound, _) in self.bound.values_mut() {
            if matches!(bound, Bound::Replaced(now) if *now == from) {
                *bound = Bound::Replaced(to);
            }
        }
    }

    /// How often the kernel was told of `ino`, which is about to be bound.
    fn count(&mut self, ino: Ino) -> u64 {
        match self.bound.get(&ino) {
            Some((_, told)) => *told,
            None => self.young.take(ino).unwrap_or(UNCOUNTED),
        }
    }

    /// The number that the kernel has for the file which is found as `ino` too, as it replaced the one
    /// of that number.
    pub(crate) fn other_number(&self, ino: Ino) -> Option<Ino> {
        match &self.bound.get(&ino)?.0 {
            Bound::Replaced(shown) => self.known(shown),
            Bound::Shown(_) | Bound::Orphan(_) | Bound::RemovedDir(..) => None,
        }
    }

    /// What is shown is called something else from now on, among it `shown`: it keeps the numbers
    /// that the kernel knows.
    pub(crate) fn rename(
        &mut self,
        shown: impl Iterator<Item = Shown>,
        renamed: impl Fn(&Shown) -> Shown,
    ) {
        for from in shown.filter(|from| renamed(from) != *from) {
            let ino = self.number(from);
            let told = self.count(ino);
            self.bound.insert(ino, (Bound::Shown(from), told));
            self.by_shown.insert(from, ino);
        }
        for (bound, _) in self.bound.values_mut() {
            match bound {
                Bound::Shown(shown) | Bound::RemovedDir(shown, _) | Bound::Replaced(shown) => {
                    *shown = renamed(shown);
                }
                Bound::Orphan(_) => (),
            }
        }
        let by_shown = std::mem::take(&mut self.by_shown).into_iter();
        self.by_shown = by_shown.map(|(shown, ino)| (renamed(&shown), ino)).collect();
    }

    /// The nameless file known as `ino` has become `to`.
    pub(crate) fn adopt(&mut self, ino: Ino, to: Shown) {
        let told = self.bound.get(&ino).map_or(0, |(_, told)| *told);
        let adopted = self.bound.insert(ino, (Bound::Shown(to), told));
        self.by_shown.insert(to, ino);
        if let Some((Bound::Orphan(Orphan { file, .. }), _)) = adopted {
            for (bound, _) in self.bound.values_mut().filter(|(bound, _)| bound.is_orphan(&file)) {
                *bound = Bound::Replaced(to);
            }
        }
    }

    /// The number under which the kernel may know `shown`, if it has one.
    pub(crate) fn known(&self, shown: &Shown) -> Option<Ino> {
        self.by_shown.get(shown).copied().or_else(|| self.packed(shown))
    }

    /// The numbers under which the kernel may know `node`.
    pub(crate) fn numbers_of(&self, node: &NodeId) -> Vec<Ino> {
        let first = Shown::node(*node);
        let bound = self.by_shown.range(first..).take_while(|(shown, _)| shown.node == *node);
        let mut numbers: Vec<Ino> = bound.map(|(_, ino)| *ino).chain(self.packed(&first)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// What was shown has lost its last name while it is open. By the numbers of what it has replaced
    /// it may have been opened too. Costs a look at all that is bound.
    pub(crate) fn orphan(&mut self, orphan: Orphan) {
        let shown = orphan.shown;
        let ino = self.number(shown);
        let told = self.bound.get(&ino).map_or(0, |(_, told)| *told);
        self.by_shown.remove(&shown);
        for (bound, _) in self.bound.values_mut() {
            if matches!(bound, Bound::Replaced(now) if *now == shown) {
                *bound = Bound::Orphan(orphan.clone());
            }
        }
        self.bound.insert(ino, (Bound::Orphan(orphan), told));
    }

    /// A directory was removed; the kernel may know it until it forgets it.
    pub(crate) fn removed_dir(&mut self, shown: Shown, node: Arc<Node<Data>>) {
        let ino = self.number(shown);
        self.by_shown.remove(&shown);
        self.bound.insert(ino, (Bound::RemovedDir(shown, node), 0));
        // It may have been forgotten, come back, and gone again.
        self.gone_dirs.retain(|gone| *gone != ino);
    }

    /// A merge has removed `dirs`, which nobody has open. Of those removed so the last
    /// [`GONE_DIRS_MAX`] are remembered, unless the kernel forgets them.
    pub(crate) fn gone_dirs(&mut self, dirs: Vec<(NodeId, Arc<Node<Data>>)>) {
        for (id, node) in dirs {
            let shown = Shown::node(id);
            let ino = self.number(shown);
            self.removed_dir(shown, node);
            self.gone_dirs.push_back(ino);
        }
        if self.gone_dirs.len() > GONE_DIRS_MAX {
            let is_known =
                |ino: &Ino| matches!(self.bound.get(ino), Some((Bound::RemovedDir(..), _)));
            self.gone_dirs.retain(is_known);
        }
        while self.gone_dirs.len() > GONE_DIRS_MAX {
            if let Some(oldest) = self.gone_dirs.pop_front() {
                self.bound.remove(&oldest);
            }
        }
    }

    /// What is left of an open file without a name has changed.
    pub(crate) fn update_orphan(&mut self, file: &Arc<File>, node: &Arc<Node<Data>>) {
        for (bound, _) in self.bound.values_mut() {
            if let Bound::Orphan(orphan) = bound
                && Arc::ptr_eq(&orphan.file, file)
            {
                orphan.node = Arc::clone(node);
            }
        }
    }

    /// The last handle of `file` was closed, known as `ino`: if it has no name, it is gone under all
    /// its numbers, and `true` comes back.
    pub(crate) fn orphan_closed(&mut self, ino: Ino, file: &Arc<File>) -> bool {
        let is_orphan = self.bound.get(&ino).is_some_and(|(bound, _)| bound.is_orphan(file));
        if is_orphan {
            self.bound.retain(|_, (bound, _)| !bound.is_orphan(file));
        }
        is_orphan
    }

    /// The contents of open files without a name.
    pub(crate) fn orphans(&self) -> Vec<Arc<File>> {
        let orphans = self.bound.values().filter_map(|(bound, _)| match bound {
            Bound::Orphan(orphan) => Some(Arc::clone(&orphan.file)),
            Bound::Shown(_) | Bound::RemovedDir(..) | Bound::Replaced(_) => None,
        });
        let mut orphans: Vec<_> = orphans.collect();
        // One may be known by several numbers.
        orphans.sort_unstable_by_key(Arc::as_ptr);
        orphans.dedup_by_key(|file| Arc::as_ptr(file));
        orphans
    }

    /// A version was begun at `now`: nodes that were born before it, and long enough ago, keep their
    /// ids for ever.
    pub(crate) fn grown_up(&mut self, now: Instant) {
        self.young.grown_up(now);
    }

    fn bind(&mut self, shown: Shown, told: u64) -> Ino {
        let ino = Ino(BOUND | self.next_bound);
        self.next_bound += 1;
        self.bound.insert(ino, (Bound::Shown(shown), told));
        self.by_shown.insert(shown, ino);
        ino
    }

    fn unbind(&mut self, ino: Ino) {
        if let Some((Bound::Shown(shown), _)) = self.bound.remove(&ino)
            && self.by_shown.get(&shown) == Some(&ino)
        {
            self.by_shown.remove(&shown);
        }
    }

    fn pack(&mut self, shown: &Shown) -> Option<Ino> {
        if let NodeId::Born { op, .. } = shown.node
            && !self.devices.contains(&op.device)
            && self.devices.len() < DEVICES_MAX
        {
            self.devices.push(op.device);
        }
        self.packed(shown)
    }

    /// The packed id of `shown`, if it fits and its device has an index.
    fn packed(&self, shown: &Shown) -> Option<Ino> {
        if *shown == Shown::node(NodeId::Root) {
            return Some(Ino::ROOT);
        }
        let Shown { node: NodeId::Born { op, n }, copy: None } = *shown else { return None };
        if op.lamport == 0 || op.lamport > LAMPORT_MAX || n > N_MAX {
            return None;
        }
        let index = self.devices.iter().position(|device| *device == op.device)?;
        let device = (index as u64) << DEVICE_SHIFT;
        Some(Ino(device | op.lamport << LAMPORT_SHIFT | u64::from(n)))
    }

    fn unpack(&self, ino: Ino) -> Option<NodeId> {
        if ino.0 & BOUND != 0 {
            return None;
        }
        let device = *self.devices.get(usize::try_from(ino.0 >> DEVICE_SHIFT).ok()?)?;
        let lamport = ino.0 >> LAMPORT_SHIFT & LAMPORT_MAX;
        let n = u32::try_from(ino.0 & u64::from(N_MAX)).ok()?;
        Some(NodeId::Born { op: OpId { lamport, device }, n })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn born(lamport: u64, n: u32) -> Shown {
        Shown::node(NodeId::Born { op: OpId { lamport, device: DeviceId([9; 16]) }, n })
    }

    fn node_of(inodes: &Inodes, ino: Ino) -> Shown {
        match inodes.resolve(ino) {
            Some(Bound::Shown(shown)) => shown,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn numbers_are_the_same_after_a_remount() {
        let mut inodes = Inodes::default();
        let ino = inodes.number(born(77, 5));
        let again = Inodes::new(inodes.devices().to_vec());
        assert_eq!(node_of(&again, ino), born(77, 5));
    }

    #[test]
    fn what_does_not_fit_is_bound_until_it_is_forgotten() {
        let mut inodes = Inodes::default();
        for shown in [born(1 << 32, 0), born(1, 1 << 24), Shown::node(NodeId::Split([1; 16]))] {
            let ino = inodes.number(shown);
            inodes.told(ino, false);
            inodes.told(ino, false);
            assert_eq!(node_of(&inodes, ino), shown);
            assert_eq!(inodes.number(shown), ino);
            inodes.forget(ino, 2);
            assert!(inodes.resolve(ino).is_none());
        }
        assert!(inodes.bound.is_empty() && inodes.by_shown.is_empty());
    }

    #[test]
    fn a_replaced_file_is_found_under_the_number_of_its_replacement() {
        let mut inodes = Inodes::default();
        let (temp, target) = (born(2, 0), born(1, 0));
        let old = inodes.number(target);
        let ino = inodes.number(temp);
        inodes.told(ino, true);
        inodes.replace(temp, target);
        assert_eq!(node_of(&inodes, ino), target);
        assert_eq!(inodes.number(target), ino);
        let old_bound = inodes.resolve(old);
        assert!(matches!(old_bound, Some(Bound::Replaced(now)) if now == target), "it has pages");
        inodes.forget(old, 1);
        inodes.forget(ino, 1);
        assert_eq!(inodes.number(target), old);
        assert!(inodes.bound.is_empty() && inodes.by_shown.is_empty());
    }

    #[test]
    fn a_directory_that_goes_twice_is_remembered_as_what_went_last() {
        let mut inodes = Inodes::default();
        let node = || Arc::new(Node::empty(crate::Kind::Dir));
        let id = |n| born(1, n).node;
        inodes.gone_dirs(vec![(id(0), node())]);
        let ino = inodes.known(&born(1, 0)).unwrap();
        inodes.forget(ino, 1);
        let more = u32::try_from(GONE_DIRS_MAX).unwrap();
        inodes.gone_dirs((2..more).map(|n| (id(n), node())).collect());
        // It had come back.
        inodes.gone_dirs(vec![(id(0), node()), (id(1), node())]);
        assert!(matches!(inodes.resolve(ino), Some(Bound::RemovedDir(..))));
        inodes.gone_dirs(vec![(id(more), node())]);
        assert!(matches!(inodes.resolve(ino), Some(Bound::RemovedDir(..))), "it is not the oldest");
    }

    #[test]
    fn an_open_file_without_a_name_keeps_its_number_to_itself() {
        let mut inodes = Inodes::default();
        let file = Arc::new(File::new(crate::file::Base::empty()));
        let node = Arc::new(Node::empty(crate::Kind::File));
        let ino = inodes.number(born(1, 0));
        inodes.orphan(Orphan { shown: born(1, 0), node, file: Arc::clone(&file) });
        assert_ne!(inodes.number(born(1, 0)), ino, "the name means another file now");
        assert!(matches!(inodes.resolve(ino), Some(Bound::Orphan(_))));
        assert!(inodes.orphan_closed(ino, &file));
        assert_eq!(node_of(&inodes, ino), born(1, 0));
    }
}
