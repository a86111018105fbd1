//! What was found, in tables.

use serde::Serialize;

use super::{Amount, Measured, Syncs, Work};
use crate::{
    cipher::Speeds,
    sample::Spread,
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
    /// Of a source tree, the mean of those of the rounds.
    pub(super) tree_bytes: u64,
    /// Names and versions, in the order of [`Row::systems`].
    pub(super) versions: Vec<(String, String)>,
    pub(super) rows: Vec<Row>,
    pub(super) syncs: Vec<Syncs>,
}

/// One kind of work.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    work: String,
    bytes: u64,
    /// `write` and `fdatasync` of as many bytes; none if it writes nothing.
    limit_ms: Option<f64>,
    systems: Vec<Cell>,
}

/// One kind of work on one system.
#[derive(Debug, Serialize)]
struct Cell {
    median_ms: f64,
    /// Times as long as the first, the second and the third system: the plain file system, and
    /// cairnfs under its two policies.
    ratios: [Spread; BASES],
}

/// Systems that all others are compared with.
const BASES: usize = 3;

impl Report {
    pub(super) fn print(&self) {
        let names: Vec<&str> = self.versions.iter().map(|(name, _)| name.as_str()).collect();
        let versions: Vec<String> = self
            .versions
            .iter()
            .filter(|(_, version)| !version.is_empty())
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        ui::line(&format!(
            "{}; load {} at the end",
            versions.join(", "),
            self.circumstances.load_at_the_end
        ));
        let Amount { rounds, files, synced, large_bytes, places } = self.amount;
        ui::line(&format!(
            "{rounds} rounds of: {files} small or empty files, {synced} fsynced ones, {} in a large \
             file, {places} random places, a tree of {files} files with {}\n",
            ui::bytes(large_bytes),
            ui::bytes(self.tree_bytes),
        ));
        self.times(&names);
        for (base, title) in [
            (1, "Times as long as cairnfs interval:5s, which syncs on fsync alone, as they do"),
            (2, "Times as long as cairnfs flush, which has all on the disk when close returns"),
        ] {
            self.ratios(&names, base, title);
        }
        self.syncs();
    }

    fn times(&self, names: &[&str]) {
        ui::line("## Milliseconds, the median of the rounds\n");
        let heads: Vec<&str> = ["", "limit"].into_iter().chain(names.iter().copied()).collect();
        let mut table = Table::new(&heads);
        for row in &self.rows {
            let limit = row.limit_ms.map_or("-".to_owned(), ms);
            let cells = row.systems.iter().map(|cell| ms(cell.median_ms));
            table.row([row.work.clone(), limit].into_iter().chain(cells));
        }
        // What sealing a large file costs at least.
        let large = self.amount.large_bytes as f64 / f64::from(1 << 20);
        let Speeds { aes_gcm_mib_s, blake3_mib_s, .. } = self.cipher;
        table.print();
        ui::line(&format!(
            "\n*limit*: `write` and `fdatasync` of as many bytes to one plain file. One core takes \
             {} ms for AES-256-GCM of a large file ({aes_gcm_mib_s:.0} MiB/s) and {} ms for BLAKE3 \
             ({blake3_mib_s:.0} MiB/s).\n",
            ms(large / aes_gcm_mib_s * 1e3),
            ms(large / blake3_mib_s * 1e3),
        ));
    }

    fn ratios(&self, names: &[&str], base: usize, title: &str) {
        ui::line(&format!("## {title}\n"));
        let others: Vec<usize> = (0..names.len()).filter(|at| *at != base).collect();
        let mut heads = vec![""];
        heads.extend(others.iter().map(|at| names[*at]));
        let mut table = Table::new(&heads);
        for row in &self.rows {
            let cells = others.iter().map(|at| row.systems[*at].ratios[base].to_string());
            table.row(std::iter::once(row.work.clone()).chain(cells));
        }
        table.print();
        ui::line("");
    }

    fn syncs(&self) {
        if self.syncs.is_empty() {
            return;
        }
        ui::line("## Does fsync reach the disk?\n");
        let mut table = Table::new(&["", "fsync calls", "barriers of its processes", "answer"]);
        for of_system in &self.syncs {
            let barriers = of_system.barriers.map_or("the kernel's".into(), |n| n.to_string());
            let verdict = match of_system.barriers {
                None => "yes".to_owned(),
                Some(_) => of_system.verdict().to_owned(),
            };
            table.row([of_system.system.clone(), of_system.asked.to_string(), barriers, verdict]);
        }
        table.print();
        ui::line("");
    }
}

impl Row {
    pub(super) fn new(of_work: &Measured, amount: &Amount, tree_bytes: u64) -> Self {
        let Measured { work, limit, systems } = of_work;
        let limit = limit.summary();
        let cells = systems.iter().map(|own| Cell {
            median_ms: own.summary().median_us / 1e3,
            ratios: std::array::from_fn(|base| own.ratio_to(&systems[base], 500)),
        });
        Self {
            work: work.to_string(),
            bytes: Work::bytes(*work, amount, tree_bytes),
            limit_ms: (limit.count > 0).then_some(limit.median_us / 1e3),
            systems: cells.collect(),
        }
    }
}

/// Three digits or so.
fn ms(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
