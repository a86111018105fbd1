//! `cairnfs invite`: prints a ticket with which another device joins a bucket.

use std::time::Duration;

use super::{Context, members::word};
use crate::{
    cli::InviteArgs,
    control::{Answer, Client, InviteRequest, Request},
    exit::{Code, Failure, Result},
    ui,
    values::Span,
    when,
};

/// Longer than anybody takes to use a ticket.
const LIFETIME_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

pub(super) fn run(context: &Context, args: &InviteArgs) -> Result<()> {
    context.describe(&args.bucket)?;
    let Span(lifetime) = args.lifetime;
    if lifetime.is_zero() {
        return Err(Failure::usage("--for 0s: nobody could use the ticket"));
    }
    if lifetime > LIFETIME_MAX {
        let message =
            format!("--for {}: a ticket is good for a year (365d) at most", args.lifetime);
        return Err(Failure::usage(message));
    }
    let role = args.role.into();
    let request = InviteRequest { bucket: args.bucket.clone(), role, lifetime, uses: args.uses };
    let none = || {
        let message = format!("no daemon runs: bucket '{}' is not mounted", args.bucket);
        Failure::new(Code::NotFound, message)
    };
    let client = Client::connect(&context.home)?.ok_or_else(none)?;
    let Answer::Invite(invite) = client.ask(&Request::Invite(request), &mut |_| ())? else {
        return Err(Failure::unexpected_answer());
    };
    ui::result(&invite.ticket);
    let devices =
        if invite.uses == 1 { "one device".to_owned() } else { format!("{} devices", invite.uses) };
    ui::note(format_args!(
        "Good until {} for {devices}, as {} of bucket '{}'. There: cairnfs join TICKET",
        when::local(invite.until),
        word(role),
        args.bucket
    ));
    ui::note(
        "Whoever has the ticket can join: give it to nobody else, and leave the bucket mounted.",
    );
    Ok(())
}
