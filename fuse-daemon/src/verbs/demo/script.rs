//! A step: what is to be shown, the commands, and what must have come of them.

use std::{collections::BTreeMap, path::PathBuf};

use super::{sandbox::Sandbox, tree::Tree};
use crate::{
    exit::{Code, Failure, Result},
    ui,
};

/// One step of the demo.
pub(super) struct Step {
    /// What a user wants.
    pub(super) aim: &'static str,
    /// Does it, and says in a few words what came of it.
    pub(super) act: fn(&mut Script<'_>) -> Result<String>,
}

/// The demo while it runs.
pub(super) struct Script<'a> {
    pub(super) sandbox: &'a Sandbox,
    /// The source tree that is written into the bucket.
    pub(super) source: Option<(PathBuf, Tree)>,
    /// The first version of the page.
    pub(super) first: String,
    /// Files written besides, and what must be in them.
    pub(super) written: BTreeMap<&'static str, String>,
    done: usize,
    total: usize,
}

/// Lines of output that are shown; the rest is counted.
const LINES_SHOWN: usize = 12;

impl<'a> Script<'a> {
    pub(super) fn new(sandbox: &'a Sandbox, total: usize) -> Self {
        let (first, written) = (String::new(), BTreeMap::new());
        Self { sandbox, source: None, first, written, done: 0, total }
    }

    /// Steps that went well.
    pub(super) fn done(&self) -> usize {
        self.done
    }

    pub(super) fn play(&mut self, step: &Step) -> Result<()> {
        ui::result("");
        ui::result(format_args!("[{}/{}] {}", self.done + 1, self.total, step.aim));
        let outcome = (step.act)(self)?;
        ui::result(format_args!("  {} {outcome}", ui::good("ok:")));
        self.done += 1;
        Ok(())
    }

    /// Shows a command, runs it, and shows what it printed; it must succeed.
    pub(super) fn run(&self, command: &str) -> Result<String> {
        self.expect(command, 0)
    }

    /// As [`Script::run`], but the command must exit with `code`.
    pub(super) fn expect(&self, command: &str, code: i32) -> Result<String> {
        ui::result(format_args!("  $ {command}"));
        let output = self.sandbox.shell(command)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines: Vec<_> = said.lines().chain(complained.lines()).collect();
        for line in lines.iter().take(LINES_SHOWN) {
            ui::result(format_args!("    {}", ui::shown(line.replace('\t', "  ").as_bytes())));
        }
        if lines.len() > LINES_SHOWN {
            ui::result(format_args!("    ... {} more lines", lines.len() - LINES_SHOWN));
        }
        if output.status.code() == Some(code) {
            return Ok(said);
        }
        let last = complained.lines().last().unwrap_or_default();
        let message = format!("'{command}' ended with {}: {last}", output.status);
        Err(Failure::new(Code::Failed, message))
    }

    /// A path below the throw-away folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.sandbox.root().join(name)
    }
}

/// Fails with `message` unless `is_so`.
pub(super) fn check(is_so: bool, message: impl std::fmt::Display) -> Result<()> {
    if is_so { Ok(()) } else { Err(Failure::new(Code::Failed, message)) }
}
