//! What is said to a command line that makes no sense: one line, and what would be right.

use clap::error::{ContextKind, ContextValue};

use crate::exit::Failure;

/// The one line for what the parser complains of.
pub(crate) fn of(err: &clap::Error) -> Failure {
    let text = err.render().to_string();
    // The parser writes "error: WHAT", then blocks of tips, usage and a pointer to the help.
    let mut blocks = text.split("\n\n");
    let first = blocks.next().unwrap_or_default();
    let what = if err.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        "no verb given: see 'cairnfs --help'"
    } else {
        first.strip_prefix("error: ").unwrap_or(first)
    };
    let mut line = what.trim().to_owned();
    let tip = blocks.filter_map(|block| block.trim().strip_prefix("tip: ")).next();
    if let Some(tip) = tip {
        line = format!("{line}: {}", tip.lines().next().unwrap_or_default());
    }
    if let Some(ContextValue::StyledStr(usage)) = err.get(ContextKind::Usage) {
        let usage = usage.to_string();
        line = format!("{line} ({})", usage.trim().replacen("Usage: ", "usage: ", 1));
    }
    Failure::usage(line)
}
