//! The log: one line per event on stderr, `op key=value`, by level.
//!
//! Under systemd a line begins with its priority (`<6>`) and the journal adds the time; anywhere
//! else it begins with the time. File names and keys are never logged.
//!
//! stderr of a daemon in the background is a file of the home. Before a line that finds it full it is
//! set aside and a new one takes its place as stderr, so that what a panic says, or a command that
//! gives a passphrase, goes there too.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Size from which the log of the background is set aside. With the one set aside before, the two
/// take twice that, and a line.
const FILE_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug)]
struct Logger {
    journal: bool,
    /// The file that stderr is, if it is this process's to set aside.
    file: Option<PathBuf>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = if self.journal {
            format!("<{}>{}\n", priority(record.level()), record.args())
        } else {
            let now = jiff::Timestamp::now();
            format!("{now:.3} {:<5} {}\n", record.level(), record.args())
        };
        // One write a line, so that lines of several threads do not mix. A log that cannot be
        // written must not stop the daemon.
        let mut stderr = io::stderr().lock();
        if let Some(path) = &self.file {
            // Else this one goes on, and the next line tries again.
            renew(path).ok();
        }
        stderr.write_all(line.as_bytes()).ok();
    }

    fn flush(&self) {}
}

/// Starts logging at `level`; later calls only change the level. If stderr is `file`, that is kept
/// from growing without bound.
pub(crate) fn start(level: LevelFilter, file: Option<&Path>) {
    log::set_max_level(level);
    let file = file.filter(|path| is_same(io::stderr().as_fd(), path)).map(Path::to_owned);
    // Fails only if there is a logger already, which is as good.
    log::set_boxed_logger(Box::new(Logger { journal: stderr_is_the_journal(), file })).ok();
}

/// Opens the log of the background at `path`; one that is full is set aside.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|meta| meta.len() >= FILE_BYTES_MAX) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// If stderr, which is or was the file at `path`, is full, makes it a new one.
fn renew(path: &Path) -> io::Result<()> {
    let stderr = io::stderr();
    let stderr = stderr.as_fd();
    if rustix::fs::fstat(stderr)?.st_size.cast_unsigned() < FILE_BYTES_MAX {
        return Ok(());
    }
    // Another process that has it too, one that is just starting, may have set it aside already;
    // then what is at `path` now is not full.
    let new = open(path)?;
    // stdout of a daemon that has told the verb goes where stderr goes.
    if is_same(io::stdout().as_fd(), &path.with_extension("log.1")) {
        rustix::stdio::dup2_stdout(&new)?;
    }
    rustix::stdio::dup2_stderr(&new)?;
    Ok(())
}

fn is_same(open: BorrowedFd<'_>, path: &Path) -> bool {
    let open = open.try_clone_to_owned().map(File::from).and_then(|file| file.metadata());
    let named = fs::metadata(path);
    open.is_ok_and(|open| {
        named.is_ok_and(|named| (open.dev(), open.ino()) == (named.dev(), named.ino()))
    })
}

/// The priority of syslog.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// `JOURNAL_STREAM` is inherited by children whose stderr goes elsewhere, so it names the file
/// that it speaks of: `DEVICE:INODE`.
fn stderr_is_the_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let file = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    file.and_then(|file| file.metadata())
        .is_ok_and(|meta| stream == format!("{}:{}", meta.dev(), meta.ino()))
}
