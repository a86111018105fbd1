//! Runs random histories: `cargo run -p cairnfs-merge --example histories -- COUNT SEED [FIRST]`.
//!
//! In those of an even seed versions may see the temporary files of editors' saves.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::process::ExitCode;

#[path = "../tests/support/mod.rs"]
mod support;

use support::random::{Shape, run};

fn main() -> ExitCode {
    let numbers: Result<Vec<u64>, _> = std::env::args().skip(1).map(|arg| arg.parse()).collect();
    let (count, seed, first) = match numbers.as_deref() {
        Ok([count, seed]) => (*count, *seed, 0),
        Ok([count, seed, first]) => (*count, *seed, *first),
        _ => {
            eprintln!("usage: histories COUNT SEED [FIRST]");
            return ExitCode::from(2);
        }
    };
    let shape = Shape { in_step: false, slow_saves: seed % 2 == 0 };
    let mut conflicts = 0;
    for number in first..first.saturating_add(count) {
        match std::panic::catch_unwind(|| run(seed, number, shape)) {
            Ok(found) => conflicts += found,
            Err(_) => {
                println!("history {number} of seed {seed} breaks a law");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{count} histories of seed {seed} keep the laws; {conflicts} kinds of conflict seen");
    ExitCode::SUCCESS
}
