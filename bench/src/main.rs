//! What a save costs, and what it buys: the reports, one command each.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use cairnfs_bench::{
    compare,
    flush::{self, Extent},
    output::Output,
    policies, sync, ui,
};
use clap::{Args, Parser, Subcommand, error::ErrorKind};

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
        /// With a file of 10 GiB and a bucket of a million files
        #[arg(long, conflicts_with = "quick")]
        full: bool,
    },
    /// What each save policy costs for real kinds of work, and what a crash takes under it
    Policies {
        #[command(flatten)]
        common: Common,
        /// Where the page goes [default: bench/policies.html beside this program]
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// The same work on cairnfs, on what lies below, and on other encrypted file systems
    Compare {
        #[command(flatten)]
        common: Common,
    },
    /// Two devices: from closed here to readable there, the first sync, a few changes among many
    Sync {
        #[command(flatten)]
        common: Common,
    },
    /// The first three, one after the other: `all --markdown bench/README.md` brings the README up to date
    All {
        /// A directory on the disk to measure [default: beside this program]
        #[arg(long, value_parser = directory)]
        dir: Option<PathBuf>,
        /// A first look
        #[arg(long)]
        quick: bool,
        /// Where what is printed goes besides; into its place, if the file has one
        #[arg(long, value_name = "FILE")]
        markdown: Option<PathBuf>,
    },
}

#[derive(Args, Debug)]
struct Common {
    /// A directory on the disk to measure [default: beside this program]
    #[arg(long, value_parser = directory)]
    dir: Option<PathBuf>,
    /// A first look, in a minute or so
    #[arg(long)]
    quick: bool,
    /// Where the figures go [default: bench/REPORT.json beside this program]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where what is printed goes besides; into its place, if the file has one
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

impl Common {
    fn output(&self, html: Option<PathBuf>) -> Output {
        Output { json: self.json.clone(), markdown: self.markdown.clone(), html }
    }
}

/// Checked before anything is measured.
fn directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_dir() { Ok(path) } else { Err("there is no such directory".to_owned()) }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) => return refuse(&err),
    };
    match run(&cli.report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            ui::progress(&format!("{err:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(report: &Report) -> Result<()> {
    match report {
        Report::Flush { common, full } => {
            let extent = match (common.quick, full) {
                (true, _) => Extent::Quick,
                (_, true) => Extent::Full,
                _ => Extent::Usual,
            };
            flush::run(common.dir.as_deref(), extent, &common.output(None))
        }
        Report::Policies { common, html } => {
            policies::run(common.dir.as_deref(), common.quick, &common.output(html.clone()))
        }
        Report::Compare { common } => {
            compare::run(common.dir.as_deref(), common.quick, &common.output(None))
        }
        Report::Sync { common } => {
            sync::run(common.dir.as_deref(), common.quick, &common.output(None))
        }
        Report::All { dir, quick, markdown } => {
            let output = Output { markdown: markdown.clone(), ..Output::default() };
            let (dir, extent) =
                (dir.as_deref(), if *quick { Extent::Quick } else { Extent::Usual });
            flush::run(dir, extent, &output)?;
            policies::run(dir, *quick, &output)?;
            compare::run(dir, *quick, &output)
        }
    }
}

/// Help and version go to stdout; what is wrong is said in one line.
fn refuse(err: &clap::Error) -> ExitCode {
    if matches!(err.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        ui::line(err.to_string().trim_end());
        return ExitCode::SUCCESS;
    }
    let text = err.to_string();
    let said = match err.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            "say which report: flush, policies, compare, sync or all"
        }
        _ => text.lines().next().unwrap_or("").trim_start_matches("error: "),
    };
    ui::progress(&format!("{said} (see --help)"));
    ExitCode::from(2)
}
