//! From a request to a mount that can be used.

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use cairnfs_mount_core::{Bucket, Error as CoreError, Ino, Mount, Options};
use rustix::process;

use super::{
    Daemon, Happening,
    meeting::may_write,
    table::{DirClaim, Doing, Mounted, SETTLE},
};
use crate::{
    control::{Event, KernelOptions, MountRequest, Opening},
    exit::{Code, Failure, Result},
    fuse::{Ended, MountError, MountSpec, Session, Shows},
    home::BucketName,
    noted, passphrase,
    tell::tell,
};

/// How long until a bucket is tried again that this process has not let go yet.
const RETRY: Duration = Duration::from_millis(10);

impl Daemon {
    /// Mounts a bucket; returns when the mount can be used.
    pub(super) fn mount(
        &self,
        request: &MountRequest,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<()> {
        self.mount_as(Doing::Mounting, request, say)
    }

    /// As [`Daemon::mount`], as whichever kind of mounting.
    pub(super) fn mount_as(
        &self,
        doing: Doing,
        request: &MountRequest,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<()> {
        let bucket = &request.opening.bucket;
        let claim = self.claim(bucket, doing)?;
        let _dir = self.claim_dir(&request.dir)?;
        let mut options = request.how.options()?;
        // What is behind the kernel's read-only must not change by itself either.
        options.read_only |= request.how.fuse.iter().any(|option| option == "ro");
        let mount = self.open(&request.opening, options)?;
        // While the place is claimed, so that whoever unmounts it withdraws it afterwards.
        self.net.serve(bucket, &mount);
        let shown = self.bring_first_version(bucket, &mount, say).and_then(|()| {
            let mut read_only = options.read_only;
            if !read_only && !may_write(mount.role()) {
                // The kernel's refusal is the clearest. What others change still comes in.
                read_only = true;
                let why = self.why_read_only(bucket, &mount);
                say(Event::Note(format!("mounted read-only: {why}")));
            }
            let allow_other = request.how.allow_other;
            self.show(request, &mount, KernelOptions { read_only, allow_other })
        });
        let filled = shown.and_then(|mounted| {
            let serial = mounted.serial;
            claim.fill(mounted).map(|()| serial).map_err(|served| {
                if let Err(err) = served.session.unmount() {
                    log::warn!("unmount serial={} reason={err}", served.serial);
                }
                Failure::new(Code::Failed, "the daemon is ending")
            })
        });
        match filled {
            Ok(serial) => {
                self.not_mounted.forget(bucket);
                self.forget_loss(bucket, serial);
                let may_change = !options.read_only && may_write(mount.role());
                if let Some(hint) = why_no_entry(&mount).filter(|_| may_change) {
                    say(Event::Note(hint));
                }
                Ok(())
            }
            Err(failure) => {
                self.net.withdraw(bucket);
                self.give_up(bucket, &mount);
                Err(failure)
            }
        }
    }

    fn why_read_only(&self, bucket: &BucketName, mount: &Mount) -> String {
        if mount.role().is_some() {
            return format!("this device may only read bucket '{bucket}'");
        }
        let why = self.why_no_member(bucket, mount);
        if mount.removal(&self.device.public()).is_some() {
            return why;
        }
        format!(
            "{why}: put the device.key back that was here when it was made or joined; or copy out what \
             only this device has, drop the bucket ('cairnfs drop {bucket} --force') and join again"
        )
    }

    /// Why this device is no member of a bucket that is here.
    pub(super) fn why_no_member(&self, bucket: &BucketName, mount: &Mount) -> String {
        match mount.removal(&self.device.public()) {
            Some(_) => format!("this device was removed from bucket '{bucket}'"),
            None => format!("bucket '{bucket}' knows this device under another key"),
        }
    }

    /// Has the kernel show what is served.
    fn show(
        &self,
        request: &MountRequest,
        mount: &Mount,
        kernel: KernelOptions,
    ) -> Result<Mounted> {
        let serial = self.table.next_serial();
        let happenings = self.happenings.clone();
        let spec = MountSpec {
            shows: Shows::Live(mount.clone()),
            name: request.opening.bucket.to_string(),
            dir: request.dir.clone(),
            read_only: kernel.read_only,
            allow_other: kernel.allow_other,
            options: request.how.fuse.clone(),
        };
        // The receiver goes only with the process.
        let ended = move || tell(&happenings, Happening::SessionEnded(serial));
        let session = self.start_session(&spec, Box::new(ended))?;
        Ok(Mounted { serial, mount: mount.clone(), session, kernel })
    }

    /// Mounts, and notes that it is a mount of this home.
    pub(super) fn start_session(&self, spec: &MountSpec, ended: Ended) -> Result<Session> {
        let session = Session::start(spec, ended).map_err(|err| refused(&err))?;
        // The mount is worth having without it: only who asks after the daemon died misses it.
        if let Err(failure) = noted::add(&self.home, &spec.name, session.dir()) {
            log::warn!("note reason={:?}", failure.message);
        }
        Ok(session)
    }

    /// Opens a bucket and starts its file system. The caller holds the bucket's place.
    pub(super) fn open(&self, opening: &Opening, options: Options) -> Result<Mount> {
        let name = &opening.bucket;
        let failed = |err| match err {
            // Nobody is to end that process.
            CoreError::Locked { pid: Some(pid) } if pid == std::process::id() => Failure::new(
                Code::InUse,
                format_args!(
                    "bucket '{name}' is still used by a command that began before it was unmounted: try \
                     again when that has ended"
                ),
            ),
            err => Failure::bucket(name, &err),
        };
        let unlock = passphrase::unlock(opening.secret.as_ref());
        let dir = self.home.bucket_dir(name);
        let opened = once_let_go(|| Bucket::open(&dir, Arc::clone(&self.device), unlock));
        let started = opened.and_then(|bucket| Mount::start(bucket, options));
        self.heed(name, started.map_err(failed))
    }

    /// Ends a file system that nobody has used.
    pub(super) fn give_up(&self, bucket: &BucketName, mount: &Mount) {
        self.remember(bucket, mount);
        if let Err(err) = mount.stop() {
            log::warn!("stop reason={err}");
        }
    }

    /// Takes a directory in order to mount on it. Refuses those that must not be mounted on, whatever
    /// is in them.
    pub(super) fn claim_dir(&self, dir: &Path) -> Result<DirClaim<'_>> {
        let refuse = |why: &str| {
            let message = format!("cannot mount on {}: {why}", dir.display());
            Err(Failure::new(Code::MountPoint, message))
        };
        let claim = match self.table.claim_dir(dir) {
            Ok(claim) => claim,
            Err(why) => return refuse(&why),
        };
        let data = self.home.data_dir();
        let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
        if data.starts_with(dir) {
            return refuse("it would hide the folder in which the buckets lie");
        }
        if [data.join("buckets"), data.join("run")].iter().any(|own| dir.starts_with(own)) {
            return refuse("it is inside the folder in which the buckets lie");
        }
        Ok(claim)
    }
}

/// What to do where the top folder is of a number which is somebody else's on this machine.
fn why_no_entry(mount: &Mount) -> Option<String> {
    let top = mount.getattr(Ino::ROOT).ok()?;
    let mut groups = process::getgroups().unwrap_or_default();
    groups.push(process::getegid());
    let groups: Vec<_> = groups.into_iter().map(process::Gid::as_raw).collect();
    foreign((top.uid, top.gid, top.mode), process::geteuid().as_raw(), &groups)
}

/// Advice for `user` of `groups`, the own one last, who may change nothing in the directory of this
/// owner, group and mode.
fn foreign((owner, of, mode): (u32, u32, u32), user: u32, groups: &[u32]) -> Option<String> {
    let bits = if groups.contains(&of) { mode >> 3 } else { mode };
    if user == 0 || owner == user || bits & 0o2 != 0 {
        return None;
    }
    let group = groups.last().map_or_else(String::new, |group| format!(",gid={group}"));
    Some(format!(
        "its top folder is of user {owner}, and you are {user}: if that is you elsewhere, unmount it and \
         mount it with -o uid={user}{group}"
    ))
}

/// Calls `take` until it gets a bucket that this process has not let go yet.
pub(super) fn once_let_go<T>(
    mut take: impl FnMut() -> Result<T, CoreError>,
) -> Result<T, CoreError> {
    let deadline = Instant::now() + SETTLE;
    loop {
        match take() {
            // By a mount of this very process, which the kernel has not quite let go.
            Err(CoreError::Locked { pid: Some(pid) })
                if pid == std::process::id() && Instant::now() < deadline =>
            {
                thread::sleep(RETRY);
            }
            taken => return taken,
        }
    }
}

/// Why nothing is mounted, as the one who asked is told it.
pub(crate) fn refused(err: &MountError) -> Failure {
    let code = match err {
        MountError::NoFuse { .. } => Code::NoFuse,
        MountError::MissingDir(_)
        | MountError::NotADir(_)
        | MountError::NotEmpty(_)
        | MountError::AlreadyMounted(_)
        | MountError::Stale(_) => Code::MountPoint,
        MountError::BadOption(_) => Code::Usage,
        MountError::NotAllowed(_) | MountError::Io { .. } => Code::Failed,
    };
    Failure::new(code, err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_write_to_a_folder_of_another_number_is_told_how_to() {
        let top = |mode| (1000, 100, mode);
        let said = foreign(top(0o775), 1026, &[27, 65]).unwrap();
        assert!(said.contains("user 1000") && said.ends_with("-o uid=1026,gid=65"), "{said}");
        for (mode, user, groups) in [
            (0o755, 0, [0, 0]),
            (0o555, 1000, [27, 65]),
            (0o775, 1026, [100, 65]),
            (0o777, 1, [1, 1]),
        ] {
            assert_eq!(foreign(top(mode), user, &groups), None, "{mode:o} {user}");
        }
        assert!(foreign(top(0o757), 1026, &[100, 65]).is_some());
    }
}
