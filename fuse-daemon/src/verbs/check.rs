//! `cairnfs check`: reads and verifies everything.

use serde::Serialize;

use super::{Context, show};
use crate::{
    cli::CheckArgs,
    control::{CheckRequest, Client, Event, Progress, Request},
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
    let outcome = client.ask(&Request::Check(CheckRequest { opening }), &mut |event| match event {
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
    let is_verdict = |code| code == Code::Damage;
    if args.json && outcome.as_ref().map_or_else(|failure| is_verdict(failure.code), |_| true) {
        let bucket = args.bucket.to_string();
        ui::json(&Check { bucket, ok: damaged.is_empty(), checked_bytes, damaged })?;
    } else if outcome.is_ok() {
        let read = Size(checked_bytes).about();
        ui::result(format_args!("bucket '{}': {read} verified, no damage", args.bucket));
    }
    if args.repair && outcome.as_ref().is_err_and(|failure| is_verdict(failure.code)) {
        ui::note("nothing can be repaired: there is no other copy to take the bytes from");
    }
    outcome.map(drop)
}

fn damage(path: Option<Vec<u8>>, what: String) -> Damage {
    let hexed = path.as_deref().filter(|path| str::from_utf8(path).is_err()).map(hex);
    let path = path.map(|path| String::from_utf8_lossy(&path).into_owned());
    Damage { path, path_hex: hexed, what }
}
