//! Runs a file of merge scenarios: `cargo run -p cairnfs-merge --example scenarios -- FILE`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::process::ExitCode;

#[path = "../tests/support/mod.rs"]
mod support;

fn main() -> ExitCode {
    let Some(file) = std::env::args_os().nth(1) else {
        eprintln!("usage: scenarios FILE");
        return ExitCode::from(2);
    };
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(err) => {
            eprintln!("cannot read {}: {err}", file.display());
            return ExitCode::from(2);
        }
    };
    let tally = support::scenario::run_all(&text);
    for failure in &tally.failures {
        println!("FAIL {failure}");
    }
    let failed = tally.failures.len();
    println!("{} scenarios, {failed} failed, {} not for this program", tally.run, tally.skipped);
    if tally.run == 0 {
        eprintln!("{} holds no scenario", file.display());
        return ExitCode::from(2);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
