//! Bringing a bucket anew that is here: for a device that was put back to an older state and cannot
//! go on from there.
//!
//! What is here stays until all that the others have is beside it; then the two change places at
//! once. So the bucket is here at every moment, the old or the new one.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use cairnfs_mount_core::{Mount, Options, Protection};
use cairnfs_store::disk::{Disk, RealDisk};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Daemon, mounting::give_up};
use crate::{
    control::{Event, Progress, RejoinRequest},
    exit::{Code, Failure, Result},
    net::Joining,
};

/// How long is waited for others to have what is here.
const MEET: Duration = Duration::from_secs(60);

impl Daemon {
    /// Brings a bucket anew from other devices. What only this one has is lost, which `force` allows.
    pub(super) fn rejoin(
        &self,
        request: &RejoinRequest,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<()> {
        let name = &request.opening.bucket;
        if let Some(served) = self.table.find(name) {
            let dir = served.dir.display();
            let message = format!("bucket '{name}' is mounted at {dir}: unmount it first");
            return Err(Failure::new(Code::InUse, message));
        }
        let _claim = self.claim(name, "being brought anew")?;
        let mount = self.open(&request.opening, Options::default())?;
        let joining = Joining::again(&mount, &self.device.public()).and_then(|joining| {
            self.meet_before(request, &mount, say)?;
            Ok(joining)
        });
        give_up(&mount);
        drop(mount);
        let joining = joining?;
        if request.dry_run {
            return Ok(());
        }
        let protection = match &request.opening.secret {
            Some(secret) => Protection::Passphrase(secret.expose()),
            None => Protection::KeyFile,
        };
        let (dir, anew) = (self.home.bucket_dir(name), self.home.anew_dir(name));
        // Of a try that was cut off.
        remove(&anew)?;
        let mut say = |progress| say(Event::Progress(Progress::Joining(progress)));
        let brought = self.net.finish_join(joining, (name, &anew), protection, &mut say);
        let brought = brought.and_then(|()| {
            exchange(&anew, &dir).map_err(|err| Failure::file("replace", &dir, &err))
        });
        // What was here, or what did not come whole.
        let removed = remove(&anew);
        brought.and(removed)
    }

    /// Fails unless somebody can be reached, and has everything that is here or need not have it.
    fn meet_before(
        &self,
        request: &RejoinRequest,
        mount: &Mount,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<()> {
        let name = &request.opening.bucket;
        self.net.serve(name, mount);
        let met = self.meet(Some(name), Some(Instant::now() + MEET), say);
        self.net.withdraw(name);
        match met {
            Ok(_) => Ok(()),
            Err(failure) if matches!(failure.code, Code::Interrupted | Code::NoPeer) => {
                Err(failure)
            }
            Err(_) if request.force => Ok(()),
            Err(failure) => {
                let message = format!(
                    "nobody else may have what is in bucket '{name}' on this device: with --force \
                     that is lost ({})",
                    failure.message
                );
                Err(Failure::new(Code::Unsaved, message))
            }
        }
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
