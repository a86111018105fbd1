//! Peers that act on paths, scenarios and random histories: shared by tests and examples.

#![allow(dead_code, reason = "each test and example uses its own part")]

pub(crate) mod peer;
pub(crate) mod random;
pub(crate) mod scenario;
