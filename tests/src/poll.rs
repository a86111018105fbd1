//! Waiting for a condition, never for a time.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Looks every few milliseconds until `holds` is true.
///
/// # Panics
///
/// With `what` if that takes longer than `limit`.
pub fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Lets a time pass that is itself what is tried: a promise ("saved at the latest 1 s later"), for how
/// long nothing happens, or the moment of a kill.
pub fn let_pass(promised: Duration) {
    thread::sleep(promised);
}
