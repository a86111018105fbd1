//! Waiting for what another process does.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::interrupt;

/// Between two looks: short beside what is measured, long beside what a look costs.
const PAUSE: Duration = Duration::from_micros(300);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Looks until `holds` is true.
///
/// # Errors
///
/// If it does not become so; what looking fails with; Ctrl-C.
pub(super) fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !holds()? {
        interrupt::check()?;
        ensure!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(PAUSE);
    }
    Ok(())
}
