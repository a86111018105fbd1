//! What was found, in tables.

use serde::Serialize;

use super::{
    advice,
    crash::{Crashed, Cuts},
    losses::Cut,
    timing::{Amount, Timed},
};
use crate::{
    cipher::Speeds,
    jobs::Kind,
    sample::{Spread, Summary},
    session::Circumstances,
    ui::{self, Table},
};

/// All figures of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub(super) circumstances: Circumstances,
    pub(super) cipher: Speeds,
    pub(super) amount: Amount,
    pub(super) cuts: Cuts,
    pub(super) works: Vec<Work>,
}

/// One kind of work.
#[derive(Debug, Serialize)]
pub struct Work {
    pub(super) kind: Kind,
    /// In words.
    pub(super) title: String,
    /// What a wait is for.
    pub(super) unit: &'static str,
    /// The limit, the plain file system, then each policy.
    pub(super) rows: Vec<Row>,
    pub(super) advice: String,
}

/// One kind of work in one place.
#[derive(Debug, Serialize)]
pub struct Row {
    pub(super) name: String,
    pub(super) waits: Summary,
    /// Of the medians.
    pub(super) to_plain: Spread,
    pub(super) steps_per_s: Spread,
    pub(super) mib_s: Spread,
    /// Only of cairnfs.
    pub(super) policy: Option<Policy>,
}

/// What a policy takes, and what it keeps.
#[derive(Debug, Serialize)]
pub struct Policy {
    /// As `--save` takes it.
    pub(super) name: &'static str,
    pub(super) barriers_per_s: f64,
    pub(super) cpu_us_per_step: f64,
    pub(super) peak_mib: f64,
    /// Bytes handed to the disk for each byte saved, versions included.
    pub(super) written_per_saved: f64,
    pub(super) cuts: Vec<Cut>,
}

impl Policy {
    /// Cuts that lost something.
    pub(super) fn with_loss(&self) -> usize {
        self.cuts.iter().filter(|cut| cut.lost > 0).count()
    }

    /// The worst cut, by the time it threw the work back.
    pub(super) fn worst(&self) -> Cut {
        let by_time = |a: &&Cut, b: &&Cut| a.lost_s.total_cmp(&b.lost_s);
        self.cuts.iter().max_by(by_time).copied().unwrap_or_default()
    }

    /// What it lost, in words.
    pub(super) fn loss(&self) -> String {
        let (count, with_loss, worst) = (self.cuts.len(), self.with_loss(), self.worst());
        if with_loss == 0 {
            return format!("nothing in {count} cuts");
        }
        let most = self.cuts.iter().map(|cut| cut.lost).max().unwrap_or(0);
        let bytes = self.cuts.iter().map(|cut| cut.lost_bytes).max().unwrap_or(0);
        let mixed: usize = self.cuts.iter().map(|cut| cut.mixed).sum();
        let mixed = if mixed == 0 { String::new() } else { format!(", {mixed} files half there") };
        format!(
            "{with_loss} of {count} cuts: at most {most}, {}, {:.1} s{mixed}",
            ui::bytes(bytes),
            worst.lost_s
        )
    }
}

impl Work {
    pub(super) fn new(
        kind: Kind,
        timed: &[Timed],
        policies: &[&'static str],
        crashed: Vec<Crashed>,
    ) -> Self {
        let plain = &timed[1].waits;
        let mut rows: Vec<Row> = timed
            .iter()
            .map(|of_one| Row {
                name: of_one.name.clone(),
                waits: of_one.waits.summary(),
                to_plain: of_one.waits.ratio_to(plain, 500),
                steps_per_s: of_one.steps_per_s,
                mib_s: of_one.mib_s,
                policy: None,
            })
            .collect();
        let ours = rows.iter_mut().zip(timed).filter_map(|(row, timed)| Some((row, timed.daemon?)));
        for (((row, daemon), name), crashed) in ours.zip(policies).zip(crashed) {
            let written = crashed.written_bytes as f64;
            row.policy = Some(Policy {
                name,
                barriers_per_s: daemon.barriers_per_s,
                cpu_us_per_step: daemon.cpu_us_per_step,
                peak_mib: daemon.peak_kib as f64 / 1024.0,
                written_per_saved: written / crashed.saved_bytes.max(1) as f64,
                cuts: crashed.cuts,
            });
        }
        let advice = advice::of(kind, &rows);
        Self { kind, title: kind.to_string(), unit: kind.unit(), rows, advice }
    }

    pub(super) fn print(&self) {
        ui::line(&format!("## {}: what a {} waits\n", self.title, self.unit));
        let heads = [
            "",
            "median us",
            "p99",
            "p99.9",
            "x plain",
            "per s",
            "MiB/s",
            "barriers/s",
            "CPU us",
            "MiB",
            "written/saved",
            "lost by a crash",
        ];
        let mut table = Table::new(&heads);
        for row in &self.rows {
            let Summary { median_us, p99_us, p999_us, .. } = row.waits;
            let mut cells = vec![
                row.name.clone(),
                format!("{median_us:.1}"),
                format!("{p99_us:.0}"),
                format!("{p999_us:.0}"),
                row.to_plain.to_string(),
                format!("{:.0}", row.steps_per_s.median),
                format!("{:.1}", row.mib_s.median),
            ];
            if let Some(policy) = &row.policy {
                cells.extend([
                    format!("{:.0}", policy.barriers_per_s),
                    format!("{:.0}", policy.cpu_us_per_step),
                    format!("{:.0}", policy.peak_mib),
                    format!("{:.1}", policy.written_per_saved),
                    policy.loss(),
                ]);
            } else {
                cells.resize(heads.len(), "-".to_owned());
            }
            table.row(cells);
        }
        table.print();
        ui::line(&format!("\n{}\n", self.advice));
    }
}
