//! Where a run works, and where its results go.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Serialize;
use tempfile::TempDir;

use crate::ui;

/// A new directory, removed with everything in it at the end: in `dir`, or else beside this
/// program, which is on a disk, whereas the usual place for what is temporary often is not.
///
/// # Errors
///
/// What the disk says.
pub fn new(dir: Option<&Path>) -> Result<TempDir> {
    let near = beside_program()?;
    let parent = dir.unwrap_or(&near);
    tempfile::Builder::new()
        .prefix("cairnfs-bench-")
        .tempdir_in(parent)
        .with_context(|| format!("cannot make a directory in {}", parent.display()))
}

/// As [`new`], but in memory where there is a place for that: for what has nothing to do with the
/// speed of the disk.
///
/// # Errors
///
/// What the system says.
pub fn in_memory() -> Result<TempDir> {
    let shared = Path::new("/dev/shm");
    new(shared.is_dir().then_some(shared))
}

fn beside_program() -> Result<PathBuf> {
    let exe = env::current_exe()?;
    Ok(exe.parent().context("a program lies in a directory")?.to_owned())
}

/// Where reports go unless they are to go elsewhere: a directory `bench` beside this program.
///
/// # Errors
///
/// What the disk says.
pub fn results() -> Result<PathBuf> {
    let dir = beside_program()?.join("bench");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Writes a report as JSON to `path`, or to `bench/NAME.json` beside this program.
///
/// # Errors
///
/// What the disk says.
pub fn save_json(report: &impl Serialize, name: &str, path: Option<&Path>) -> Result<()> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => results()?.join(name).with_extension("json"),
    };
    fs::write(&path, serde_json::to_string_pretty(report)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    ui::progress(&format!("figures in {}", path.display()));
    Ok(())
}
