//! What each bucket is doing: nothing, something that nobody may disturb, or being served.
//!
//! One lock, held only to look and to change; never while a bucket is opened, saved or unmounted.

mod claims;
mod doing;
mod leaving;
mod views;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use cairnfs_mount_core::Mount;
use crossbeam_channel::{Receiver, Sender};

use crate::{
    control::{KernelOptions, MountReport},
    fuse::Session,
    home::BucketName,
    order::{self, Condvar, Mutex},
};

use views::Shown;
pub(super) use {
    claims::{Claim, DirClaim, Mounted},
    doing::Doing,
    leaving::not_mounted,
    views::Viewed,
};

/// How long whoever needs a bucket's place waits for what is just beginning or ending there.
pub(super) const SETTLE: Duration = Duration::from_secs(10);

/// Said of a bucket that was unmounted here.
pub(super) const STILL_IN_USE: &str =
    "still in use: by an open file, a bind mount or another mount namespace";

/// A bucket that is mounted.
#[derive(Debug)]
pub(super) struct Served {
    /// Tells this mount from an earlier one of the same bucket.
    pub(super) serial: u64,
    pub(super) bucket: BucketName,
    /// Where, without symlinks.
    pub(super) dir: PathBuf,
    pub(super) mount: Mount,
    pub(super) session: Session,
    pub(super) kernel: KernelOptions,
    /// Disconnected when the mount has ended.
    pub(super) ended: Receiver<()>,
    /// Why not all of it was saved when it ended, if that is so.
    pub(super) lost: OnceLock<String>,
    end: Mutex<Option<Sender<()>>, order::End>,
}

impl Served {
    pub(super) fn report(&self) -> MountReport {
        MountReport::new(
            self.bucket.clone(),
            self.dir.clone(),
            !self.session.is_mounted(),
            self.kernel,
            &self.mount,
        )
    }
}

#[derive(Debug)]
enum Slot {
    /// Some thread does this with the bucket.
    Busy(Doing),
    /// It is open for other devices, and gives way to whoever wants it here.
    Kept(Mount),
    /// It is open for versions that are shown of it, with these numbers, and for nothing else.
    Viewed(Mount, BTreeSet<u64>),
    Served(Arc<Served>),
    Leaving(Arc<Served>),
    /// Its mount with this number is gone from here, where it was, but the kernel has not let go of it.
    Lingering(u64, PathBuf),
}

#[derive(Debug, Default)]
struct State {
    ending: bool,
    serial: u64,
    slots: BTreeMap<BucketName, Slot>,
    /// Mounts that the kernel has let go of, and whose places are taken still.
    let_go: BTreeSet<u64>,
    /// Versions that are shown, by their numbers.
    views: BTreeMap<u64, Shown>,
    /// Directories on which something is just being mounted.
    dirs: BTreeSet<PathBuf>,
}

/// See the module's doc.
#[derive(Debug, Default)]
pub(super) struct Table {
    state: Mutex<State, order::Mounts>,
    /// Told when a place becomes free.
    freed: Condvar,
}

impl Table {
    /// A number that no mount before had.
    pub(super) fn next_serial(&self) -> u64 {
        let mut state = self.state.lock();
        state.serial += 1;
        state.serial
    }

    /// The mount of `bucket`.
    pub(super) fn find(&self, bucket: &BucketName) -> Option<Arc<Served>> {
        match self.state.lock().slots.get(bucket) {
            Some(Slot::Served(served)) => Some(Arc::clone(served)),
            _ => None,
        }
    }

    /// The file system of `bucket`, whether it is mounted or open for other devices.
    pub(super) fn open(&self, bucket: &BucketName) -> Option<Mount> {
        match self.state.lock().slots.get(bucket) {
            Some(Slot::Served(served)) => Some(served.mount.clone()),
            Some(Slot::Kept(mount)) => Some(mount.clone()),
            _ => None,
        }
    }

    /// The file system of `bucket`, whoever it is open for.
    pub(super) fn at_hand(&self, bucket: &BucketName) -> Option<Mount> {
        match self.state.lock().slots.get(bucket) {
            Some(Slot::Served(served)) => Some(served.mount.clone()),
            Some(Slot::Kept(mount) | Slot::Viewed(mount, _)) => Some(mount.clone()),
            _ => None,
        }
    }

    /// Whether nobody does anything with `bucket`.
    pub(super) fn is_free(&self, bucket: &BucketName) -> bool {
        !self.state.lock().slots.contains_key(bucket)
    }

    /// All buckets that are open for other devices only.
    pub(super) fn kept(&self) -> Vec<(BucketName, Mount)> {
        let state = self.state.lock();
        let kept = state.slots.iter().filter_map(|(bucket, slot)| match slot {
            Slot::Kept(mount) => Some((bucket.clone(), mount.clone())),
            _ => None,
        });
        kept.collect()
    }

    /// As [`Table::kept`]; their places are free afterwards.
    pub(super) fn take_kept(&self) -> Vec<(BucketName, Mount)> {
        let mut state = self.state.lock();
        let mut kept = Vec::new();
        for (bucket, slot) in mem::take(&mut state.slots) {
            match slot {
                Slot::Kept(mount) => kept.push((bucket, mount)),
                slot => drop(state.slots.insert(bucket, slot)),
            }
        }
        kept
    }

    /// The mount at `dir`.
    pub(super) fn find_dir(&self, dir: &Path) -> Option<Arc<Served>> {
        self.all().into_iter().find(|served| served.dir == dir)
    }

    /// All mounts, by name.
    pub(super) fn all(&self) -> Vec<Arc<Served>> {
        let state = self.state.lock();
        let served = state.slots.values().filter_map(|slot| match slot {
            Slot::Served(served) | Slot::Leaving(served) => Some(Arc::clone(served)),
            Slot::Busy(_) | Slot::Kept(_) | Slot::Viewed(..) | Slot::Lingering(..) => None,
        });
        served.collect()
    }

    /// Buckets that are mounted no longer and still in use, and where they were.
    pub(super) fn lingering(&self) -> Vec<(BucketName, PathBuf)> {
        let state = self.state.lock();
        let lingering = state.slots.iter().filter_map(|(bucket, slot)| match slot {
            Slot::Lingering(_, dir) => Some((bucket.clone(), dir.clone())),
            _ => None,
        });
        lingering.collect()
    }

    /// How many buckets are mounted or in somebody's hands, and how many versions are shown.
    pub(super) fn len(&self) -> usize {
        let state = self.state.lock();
        let is_counted =
            |slot: &&Slot| !matches!(slot, Slot::Kept(_) | Slot::Viewed(..) | Slot::Lingering(..));
        state.slots.values().filter(is_counted).count() + state.views.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
