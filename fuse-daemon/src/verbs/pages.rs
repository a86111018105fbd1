//! What the command line tells of itself: completions, manual pages, version.

use clap::CommandFactory;

use crate::{
    cli::{Cli, CompletionsArgs, ManArgs},
    exit::{Failure, Result},
    ui,
};

pub(super) fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cairnfs", &mut script);
    ui::write_result(String::from_utf8_lossy(&script));
    Ok(())
}

pub(super) fn man(args: &ManArgs) -> Result<()> {
    clap_mangen::generate_to(Cli::command(), &args.dir)
        .map_err(|err| Failure::file("write manual pages to", &args.dir, &err))
}

pub(super) fn version() -> Result<()> {
    ui::result(format_args!("cairnfs {}", env!("CARGO_PKG_VERSION")));
    Ok(())
}
