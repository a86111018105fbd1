//! `cairnfs drop`: takes a bucket off this device.

use std::io::{self, IsTerminal};

use super::{Context, show};
use crate::{
    cli::DropArgs,
    control::{Client, DropRequest, Opening, Request},
    exit::{Code, Failure, Result},
    ui::{self, ProgressLine},
    values::Size,
};

pub(super) fn run(context: &Context, args: &DropArgs) -> Result<()> {
    let name = &args.bucket;
    // One that is too damaged to be described can be dropped.
    if !context.home.bucket_names()?.contains(name) {
        context.describe(name)?;
    }
    let asks = !args.yes && !args.dry_run;
    if asks && !io::stdin().is_terminal() {
        return Err(Failure::usage("there is no terminal to ask on whether to go on: add --yes"));
    }
    let opening = opening(context, args).map_err(|failure| or_force(args, failure))?;
    let size = Size(context.stored_bytes(name)).about();
    let request = |dry_run| DropRequest { opening: opening.clone(), force: args.force, dry_run };
    if asks || args.dry_run {
        ask(context, args, request(true))?;
    }
    let others = if args.force {
        "whatever no other device has of it is lost"
    } else {
        "other devices have all of it"
    };
    if args.dry_run {
        ui::result(format_args!("would drop bucket '{name}' from this device, {size}: {others}"));
        return Ok(());
    }
    let question =
        format!("Drop bucket '{name}' from this device, {size}: {others}. Go on? [y/N]: ");
    if asks && !ui::confirm(&question)? {
        return Err(Failure::new(Code::Failed, format_args!("bucket '{name}' stays")));
    }
    ask(context, args, request(false))
}

/// What opens the bucket, to see whether it is elsewhere; one that does not open can be forced off.
fn opening(context: &Context, args: &DropArgs) -> Result<Opening> {
    let name = &args.bucket;
    if !args.force {
        return context.opening(name, &args.passphrase);
    }
    Ok(Opening { bucket: name.clone(), secret: None })
}

fn ask(context: &Context, args: &DropArgs, request: DropRequest) -> Result<()> {
    let client = Client::connect_or_start(&context.home, None)?;
    let mut line = ProgressLine::new();
    let answer = client.ask(&Request::Drop(request), &mut |event| show(&mut line, event));
    answer.map(drop).map_err(|failure| or_force(args, failure))
}

/// A refusal, with what helps where something would be lost or cannot be told.
fn or_force(args: &DropArgs, failure: Failure) -> Failure {
    match failure.code {
        Code::Usage | Code::NotFound | Code::InUse | Code::Interrupted => failure,
        _ if args.force => failure,
        code => {
            let why = failure.message;
            let with_force =
                "--force drops it all the same: what only this device has is lost then";
            Failure::new(code, format_args!("{why} ({with_force})"))
        }
    }
}
