//! Support for the end-to-end tests: the real `cairnfs` binary, through real mounts.
//!
//! A [`Home`] is one device: its own `CAIRNFS_HOME` in a temporary directory, and whatever runs
//! on it. A [`Peer`] is a home with one bucket, mounted. Both clean up when dropped, after a
//! panic too: they kill and unmount what was started for their own home and nothing else. After
//! tests that were killed themselves, Ctrl-C included, a shell that outlives them does.
//!
//! # Invariants
//!
//! 1. Nothing waits for ever: every child has a deadline, and a [`Home`] that outlives its own
//!    is killed by its watchdog, which ends every call that hangs in its mount.
//! 2. A temporary directory is removed only when nothing is mounted below it.
//! 3. What is missing (`/dev/fuse`, a program, the right to mount) fails the test and is named.
//!
//! # Environment
//!
//! | variable | effect |
//! |---|---|
//! | `CAIRNFS_BIN` | the binary to test, instead of building `cairnfs` beside the tests |
//! | `CAIRNFS_TEST_DIR` | plain mode: tests of files run in an ordinary directory below this one |
//! | `CAIRNFS_TEST_KILLS` | how many kills the random kill test makes in all |
//! | `CAIRNFS_TEST_CUTS` | how many power cuts each test of them makes |
//! | `CAIRNFS_TEST_SEED` | the seed to replay |
//! | `CAIRNFS_TEST_BIG_MIB` | the size of the file that is larger than the memory allowed |
//! | `CAIRNFS_TEST_STEPS` | how many steps the comparison with a model takes per seed |
//! | `CAIRNFS_TEST_BUSY_SECONDS` | for how long two devices that merge all the time are written to |
//! | `CAIRNFS_TEST_KEEP` | the temporary directory of each home is left behind, and its path told |
//! | `CAIRNFS_TEST_PEER_STEPS` | how many steps a random run of several devices takes per seed |
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a step of the harness that fails fails the test; and fsync is what is tested"
)]

pub mod binary;
mod courier;
pub mod data;
pub mod fleet;
pub mod home;
pub mod image;
pub mod mounts;
pub mod need;
pub mod pair;
pub mod peer;
pub mod platter;
pub mod poll;
pub mod process;
pub mod run;
pub mod scenario;
pub mod strace;
mod sweeper;
pub mod terminal;
pub mod tree;
mod watchdog;

pub use data::Rng;
pub use fleet::Fleet;
pub use home::Home;
pub use image::Image;
pub use pair::{Cut, Pair};
pub use peer::{Peer, Save};
pub use poll::eventually;
pub use run::{Outcome, Running, run};
pub use strace::Strace;
pub use tree::Tree;

/// The bytes in hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
