//! What a save costs, and what it buys: the reports, one command each.

use std::path::PathBuf;

use anyhow::Result;
use cairnfs_bench::flush::{self, Extent};
use clap::{Args, Parser, Subcommand};

/// Measures what a save costs, beside what the disk asks for it.
#[derive(Parser, Debug)]
#[command(name = "cairnfs-bench", version)]
struct Cli {
    #[command(subcommand)]
    report: Report,
}

#[derive(Subcommand, Debug)]
enum Report {
    /// What `flush` of a changed 4 KiB costs under each policy, and how that grows
    Flush {
        #[command(flatten)]
        common: Common,
        /// With a file of 10 GiB
        #[arg(long, conflicts_with = "quick")]
        full: bool,
    },
}

#[derive(Args, Debug)]
struct Common {
    /// A directory on the disk to measure [default: beside this program]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// A first look, in a minute or so
    #[arg(long)]
    quick: bool,
    /// Where the figures go [default: bench/REPORT.json beside this program]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    match Cli::parse().report {
        Report::Flush { common, full } => {
            let extent = match (common.quick, full) {
                (true, _) => Extent::Quick,
                (_, true) => Extent::Full,
                _ => Extent::Usual,
            };
            flush::run(common.dir.as_deref(), extent, common.json.as_ref())
        }
    }
}
