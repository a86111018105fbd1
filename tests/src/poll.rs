//! Waiting for a condition, never for a time.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Looks every few milliseconds until `holds` is true.
///
/// # Panics
///
/// With `what` if that takes longer than `limit`; but where something is cleaned up after a panic it says
/// so and goes on, as a second one would end all tests.
pub fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() >= limit {
            assert!(thread::panicking(), "not within {limit:?}: {what}");
            eprintln!("not within {limit:?}, after a failure: {what}");
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Lets a time pass that is itself what is tried: a promise ("saved at the latest 1 s later"), for how
/// long nothing happens, or the moment of a kill.
pub fn let_pass(promised: Duration) {
    thread::sleep(promised);
}
