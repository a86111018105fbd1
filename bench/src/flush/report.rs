//! Samples, as rows with their ratios.

use serde::Serialize;

use crate::{
    sample::{Samples, Spread, Summary},
    ui::{self, Table},
};

/// What was measured together.
#[derive(Debug, Serialize)]
pub struct Group {
    /// What was asked.
    pub title: String,
    /// The answers.
    pub rows: Vec<Row>,
}

/// One subject.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// Its times.
    #[serde(flatten)]
    pub times: Summary,
    /// Against one other subject or several, by name.
    pub ratios: Vec<Ratio>,
}

/// One subject against another.
#[derive(Debug, Serialize)]
pub struct Ratio {
    /// The other.
    pub to: String,
    /// Of the medians.
    pub median: Spread,
    /// Of the 99th percentiles.
    pub p99: Spread,
}

impl Group {
    /// A group whose rows are each compared with those at `bases`, by index.
    pub(super) fn new(
        title: impl Into<String>,
        names: &[String],
        samples: &[Samples],
        bases: impl Fn(usize) -> Vec<usize>,
    ) -> Self {
        let rows = names.iter().zip(samples).enumerate().map(|(at, (name, own))| {
            let ratio = |base: usize| Ratio {
                to: names[base].clone(),
                median: own.ratio_to(&samples[base], 500),
                p99: own.ratio_to(&samples[base], 990),
            };
            let ratios = bases(at).into_iter().filter(|base| *base != at).map(ratio).collect();
            Row { name: name.clone(), times: own.summary(), ratios }
        });
        Self { title: title.into(), rows: rows.collect() }
    }

    /// Prints it, with `columns` for the ratios of each row, in their order.
    pub(super) fn print(&self, columns: &[&str]) {
        ui::line(&format!("## {}\n", self.title));
        let mut heads = vec!["", "median us", "p99 us", "p99.9 us"];
        heads.extend(columns);
        let mut table = Table::new(&heads);
        for row in &self.rows {
            let Summary { median_us, p99_us, p999_us, .. } = row.times;
            let mut cells = vec![
                row.name.clone(),
                format!("{median_us:.1}"),
                format!("{p99_us:.0}"),
                format!("{p999_us:.0}"),
            ];
            cells.extend(row.ratios.iter().map(|ratio| ratio.median.to_string()));
            if let Some(first) = row.ratios.first() {
                cells.resize(heads.len() - 1, String::new());
                cells.push(first.p99.to_string());
            }
            table.row(cells);
        }
        table.print();
        ui::line("");
    }
}
