//! Taking the place of a bucket, or a directory to mount on, so that one thread alone does something with it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Instant,
};

use cairnfs_mount_core::Mount;
use crossbeam_channel::{Sender, bounded};

use super::{Doing, SETTLE, STILL_IN_USE, Served, Slot, Table};
use crate::{
    control::KernelOptions,
    daemon::Happening,
    exit::{Code, Failure, Result},
    fuse::Session,
    home::BucketName,
    order::Mutex,
};

/// A bucket's place, given back when dropped unless it was filled.
#[derive(Debug)]
#[must_use = "the place is given back when this is dropped"]
pub(in crate::daemon) struct Claim<'a> {
    pub(super) table: &'a Table,
    pub(super) bucket: BucketName,
    displaced: Option<Mount>,
    /// Who hears that it was given back or filled.
    tell: Option<Sender<Happening>>,
}

/// A directory on which one thread is mounting, given back when dropped. What is mounted there by then
/// is in the table.
#[derive(Debug)]
#[must_use = "the directory is given back when this is dropped"]
pub(in crate::daemon) struct DirClaim<'a> {
    table: &'a Table,
    dir: PathBuf,
}

impl Drop for DirClaim<'_> {
    fn drop(&mut self) {
        self.table.state.lock().dirs.remove(&self.dir);
    }
}

impl Table {
    /// Takes `dir` in order to mount something on it; if it is taken, says by what.
    pub(in crate::daemon) fn claim_dir(&self, dir: &Path) -> Result<DirClaim<'_>, String> {
        let mut state = self.state.lock();
        let served = state.slots.values().find_map(|slot| match slot {
            Slot::Served(it) | Slot::Leaving(it) if it.dir == dir => Some(it),
            _ => None,
        });
        if let Some(served) = served.filter(|it| it.session.is_mounted()) {
            return Err(format!("bucket '{}' is mounted there", served.bucket));
        }
        let mut views = state.views.values().map(|shown| &shown.viewed);
        if let Some(viewed) = views.find(|it| it.dir == dir && it.session.is_mounted()) {
            return Err(format!("a version of bucket '{}' is mounted there", viewed.bucket));
        }
        if !state.dirs.insert(dir.to_owned()) {
            return Err("something is just being mounted there".to_owned());
        }
        Ok(DirClaim { table: self, dir: dir.to_owned() })
    }

    /// Takes the place of `bucket` in order to do something. Waits a while for a mount that is just ending,
    /// and for a bucket that is just being opened for others or mounted at start. Nobody gets it while a version is shown that is read through it.
    pub(in crate::daemon) fn claim(&self, bucket: &BucketName, doing: Doing) -> Result<Claim<'_>> {
        let deadline = Instant::now() + SETTLE;
        let mut state = self.state.lock();
        loop {
            if state.ending {
                return Err(Failure::new(Code::Failed, "the daemon is ending"));
            }
            let refusal = match state.slots.get(bucket) {
                Some(Slot::Viewed(..)) => return Err(state.refuse_viewed(bucket)),
                Some(Slot::Kept(_)) if state.view_of(bucket).is_some() => {
                    return Err(state.refuse_viewed(bucket));
                }
                None | Some(Slot::Kept(_)) => {
                    let before = state.slots.insert(bucket.clone(), Slot::Busy(doing));
                    let displaced = match before {
                        Some(Slot::Kept(mount)) => Some(mount),
                        _ => None,
                    };
                    return Ok(Claim::new(self, bucket.clone(), displaced));
                }
                Some(Slot::Busy(_)) if doing.is_patient() => {
                    self.freed.wait(&mut state);
                    continue;
                }
                Some(Slot::Busy(doing)) => {
                    let message = format!("bucket '{bucket}' is just {doing}: try again later");
                    if !doing.is_brief() {
                        return Err(Failure::new(Code::InUse, message));
                    }
                    message
                }
                Some(Slot::Served(served)) if served.session.is_mounted() => {
                    let dir = served.dir.display();
                    let message = format!("bucket '{bucket}' is mounted already, at {dir}");
                    return Err(Failure::new(Code::MountPoint, message));
                }
                // Unmounted by a verb, or by others whom the main thread is about to hear of.
                Some(Slot::Served(served) | Slot::Leaving(served)) => {
                    let dir = served.dir.display();
                    format!("bucket '{bucket}' was unmounted at {dir}, but is still in use")
                }
                Some(Slot::Lingering(_, dir)) => format!(
                    "bucket '{bucket}' was unmounted at {}, but is {STILL_IN_USE}",
                    dir.display()
                ),
            };
            if self.freed.wait_until(&mut state, deadline).timed_out() {
                return Err(Failure::new(Code::InUse, refusal));
            }
        }
    }
}

