//! The log: one line per event on stderr, `op key=value`, by level.
//!
//! Under systemd a line begins with its priority (`<6>`) and the journal adds the time; anywhere
//! else it begins with the time. File names and keys are never logged.

use std::{
    fs,
    io::{self, Write},
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use log::{Level, LevelFilter, Log, Metadata, Record};

#[derive(Debug)]
struct Logger {
    journal: bool,
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
        io::stderr().lock().write_all(line.as_bytes()).ok();
    }

    fn flush(&self) {}
}

/// Starts logging at `level`; later calls only change the level.
pub(crate) fn start(level: LevelFilter) {
    log::set_max_level(level);
    // Fails only if there is a logger already, which is as good.
    log::set_boxed_logger(Box::new(Logger { journal: stderr_is_the_journal() })).ok();
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
    let file = io::stderr().as_fd().try_clone_to_owned().map(fs::File::from);
    file.and_then(|file| file.metadata())
        .is_ok_and(|meta| stream == format!("{}:{}", meta.dev(), meta.ino()))
}
