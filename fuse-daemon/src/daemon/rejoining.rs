//! Bringing a bucket anew that is here: for a device that was put back to an older state and cannot
//! go on from there.
//!
//! What is here stays until all that the others have is beside it; then the two change places at
//! once. So the bucket is here at every moment, the old or the new one. Only the newest version
//! comes: of older ones it is asked first whether others have them.
//!
//! ```text
//!   1  try with two empty folders whether two can change places here
//!   2  ask the peers what they have, with nothing fetched or published     `net/elsewhere.rs`
//!   3  bring the bucket into a folder beside it, from those who may invite
//!   4  have the two folders change places, remove the old one
//! ```
//!
//! Step 3 is as when it was joined first, but with the secrets that are here, and so without a ticket.
//! What a crash leaves beside the buckets the next daemon removes ([`leftovers`](super::leftovers)).

use std::{fs, io, path::Path};

use cairnfs_mount_core::{Mount, Options};
use cairnfs_store::disk::{Disk, RealDisk};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Daemon, table::Doing};
use crate::{
    control::{Event, Loss, Progress, RejoinRequest},
    exit::{Code, Failure, Result},
    former,
    home::BucketName,
    net::Joining,
    passphrase,
};

impl Daemon {
    /// Brings a bucket anew from other devices. What only this one is known to have is dropped,
    /// which `force` allows; says what that is.
    pub(super) fn rejoin(
        &self,
        request: &RejoinRequest,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<Loss> {
        let name = &request.opening.bucket;
        if let Some(served) = self.table.find(name) {
            let dir = served.dir.display();
            let message = format!("bucket '{name}' is mounted at {dir}: unmount it first");
            return Err(Failure::new(Code::InUse, message));
        }
        let _claim = self.claim(name, Doing::BringingAnew)?;
        self.try_exchange(name)?;
        // Nothing is published or merged: who is refused finds the bucket as it was.
        let unchanged = Options { read_only: true, ..Options::default() };
        let mount = self.open(&request.opening, unchanged)?;
        let looked = Joining::again(&self.home, &mount, &self.device.public())
            .and_then(|joining| Ok((joining, self.loss(name, &mount, say)?)));
        self.give_up(name, &mount);
        let (id, incarnation) = (mount.bucket_id(), mount.incarnation());
        drop(mount);
        let (joining, loss) = looked?;
        if !request.force && !loss.is_nothing() {
            let message = format!(
                "bringing bucket '{name}' anew would drop {loss}, which no other device that can be \
                 reached is known to have (--force does it all the same)"
            );
            return Err(Failure::new(Code::Unsaved, message));
        }
        if !request.dry_run {
            former::remember(&self.home, id, Some(incarnation))?;
            self.bring(request, joining, say)?;
        }
        Ok(loss)
    }

    /// Fails where two folders cannot change places: before anything is fetched.
    fn try_exchange(&self, name: &BucketName) -> Result<()> {
        let dir = self.home.anew_dir(name);
        // Of a try that was cut off.
        remove(&dir)?;
        let (one, other) = (dir.join("one"), dir.join("other"));
        let made = [&dir, &one, &other].into_iter().try_for_each(fs::create_dir);
        let exchanged = made.and_then(|()| exchange(&one, &other));
        remove(&dir)?;
        exchanged.map_err(|err| match err.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => {
                let buckets = self.home.buckets_dir();
                let message = format!(
                    "cannot bring bucket '{name}' anew: the file system of {} cannot exchange two \
                     folders",
                    buckets.display()
                );
                Failure::new(Code::Failed, message)
            }
            _ => Failure::file("make and exchange folders in", &dir, &err),
        })
    }

    /// What nobody else is known to have who can be reached.
    pub(super) fn loss(
        &self,
        name: &BucketName,
        mount: &Mount,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<Loss> {
        let trees = mount.older_trees().map_err(|err| Failure::bucket(name, &err))?;
        self.net.serve_unchanged(name, mount);
        let elsewhere = self.net.elsewhere(name, trees, &mut |progress| {
            say(Event::Progress(Progress::Syncing(progress)))
        });
        self.net.withdraw(name);
        let elsewhere = elsewhere?;
        Ok(Loss {
            changes: mount.status().unpublished,
            newest: !elsewhere.newest,
            older: elsewhere.lacking.len() as u64,
        })
    }

    /// Puts what others have in the place of what is here.
    fn bring(
        &self,
        request: &RejoinRequest,
        joining: Joining,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<()> {
        let name = &request.opening.bucket;
        let protection = passphrase::protection(request.opening.secret.as_ref());
        let (dir, anew) = (self.home.bucket_dir(name), self.home.anew_dir(name));
        let mut say = |progress| say(Event::Progress(Progress::Joining(progress)));
        let brought = self.net.finish_join(joining, (name, &anew), protection, &mut say);
        let brought = brought.and_then(|()| {
            exchange(&anew, &dir).map_err(|err| Failure::file("replace", &dir, &err))
        });
        // What was here, or what did not come whole.
        let removed = remove(&anew);
        brought.and(removed)
    }
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(Failure::file("remove", dir, &err))
        }
        _ => Ok(()),
    }
}

/// Has two directories beside each other change places, durably.
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?;
    other.parent().map_or(Ok(()), |dir| RealDisk.sync_dir(dir))
}
