//! A C project, compiled unit by unit, its sources beside what is made of them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use super::{Effect, Job, Step};
use crate::tree::Tree;

/// Units of the project.
const UNITS: usize = 12;

#[derive(Debug)]
pub(super) struct Build {
    root: PathBuf,
    units: Vec<PathBuf>,
    n: usize,
}

impl Build {
    pub(super) fn new(root: &Path, tree: &Tree) -> Result<Self> {
        let mut units = Vec::new();
        for (name, content) in tree.files()? {
            if name.extension().is_none_or(|ext| ext != "c") || units.len() == UNITS {
                continue;
            }
            let name = PathBuf::from(name.file_name().context("a file has a name")?);
            fs::write(root.join(&name), content)?;
            units.push(name);
        }
        Ok(Self { root: root.to_owned(), units, n: 0 })
    }
}

impl Job for Build {
    fn step(&mut self) -> Result<Step> {
        let unit = &self.units[self.n % self.units.len()];
        // The next build has other objects: no two steps make the same.
        let object = unit.with_extension(format!("{}.o", self.n / self.units.len()));
        self.n += 1;
        let mut cc = Command::new("cc");
        cc.arg("-O1").arg("-c").arg(unit).arg("-o").arg(&object).current_dir(&self.root);
        let start = Instant::now();
        let status = cc.stdin(Stdio::null()).status().context("starting cc")?;
        let waited = start.elapsed();
        ensure!(status.success(), "cc: {status}");
        let made = fs::read(self.root.join(&object))?;
        let effect = Effect::File(object, blake3::hash(&made));
        Ok(Step { waited, bytes: made.len() as u64, effect })
    }
}
