//! Mounting: the device of a fresh connection, and the kernel's mount that leads to it.
//!
//! By mount(2) where that is allowed, else through `fusermount3`, which is set-uid root.

use std::{
    ffi::CString,
    io::{self, ErrorKind, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    mount::mount,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::{getgid, getuid},
};

use super::{MountError, options::Options};

const DEVICE: &str = "/dev/fuse";

/// Mounts on `dir` and returns the connection, on which the kernel's first request waits.
pub(super) fn attach(dir: &Path, options: &Options) -> Result<OwnedFd, MountError> {
    let io = |source: io::Error| MountError::Io { doing: "mount on", dir: dir.to_owned(), source };
    let device = match open_device() {
        Ok(device) => device,
        Err(Errno::NOENT) => {
            let reason = format!(
                "there is no {DEVICE}: load the module (modprobe fuse), or give the container \
                 the device (--device {DEVICE} --cap-add SYS_ADMIN)"
            );
            return Err(MountError::NoFuse { reason });
        }
        Err(Errno::NODEV | Errno::NXIO) => return Err(no_module()),
        Err(Errno::ACCESS | Errno::PERM) => return through_fusermount(dir, options),
        Err(err) => return Err(io(err.into())),
    };
    match directly(device, dir, options) {
        Ok(device) => Ok(device),
        Err(Errno::NODEV) => Err(no_module()),
        // Only root may, so let the set-uid helper do it.
        Err(Errno::PERM) => through_fusermount(dir, options),
        Err(err) => Err(io(err.into())),
    }
}

/// Whether this process may open the device itself, which one descriptor per thread takes.
pub(super) fn can_open_device() -> bool {
    open_device().is_ok()
}

fn open_device() -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

fn no_module() -> MountError {
    let reason = "the kernel does not know FUSE: load the module (modprobe fuse)".to_owned();
    MountError::NoFuse { reason }
}

fn directly(device: OwnedFd, dir: &Path, options: &Options) -> rustix::io::Result<OwnedFd> {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let mut data = format!(
        "fd={},rootmode=40000,user_id={uid},group_id={gid},default_permissions",
        device.as_raw_fd()
    );
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let data = CString::new(data).expect("because numbers and words hold no NUL");
    mount(options.source.as_str(), dir, "fuse.cairnfs", options.flags, data.as_c_str())?;
    Ok(device)
}

fn through_fusermount(dir: &Path, options: &Options) -> Result<OwnedFd, MountError> {
    let io = |source: io::Error| MountError::Io { doing: "mount on", dir: dir.to_owned(), source };
    let list = options.for_fusermount()?;
    let (ours, theirs) = UnixStream::pair().map_err(io)?;
    let child = match start_fusermount(&list, dir, theirs) {
        Ok(child) => child,
        Err(err) if err.kind() == ErrorKind::NotFound => {
            let reason = "fusermount3 is not installed: install the package fuse3".to_owned();
            return Err(MountError::NoFuse { reason });
        }
        Err(err) => return Err(io(err)),
    };
    // Ends with the child at the latest, because nobody else holds the other end.
    let device = receive_device(&ours).map_err(io)?;
    let output = child.wait_with_output().map_err(io)?;
    device.ok_or_else(|| refusal(dir, String::from_utf8_lossy(&output.stderr).trim()))
}

/// The device comes back over the socket that the child finds as its standard input.
fn start_fusermount(options: &str, dir: &Path, socket: UnixStream) -> io::Result<Child> {
    Command::new("fusermount3")
        .args(["-o", options, "--"])
        .arg(dir)
        .env("_FUSE_COMMFD", "0")
        .env("LC_ALL", "C")
        .stdin(OwnedFd::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

/// The descriptor sent over `socket`, or nothing if the other end was closed without one.
fn receive_device(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let device = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(device)
}

/// What `fusermount3` says in its own words, in ours.
fn refusal(dir: &Path, said: &str) -> MountError {
    if said.contains("user_allow_other") {
        let message = "allow_other needs the line user_allow_other in /etc/fuse.conf: add it, or \
                       mount without --allow-other";
        MountError::NotAllowed(message.to_owned())
    } else if said.contains("/dev/fuse") {
        let reason = format!("{said}: check the device's rights (ls -l {DEVICE})");
        MountError::NoFuse { reason }
    } else if said.contains("no write access") {
        let message = format!("{} belongs to somebody else: name your own", dir.display());
        MountError::NotAllowed(message)
    } else if said.contains("not permitted") {
        let message = format!("{said}: a container needs --cap-add SYS_ADMIN");
        MountError::NotAllowed(message)
    } else {
        let source = io::Error::other(said.to_owned());
        MountError::Io { doing: "mount on", dir: dir.to_owned(), source }
    }
}
