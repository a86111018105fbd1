//! The same work on cairnfs, on what lies below, and on the encrypted file systems of others.

mod report;
mod syncs;
mod works;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

pub use report::Report;
pub use syncs::Syncs;
pub use works::{Amount, Work};

use self::{
    report::Row,
    works::{COLD, SMALL, WARM},
};
use crate::{
    cipher, interrupt,
    noise::Noise,
    output::Output,
    plain::{Form, Plain},
    rounds::Subject,
    sample::Samples,
    session::Session,
    systems::{Place, Which},
    tree::Tree,
    ui::{self, Progress},
};

/// cairnfs, waiting for the disk when a file is closed, and not before fsync, as the others do.
const OURS: [Which; 2] = [Which::Cairnfs("interval:5s"), Which::Cairnfs("flush")];

/// Times of one kind of work: of the limit first, then of each system.
struct Measured {
    work: Work,
    limit: Samples,
    systems: Vec<Samples>,
}

/// Measures in `dir`, prints the tables and writes the files.
///
/// # Errors
///
/// What the disk or one of the file systems says.
pub fn run(dir: Option<&Path>, quick: bool, output: &Output) -> Result<()> {
    let session = Session::begin(dir)?;
    let cipher = cipher::speeds()?;
    let amount = amount(quick);
    let trees = (0..amount.rounds).map(|round| {
        let dir = session.dir(&format!("source-{round}"))?;
        Tree::new(&dir, u32::try_from(amount.files)?, round as u64)
    });
    let trees: Vec<Tree> = trees.collect::<Result<_>>()?;

    let installed = installed(&session.binary);
    let mut places = Vec::new();
    let mut versions = Vec::new();
    for (which, program) in installed {
        interrupt::check()?;
        ui::progress(&format!("making and mounting {which}"));
        let base = session.dir(&which.to_string().replace([' ', ':'], "-"))?;
        match Place::new(which, &program, &base) {
            Ok(place) => places.push(place),
            // One of the others that does not come up here is no reason to have no figures.
            Err(err) if Which::OTHERS.contains(&which) && !interrupt::came() => {
                ui::line(&format!("NOTE: {which} is left out: {err:#}"));
                continue;
            }
            Err(err) => return Err(err),
        }
        versions.push((which.to_string(), which.version(&program)));
    }
    let measured = measure(session.path(), &mut places, &amount, &trees)?;
    let mut syncs = Vec::new();
    if syncs::can_count() {
        for place in &places {
            interrupt::check()?;
            ui::progress(&format!("barriers of {}", place.which()));
            syncs.push(syncs::count(place).with_context(|| place.which().to_string())?);
        }
    } else {
        ui::line("NOTE: who syncs cannot be told: `apt-get install strace`");
    }
    drop(places);
    let circumstances = session.circumstances()?;
    let tree_bytes = trees.iter().map(Tree::bytes).sum::<u64>() / trees.len() as u64;
    let rows = measured.iter().map(|of_work| Row::new(of_work, &amount, tree_bytes)).collect();
    let report = Report { circumstances, cipher, amount, tree_bytes, versions, rows, syncs };
    report.print();
    output.save("compare", &report, None)
}

const fn amount(quick: bool) -> Amount {
    if quick {
        Amount { rounds: 3, files: 100, synced: 30, large_bytes: 16 << 20, places: 200 }
    } else {
        Amount { rounds: 7, files: 300, synced: 100, large_bytes: 64 << 20, places: 1_000 }
    }
}

/// Those that are here; says how to get those that are not.
fn installed(cairnfs: &Path) -> Vec<(Which, PathBuf)> {
    let mut found = vec![(Which::Plain, PathBuf::new())];
    found.extend(OURS.map(|which| (which, cairnfs.to_owned())));
    for which in Which::OTHERS {
        match which.find() {
            Some(program) => found.push((which, program)),
            None => ui::line(&format!("NOTE: no {which} here: `{}`", which.install())),
        }
    }
    found
}

/// Each kind of work on each system in turn, in an order drawn anew each time; with a tree for each
/// round.
fn measure(
    dir: &Path,
    places: &mut [Place],
    amount: &Amount,
    trees: &[Tree],
) -> Result<Vec<Measured>> {
    let works = || WARM.into_iter().chain(COLD);
    let systems = vec![Samples::default(); places.len()];
    let mut measured: Vec<Measured> = works()
        .map(|work| Measured { work, limit: Samples::default(), systems: systems.clone() })
        .collect();
    let limit_dir = dir.join("limit");
    fs::create_dir(&limit_dir)?;
    let mut noise = Noise::new(11);
    let mut order: Vec<usize> = (0..places.len()).collect();
    let progress = Progress::new("rounds", amount.rounds * measured.len() * places.len());
    for (round, tree) in trees.iter().enumerate() {
        for of_work in &mut measured {
            let work = of_work.work;
            if work == COLD[0] {
                for place in places.iter_mut() {
                    interrupt::check()?;
                    place.go_cold()?;
                }
            }
            of_work.limit.begin_round();
            if work.writes() {
                of_work.limit.push(limit(&limit_dir, work, amount, tree)?);
            }
            noise.shuffle(&mut order);
            for &at in &order {
                interrupt::check()?;
                let place = &places[at];
                progress.step(&format!("round {}: {work} on {}", round + 1, place.which()));
                let own = place.root().join(format!("round-{round}"));
                if work == WARM[0] {
                    fs::create_dir(&own)?;
                }
                let time = work.run(&own, amount, tree, round);
                let time = time.with_context(|| format!("{work} on {}", place.which()))?;
                of_work.systems[at].begin_round();
                of_work.systems[at].push(time);
                place.settle()?;
            }
        }
        for place in places.iter() {
            fs::remove_dir_all(place.root().join(format!("round-{round}")))
                .with_context(|| format!("removing on {}", place.which()))?;
        }
    }
    Ok(measured)
}

/// As many bytes, written to a plain file and synced as often.
fn limit(dir: &Path, work: Work, amount: &Amount, tree: &Tree) -> Result<Duration> {
    let (bytes, syncs) = (work.bytes(amount, tree.bytes()), work.syncs(amount));
    let piece = usize::try_from(bytes / syncs)?;
    let mut plain = Plain::new(dir, Form::Append, SMALL)?;
    let data = Noise::new(12).bytes(piece);
    (0..syncs).map(|_| plain.run(&data)).sum()
}
