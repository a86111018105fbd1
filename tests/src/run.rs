//! Children with deadlines.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};

/// How a child ended, and what it said.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The command, for messages.
    pub what: String,
    /// The exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether it was killed at its deadline.
    pub timed_out: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Outcome {
    /// Fails unless the exit code is 0.
    #[track_caller]
    pub fn succeeds(self) -> Self {
        self.exits(0)
    }

    /// Fails unless the exit code is `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert!(self.code == Some(code), "expected exit code {code}\n{self}");
        self
    }

    /// Fails unless standard error says every one of `words`, whatever the case of letters.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        let stderr = self.stderr.to_lowercase();
        for word in words {
            assert!(stderr.contains(&word.to_lowercase()), "expected `{word}` on stderr\n{self}");
        }
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(err) => panic!("no JSON on stdout: {err}\n{self}"),
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = match (self.timed_out, self.code, self.signal) {
            (true, ..) => "killed at its deadline".to_owned(),
            (_, Some(code), _) => format!("exit code {code}"),
            (_, _, signal) => format!("signal {signal:?}"),
        };
        write!(
            f,
            "$ {}\n({end} after {:?})\n--- stdout\n{}--- stderr\n{}",
            self.what, self.took, self.stdout, self.stderr
        )
    }
}

/// Runs `command` in a process group of its own, which is killed after `limit`.
///
/// Its output goes through files: a daemon that it leaves behind may keep them open.
pub fn run(command: &mut Command, limit: Duration) -> Outcome {
    Running::start(command).wait(limit)
}

/// A child that is killed, with its process group, when dropped.
#[derive(Debug)]
pub struct Running {
    what: String,
    child: Child,
    stdout: File,
    stderr: File,
    started: Instant,
}

impl Running {
    /// Starts `command` without standard input.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let what = describe(command);
        let stdout = tempfile::tempfile().unwrap();
        let stderr = tempfile::tempfile().unwrap();
        command
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap())
            .process_group(0);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(err) => panic!("cannot start `{what}`: {err}"),
        };
        Self { what, child, stdout, stderr, started: Instant::now() }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// What it has said on standard error so far.
    #[must_use]
    pub fn stderr_so_far(&self) -> String {
        let mut file = File::open(format!("/proc/self/fd/{}", fd(&self.stderr))).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end, kills it and its group after `limit`.
    pub fn wait(mut self, limit: Duration) -> Outcome {
        let start = Instant::now();
        let (status, timed_out) = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break (status, false);
            }
            if start.elapsed() > limit {
                break (self.kill(), true);
            }
            thread::sleep(Duration::from_millis(if start.elapsed().as_millis() < 50 {
                1
            } else {
                5
            }));
        };
        Outcome {
            what: std::mem::take(&mut self.what),
            code: status.code(),
            signal: status.signal(),
            timed_out,
            stdout: text(&mut self.stdout),
            stderr: text(&mut self.stderr),
            took: self.started.elapsed(),
        }
    }

    /// Kills the process group and reaps the child.
    fn kill(&mut self) -> ExitStatus {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
            && let Err(err) = rustix::process::kill_process_group(pid, Signal::KILL)
        {
            eprintln!("cannot kill `{}`: {err}", self.what);
        }
        // A child that hangs in a mount ends when the home's watchdog kills the daemon.
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

fn fd(file: &File) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(file)
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
