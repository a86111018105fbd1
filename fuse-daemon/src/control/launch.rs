//! Starting the daemon in the background.
//!
//! The child gets a pipe as its stdout. It writes one line there when it can be talked to, or
//! the reason why not, and lets go of the pipe, so that nobody who waits for the end of a verb's
//! output waits for the daemon.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use super::Client;
use crate::{
    exit::{Code, Failure, Result, plain},
    home::{BucketName, Home},
    lock::LockFile,
    logger,
};

/// What the child writes when it is ready.
const READY: &str = "ready\n";

pub(super) fn connect_or_start(home: &Home, except: Option<&BucketName>) -> Result<Client> {
    if let Some(client) = Client::connect(home)? {
        return Ok(client);
    }
    home.prepare()?;
    // One verb starts it; others that want it at the same time wait here and then find it.
    let _alone = LockFile::wait(&home.run_dir().join("launch.lock"))?;
    let mut refused = None;
    // A supervisor may start one besides; then ours is refused, and theirs is soon ready. If it is
    // refused for the same once more though none runs, then it is for something else.
    for pause_ms in [10, 50, 200, 1000, 3000] {
        if let Some(client) = Client::connect(home)? {
            return Ok(client);
        }
        match start(home, except) {
            Err(failure) if failure.code == Code::InUse => {
                let none_runs = LockFile::holder(&home.daemon_lock())?.is_none();
                if none_runs && refused.as_ref() == Some(&failure) {
                    return Err(failure);
                }
                refused = Some(failure);
                thread::sleep(Duration::from_millis(pause_ms));
            }
            other => other?,
        }
    }
    Client::connect(home)?.ok_or_else(|| {
        refused.unwrap_or_else(|| {
            let log = home.log_file();
            let what = "the daemon was started and cannot be reached; its log is";
            Failure::new(Code::Failed, format_args!("{what} {}", log.display()))
        })
    })
}

fn start(home: &Home, except: Option<&BucketName>) -> Result<()> {
    let failed = |err: &io::Error| Failure::io("cannot start the daemon", err);
    let program = std::env::current_exe().map_err(|err| failed(&err))?;
    let mut command = Command::new(program);
    command.args(["daemon", "--detach"]);
    if let Some(bucket) = except {
        command.args(["--except", bucket.as_str()]);
    }
    if let Some(dir) = home.for_children() {
        command.env("CAIRNFS_HOME", dir);
    }
    let mut child = command
        // That of a service which runs this verb is not the daemon's to answer.
        .env_remove("NOTIFY_SOCKET")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(open_log(home)?)
        .spawn()
        .map_err(|err| failed(&err))?;
    let mut said = String::new();
    let mut out = child.stdout.take().expect("asked for a pipe");
    out.read_to_string(&mut said).map_err(|err| failed(&err))?;
    if said == READY {
        return Ok(());
    }
    let status = child.wait().map_err(|err| failed(&err))?;
    let code = status.code().and_then(Code::from_number).unwrap_or(Code::Failed);
    let why = said.trim();
    let why = if why.is_empty() { "it ended at once" } else { why };
    let log = home.log_file();
    let log = log.display();
    Err(Failure::new(code, format_args!("the daemon did not start: {why} (its log is {log})")))
}

fn open_log(home: &Home) -> Result<File> {
    let path = home.log_file();
    logger::open(&path).map_err(|err| Failure::file("open the log", &path, &err))
}

/// The child's first act: leaves the terminal, and lets go of every file that it inherited but
/// never asked for, such as the lock of a script that ran the verb.
pub(crate) fn detach() -> Result<()> {
    let failed = |err: &io::Error| Failure::io("cannot leave the terminal", err);
    // Fails only for the leader of a process group, which has left already.
    rustix::process::setsid().ok();
    let listed: Vec<i32> = fs::read_dir("/proc/self/fd")
        .map_err(|err| failed(&err))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in listed {
        // The one that listed the others is closed already.
        nix::unistd::close(fd).ok();
    }
    Ok(())
}

/// Tells the verb that started this process that it is `Ok`, or why not, and lets go of its pipe.
pub(crate) fn tell_ready(outcome: Result<(), &Failure>) {
    let text = match outcome {
        Ok(()) => READY.to_owned(),
        Err(failure) => failure.message.clone(),
    };
    // A verb that was interrupted does not listen; the daemon goes on all the same.
    let mut out = io::stdout().lock();
    let told = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    let moved = rustix::stdio::dup2_stdout(rustix::stdio::stderr()).map_err(io::Error::from);
    if let Err(err) = told.and(moved) {
        log::warn!("launch told=no reason={:?}", plain(&err));
    }
}
