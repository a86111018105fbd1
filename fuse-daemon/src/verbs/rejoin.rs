//! `cairnfs rejoin`: drops what is here of a bucket and brings it anew.

use super::{Context, show};
use crate::{
    cli::RejoinArgs,
    control::{Answer, Client, RejoinRequest, Request},
    exit::{Failure, Result},
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
    let Answer::Rejoined(loss) = answer? else {
        return Err(Failure::unexpected_answer());
    };
    let name = &args.bucket;
    match (args.dry_run, loss.is_nothing()) {
        (true, true) => ui::result(format_args!(
            "would bring bucket '{name}' anew, and nothing would be lost: other devices have had \
             every version that is here"
        )),
        (true, false) => ui::result(format_args!(
            "would bring bucket '{name}' anew, and drop {loss}, which no other device that can be \
             reached is known to have"
        )),
        (false, nothing_lost) => {
            if nothing_lost {
                ui::note("nothing was lost: other devices have had every version that was here");
            } else {
                ui::note(format_args!(
                    "dropped {loss}, which no other device that could be reached was known to have"
                ));
            }
            ui::note(format_args!(
                "bucket '{name}' is as the other devices have it; mount it with: cairnfs mount \
                 {name} DIR"
            ));
        }
    }
    Ok(())
}
