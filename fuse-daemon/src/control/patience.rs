//! Waiting for a daemon that may have stopped answering.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{socket, wire::Channel};
use crate::{
    exit::Code,
    home::Home,
    lock::{Holder, LockFile},
    ui,
};

/// Silence after which it is looked whether the daemon is there still.
const SILENCE: Duration = Duration::from_secs(2);

/// How long a daemon that is there may take to greet.
const GREETING: Duration = Duration::from_secs(1);

/// How much longer than it was given a daemon may take to say so.
const GRACE: Duration = Duration::from_secs(5);

/// Until when a verb waits for the daemon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    at: Option<Instant>,
    code: Code,
}

impl Limit {
    /// Waits for as long as it takes.
    pub(crate) const NONE: Self = Self { at: None, code: Code::Failed };

    /// Gives up after `time`, with `code`.
    pub(crate) fn after(time: Duration, code: Code) -> Self {
        Self { at: Instant::now().checked_add(time), code }
    }

    /// For a daemon that was told the limit: it keeps to it, and knows better what is left to do.
    pub(crate) fn later(self) -> Self {
        Self { at: self.at.and_then(|at| at.checked_add(GRACE)), ..self }
    }

    /// A daemon has a moment to greet, however little time there is.
    fn to_greet(self) -> Self {
        let moment = Instant::now().checked_add(GREETING);
        Self { at: self.at.and_then(|at| moment.map(|moment| at.max(moment))), ..self }
    }

    /// For what a daemon answers without waiting for anything.
    pub(crate) fn soon() -> Self {
        Self::after(Duration::from_secs(10), Code::Failed)
    }

    /// What scripts see when it was too long.
    pub(super) fn code(self) -> Code {
        self.code
    }

    fn left(self) -> Duration {
        self.at.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()))
    }
}

/// A verb's socket. While nothing comes over it, it says once if the daemon does not answer; a
/// read beyond its limit fails with [`ErrorKind::TimedOut`] and that line.
#[derive(Debug)]
pub(super) struct Patient {
    stream: UnixStream,
    run_dir: PathBuf,
    /// Such as ` (process 12)`.
    process: String,
    limit: Limit,
    greeted: bool,
    said: bool,
}

impl Patient {
    /// Over a socket that is connected to the daemon of `home`.
    pub(super) fn new(stream: UnixStream, home: &Home, limit: Limit) -> Self {
        let process = match LockFile::holder(&home.daemon_lock()) {
            Ok(Some(Holder::Process(pid))) => format!(" (process {pid})"),
            _ => String::new(),
        };
        let (run_dir, limit) = (home.run_dir(), limit.to_greet());
        Self { stream, run_dir, process, limit, greeted: false, said: false }
    }

    /// The daemon has greeted: what is asked of it now may take until `limit`.
    pub(super) fn greeted(&mut self, limit: Limit) {
        self.greeted = true;
        self.limit = limit;
    }

    fn complaint(&self) -> String {
        format!("the daemon{} does not answer", self.process)
    }

    /// A daemon that works for long greets others meanwhile.
    fn is_there(&self) -> bool {
        let greets = |stream: UnixStream| {
            stream.set_read_timeout(Some(GREETING))?;
            Channel::new(stream).greet()
        };
        match socket::connect(&self.run_dir) {
            // It has ended, which the next read tells.
            Ok(None) => true,
            Ok(Some(stream)) => greets(stream).is_ok(),
            Err(_) => false,
        }
    }
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut silence = SILENCE;
        loop {
            let left = self.limit.left();
            if left.is_zero() {
                return Err(io::Error::new(ErrorKind::TimedOut, self.complaint()));
            }
            self.stream.set_read_timeout(Some(silence.min(left)))?;
            match self.stream.read(buffer) {
                Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => (),
                other => return other,
            }
            if !self.said && left > silence && !(self.greeted && self.is_there()) {
                ui::note(format_args!("{}, still waiting", self.complaint()));
                self.said = true;
            }
            // Some wait for days: more and more rarely, so that this wakes nobody up.
            silence = silence.saturating_mul(2);
        }
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
