//! The `cairnfs` command: command line, daemon, FUSE.
//!
//! ```text
//!   cairnfs VERB --> cli --> verbs --+--> control ==socket==> daemon --> mount-core
//!                                    |                          |
//!                                    +--> files of the home     +--> fuse --> kernel
//! ```
//!
//! A verb reads files of the `home` itself, and leaves whatever needs an open bucket to the one
//! `daemon` of the home, which it starts if none runs. Each verb ends with a result on stdout,
//! or with one line on stderr and an exit code (`exit`).
//!
//! All of it is a library with one public function, [`main`], so that what decodes foreign bytes can
//! be tested from outside.

mod at_start;
mod cli;
mod control;
mod daemon;
#[doc(hidden)]
pub mod decoders;
mod durable;
mod errno;
mod exit;
mod footprint;
mod former;
mod fuse;
mod holders;
mod home;
mod interrupt;
mod lock;
mod logger;
mod net;
mod noted;
mod order;
mod passphrase;
mod place;
mod remarks;
mod secret;
mod settings;
mod tell;
mod ui;
mod values;
mod verbs;
mod when;

use std::process::ExitCode;

use cli::Parsed;
use exit::Result;

/// Does what the arguments of the process say.
#[must_use]
pub fn main() -> ExitCode {
    match run().and_then(|()| ui::results_written()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // A prompt that is interrupted fails as well.
            interrupt::last_word();
            ui::failure(&failure);
            failure.code.into()
        }
    }
}

fn run() -> Result<()> {
    match cli::parse(std::env::args_os().collect())? {
        Parsed::Run(cli) => verbs::run(*cli),
        Parsed::Text(text) => {
            ui::write_result(text);
            Ok(())
        }
    }
}
