//! What each save policy costs for real kinds of work, and what a crash takes under it.

mod advice;
mod crash;
mod losses;
mod page;
mod report;
mod svg;
mod timing;
mod usage;

use std::{path::Path, time::Duration};

use anyhow::Result;

pub use crash::Cuts;
pub use losses::Cut;
pub use report::{Policy, Report, Row, Work};
pub use timing::Amount;

use self::timing::Field;
use crate::{
    cipher, interrupt,
    jobs::Kind,
    output::Output,
    session::Session,
    tree::Tree,
    ui::{self, Progress},
};

/// The policies compared, as `--save` takes them.
const POLICIES: [&str; 3] = ["flush", "release", "interval:5s"];

/// Measures in `dir`, prints the tables and writes the files.
///
/// # Errors
///
/// What the disk, the mount or a program says.
pub fn run(dir: Option<&Path>, quick: bool, output: &Output) -> Result<()> {
    let session = Session::begin(dir)?;
    let cipher = cipher::speeds()?;
    let (amount, cuts) = extent(quick);
    let tree = Tree::new(&session.dir("source")?, 200, 200)?;
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| is_here(*kind)).collect();

    // Cut first, so that nothing of it goes on while times are taken.
    let progress = Progress::new("cuts", kinds.len());
    let mut crashed = Vec::new();
    for kind in &kinds {
        interrupt::check()?;
        progress.step(&format!("{kind}: {} cuts under each policy", cuts.count));
        crashed.push(crash::run(*kind, &POLICIES, &session.binary, session.path(), &tree, cuts)?);
    }
    drop(progress);
    let field = Field::new(session.path(), &session.binary, &POLICIES)?;
    let progress = Progress::new("times", kinds.len() * amount.rounds * (POLICIES.len() + 2));
    let mut works = Vec::new();
    for (kind, crashed) in kinds.iter().zip(crashed) {
        let timed = field.measure(*kind, &amount, &tree, &progress)?;
        works.push(Work::new(*kind, &timed, &POLICIES, crashed));
    }
    drop(progress);
    drop(field);
    let circumstances = session.circumstances()?;
    let report = Report { circumstances, cipher, amount, cuts, works };
    report.print();
    output.save("policies", &report, Some(&page::of(&report)))
}

const fn extent(quick: bool) -> (Amount, Cuts) {
    if quick {
        (
            Amount { rounds: 2, saves: 50, copied_bytes: 16 << 20, units: 4 },
            Cuts { time: Duration::from_secs(7), count: 12 },
        )
    } else {
        (
            Amount { rounds: 6, saves: 200, copied_bytes: 64 << 20, units: 10 },
            Cuts { time: Duration::from_secs(16), count: 40 },
        )
    }
}

/// Whether this kind of work can be done here; says how to get what it takes.
fn is_here(kind: Kind) -> bool {
    let Some((program, package)) = kind.missing() else { return true };
    ui::line(&format!("NOTE: {kind} is left out, no {program} here: `apt-get install {package}`"));
    false
}

impl Report {
    fn print(&self) {
        let Amount { rounds, .. } = self.amount;
        let Cuts { time, count } = self.cuts;
        ui::line(&format!(
            "{rounds} rounds; the power cut {count} times within {} s of work under each policy; load \
             {} at the end; one core: AES-256-GCM {:.0} MiB/s, BLAKE3 {:.0}\n",
            time.as_secs(),
            self.circumstances.load_at_the_end,
            self.cipher.aes_gcm_mib_s,
            self.cipher.blake3_mib_s,
        ));
        for work in &self.works {
            work.print();
        }
    }
}
