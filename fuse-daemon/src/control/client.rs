//! A verb's end of the conversation.

use std::{io, path::Path};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    launch,
    message::{Answer, Event, Request},
    patience::{Limit, Patient},
    socket,
    wire::{Channel, Hello},
};
use crate::{
    exit::{Code, Failure, Result},
    home::{BucketName, Home},
    lock::{Holder, LockFile},
};

/// A connection to the daemon of a home.
#[derive(Debug)]
pub(crate) struct Client {
    channel: Channel<Patient>,
    limit: Limit,
}

impl Client {
    /// Connects to the daemon, if one runs. One that does not answer is waited for.
    pub(crate) fn connect(home: &Home) -> Result<Option<Self>> {
        Self::connect_within(home, Limit::NONE)
    }

    /// As [`Client::connect`], for no longer than `limit`.
    pub(crate) fn connect_within(home: &Home, limit: Limit) -> Result<Option<Self>> {
        let Some((channel, hello)) = reach(home, limit)? else { return Ok(None) };
        if hello.protocol == Hello::PROTOCOL {
            return Ok(Some(Self { channel, limit: Limit::NONE }));
        }
        let (code, age) = if hello.protocol > Hello::PROTOCOL {
            (Code::Newer, "a newer")
        } else {
            (Code::Failed, "an older")
        };
        Err(Failure::new(
            code,
            format_args!(
                "the running daemon (process {}) is of {age} version: run 'cairnfs stop', then \
                 try again",
                hello.pid
            ),
        ))
    }

    /// Connects to the daemon, and starts it before if none runs. A daemon started now leaves
    /// `except` to the caller, whatever is to be mounted at start.
    pub(crate) fn connect_or_start(home: &Home, except: Option<&BucketName>) -> Result<Self> {
        launch::connect_or_start(home, except)
    }

    /// Has the answer waited for until `limit`.
    pub(crate) fn within(self, limit: Limit) -> Self {
        Self { limit, ..self }
    }

    /// Asks, hands what is said meanwhile to `heard`, and returns the answer.
    pub(crate) fn ask(self, request: &Request, heard: &mut dyn FnMut(Event)) -> Result<Answer> {
        self.follow(request, &mut |event| {
            heard(event);
            Ok(())
        })
    }

    /// As [`Self::ask`], but hangs up when `heard` fails.
    pub(crate) fn follow(
        mut self,
        request: &Request,
        heard: &mut dyn FnMut(Event) -> Result<()>,
    ) -> Result<Answer> {
        let limit = self.limit;
        self.channel.stream().greeted(limit);
        self.channel.send_secret(request).map_err(|err| lost(&err, limit))?;
        loop {
            match self.channel.receive().map_err(|err| lost(&err, limit))? {
                Event::End(answer) => return answer,
                event => heard(event)?,
            }
        }
    }
}

fn lost(err: &io::Error, limit: Limit) -> Failure {
    match err.kind() {
        io::ErrorKind::TimedOut => Failure::new(limit.code(), err),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Failure::new(
            Code::Failed,
            "the daemon ended before it answered ('cairnfs status' shows what is mounted)",
        ),
        _ => Failure::io("cannot talk to the daemon", err),
    }
}

fn reach(home: &Home, limit: Limit) -> Result<Option<(Channel<Patient>, Hello)>> {
    let run_dir = home.run_dir();
    let failed = |err: &io::Error| Failure::file("reach the daemon at", &run_dir, err);
    let Some(stream) = socket::connect(&run_dir).map_err(|err| failed(&err))? else {
        return Ok(None);
    };
    let mut channel = Channel::new(Patient::new(stream, home, limit));
    match channel.greet() {
        Ok(hello) => Ok(Some((channel, hello))),
        // It ended at this moment.
        Err(err)
            if matches!(
                err.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
            ) =>
        {
            Ok(None)
        }
        Err(err) if err.kind() == io::ErrorKind::TimedOut => Err(lost(&err, limit)),
        Err(err) => Err(failed(&err)),
    }
}

/// Tells a daemon that cannot be talked to, because it is of another version, to end.
pub(crate) fn stop_by_signal(lock: &Path) -> Result<()> {
    let Some(Holder::Process(pid)) = LockFile::holder(lock)? else { return Ok(()) };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid =
        pid.ok_or_else(|| Failure::new(Code::Failed, "the daemon's lock names no process"))?;
    kill_process(pid, Signal::TERM)
        .map_err(|err| Failure::io("cannot signal the daemon", &err.into()))
}
