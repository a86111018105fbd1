//! Ends what hangs.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{mounts, process};

/// Kills the processes of a home when it has not been dropped within its deadline.
///
/// With the daemon gone every call that waits in its mount fails, so the test goes on, and fails.
#[derive(Debug)]
pub(crate) struct Watchdog {
    expired: Arc<AtomicBool>,
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    pub(crate) fn start(home: PathBuf, mount_root: PathBuf, limit: Duration) -> Self {
        let (done, wait) = channel();
        let expired = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&expired);
        let test = thread::current().name().unwrap_or("a test").to_owned();
        let thread = thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || {
                if wait.recv_timeout(limit) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                // Relaxed: read only after this thread is joined.
                flag.store(true, Ordering::Relaxed);
                eprintln!("watchdog: {test} hangs: not done within {limit:?}, killing its daemon");
                end(&home, &mount_root);
                // Last resort: a test that does not come back even so would block the whole run.
                if wait.recv_timeout(Duration::from_secs(120)) == Err(RecvTimeoutError::Timeout) {
                    eprintln!("watchdog: {test} hangs for good: ending the whole run");
                    std::process::exit(101);
                }
            })
            .unwrap();
        Self { expired, done: Some(done), thread: Some(thread) }
    }

    /// Stops watching; says whether the deadline had passed.
    pub(crate) fn stop(&mut self) -> bool {
        drop(self.done.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the watchdog does not panic");
        }
        self.expired.load(Ordering::Relaxed)
    }
}

fn end(home: &Path, mount_root: &Path) {
    // A daemon that is stuck in the kernel ignores even kill -9 until its connection is aborted.
    for mount in mounts::below(mount_root) {
        let abort = format!("/sys/fs/fuse/connections/{}/abort", mount.minor);
        if mount.kind.starts_with("fuse") && std::fs::write(&abort, "1").is_err() {
            eprintln!("watchdog: no {abort}; relying on kill -9");
        }
    }
    process::kill_home(home);
    mounts::detach_all(mount_root);
}
