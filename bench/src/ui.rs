//! What a person sees: progress on stderr, tables on stdout.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the one module that prints")]

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

/// What was printed of this report.
static SAID: Mutex<String> = Mutex::new(String::new());

/// Says on stderr what is being done.
pub fn progress(what: &str) {
    eprintln!("bench: {what}");
}

/// A line of the report.
pub fn line(text: &str) {
    println!("{text}");
    let mut said = SAID.lock();
    said.push_str(text);
    said.push('\n');
}

/// The report as it was printed, from its beginning or the last time this was asked.
#[must_use]
pub fn take_said() -> String {
    std::mem::take(&mut *SAID.lock())
}

/// How far a long measurement has come: a bar on a terminal, elsewhere a line now and then.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    title: &'static str,
    steps: usize,
    shown: bool,
}

impl Progress {
    /// Of `steps` steps.
    #[must_use]
    pub fn new(title: &'static str, steps: usize) -> Self {
        let shown = io::stderr().is_terminal();
        let bar = if shown { ProgressBar::new(steps as u64) } else { ProgressBar::hidden() };
        let style =
            ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed}, {eta} left: {msg}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        if shown {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar, title, steps, shown }
    }

    /// One more step begins.
    pub fn step(&self, what: &str) {
        self.bar.set_message(what.to_owned());
        self.bar.inc(1);
        let done = usize::try_from(self.bar.position()).unwrap_or(usize::MAX);
        let tenth = (self.steps / 10).max(1);
        if !self.shown && (done % tenth == 0 || done == self.steps) {
            progress(&format!("{} {done}/{}: {what}", self.title, self.steps));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Rows of text in columns; the first column is flush left, the others flush right.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column heads.
    #[must_use]
    pub fn new(heads: &[&str]) -> Self {
        Self { rows: vec![heads.iter().map(|head| (*head).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as lines, in the form of Markdown, which reads well in a terminal too.
    #[must_use]
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |at: usize| {
            self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
        let mut out = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            for (at, width) in widths.iter().enumerate() {
                let cell = row.get(at).map_or("", String::as_str);
                let pad = " ".repeat(width - cell.chars().count());
                out.push_str("| ");
                out.push_str(&if at == 0 { format!("{cell}{pad}") } else { pad + cell });
                out.push(' ');
            }
            out.push_str("|\n");
            if number == 0 {
                for (at, width) in widths.iter().enumerate() {
                    out.push('|');
                    out.push_str(&"-".repeat(width + 1));
                    out.push(if at == 0 { '-' } else { ':' });
                }
                out.push_str("|\n");
            }
        }
        out
    }

    /// Prints it.
    pub fn print(&self) {
        line(self.render().trim_end());
    }
}

/// Bytes in the unit that suits them.
#[must_use]
pub fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{} KiB", count >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", count >> 20),
        _ => format!("{} GiB", count >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let mut table = Table::new(&["what", "us"]);
        table.row(["a".to_owned(), "1234".to_owned()]);
        assert_eq!(table.render(), "| what |   us |\n|------|-----:|\n| a    | 1234 |\n");
    }
}
