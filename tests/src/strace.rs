//! Watching, delaying and failing the daemon's system calls from outside.

use std::{fs, path::PathBuf, process::Command, thread, time::Duration};

use nix::libc;
use rustix::process::Signal;

use crate::{Peer, Running, eventually, need, process};

/// An attached strace; detached when dropped.
#[derive(Debug)]
pub struct Strace {
    running: Running,
    trace: PathBuf,
    pid: u32,
}

impl Strace {
    /// The calls that make bytes durable.
    pub const BARRIERS: &str = "fdatasync,fsync,sync_file_range,syncfs,msync";

    /// Follows every thread of the daemon through `calls`; `inject` are what strace(1) calls
    /// tampering expressions, such as `fdatasync:error=EIO`.
    #[must_use]
    #[track_caller]
    pub fn attach(peer: &Peer, calls: &str, inject: &[&str]) -> Self {
        let pid = peer.pid();
        Self::start(peer, &["-f", "-p", &pid.to_string()], "", (calls, inject))
    }

    /// As [`Self::attach`], for those threads only whose names begin with `name`.
    #[must_use]
    #[track_caller]
    pub fn attach_to(peer: &Peer, name: &str, calls: &str, inject: &[&str]) -> Self {
        let threads: Vec<_> = process::threads_of(peer.pid(), name).map(|it| it.id()).collect();
        assert!(!threads.is_empty(), "no thread {name}");
        let whom: Vec<_> = threads.iter().flat_map(|id| ["-p", id]).collect();
        Self::start(peer, &whom, name, (calls, inject))
    }

    #[track_caller]
    fn start(peer: &Peer, whom: &[&str], name: &str, (calls, inject): (&str, &[&str])) -> Self {
        need::program("strace", "strace");
        let pid = peer.pid();
        let trace = tempfile::Builder::new().tempfile_in(peer.scratch()).unwrap();
        let trace = trace.keep().unwrap().1;
        let mut command = Command::new("strace");
        command.args(["-qq", "-y", "-o"]).arg(&trace).arg(format!("-etrace={calls}"));
        for expression in inject {
            command.arg(format!("-einject={expression}"));
        }
        command.args(whom);
        let mut strace = Self { running: Running::start(&mut command), trace, pid };
        eventually("strace is attached to every thread", Duration::from_secs(20), || {
            let ended = strace.running.ended();
            assert!(!ended, "strace: {}", strace.running.stderr_so_far());
            process::threads_of(pid, name).all(|thread| thread.is_traced())
        });
        strace
    }

    /// How many of the calls have returned 0.
    #[must_use]
    pub fn succeeded(&self) -> usize {
        self.text().lines().filter(|line| is_success(line)).count()
    }

    /// How many of the calls that the daemon's thread `name` made have returned 0: the thread that
    /// keeps the index has barriers of its own, when it likes.
    #[must_use]
    pub fn succeeded_in(&self, name: &str) -> usize {
        let thread = process::thread_of(self.pid, name);
        let tid = format!("{} ", thread.unwrap_or_else(|| panic!("no thread {name}")).id());
        let text = self.text();
        text.lines().filter(|line| line.starts_with(&tid) && is_success(line)).count()
    }

    /// Whether the daemon's thread `name` is held at a barrier, and has been for a while: each thread
    /// is stopped at every call for a moment, and for longer where one is delayed.
    #[must_use]
    pub fn holds_at_a_barrier(&self, name: &str) -> bool {
        let held_since = || {
            let thread = process::thread_of(self.pid, name)?;
            let barriers = [libc::SYS_fdatasync, libc::SYS_fsync];
            let is_held = barriers.contains(thread.call().first()?) && thread.is_in_state("t");
            is_held.then(|| thread.rests().map(str::to_owned))?
        };
        let before = held_since();
        thread::sleep(Duration::from_millis(200));
        before.is_some() && before == held_since()
    }

    /// Whether a thread whose name begins with `name` is held at the call of this number.
    #[must_use]
    pub fn holds_in(&self, call: i64, name: &str) -> bool {
        process::threads_of(self.pid, name)
            .any(|thread| thread.call().first() == Some(&call) && thread.is_in_state("t"))
    }

    /// Everything that was traced so far.
    #[must_use]
    pub fn text(&self) -> String {
        fs::read_to_string(&self.trace).unwrap_or_default()
    }

    /// Kills the daemon with -9 and waits until it has ended. It would not before a call that is
    /// delayed is over: its thread ends once strace lets it.
    pub fn kill(self) {
        let pid = self.pid;
        process::signal(pid, Signal::KILL);
        drop(self);
        eventually("the daemon ends after kill -9", Duration::from_secs(30), || {
            process::has_let_go(pid)
        });
    }

    /// Lets the daemon go.
    pub fn detach(self) {
        let pid = self.pid;
        self.running.signal(Signal::INT);
        self.running.wait(Duration::from_secs(20));
        eventually("strace lets go", Duration::from_secs(10), || {
            !process::is_alive(pid) || process::number(pid, "status", "TracerPid:") == 0
        });
    }
}

fn is_success(line: &str) -> bool {
    line.contains(") = 0") || line.contains(")   = 0")
}
