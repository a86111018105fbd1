//! One of the file systems, made, mounted, and taken away again.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{Advice, fadvise};

use super::{
    Which,
    process::{Process, is_mounted},
    recipe::{self, Layout},
};
use crate::{interrupt, plain::barrier, ui};

/// How long a mount or an unmount may take: `CryFS` derives its key for a minute and more on a busy
/// machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// What cairnfs exits with when something cannot be saved.
const UNSAVED: i32 = 9;

/// A file system to work on; unmounted when dropped.
#[derive(Debug)]
pub struct Place {
    which: Which,
    program: PathBuf,
    layout: Layout,
    process: Option<Process>,
}

impl Place {
    /// Makes it in the new directory `base`, and mounts it.
    ///
    /// # Errors
    ///
    /// What its program says.
    pub fn new(which: Which, program: &Path, base: &Path) -> Result<Self> {
        let mut place = Self::create(which, program, base)?;
        place.mount()?;
        Ok(place)
    }

    /// Makes it in the new directory `base`.
    ///
    /// # Errors
    ///
    /// What its program says.
    pub fn create(which: Which, program: &Path, base: &Path) -> Result<Self> {
        let layout = Layout::new(base)?;
        for mut command in recipe::create(which, program, &layout)? {
            let done = command.status().with_context(|| format!("making {which}"))?;
            ensure!(done.success(), "making {which}: {done}: {}", tail(&layout.log));
        }
        Ok(Self { which, program: program.to_owned(), layout, process: None })
    }

    /// What it is.
    #[must_use]
    pub const fn which(&self) -> Which {
        self.which
    }

    /// The directory to work in.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.layout.point
    }

    /// The process that serves it, unless it is the plain directory.
    #[must_use]
    pub const fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// The directory that holds its store.
    #[must_use]
    pub fn store(&self) -> &Path {
        &self.layout.store
    }

    /// What the program says to this, on stdout.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub fn ask(&self, args: &[&str]) -> Result<Vec<u8>> {
        let mut command = self.layout.command(&self.program)?;
        let out = command.args(args).stdout(Stdio::piped()).output()?;
        let what = args.join(" ");
        ensure!(out.status.success(), "{what}: {}: {}", out.status, tail(&self.layout.log));
        Ok(out.stdout)
    }

    /// What all this is in.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.layout.base
    }

    /// Has cairnfs make its version now, so that it does not do that while another is timed.
    ///
    /// # Errors
    ///
    /// What it says.
    pub fn settle(&self) -> Result<()> {
        if let Which::Cairnfs(_) = self.which {
            self.ask(&["publish", "b"])?;
        }
        Ok(())
    }

    /// Has nothing of its contents left in memory: unmounted, dropped from the page cache, and
    /// mounted again. Names and attributes of the plain file system stay, as only the whole
    /// machine can be told to forget those.
    ///
    /// # Errors
    ///
    /// What the disk or its program says.
    pub fn go_cold(&mut self) -> Result<()> {
        self.unmount()?;
        drop_cached(&self.layout.base)?;
        self.mount()
    }

    /// Mounts it.
    ///
    /// # Errors
    ///
    /// What its program says.
    pub fn mount(&mut self) -> Result<()> {
        if self.which == Which::Plain {
            return Ok(());
        }
        let which = self.which;
        let mut command = recipe::mount(which, &self.program, &self.layout)?;
        let process = self.process.insert(Process::start(&mut command)?);
        let start = Instant::now();
        while !is_mounted(&self.layout.point)? {
            interrupt::check()?;
            if let Some(status) = process.ended()? {
                bail!("mounting {which}: {status}: {}", tail(&self.layout.log));
            }
            ensure!(start.elapsed() < PATIENCE, "{which} does not come up");
            thread::sleep(Duration::from_millis(5));
        }
        // JuiceFS is in the table of mounts before it answers.
        fs::read_dir(&self.layout.point).with_context(|| format!("looking into {which}"))?;
        Ok(())
    }

    fn unmount(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let start = Instant::now();
        loop {
            let done = recipe::unmount(self.which, &self.program, &self.layout)?.status()?;
            if done.success() {
                break;
            }
            if !is_mounted(&self.layout.point)? {
                // It never came up, or is gone already: nothing to wait for, and it is killed.
                return Ok(());
            }
            // The kernel may still hold a file that was closed just now; what cannot be saved is not
            // saved later.
            let hopeless = done.code() == Some(UNSAVED);
            if hopeless || start.elapsed() > PATIENCE {
                // Not dropped here: what is mounted must be detached before its process ends.
                self.process = Some(process);
                bail!("unmounting {}: {done}: {}", self.which, tail(&self.layout.log));
            }
            thread::sleep(Duration::from_millis(50));
        }
        process.wait(PATIENCE)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Err(err) = self.unmount() else { return };
        let point = &self.layout.point;
        ui::progress(&format!("{err:#}; taking {} away", point.display()));
        let detach = Command::new("fusermount3").args(["-u", "-z"]).arg(point).status();
        if !detach.is_ok_and(|status| status.success()) {
            ui::progress(&format!("left behind: {} is still mounted", point.display()));
        }
        // Its process, if it is still there, is killed with the field.
    }
}

/// Has everything below `dir` written, and dropped from the page cache.
fn drop_cached(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            drop_cached(&entry.path())?;
        } else if kind.is_file() {
            let file = File::open(entry.path())?;
            barrier(&file)?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// The last lines of a log, for whoever wants to know why.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}