impl<'a> Claim<'a> {
    /// Of a place that has just been taken, from what was open for other devices if that is so.
    pub(super) fn new(table: &'a Table, bucket: BucketName, displaced: Option<Mount>) -> Self {
        Self { table, bucket, displaced, tell: None }
    }

    /// Has the main thread look at what there is when the claim ends.
    pub(in crate::daemon) fn tell(&mut self, main: &Sender<Happening>) {
        self.tell = Some(main.clone());
    }

    /// What was open for other devices until now; the caller ends it.
    pub(in crate::daemon) fn displaced(&mut self) -> Option<Mount> {
        self.displaced.take()
    }

    /// Fills the place with what is open for other devices only, unless the daemon has begun to
    /// end.
    pub(in crate::daemon) fn keep(&self, mount: Mount) -> Result<(), Mount> {
        let mut state = self.table.state.lock();
        if state.ending {
            return Err(mount);
        }
        state.slots.insert(self.bucket.clone(), Slot::Kept(mount));
        Ok(())
    }

    /// Fills the place with a mount, unless the daemon has begun to end.
    pub(in crate::daemon) fn fill(&self, mounted: Mounted) -> Result<(), Box<Served>> {
        let (end, ended) = bounded(0);
        let served = Served {
            serial: mounted.serial,
            bucket: self.bucket.clone(),
            dir: mounted.session.dir().to_owned(),
            mount: mounted.mount,
            session: mounted.session,
            kernel: mounted.kernel,
            ended,
            lost: OnceLock::new(),
            end: Mutex::new(Some(end)),
        };
        let mut state = self.table.state.lock();
        if state.ending {
            return Err(Box::new(served));
        }
        state.slots.insert(self.bucket.clone(), Slot::Served(Arc::new(served)));
        Ok(())
    }
}

/// What a place is filled with.
#[derive(Debug)]
pub(in crate::daemon) struct Mounted {
    pub(in crate::daemon) serial: u64,
    pub(in crate::daemon) mount: Mount,
    pub(in crate::daemon) session: Session,
    pub(in crate::daemon) kernel: KernelOptions,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.table.state.lock();
        if matches!(state.slots.get(&self.bucket), Some(Slot::Busy(_))) {
            state.slots.remove(&self.bucket);
        }
        drop(state);
        self.table.freed.notify_all();
        if let Some(main) = &self.tell {
            // If there is no room the main thread will look anyway; it may be the one that is here.
            main.try_send(Happening::Freed).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_place_has_one_claim_at_a_time() {
        let table = Table::default();
        let bucket: BucketName = "b".parse().unwrap();
        let claim = table.claim(&bucket, Doing::Checking).unwrap();
        let refused = table.claim(&bucket, Doing::Mounting).unwrap_err();
        assert_eq!(refused.message, "bucket 'b' is just being checked: try again later");
        assert_eq!(refused.code, Code::InUse);
        drop(claim);
        assert!(table.claim(&bucket, Doing::Mounting).is_ok());
        assert!(table.is_empty());
    }

    #[test]
    fn who_needs_a_bucket_waits_while_it_is_opened_for_others() {
        let (table, bucket) = (&Table::default(), &"b".parse::<BucketName>().unwrap());
        // So often that some of them do ask before it is free.
        for _ in 0..200 {
            let opening = table.claim(bucket, Doing::Opening).unwrap();
            thread::scope(|scope| {
                let (begins, begun) = bounded(1);
                let mounting = thread::Builder::new().spawn_scoped(scope, move || {
                    begins.send(()).unwrap();
                    table.claim(bucket, Doing::Mounting).map(drop)
                });
                begun.recv().unwrap();
                drop(opening);
                mounting.unwrap().join().unwrap().unwrap();
            });
        }
    }

    #[test]
    fn a_directory_has_one_claim_at_a_time() {
        let (table, dir) = (Table::default(), Path::new("/mnt"));
        let claim = table.claim_dir(dir).unwrap();
        assert_eq!(table.claim_dir(dir).unwrap_err(), "something is just being mounted there");
        drop(claim);
        assert!(table.claim_dir(dir).is_ok());
    }

    #[test]
    fn a_mount_at_start_waits_for_whatever_is_done_with_its_bucket() {
        let (table, bucket) = (&Table::default(), &"b".parse::<BucketName>().unwrap());
        let checking = table.claim(bucket, Doing::Checking).unwrap();
        thread::scope(|scope| {
            let mounting = scope.spawn(|| table.claim(bucket, Doing::MountingAtStart).map(drop));
            drop(checking);
            mounting.join().unwrap().unwrap();
        });
        // And it ends when the daemon does.
        let _checking = table.claim(bucket, Doing::Checking).unwrap();
        thread::scope(|scope| {
            let mounting = scope.spawn(|| table.claim(bucket, Doing::MountingAtStart).map(drop));
            table.state.lock().ending = true;
            table.freed.notify_all();
            assert!(mounting.join().unwrap().is_err());
        });
    }
}
