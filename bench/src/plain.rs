//! The limit: `write` and `fdatasync` of as many bytes to a plain file on the same disk.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::rounds::Subject;

/// Where the bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// To the end: the file system must note the new length too.
    Append,
    /// Over what stands at the beginning: nothing but the data need be written.
    Overwrite,
    /// As a log does it: with `LOG_EXTRA_BYTES` more, one behind the other over zeros that were
    /// written before, so that most writes touch two pages. What cairnfs takes beyond this is not
    /// the disk's.
    Log,
}

/// What a save of cairnfs writes besides the content, about.
const LOG_EXTRA_BYTES: usize = 300;
/// Zeros written ahead of the log at a time.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// A plain file that is written and synced.
#[derive(Debug)]
pub struct Plain {
    file: File,
    form: Form,
    end: u64,
    zeroed: u64,
}

impl Plain {
    /// A new file in `dir`, with `len` bytes to be overwritten.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn new(dir: &Path, form: Form, len: usize) -> Result<Self> {
        let name = dir.join(format!("plain-{form:?}"));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(name)?;
        file.write_all_at(&vec![1; len], 0)?;
        barrier(&file)?;
        Ok(Self { file, form, end: len as u64, zeroed: len as u64 })
    }
}

impl Plain {
    /// Writes `data` to the end without a barrier.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn write(&mut self, data: &[u8]) -> Result<Duration> {
        let start = Instant::now();
        self.file.write_all_at(data, self.end)?;
        self.end += data.len() as u64;
        Ok(start.elapsed())
    }

    fn log(&mut self, data: &[u8]) -> Result<Duration> {
        let mut record = data.to_vec();
        record.resize(data.len() + LOG_EXTRA_BYTES, 2);
        if self.end + record.len() as u64 > self.zeroed {
            self.file.write_all_at(&ZEROS, self.zeroed)?;
            self.zeroed += ZEROS.len() as u64;
            barrier(&self.file)?;
        }
        let start = Instant::now();
        self.file.write_all_at(&record, self.end)?;
        barrier(&self.file)?;
        self.end += record.len() as u64;
        Ok(start.elapsed())
    }
}

impl Subject for Plain {
    fn name(&self) -> &'static str {
        match self.form {
            Form::Append => "limit: append + fdatasync",
            Form::Overwrite => "limit: overwrite + fdatasync",
            Form::Log => "limit: log over zeros + fdatasync",
        }
    }

    fn run(&mut self, data: &[u8]) -> Result<Duration> {
        if self.form == Form::Log {
            return self.log(data);
        }
        let at = if self.form == Form::Append { self.end } else { 0 };
        let start = Instant::now();
        self.file.write_all_at(data, at)?;
        barrier(&self.file)?;
        self.end = self.end.max(at + data.len() as u64);
        Ok(start.elapsed())
    }
}

/// `fdatasync`.
///
/// # Errors
///
/// What the disk says.
#[allow(clippy::disallowed_methods, reason = "the barrier that cairnfs is compared with")]
pub fn barrier(file: &File) -> std::io::Result<()> {
    file.sync_data()
}
