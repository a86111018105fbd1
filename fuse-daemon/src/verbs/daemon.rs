//! `cairnfs daemon` and `cairnfs stop`.

use super::{Context, show};
use crate::{
    cli::DaemonArgs,
    control::{Client, Request, stop_by_signal, tell_ready},
    daemon::{Running, Until, already_served},
    exit::{Code, Result},
    lock::LockFile,
    ui,
    ui::ProgressLine,
    values::Address,
};

pub(super) fn run(context: &Context, args: &DaemonArgs) -> Result<()> {
    let mut net = context.settings.net();
    net.listen = args.listen.map(|Address(at)| at).or(net.listen);
    net.discovery &= !args.no_discovery;
    let started = Running::start(context.home.clone(), net)
        .and_then(|started| started.map_err(already_served));
    if args.detach {
        tell_ready(started.as_ref().map(drop));
    }
    let mut daemon = started?;
    daemon.mount_at_start(args.except.as_ref());
    // One that a verb started is there for what is mounted.
    if !args.detach {
        daemon.keep_unmounted();
    }
    daemon.serve(Until::Stopped)
}

/// Returns when the daemon has ended.
pub(super) fn stop(context: &Context) -> Result<()> {
    let lock = context.home.daemon_lock();
    let asked = match Client::connect(&context.home) {
        Ok(Some(client)) => {
            let mut line = ProgressLine::new();
            client.ask(&Request::Stop, &mut |event| show(&mut line, event)).map(drop)
        }
        Ok(None) if LockFile::holder(&lock)?.is_none() => {
            ui::note("no daemon runs");
            return Ok(());
        }
        // It is starting or ending, or of another version: a signal is understood by all.
        Ok(None) => stop_by_signal(&lock),
        Err(failure) if matches!(failure.code, Code::Newer | Code::Failed) => stop_by_signal(&lock),
        Err(failure) => Err(failure),
    };
    if let Err(failure) = &asked
        && failure.code == Code::InUse
    {
        // It was not even passed on.
        return asked;
    }
    // The daemon holds the lock until it has ended.
    drop(LockFile::wait(&lock)?);
    asked
}
