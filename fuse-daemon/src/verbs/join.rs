//! `cairnfs join`: becomes a member of a bucket and brings it here.

use std::{
    io::{self, Read},
    os::unix::ffi::OsStrExt,
};

use super::{Context, show};
use crate::{
    cli::JoinArgs,
    control::{Answer, Client, JoinRequest, Request},
    exit::{Code, Failure, Result},
    net,
    passphrase::{self, Source},
    secret::Secret,
    ui,
    ui::ProgressLine,
};

pub(super) fn run(context: &Context, args: &JoinArgs) -> Result<()> {
    if let Some(name) = &args.name
        && context.home.bucket_dir(name).exists()
    {
        let message = format!("a bucket '{name}' exists already");
        return Err(Failure::usage(message));
    }
    let ticket = ticket(args)?;
    let secret = if args.no_passphrase {
        None
    } else {
        let name = args.name.as_ref();
        let source = Source::find(&args.passphrase, &context.settings, name)?;
        Some(passphrase::for_new(source.as_ref(), name, passphrase::FLAGS)?)
    };
    let has_passphrase = secret.is_some();
    let request = JoinRequest { ticket, name: args.name.clone(), secret };
    let client = Client::connect_or_start(&context.home, None)?;
    let mut line = ProgressLine::new();
    let answer = client.ask(&Request::Join(request), &mut |event| show(&mut line, event));
    line.clear();
    let Answer::Joined(name) = answer? else {
        return Err(Failure::unexpected_answer());
    };
    ui::result(&name);
    ui::note(format_args!("joined bucket '{name}'; mount it with: cairnfs mount {name} DIR"));
    passphrase::say_what_opens(&context.home, &name, has_passphrase);
    Ok(())
}

fn ticket(args: &JoinArgs) -> Result<Secret> {
    let bytes = if args.ticket == "-" {
        let mut bytes = Vec::new();
        // One byte more than there may be, so that too much is noticed.
        let limit = u64::try_from(Secret::MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        io::stdin()
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|err| Failure::io("cannot read the ticket", &err))?;
        bytes
    } else {
        args.ticket.as_bytes().to_vec()
    };
    let ticket = Secret::new(bytes.trim_ascii().to_vec());
    match ticket.expose().len() {
        0 => Err(Failure::usage("no ticket given")),
        // Said before anybody thinks of a passphrase.
        1..=Secret::MAX_BYTES => net::examine_ticket(ticket.expose()).map(|()| ticket),
        _ => Err(Failure::new(Code::WrongKey, "this is no ticket: it is too long")),
    }
}
