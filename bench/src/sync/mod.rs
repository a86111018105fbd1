//! Two devices on one machine: from `close` on one to readable on the other, the first sync of a
//! tree, and a few changes among many; beside the limit, a plain copy, and rsync.
//!
//! ```text
//!   edits     one file, again and again      limit: the bytes over TCP and fdatasync there
//!   first     a whole tree, to a new device  plain copy over one TCP stream; rsync -a
//!   changed   some files of many             rsync -a
//! ```

mod changed;
mod connections;
mod device;
mod edits;
mod first;
mod poll;
mod report;
mod rsync;
mod stream;
mod trees;

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

pub use changed::Changes;
pub use edits::Edits;
pub use first::First;

use crate::{
    output::Output,
    rounds::Plan,
    session::{Circumstances, Session},
    ui,
};
use trees::Shape;

/// How large a run is.
struct Extent {
    edits: Plan,
    first: [(&'static str, Shape); 2],
    first_rounds: usize,
    bucket: Shape,
    changed: u32,
    changed_rounds: usize,
}

impl Extent {
    fn new(quick: bool) -> Self {
        let edits = |rounds, runs| Plan { rounds, runs, warm_up: 5, burst: 1, data_bytes: 4096 };
        if quick {
            Self {
                edits: edits(3, 40),
                first: [
                    ("large", Shape::new(1, 4, 16 << 20)),
                    ("small", Shape::new(20, 100, 4096)),
                ],
                first_rounds: 3,
                bucket: Shape::new(50, 100, 4096),
                changed: 100,
                changed_rounds: 3,
            }
        } else {
            Self {
                edits: edits(5, 80),
                first: [
                    ("large", Shape::new(1, 16, 64 << 20)),
                    ("small", Shape::new(200, 100, 4096)),
                ],
                first_rounds: 5,
                bucket: Shape::new(1000, 100, 4096),
                changed: 1000,
                changed_rounds: 5,
            }
        }
    }
}

/// All figures of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    circumstances: Circumstances,
    quick: bool,
    edits: Edits,
    first: Vec<First>,
    changes: Changes,
}

/// Measures in `dir`, prints the tables and writes the JSON file.
///
/// # Errors
///
/// What the disk, a mount, rsync or cairnfs says; that something does not arrive.
pub fn run(dir: Option<&Path>, quick: bool, output: &Output) -> Result<()> {
    let session = Session::begin(dir)?;
    if !rsync::is_installed() {
        ui::line("NOTE: rsync is left out: `apt-get install rsync`");
    }
    ui::line("");
    let extent = Extent::new(quick);
    let (binary, sub) = (&session.binary, |name| session.dir(name));
    let edits = edits::measure(binary, &sub("edits")?, extent.edits)?;
    let mut first = Vec::new();
    for (name, shape) in extent.first {
        first.push(first::measure(binary, &sub(name)?, name, shape, extent.first_rounds)?);
    }
    first::print(&first);
    let changes = changed::measure(binary, &sub("changed")?, &extent)?;
    let report = Report { circumstances: session.circumstances()?, quick, edits, first, changes };
    output.save("sync", &report, None)
}
