//! What each bucket is doing: nothing, something that nobody may disturb, or being served.
//!
//! One lock, held only to look and to change; never while a bucket is opened, saved or unmounted.

mod doing;
mod views;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use cairnfs_mount_core::Mount;
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::{
    control::{KernelOptions, MountReport},
    exit::{Code, Failure, Result},
    fuse::Session,
    home::BucketName,
    order::{self, Condvar, Mutex},
};

use super::Happening;
use views::Shown;
pub(super) use {doing::Doing, views::Viewed};

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

/// A bucket's place, given back when dropped unless it was filled.
#[derive(Debug)]
#[must_use = "the place is given back when this is dropped"]
pub(super) struct Claim<'a> {
    table: &'a Table,
    bucket: BucketName,
    displaced: Option<Mount>,
    /// Who hears that it was given back or filled.
    tell: Option<Sender<Happening>>,
}

/// A directory on which one thread is mounting, given back when dropped. What is mounted there by then
/// is in the table.
#[derive(Debug)]
#[must_use = "the directory is given back when this is dropped"]
pub(super) struct DirClaim<'a> {
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
    pub(super) fn claim_dir(&self, dir: &Path) -> Result<DirClaim<'_>, String> {
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

    /// Takes the place of `bucket` in order to do something. Waits a while
    /// for a mount that is just ending, and for a bucket that is just being opened for others or mounted
    /// at start. Nobody gets it while a version is shown that is read through it.
    pub(super) fn claim(&self, bucket: &BucketName, doing: Doing) -> Result<Claim<'_>> {
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
                    return Ok(Claim {
                        table: self,
                        bucket: bucket.clone(),
                        displaced,
                        tell: None,
                    });
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

    /// Marks `served` as being unmounted, so that one thread alone does it. When the daemon ends that
    /// is the thread that ends it.
    pub(super) fn leave(&self, served: &Served) -> Result<()> {
        let mut state = self.state.lock();
        if state.ending { Err(just_leaving(served)) } else { state.leave(served) }
    }

    /// As [`Table::leave`], for the thread that ends the daemon.
    pub(super) fn leave_at_end(&self, served: &Served) -> Result<()> {
        self.state.lock().leave(served)
    }

    /// It stays mounted after all. Says whether the kernel has let go of it meanwhile: then others have
    /// unmounted it, and nobody else ends it any more.
    #[must_use = "somebody has to end it"]
    pub(super) fn stay(&self, served: &Served) -> bool {
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
    pub(super) fn gone(&self, served: &Served) {
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
    pub(super) fn let_go(&self, serial: u64) {
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
    pub(super) fn wait_let_go(&self, serial: u64, limit: Duration) -> bool {
        let mut state = self.state.lock();
        let lingers = |state: &mut State| {
            let mut slots = state.slots.values();
            !state.ending
                && slots.any(|slot| matches!(slot, Slot::Lingering(number, _) if *number == serial))
        };
        !self.freed.wait_while_for(&mut state, lingers, limit).timed_out()
    }

    /// The mount with this number, if nobody is unmounting it; from now on the caller is.
    pub(super) fn leave_serial(&self, serial: u64) -> Option<Arc<Served>> {
        let served = self.all().into_iter().find(|served| served.serial == serial)?;
        self.leave(&served).ok().map(|()| served)
    }

    /// Lets nothing new begin, and waits a while for what has begun; for what is being unmounted
    /// however long that takes, as it is being saved, telling so now and then. Answers with those that
    /// were.
    pub(super) fn end(
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
    pub(super) fn is_ending(&self) -> bool {
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

impl Claim<'_> {
    /// Has the main thread look at what there is when the claim ends.
    pub(super) fn tell(&mut self, main: &Sender<Happening>) {
        self.tell = Some(main.clone());
    }

    /// What was open for other devices until now; the caller ends it.
    pub(super) fn displaced(&mut self) -> Option<Mount> {
        self.displaced.take()
    }

    /// Fills the place with what is open for other devices only, unless the daemon has begun to
    /// end.
    pub(super) fn keep(&self, mount: Mount) -> Result<(), Mount> {
        let mut state = self.table.state.lock();
        if state.ending {
            return Err(mount);
        }
        state.slots.insert(self.bucket.clone(), Slot::Kept(mount));
        Ok(())
    }

    /// Fills the place with a mount, unless the daemon has begun to end.
    pub(super) fn fill(&self, mounted: Mounted) -> Result<(), Box<Served>> {
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
pub(super) struct Mounted {
    pub(super) serial: u64,
    pub(super) mount: Mount,
    pub(super) session: Session,
    pub(super) kernel: KernelOptions,
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
pub(super) fn not_mounted(dir: &Path) -> Failure {
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

    #[test]
    fn nothing_begins_when_the_daemon_ends() {
        let table = Table::default();
        let waited_for = table.end(SETTLE, &mut |_| ());
        assert!(waited_for.is_empty() && table.is_ending());
        assert!(table.claim(&"b".parse().unwrap(), Doing::Mounting).is_err());
    }
}
