//! The socket's place: `run/daemon.sock`, mode 0600 in a folder of mode 0700.
//!
//! The kernel takes paths of at most 107 bytes for a socket, and homes may lie deeper than that.
//! So the folder is opened and the socket is named through it: `/proc/self/fd/N/daemon.sock`.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};

const NAME: &str = "daemon.sock";

/// Longest path that is used as it is.
const MAX_PATH_BYTES: usize = 100;

/// A path to the socket that is short enough, good for as long as this lives.
struct ShortPath {
    path: PathBuf,
    _dir: Option<OwnedFd>,
}

impl ShortPath {
    fn new(run_dir: &Path) -> io::Result<Self> {
        let path = run_dir.join(NAME);
        if path.as_os_str().len() <= MAX_PATH_BYTES {
            return Ok(Self { path, _dir: None });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(run_dir, flags, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd()));
        Ok(Self { path, _dir: Some(dir) })
    }
}

/// The daemon's end.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
}

impl Listener {
    /// Takes the place of what a daemon before left behind: only the holder of the daemon's lock
    /// may do this.
    pub(crate) fn bind(run_dir: &Path) -> io::Result<Self> {
        let short = ShortPath::new(run_dir)?;
        match fs::remove_file(&short.path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => (),
        }
        // Between the two calls the folder's mode guards it.
        let socket = UnixListener::bind(&short.path)?;
        fs::set_permissions(&short.path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { socket })
    }

    /// Waits for a verb.
    pub(crate) fn accept(&self) -> io::Result<UnixStream> {
        self.socket.accept().map(|(stream, _)| stream)
    }
}

/// A verb's end; none if nobody listens.
pub(crate) fn connect(run_dir: &Path) -> io::Result<Option<UnixStream>> {
    let stream = ShortPath::new(run_dir).and_then(|short| UnixStream::connect(&short.path));
    match stream {
        Ok(stream) => Ok(Some(stream)),
        Err(err)
            if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
        {
            Ok(None)
        }
        Err(err) => Err(err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_home_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        for depth in [0, 3] {
            let run_dir = (0..depth).fold(dir.path().to_owned(), |dir, _| dir.join("x".repeat(80)));
            fs::create_dir_all(&run_dir).unwrap();
            assert!(connect(&run_dir).unwrap().is_none());
            let listener = Listener::bind(&run_dir).unwrap();
            let mode = fs::metadata(run_dir.join(NAME)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert!(connect(&run_dir).unwrap().is_some());
            listener.accept().unwrap();
            drop(listener);
            assert!(connect(&run_dir).unwrap().is_none());
            assert!(Listener::bind(&run_dir).is_ok());
        }
    }

    #[test]
    fn no_home_no_daemon() {
        assert!(connect(Path::new("/nonexistent/run")).unwrap().is_none());
        let deep = format!("/nonexistent/{}", "x".repeat(200));
        assert!(connect(Path::new(&deep)).unwrap().is_none());
    }
}
