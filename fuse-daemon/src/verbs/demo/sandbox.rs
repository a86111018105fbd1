//! The throw-away home: made, used, and taken away with everything that runs or is mounted in it.

use std::{
    env, fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    exit::{Code, Failure, Result},
    interrupt::OnInterrupt,
    lock::{Holder, LockFile},
    place,
};

/// The home that is meant where none is named.
pub(super) const HERE: &str = "home";
/// The home of the second device.
pub(super) const THERE: &str = "elsewhere";
/// How often it is looked whether a daemon stands still, and the pause between.
const STOP_LOOKS: u32 = 3_000;
const STOP_LOOK_PAUSE: Duration = Duration::from_millis(10);

/// A folder with homes of its own. Cleaned up when dropped, and when the demo is interrupted.
pub(super) struct Sandbox {
    root: PathBuf,
    _clean_up: OnInterrupt,
}

impl Sandbox {
    pub(super) fn new() -> Result<Self> {
        let failed = |err: &std::io::Error| Failure::io("cannot make a throw-away folder", err);
        let root = tempfile::Builder::new()
            .prefix("cairnfs-demo-")
            .tempdir()
            .and_then(|dir| dir.keep().canonicalize())
            .map_err(|err| failed(&err))?;
        let undo = root.clone();
        let sandbox = Self {
            root,
            _clean_up: OnInterrupt::undo(move || {
                // Said by `Sandbox::clean_up` if anybody is there to hear it.
                clean_up(&undo).ok();
            }),
        };
        // Commands are shown as a user types them, whatever this program is called.
        let bin = sandbox.root.join("bin");
        let program = env::current_exe().map_err(|err| failed(&err))?;
        fs::create_dir(&bin)
            .and_then(|()| std::os::unix::fs::symlink(program, bin.join("cairnfs")))
            .map_err(|err| failed(&err))?;
        Ok(sandbox)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Runs a command as it is shown.
    pub(super) fn shell(&self, command: &str) -> Result<Output> {
        shell(&self.root, command)
    }

    /// The process id of the daemon of `home`.
    pub(super) fn daemon(&self, home: &str) -> Result<Pid> {
        daemon(&self.root, home)?
            .ok_or_else(|| Failure::new(Code::Failed, "no daemon serves the throw-away home"))
    }

    /// Waits until the daemon has ended, however it ended.
    pub(super) fn wait_for_daemon(&self) -> Result<()> {
        LockFile::wait(&daemon_lock(&self.root, HERE)).map(drop)
    }

    /// What the daemon wrote, for whoever wonders why a step failed.
    pub(super) fn daemon_log(&self) -> String {
        fs::read_to_string(self.root.join("home/daemon.log")).unwrap_or_default()
    }

    pub(super) fn clean_up(&self) -> Result<()> {
        clean_up(&self.root)
    }
}

/// Waits until no thread of `pid` runs, which was told to stop: it goes on until one of them has
/// noticed.
pub(super) fn wait_until_stopped(pid: Pid) -> Result<()> {
    let runs = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // The state stands behind the name, which is in brackets.
        let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
        state.starts_with(['R', 'S', 'D'])
    };
    for _ in 0..STOP_LOOKS {
        let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()));
        if !tasks.into_iter().flatten().flatten().any(runs) {
            return Ok(());
        }
        thread::sleep(STOP_LOOK_PAUSE);
    }
    Err(Failure::new(Code::Failed, "the daemon does not stop"))
}

fn shell(root: &Path, command: &str) -> Result<Output> {
    let failed = |err: &std::io::Error| Failure::io("cannot run a shell", err);
    let mut path = root.join("bin").into_os_string();
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
    let mut shell = Command::new("/bin/sh");
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("CAIRNFS_") {
            shell.env_remove(name);
        }
    }
    shell
        .args(["-c", command])
        .current_dir(root)
        .env("PATH", path)
        .env("CAIRNFS_HOME", root.join(HERE))
        // What is thrown away is no concern of devices elsewhere.
        .env("CAIRNFS_LISTEN", "127.0.0.1:0")
        .env("CAIRNFS_DISCOVERY", "false")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        // Ctrl-C is for the demo, which then cleans up.
        .process_group(0)
        .output()
        .map_err(|err| failed(&err))
}

fn daemon_lock(root: &Path, home: &str) -> PathBuf {
    root.join(home).join("run/daemon.lock")
}

fn daemon(root: &Path, home: &str) -> Result<Option<Pid>> {
    Ok(match LockFile::holder(&daemon_lock(root, home))? {
        Some(Holder::Process(pid)) => i32::try_from(pid).ok().and_then(Pid::from_raw),
        _ => None,
    })
}

/// Ends the daemon, takes away what is mounted, and removes the folder. Does nothing when it is
/// gone already.
fn clean_up(root: &Path) -> Result<()> {
    if !root.exists() {
        return Ok(());
    }
    for home in [THERE, HERE] {
        end_daemon(root, home)?;
    }
    for dead in place::dead_mounts(|dead| dead.dir.starts_with(root)) {
        place::take_away(&dead.dir)?;
    }
    // Never through a mount: it would remove what is in the bucket. Nothing of ours is left, and
    // the mount point is removed only if it is an empty directory.
    for mount in ["photos", "photos-there"].map(|name| root.join(name)) {
        match fs::remove_dir(&mount) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::file("remove", &mount, &err));
            }
            _ => (),
        }
    }
    fs::remove_dir_all(root).map_err(|err| Failure::file("remove", root, &err))
}

fn end_daemon(root: &Path, home: &str) -> Result<()> {
    let Some(pid) = daemon(root, home)? else { return Ok(()) };
    // It may stand still. Whatever the command answers, the next lines look for themselves.
    let asked = kill_process(pid, Signal::CONT).is_ok();
    let stopped = shell(root, &format!("CAIRNFS_HOME=$PWD/{home} cairnfs stop"));
    let stopped = asked && stopped.is_ok_and(|output| output.status.success());
    if let Some(pid) = daemon(root, home)? {
        log::warn!("demo daemon_stopped={stopped}");
        kill_process(pid, Signal::KILL)
            .map_err(|err| Failure::io("cannot end the daemon", &err.into()))?;
        drop(LockFile::wait(&daemon_lock(root, home))?);
    }
    Ok(())
}
