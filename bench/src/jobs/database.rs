//! Commits of a row each, by the `sqlite3` program: a rollback journal and `synchronous=full`, as
//! it does if it is not told otherwise.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use super::{Effect, Job, Step};
use crate::ui;

/// The file.
pub(crate) const NAME: &str = "data.sqlite";
/// Bytes of a row's text.
const ROW: usize = 200;

#[derive(Debug)]
pub(super) struct Database {
    program: Child,
    asked: ChildStdin,
    answers: BufReader<ChildStdout>,
    n: u64,
}

impl Database {
    pub(super) fn new(root: &Path) -> Result<Self> {
        let mut program = Command::new("sqlite3")
            .arg("-batch")
            .arg(root.join(NAME))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("starting sqlite3")?;
        let asked = program.stdin.take().context("because it is piped")?;
        let answers = BufReader::new(program.stdout.take().context("because it is piped")?);
        let mut database = Self { program, asked, answers, n: 0 };
        database.ask("create table t (n integer primary key, text text);")?;
        Ok(database)
    }

    /// Has it do something, and waits until it has.
    fn ask(&mut self, what: &str) -> Result<()> {
        writeln!(self.asked, "{what}\nselect 'done';")?;
        self.asked.flush()?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        ensure!(answer == "done\n", "sqlite3 said {answer:?}");
        Ok(())
    }
}

impl Job for Database {
    fn step(&mut self) -> Result<Step> {
        self.n += 1;
        let insert = format!("insert into t values ({}, '{:0>ROW$}');", self.n, self.n);
        let start = Instant::now();
        self.ask(&insert)?;
        let waited = start.elapsed();
        Ok(Step { waited, bytes: ROW as u64, effect: Effect::Rows(self.n) })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Err(err) = self.program.kill().and_then(|()| self.program.wait()) {
            ui::progress(&format!("sqlite3: {err}"));
        }
    }
}
