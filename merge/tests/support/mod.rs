//! Peers that act on paths, scenarios and random histories: shared by tests and examples.

#![allow(dead_code, reason = "each test and example uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a peer of a test stops at the first surprise"
)]

pub(crate) mod case_file;
pub(crate) mod peer;
pub(crate) mod random;
pub(crate) mod scenario;
