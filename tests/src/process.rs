//! The processes of one home, found by what the kernel says of them.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::libc;
use rustix::process::{Pid, Signal};

use crate::poll::eventually;

/// The processes whose `CAIRNFS_HOME` is `home` or below it, the calling one left out.
///
/// Waits for each process that is just beginning its program. One that another test starts closes the
/// files first that it was born with copies of, and a close may wait for a save.
#[must_use]
pub fn of_home(home: &Path) -> Vec<u32> {
    let is_of_home = |entry: &[u8]| {
        let value = entry.strip_prefix(b"CAIRNFS_HOME=");
        value.is_some_and(|value| Path::new(OsStr::from_bytes(value)).starts_with(home))
    };
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Those of other users, and those that ended meanwhile, cannot be read.
        let Ok(environ) = fs::read(entry.path().join("environ")) else { continue };
        if pid != own && environ.split(|&byte| byte == 0).any(is_of_home) {
            found.push(pid);
        }
    }
    found
}

/// The process of `home` that holds `/dev/fuse` open.
#[must_use]
pub fn serving(home: &Path) -> Option<u32> {
    of_home(home).into_iter().find(|pid| {
        let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        fds.flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == Path::new("/dev/fuse")))
    })
}

/// Kills every process of `home` with -9 and waits until they are gone, and their files closed: a
/// mount is dead only then. One that ends has lost its environment, and is of no home, before that.
pub fn kill_home(home: &Path) {
    let mut killed = BTreeSet::new();
    eventually("the processes of the home end after kill -9", Duration::from_secs(30), || {
        let pids = of_home(home);
        for pid in &pids {
            signal(*pid, Signal::KILL);
        }
        killed.extend(&pids);
        pids.is_empty() && killed.iter().all(|pid| has_let_go(*pid))
    });
}

/// Whether nothing of `pid` is left but what its parent has to ask for.
pub(crate) fn has_let_go(pid: u32) -> bool {
    tasks(pid).all(|task| ["Z", "X"].iter().any(|state| task.is_in_state(state)))
}

/// Waits until no process of `home` runs or holds a lock any more, as after `cairnfs stop`.
#[track_caller]
pub fn ended(home: &Path) {
    eventually("the daemon ends", Duration::from_secs(20), || of_home(home).is_empty());
}

/// Sends `signal` to `pid`, which may have ended.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        && let Err(err) = rustix::process::kill_process(pid, signal)
    {
        assert!(err == rustix::io::Errno::SRCH, "cannot signal {pid:?}: {err}");
    }
}

/// Stops `pid`, and waits until none of its threads runs: until the first of them has noticed, the
/// others go on, which takes long where many want to run.
pub fn stand_still(pid: u32) {
    signal(pid, Signal::STOP);
    let runs = |task: &Task| ["R", "S", "D"].iter().any(|state| task.is_in_state(state));
    eventually("a stopped process stands still", Duration::from_secs(30), || {
        !tasks(pid).any(|task| runs(&task))
    });
}

/// Whether the thread of `pid` that is called `name` waits to be told what to do, and not for a time
/// as well.
#[must_use]
pub fn has_nothing_to_do(pid: u32, name: &str) -> bool {
    // The timeout is the fourth argument of futex(2).
    thread_of(pid, name).is_some_and(|thread| {
        let call = thread.call();
        call.first() == Some(&libc::SYS_futex) && call.get(4) == Some(&0)
    })
}

/// Whether a thread of `pid` whose name begins with `name` lets a time pass before it tries again.
#[must_use]
pub fn tries_again_later(pid: u32, name: &str) -> bool {
    threads_of(pid, name).any(|thread| thread.call().first() == Some(&libc::SYS_clock_nanosleep))
}

/// How often the thread of `pid` that is called `name` has stopped running of its own accord; none if
/// there is no such thread.
#[must_use]
pub fn rests(pid: u32, name: &str) -> Option<u64> {
    let thread = thread_of(pid, name)?;
    thread.rests()?.split_whitespace().nth(1)?.parse().ok()
}

/// A thread, as the kernel tells of it.
#[derive(Debug)]
pub(crate) struct Task {
    dir: PathBuf,
    status: String,
}

impl Task {
    pub(crate) fn id(&self) -> String {
        self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Whether a tracer has it.
    pub(crate) fn is_traced(&self) -> bool {
        !self.status.contains("TracerPid:\t0\n")
    }

    /// Whether it is in a state of this letter, as proc(5) has them.
    pub(crate) fn is_in_state(&self, letter: &str) -> bool {
        self.status.contains(&format!("State:\t{letter}"))
    }

    /// How often it has stopped running of its own accord, as a line of text.
    pub(crate) fn rests(&self) -> Option<&str> {
        self.status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:"))
    }

    /// The number of the system call that it is in, and its arguments; nothing of one that runs.
    pub(crate) fn call(&self) -> Vec<i64> {
        let text = fs::read_to_string(self.dir.join("syscall")).unwrap_or_default();
        let number = |word: &str| match word.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).map(u64::cast_signed).ok(),
            None => word.parse().ok(),
        };
        text.split_whitespace().map_while(number).collect()
    }
}

/// The thread of `pid` that is called `name`.
pub(crate) fn thread_of(pid: u32, name: &str) -> Option<Task> {
    tasks(pid).find(|task| task.status.starts_with(&format!("Name:\t{name}\n")))
}

/// The threads of `pid` whose names begin with `name`.
pub(crate) fn threads_of(pid: u32, name: &str) -> impl Iterator<Item = Task> {
    let begins = format!("Name:\t{name}");
    tasks(pid).filter(move |task| task.status.starts_with(&begins))
}

/// The threads of `pid`; none if it has ended.
fn tasks(pid: u32) -> impl Iterator<Item = Task> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"));
    entries.into_iter().flatten().flatten().map(|entry| {
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        Task { dir: entry.path(), status }
    })
}

/// Whether `pid` runs (and is not only waiting to be reaped).
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

/// A number out of `/proc/PID/<file>`, whose line begins with `key`.
#[must_use]
pub fn number(pid: u32, file: &str, key: &str) -> u64 {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path).unwrap_or_else(|err| panic!("{path}: {err}"));
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("{path} has no number for {key}"))
}

/// The most memory that `pid` has held, in bytes.
#[must_use]
pub fn rss_bytes_max(pid: u32) -> u64 {
    number(pid, "status", "VmHWM:") * 1024
}

/// The most memory that `pid` has held, less what it maps of its program.
#[must_use]
pub fn data_bytes_max(pid: u32) -> u64 {
    rss_bytes_max(pid).saturating_sub(number(pid, "status", "RssFile:") * 1024)
}

/// The memory that `pid` holds, in bytes.
#[must_use]
pub fn rss_bytes(pid: u32) -> u64 {
    number(pid, "status", "VmRSS:") * 1024
}

/// The bytes that `pid` has handed to `write` calls, files and sockets alike.
#[must_use]
pub fn written_bytes(pid: u32) -> u64 {
    number(pid, "io", "wchar:")
}
