//! `cairnfs rejoin`: drops what is here of a bucket and brings it anew.

use super::{Context, show};
use crate::{
    cli::RejoinArgs,
    control::{Client, RejoinRequest, Request},
    exit::Result,
    ui,
    ui::ProgressLine,
};

pub(super) fn run(context: &Context, args: &RejoinArgs) -> Result<()> {
    let opening = context.opening(&args.bucket, &args.passphrase)?;
    let request = RejoinRequest { opening, force: args.force, dry_run: args.dry_run };
    let client = Client::connect_or_start(&context.home, None)?;
    let mut line = ProgressLine::new();
    let answer = client.ask(&Request::Rejoin(request), &mut |event| show(&mut line, event));
    line.clear();
    answer?;
    let name = &args.bucket;
    match (args.dry_run, args.force) {
        (true, false) => {
            ui::result(format_args!("would bring bucket '{name}' anew, and nothing would be lost"));
        }
        (true, true) => ui::result(format_args!(
            "would bring bucket '{name}' anew, and drop what only this device has"
        )),
        (false, _) => ui::note(format_args!(
            "bucket '{name}' is as the other devices have it; mount it with: cairnfs mount {name} DIR"
        )),
    }
    Ok(())
}
