//! Ctrl-C: the run ends at the next step, and what it mounted is taken away as after any error.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Result, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Set once a signal has come.
static CAUGHT: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on a signal is only noted: also a second one, which would leave mounts behind. SIGQUIT
/// still ends the process at once.
///
/// # Errors
///
/// What the system says.
pub fn watch() -> Result<()> {
    let caught = Arc::clone(CAUGHT.get_or_init(Arc::default));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&caught))?;
    }
    Ok(())
}

/// Whether a signal has come.
#[must_use]
pub fn came() -> bool {
    // Relaxed: nothing but the flag itself is passed on.
    CAUGHT.get().is_some_and(|caught| caught.load(Ordering::Relaxed))
}

/// To be asked between steps.
///
/// # Errors
///
/// If a signal has come.
pub fn check() -> Result<()> {
    ensure!(!came(), "interrupted");
    Ok(())
}
