//! `cairnfs sync`: waits until what was published here and elsewhere has met.

use super::{Context, show};
use crate::{
    cli::SyncArgs,
    control::{Answer, Client, Limit, Request, SyncRequest},
    exit::{Code, Failure, Result},
    ui,
    ui::ProgressLine,
    values::Span,
};

pub(super) fn run(context: &Context, args: &SyncArgs) -> Result<()> {
    let opening = args.bucket.as_ref().map(|name| context.opening(name, &args.passphrase));
    let timeout = args.timeout.map(|Span(time)| time);
    let request = SyncRequest { opening: opening.transpose()?, timeout };
    let limit = timeout.map_or(Limit::NONE, |time| Limit::after(time, Code::Failed));
    let client = match Client::connect_within(&context.home, limit)? {
        Some(client) => client,
        None if request.opening.is_some() => Client::connect_or_start(&context.home, None)?,
        None => {
            return Err(Failure::new(Code::NotFound, "no daemon runs: nothing is mounted"));
        }
    };
    let mut line = ProgressLine::new();
    let answer = client
        .within(limit.later())
        .ask(&Request::Sync(request), &mut |event| show(&mut line, event));
    line.clear();
    let Answer::Synced(outcome) = answer? else {
        return Err(Failure::unexpected_answer());
    };
    let met = match outcome.peers {
        1 => "in step with 1 device".to_owned(),
        many => format!("in step with {many} devices"),
    };
    ui::note(if outcome.unreached.is_empty() {
        met
    } else {
        let names: Vec<_> =
            outcome.unreached.iter().map(|name| ui::shown(name.as_bytes())).collect();
        format!("{met}; not reached: {}", names.join(", "))
    });
    Ok(())
}
