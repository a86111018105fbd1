//! What all runs have in common: how they begin, and what their reports say of where it was.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Serialize;
use tempfile::TempDir;

use crate::{
    awake::Awake,
    binary, interrupt,
    machine::{self, Machine},
    ui, workplace,
};

/// A run that has begun.
#[derive(Debug)]
pub struct Session {
    // Dropped in this order: nobody is timed any more when the files go.
    awake: Option<Awake>,
    /// The program that is measured.
    pub binary: PathBuf,
    machine: Machine,
    place: TempDir,
}

/// Where and when a report's figures were taken.
#[derive(Debug, Serialize)]
pub struct Circumstances {
    /// At the beginning.
    pub machine: Machine,
    /// Processes that wanted to run in the last minute.
    pub load_at_the_end: String,
    /// See [`Awake`].
    pub processors_kept_awake: bool,
}

impl Session {
    /// Begins a run that works in `dir`, see [`workplace::new`], and says on what machine. From here
    /// on a signal is only noted, see [`interrupt`].
    ///
    /// # Errors
    ///
    /// Without a program to measure; what the system says.
    pub fn begin(dir: Option<&Path>) -> Result<Self> {
        interrupt::watch()?;
        let binary = binary::path()?;
        let place = workplace::new(dir)?;
        let machine = Machine::here(place.path())?;
        ui::line(&machine.line());
        if machine.is_in_memory() {
            ui::line(
                "NOTE: this is no disk: barriers cost nothing here. Give --dir on a real one.",
            );
        }
        let awake = Awake::if_needed(place.path())?;
        Ok(Self { awake, binary, machine, place })
    }

    /// Where it works.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// A new directory there.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.path().join(name);
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(dir)
    }

    /// What its report says of it, asked when all is measured.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell.
    pub fn circumstances(&self) -> Result<Circumstances> {
        Ok(Circumstances {
            machine: self.machine.clone(),
            load_at_the_end: machine::load()?,
            processors_kept_awake: self.awake.is_some(),
        })
    }
}
