//! Where the `cairnfs` binary is.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail, ensure};

use crate::ui;

/// `$CAIRNFS_BIN`, or the one beside this program, brought up to date by cargo if cargo runs us.
///
/// # Errors
///
/// If there is none, or cargo fails.
pub fn path() -> Result<PathBuf> {
    if let Some(path) = env::var_os("CAIRNFS_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "CAIRNFS_BIN names no file: {}", path.display());
        return Ok(path.canonicalize()?);
    }
    let exe = env::current_exe()?;
    // target/release/cairnfs-bench, or target/release/deps/NAME-HASH for criterion's.
    let mut profile_dir = exe.parent().context("a program lies in a directory")?;
    if profile_dir.ends_with("deps") {
        profile_dir = profile_dir.parent().context("deps lies in a directory")?;
    }
    let path = profile_dir.join("cairnfs");
    if let (Some(cargo), Some(target)) = (env::var_os("CARGO"), profile_dir.parent()) {
        ui::progress("bringing the cairnfs binary up to date");
        let status = Command::new(cargo)
            .args(["build", "--quiet", "--release", "-p", "cairnfs", "--target-dir"])
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()?;
        ensure!(status.success(), "cargo could not build cairnfs");
    }
    if !path.is_file() {
        bail!("no {}: run `cargo build --release -p cairnfs`, or set CAIRNFS_BIN", path.display());
    }
    Ok(path)
}
