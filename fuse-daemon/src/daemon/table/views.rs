//! Versions that are shown beside the buckets they are of, and buckets that are open for them alone.
//!
//! A version is read through its bucket's file system, so that it ends when that does. Whoever takes a
//! bucket's place takes the file system with it: so nobody does while a version of it is shown.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use cairnfs_mount_core::{Mount, PastView};
use crossbeam_channel::{Receiver, Sender};

use super::{Claim, Doing, Slot, State, Table};
use crate::{
    control::ViewReport,
    exit::{Code, Failure, Result},
    fuse::Session,
    home::BucketName,
    order::{self, Mutex},
};

/// A version that is shown.
#[derive(Debug)]
pub(in crate::daemon) struct Viewed {
    /// As that of a mount.
    pub(in crate::daemon) serial: u64,
    pub(in crate::daemon) bucket: BucketName,
    /// Where, without symlinks.
    pub(in crate::daemon) dir: PathBuf,
    pub(in crate::daemon) view: PastView,
    /// What it is read through.
    pub(in crate::daemon) mount: Mount,
    pub(in crate::daemon) session: Session,
    /// Disconnected when it has ended.
    pub(in crate::daemon) ended: Receiver<()>,
    pub(in crate::daemon) end: Mutex<Option<Sender<()>>, order::End>,
}

impl Viewed {
    pub(in crate::daemon) fn report(&self) -> ViewReport {
        ViewReport {
            bucket: self.bucket.clone(),
            dir: self.dir.clone(),
            detached: !self.session.is_mounted(),
            version: self.view.id(),
            time: self.view.time().into(),
        }
    }
}

/// One that is shown, and whether somebody is ending it.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) viewed: Arc<Viewed>,
    pub(super) leaving: bool,
}

impl State {
    /// Where a version of `bucket` is shown.
    pub(super) fn view_of(&self, bucket: &BucketName) -> Option<&Path> {
        let mut views = self.views.values().map(|shown| &shown.viewed);
        views.find(|viewed| viewed.bucket == *bucket).map(|viewed| viewed.dir.as_path())
    }

    /// Why nobody may take the place of `bucket`, which is open for the versions that are shown of it.
    pub(super) fn refuse_viewed(&self, bucket: &BucketName) -> Failure {
        let message = match self.view_of(bucket) {
            Some(dir) => format!(
                "a version of bucket '{bucket}' is mounted at {dir}: unmount that first \
                 ('cairnfs umount {dir}')",
                dir = dir.display()
            ),
            None => {
                format!("a version of bucket '{bucket}' is just being mounted: try again later")
            }
        };
        Failure::new(Code::InUse, message)
    }
}

impl Table {
    /// The file system of `bucket` for the version that is to be shown under this number, if it is
    /// open for whomever.
    pub(in crate::daemon) fn lend(&self, bucket: &BucketName, serial: u64) -> Option<Mount> {
        match self.state.lock().slots.get_mut(bucket) {
            Some(Slot::Served(served)) => Some(served.mount.clone()),
            Some(Slot::Kept(mount)) => Some(mount.clone()),
            Some(Slot::Viewed(mount, serials)) => {
                serials.insert(serial);
                Some(mount.clone())
            }
            _ => None,
        }
    }

    /// The version with this number is shown no longer, or is not shown after all. What comes back is
    /// open for nobody any more: the caller ends it, and then drops the claim.
    pub(in crate::daemon) fn give_back(
        &self,
        bucket: &BucketName,
        serial: u64,
    ) -> Option<(Claim<'_>, Mount)> {
        let mut state = self.state.lock();
        let slot = state.slots.get_mut(bucket)?;
        let Slot::Viewed(mount, serials) = slot else { return None };
        serials.remove(&serial);
        if !serials.is_empty() {
            return None;
        }
        let mount = mount.clone();
        *slot = Slot::Busy(Doing::Closing);
        let bucket = bucket.clone();
        Some((Claim::new(self, bucket, None), mount))
    }

    /// Takes note of a version that is shown, unless what it is read through is about to end.
    pub(in crate::daemon) fn add_view(&self, viewed: Viewed) -> Result<(), Box<Viewed>> {
        let mut state = self.state.lock();
        let is_open = match state.slots.get(&viewed.bucket) {
            Some(Slot::Served(served)) => served.mount.is_same(&viewed.mount),
            Some(Slot::Kept(mount) | Slot::Viewed(mount, _)) => mount.is_same(&viewed.mount),
            _ => false,
        };
        if state.ending || !is_open {
            return Err(Box::new(viewed));
        }
        let serial = viewed.serial;
        state.views.insert(serial, Shown { viewed: Arc::new(viewed), leaving: false });
        Ok(())
    }

    /// All versions that are shown.
    pub(in crate::daemon) fn views(&self) -> Vec<Arc<Viewed>> {
        let state = self.state.lock();
        state.views.values().map(|shown| Arc::clone(&shown.viewed)).collect()
    }

    /// The version that is shown at `dir`, unless somebody took it out of the file tree.
    pub(in crate::daemon) fn view_at(&self, dir: &Path) -> Option<Arc<Viewed>> {
        self.views().into_iter().find(|viewed| viewed.dir == dir && viewed.session.is_mounted())
    }

    /// The version with this number, if nobody is ending it; from now on the caller is.
    pub(in crate::daemon) fn leave_view(&self, serial: u64) -> Option<Arc<Viewed>> {
        let mut state = self.state.lock();
        let shown = state.views.get_mut(&serial).filter(|shown| !shown.leaving)?;
        shown.leaving = true;
        Some(Arc::clone(&shown.viewed))
    }

    /// It stays after all.
    pub(in crate::daemon) fn keep_view(&self, serial: u64) {
        if let Some(shown) = self.state.lock().views.get_mut(&serial) {
            shown.leaving = false;
        }
        self.freed.notify_all();
    }

    /// It is shown no longer, and has let go of its bucket.
    pub(in crate::daemon) fn view_gone(&self, viewed: &Viewed) {
        self.state.lock().views.remove(&viewed.serial);
        viewed.end.lock().take();
        self.freed.notify_all();
    }
}

impl Claim<'_> {
    /// Fills the place with what is open for the version with this number, unless the daemon has begun
    /// to end.
    pub(in crate::daemon) fn view(&self, mount: Mount, serial: u64) -> Result<(), Mount> {
        let mut state = self.table.state.lock();
        if state.ending {
            return Err(mount);
        }
        let slot = Slot::Viewed(mount, BTreeSet::from([serial]));
        state.slots.insert(self.bucket.clone(), slot);
        Ok(())
    }
}
