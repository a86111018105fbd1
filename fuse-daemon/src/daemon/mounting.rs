//! From a request to a mount that can be used.

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use cairnfs_mount_core::{Bucket, Error as CoreError, Mount, Options, Unlock};

use super::{
    Daemon, Happening,
    table::{Mounted, SETTLE},
};
use crate::{
    control::{MountRequest, Opening},
    exit::{Code, Failure, Result},
    fuse::{MountError, MountSpec, Session},
};

/// How long until a bucket is tried again that this process has not let go yet.
const RETRY: Duration = Duration::from_millis(10);

impl Daemon {
    /// Mounts a bucket; returns when the mount can be used.
    pub(super) fn mount(&self, request: &MountRequest) -> Result<()> {
        let bucket = &request.opening.bucket;
        let claim = self.table.claim(bucket, "being mounted")?;
        self.refuse_dir(&request.dir)?;
        let mut options = request.how.options()?;
        // What is behind the kernel's read-only must not change by itself either.
        options.read_only |= request.how.fuse.iter().any(|option| option == "ro");
        let mount = self.open(&request.opening, options)?;

        let serial = self.table.next_serial();
        let happenings = self.happenings.clone();
        let spec = MountSpec {
            mount: mount.clone(),
            bucket: bucket.to_string(),
            dir: request.dir.clone(),
            read_only: options.read_only,
            allow_other: request.how.allow_other,
            options: request.how.fuse.clone(),
        };
        // The receiver goes only with the process.
        let ended = move || drop(happenings.send(Happening::SessionEnded(serial)));
        let session = match Session::start(&spec, Box::new(ended)) {
            Ok(session) => session,
            Err(err) => {
                give_up(&mount);
                return Err(refused(&err));
            }
        };
        let mounted =
            Mounted { serial, mount: mount.clone(), session, allow_other: request.how.allow_other };
        // While the place is claimed, so that whoever unmounts it withdraws it afterwards.
        self.net.serve(bucket, &mount);
        if let Err(served) = claim.fill(mounted) {
            self.net.withdraw(bucket);
            if let Err(err) = served.session.unmount() {
                log::warn!("unmount bucket={} reason={err}", served.serial);
            }
            give_up(&served.mount);
            return Err(Failure::new(Code::Failed, "the daemon is ending"));
        }
        Ok(())
    }

    /// Opens a bucket and starts its file system. The caller holds the bucket's place.
    pub(super) fn open(&self, opening: &Opening, options: Options) -> Result<Mount> {
        let name = &opening.bucket;
        let failed = |err| Failure::bucket(name, &err);
        let unlock = match &opening.secret {
            Some(secret) => Unlock::Passphrase(secret.expose()),
            None => Unlock::KeyFile,
        };
        let dir = self.home.bucket_dir(name);
        let deadline = Instant::now() + SETTLE;
        loop {
            match Bucket::open(&dir, Arc::clone(&self.device), unlock) {
                // A mount of this very process, which the kernel has not quite let go.
                Err(CoreError::Locked { pid })
                    if pid == std::process::id() && Instant::now() < deadline =>
                {
                    thread::sleep(RETRY);
                }
                opened => return Mount::start(opened.map_err(failed)?, options).map_err(failed),
            }
        }
    }

    /// Directories that must not be mounted on, whatever is in them.
    fn refuse_dir(&self, dir: &Path) -> Result<()> {
        let refuse = |why: &str| {
            let message = format!("cannot mount on {}: {why}", dir.display());
            Err(Failure::new(Code::MountPoint, message))
        };
        if let Some(served) = self.table.find_dir(dir).filter(|it| it.session.is_mounted()) {
            return refuse(&format!("bucket '{}' is mounted there", served.bucket));
        }
        let data = self.home.data_dir();
        let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
        if data.starts_with(dir) {
            return refuse("it would hide the folder in which the buckets lie");
        }
        if [data.join("buckets"), data.join("run")].iter().any(|own| dir.starts_with(own)) {
            return refuse("it is inside the folder in which the buckets lie");
        }
        Ok(())
    }
}

/// Ends a file system that nobody has used.
pub(super) fn give_up(mount: &Mount) {
    if let Err(err) = mount.stop() {
        log::warn!("stop reason={err}");
    }
}

fn refused(err: &MountError) -> Failure {
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
