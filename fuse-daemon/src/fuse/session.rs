//! One bucket, mounted at one place.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use cairnfs_mount_core::{Ino, Mount};
use fuser::SessionACL;

use super::{
    MountError, UnmountError,
    adapter::Adapter,
    attach,
    detach::{self, Mode},
    mountinfo::{self, Entry},
    notify::{self, Outbox},
    options::Options,
    point,
};

/// Threads that answer the kernel; each costs little more than its stack while it waits.
const THREADS: usize = 4;

/// What to mount, where and how.
#[derive(Debug)]
pub(crate) struct MountSpec {
    /// The file system to show.
    pub(crate) mount: Mount,
    /// The bucket's name, shown in the table of mounts.
    pub(crate) bucket: String,
    /// Where to; absolute.
    pub(crate) dir: PathBuf,
    /// The kernel refuses every change.
    pub(crate) read_only: bool,
    /// Other users than the one who mounts may enter, as far as modes allow.
    pub(crate) allow_other: bool,
    /// What stood behind `-o`.
    pub(crate) options: Vec<String>,
}

/// A mounted bucket.
///
/// Dropping it leaves the mount as it is: a daemon that dies must leave a mount point that answers
/// with errors, not an empty directory that a backup would take for the truth.
#[must_use = "nobody else can unmount it in good order"]
pub(crate) struct Session {
    entry: Entry,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("entry", &self.entry).finish_non_exhaustive()
    }
}

impl Session {
    /// Mounts, and returns when the mount can be used.
    ///
    /// `ended` is called once, from a thread of the session, when the kernel's connection is over,
    /// whoever ended it; no request comes after that. Calls that the kernel waited for may then
    /// still be unanswered, and not every handle need have been released.
    pub(crate) fn start(
        spec: &MountSpec,
        ended: Box<dyn FnOnce() + Send>,
    ) -> Result<Self, MountError> {
        let options = Options::of(spec)?;
        let dir = point::prepare(&spec.dir)?;
        let device = attach::attach(&dir, &options)?;
        let io = |doing, source| MountError::Io { doing, dir: dir.clone(), source };
        let entry = find(&dir, &options.source).map_err(|source| io("mount on", source))?;

        // All who get past the kernel; see the module's doc.
        let acl = SessionACL::All;
        let mut config = fuser::Config::default();
        config.n_threads = Some(THREADS);
        // Where only fusermount3 may open the device, the threads share the one descriptor.
        config.clone_fd = attach::can_open_device();
        let (outbox, woken) = Outbox::new();
        let adapter = Adapter::new(spec.mount.clone(), Arc::clone(&outbox));
        let started = fuser::Session::from_fd(adapter, device, acl, config).and_then(|session| {
            let (mount, notifier) = (spec.mount.clone(), session.notifier());
            let is_alive = move |ino| has_name(&mount, ino);
            notify::start(Arc::clone(&outbox), woken, notifier, is_alive)?;
            // Before the kernel can have been answered anything.
            spec.mount.observe(outbox.clone());
            run(session, Arc::clone(&outbox), ended)
        });
        if let Err(source) = started {
            outbox.close();
            // The device is closed by now, and a dead mount is left.
            if let Err(err) = detach::unmount(&entry, Mode::Lazy) {
                log::warn!("detach id={} reason={err}", entry.id);
            }
            return Err(io("serve", source));
        }
        log::info!("mount id={} device={}", entry.id, entry.device);
        Ok(Self { entry })
    }

    /// Takes the mount out of the file tree, unless something in it is in use.
    ///
    /// Returns when the kernel has written back what it had; [`Session::start`]'s `ended` follows.
    /// Not to be called by a thread that answers the kernel, nor by the writer.
    pub(crate) fn unmount(&self) -> Result<(), UnmountError> {
        detach::unmount(&self.entry, Mode::Plain)
    }

    /// Takes the mount out of the file tree even if it is in use; what is open goes on working,
    /// and the connection lasts until it is closed.
    pub(crate) fn detach(&self) -> Result<(), UnmountError> {
        detach::unmount(&self.entry, Mode::Lazy)
    }

    /// The mount point, without symlinks.
    pub(crate) fn dir(&self) -> &Path {
        &self.entry.point
    }

    /// Whether the mount is still at its place.
    pub(crate) fn is_mounted(&self) -> bool {
        // A table that cannot be read says nothing; the connection tells when it ends.
        self.entry.is_there().unwrap_or(true)
    }
}

/// What has just been mounted on `dir`.
fn find(dir: &Path, source: &str) -> io::Result<Entry> {
    let entry = mountinfo::on_top(&mountinfo::read()?, dir);
    entry
        .filter(|entry| entry.is_fuse() && entry.source == source)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the mount is gone again"))
}

/// Whether something leads to an inode; if that cannot be told, the kernel may think so.
fn has_name(mount: &Mount, ino: Ino) -> bool {
    match mount.getattr(ino, None) {
        Ok(attr) => attr.nlink > 0,
        Err(err) => !matches!(err, cairnfs_mount_core::Error::Stale),
    }
}

/// Serves the connection until it is over.
fn run(
    session: fuser::Session<Adapter>,
    outbox: Arc<Outbox>,
    ended: Box<dyn FnOnce() + Send>,
) -> io::Result<()> {
    let serve = move || {
        if let Err(err) = session.run() {
            log::error!("fuse session ended reason={err}");
        }
        outbox.close();
        ended();
    };
    thread::Builder::new().name("fuse".to_owned()).spawn(serve)?;
    Ok(())
}
