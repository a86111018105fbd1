//! What a save costs, and what it buys.
//!
//! The parts that the reports and the criterion benches have in common. Whatever is compared is
//! timed in one run, one operation of each in turn, in an order drawn anew every time: what else
//! the machine does meanwhile hits all alike.
//!
//! ```text
//!   rounds ---- one save of each in turn ----+--> plain    write + fdatasync: the limit
//!      |                                     +--> bucket   mount-core without FUSE
//!      v                                     +--> served   the binary, through a real mount
//!   sample -> table, JSON
//! ```

pub mod awake;
pub mod binary;
pub mod bucket;
pub mod cipher;
pub mod compare;
pub mod flush;
pub mod interrupt;
pub mod jobs;
pub mod machine;
pub mod noise;
pub mod output;
pub mod plain;
pub mod policies;
pub mod rounds;
pub mod sample;
pub mod served;
pub mod session;
pub mod sim;
pub mod sync;
pub mod systems;
pub mod traffic;
pub mod tree;
pub mod ui;
pub mod workplace;
