//! `cairnfs check`: reads and verifies everything.

use serde::Serialize;

use super::{Context, show};
use crate::{
    cli::CheckArgs,
    control::{CheckRequest, Client, Event, Progress, Repair, Request},
    exit::{Code, Result},
    ui,
    ui::ProgressLine,
    values::{Size, hex},
};

#[derive(Serialize)]
struct Check {
    bucket: String,
    ok: bool,
    checked_bytes: u64,
    damaged: Vec<Damage>,
    /// Why it is not ok.
    error: Option<String>,
}

#[derive(Serialize)]
struct Damage {
    /// None for something that no path leads to.
    path: Option<String>,
    /// The bytes of a path that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    what: String,
}

pub(super) fn run(context: &Context, args: &CheckArgs) -> Result<()> {
    let opening = context.opening(&args.bucket, &args.passphrase)?;
    let mut line = ProgressLine::new();
    let mut damaged = Vec::new();
    let mut checked_bytes = 0;
    let client = Client::connect_or_start(&context.home, None)?;
    let how = if args.dry_run { Repair::Plan } else { Repair::Do };
    let request = Request::Check(CheckRequest { opening, repair: args.repair.then_some(how) });
    let outcome = client.ask(&request, &mut |event| match event {
        Event::Damage(path, what) => {
            line.clear();
            if !args.json {
                let shown = path.as_deref().map_or_else(|| "-".to_owned(), ui::shown);
                ui::result(format_args!("damaged: {shown}: {what}"));
            }
            damaged.push(damage(path, what));
        }
        event => {
            if let Event::Progress(Progress::Checking { done, .. }) = &event {
                checked_bytes = *done;
            }
            show(&mut line, event);
        }
    });
    line.clear();
    let verdict = match &outcome {
        Ok(_) => Some(None),
        Err(failure) if failure.code == Code::Damage => Some(Some(failure.message.clone())),
        Err(_) => None,
    };
    if args.json
        && let Some(error) = verdict
    {
        let bucket = args.bucket.to_string();
        ui::json(&Check { bucket, ok: error.is_none(), checked_bytes, damaged, error })?;
    } else if outcome.is_ok() {
        let read = Size(checked_bytes).about();
        ui::result(format_args!("bucket '{}': {read} verified, no damage", args.bucket));
    }
    outcome.map(drop)
}

fn damage(path: Option<Vec<u8>>, what: String) -> Damage {
    let hexed = path.as_deref().filter(|path| str::from_utf8(path).is_err()).map(hex);
    let path = path.map(|path| String::from_utf8_lossy(&path).into_owned());
    Damage { path, path_hex: hexed, what }
}
