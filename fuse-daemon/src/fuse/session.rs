//! One bucket, or one version of it, mounted at one place.

use std::{
    fmt, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use cairnfs_mount_core::{Ino, Mount, PastView};
use fuser::{Filesystem, SessionACL};

use super::{
    MountError, UnmountError,
    adapter::Adapter,
    attach,
    detach::{self, Mode},
    mountinfo::{self, Entry},
    notify::{self, Unheard},
    options::Options,
    past::PastAdapter,
    point,
};

/// Threads that answer the kernel; each costs little more than its stack while it waits.
const THREADS: usize = 4;

/// All who get past the kernel; see the module's doc.
const ACL: SessionACL = SessionACL::All;

/// What a mount shows.
#[derive(Clone, Debug)]
pub(crate) enum Shows {
    /// A bucket as it is.
    Live(Mount),
    /// A version of it, which is to be mounted read-only.
    Past(PastView),
}

/// Called when the kernel's connection is over.
pub(crate) type Ended = Box<dyn FnOnce() + Send>;

/// What to mount, where and how.
#[derive(Debug)]
pub(crate) struct MountSpec {
    /// The file system to show.
    pub(crate) shows: Shows,
    /// What it is called in the table of mounts: the bucket's name, with `@` and the id for a version.
    pub(crate) name: String,
    /// Where to; absolute.
    pub(crate) dir: PathBuf,
    /// The kernel refuses every change.
    pub(crate) read_only: bool,
    /// Other users than the one who mounts may enter, as far as modes allow.
    pub(crate) allow_other: bool,
    /// What stood behind `-o`.
    pub(crate) options: Vec<String>,
}

/// A mounted bucket or version.
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
    pub(crate) fn start(spec: &MountSpec, ended: Ended) -> Result<Self, MountError> {
        let options = Options::of(spec)?;
        let dir = point::prepare(&spec.dir)?;
        let device = attach::attach(&dir, &options)?;
        let io = |doing, source| MountError::Io { doing, dir: dir.clone(), source };
        let entry = find(&dir, &options.source).map_err(|source| io("mount on", source))?;

        let mut config = fuser::Config::default();
        config.n_threads = Some(THREADS);
        // Where only fusermount3 may open the device, the threads share the one descriptor.
        config.clone_fd = attach::can_open_device();
        let started = match &spec.shows {
            Shows::Live(mount) => serve_live(mount, device, config, ended),
            Shows::Past(view) => {
                let adapter = PastAdapter::new(view.clone());
                fuser::Session::from_fd(adapter, device, ACL, config)
                    .and_then(|session| run(session, ended))
            }
        };
        if let Err(source) = started {
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
    match mount.getattr(ino) {
        Ok(attr) => attr.nlink > 0,
        Err(err) => !matches!(err, cairnfs_mount_core::Error::Stale),
    }
}

/// Serves a file system of whose changes the kernel hears.
fn serve_live(
    mount: &Mount,
    device: OwnedFd,
    config: fuser::Config,
    ended: Ended,
) -> io::Result<()> {
    let (unheard, woken) = Unheard::new();
    let adapter = Adapter::new(mount.clone(), Arc::clone(&unheard));
    let started = fuser::Session::from_fd(adapter, device, ACL, config).and_then(|session| {
        let (alive, notifier) = (mount.clone(), session.notifier());
        let is_alive = move |ino| has_name(&alive, ino);
        notify::start(Arc::clone(&unheard), woken, notifier, is_alive)?;
        // Before the kernel can have been answered anything.
        mount.observe(unheard.clone());
        let closed = Arc::clone(&unheard);
        let ended = move || {
            closed.close();
            ended();
        };
        run(session, Box::new(ended))
    });
    if started.is_err() {
        unheard.close();
    }
    started
}

/// Serves the connection until it is over.
fn run<F: Filesystem>(session: fuser::Session<F>, ended: Ended) -> io::Result<()> {
    let serve = move || {
        if let Err(err) = session.run() {
            log::error!("fuse session ended reason={err}");
        }
        ended();
    };
    thread::Builder::new().name("fuse".to_owned()).spawn(serve)?;
    Ok(())
}
