//! Scenarios of merging: what a few devices do apart, and what all of them must show afterwards.
//!
//! A case file has one scenario a line:
//!
//! ```text
//! NNN | title | init: OPS | A: OPS | B: OPS | C: OPS | D: OPS | sync: STEPS | then: PART // PART
//!     | opt: FLAGS | => TREE [OR TREE ...] | ! KINDS | meta: path:key=v[|v] ... | F or CH, a note
//! ```
//!
//! | field | meaning |
//! |---|---|
//! | OPS | `w P T` write, with parents; `sv P T` save as editors do; `d P` mkdir -p; `rm P`; `rmr P` rm -r; `mv P Q`; `ln P T` symlink; `+x P`; `-x P`; `xa P K V` xattr; `mt P N` mtime; `res P T` settle P with the bytes T; `rmc P`, `wc P T` remove, write to each conflict copy of P |
//! | T | no blanks; `\n` line end, `\e` nothing, `\s` blank, `\uXXXX`; in names `@[T]` is `@` and the first 8 hex digits of the id of the content T, `@[T:16]` the first 16 |
//! | STEPS | `A>B` B pulls A; `A<>B` each pulls what the other had before; `*` all pairs until quiet |
//! | PART | `X: OPS` or `sync STEPS`, in order |
//! | TREE | all that is shown: `p=T`, `p->T`, `p/`; parents are implied; `(empty)`; `p=<1\|2>` one of the versions at p and each other one beside it as `p@[it]` |
//! | KINDS | the kinds of conflict that are listed, each once; `-` for none |
//!
//! `init` is made by A and given to all. After the last part everybody pulls from everybody until
//! nobody learns anything, within four rounds; then all must show the same and stand on the same
//! state. A scenario runs on anything that is [`Devices`].

mod actions;
// One reader for the cases of the merge and for those of real mounts.
#[path = "../../../merge/tests/support/case_file.rs"]
mod case_file;
mod daemons;
mod devices;
mod expected;
mod in_process;
mod play;
mod playable;
mod text;

pub use self::{
    case_file::{Scenario, parse},
    daemons::Daemons,
    devices::{Device, Devices, Listed, Pace, Shown, Told},
    in_process::InProcess,
};
