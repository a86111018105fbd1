//! What cairnfs promises, each through the real binary and a real mount.
//!
//! One module for each promise. They run beside each other: every test has a home of its own.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a step that fails fails the test; fsync is what is tested"
)]

mod a_save_costs_what_changed;
mod bad_input;
mod damage;
mod differences;
mod dirs;
mod dropping;
mod failing_disk;
mod files;
mod full_disk;
mod harness;
mod health;
mod holes;
mod in_step;
mod kill;
mod lan;
mod life_cycle;
mod links;
mod load;
mod locks;
mod lost_daemon;
mod mapped;
mod members;
mod memory;
mod metadata;
mod model;
mod older_versions;
mod opening;
mod others_get_wrong;
mod passphrase;
mod power;
mod put_back;
mod random_peers;
mod rename;
mod restore;
mod saved_is_saved;
mod scenarios;
mod secrecy;
mod sharing;
mod soak;
mod software;
mod tool;
mod two_machines;
mod unlinked;
mod users;
mod workers;
mod xattrs;
