//! `cairnfs join`: becomes a member of a bucket and brings it here, or finds a member again.

use std::{
    io::{self, Read},
    os::unix::ffi::OsStrExt,
};

use cairnfs_mount_core::BucketId;

use super::{Context, peers::named, show};
use crate::{
    cli::JoinArgs,
    control::{Answer, Client, FindInviterRequest, JoinRequest, Request},
    exit::{Code, Failure, Result},
    home::BucketName,
    net::{self, Inviter},
    passphrase::{self, Source},
    remarks,
    secret::Secret,
    ui,
    ui::ProgressLine,
};

pub(super) fn run(context: &Context, args: &JoinArgs) -> Result<()> {
    let found = ticket(args);
    let here = match &found {
        Ok((_, bucket)) => context.home.name_of(*bucket)?,
        Err(_) => None,
    };
    match (&args.name, &here) {
        (Some(name), _) if context.home.bucket_dir(name).exists() => {
            let which = match &here {
                Some(here) if here == name => {
                    ", and is that of the ticket: leave out --name to find the device that made it"
                }
                _ => "",
            };
            let message = format!("a bucket '{name}' exists already{which}");
            return Err(Failure::usage(message));
        }
        (Some(_), Some(here)) => {
            let message = format!("the ticket's bucket is here already, as '{here}'");
            return Err(Failure::usage(message));
        }
        _ => (),
    }
    let (ticket, _) = found?;
    if let Some(here) = here {
        return find_inviter(context, args, &here, ticket);
    }
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

/// The bucket is here already: the ticket says where the device is that made it.
fn find_inviter(
    context: &Context,
    args: &JoinArgs,
    name: &BucketName,
    ticket: Secret,
) -> Result<()> {
    let opening = context.opening(name, &args.passphrase)?;
    let request = Request::FindInviter(FindInviterRequest { ticket, opening });
    let client = Client::connect_or_start(&context.home, None)?;
    let mut line = ProgressLine::new();
    let answer = client.ask(&request, &mut |event| show(&mut line, event));
    line.clear();
    let Answer::InviterFound(Inviter { key, name: device, address }) = answer? else {
        return Err(Failure::unexpected_answer());
    };
    ui::result(name);
    let at = address.map_or_else(String::new, |address| format!(" at {address}"));
    let device = named(&device, &key);
    ui::note(format_args!("bucket '{name}' is here already: {device} was reached{at}"));
    let remarks = remarks::read(&context.home.bucket_dir(name));
    if remarks.is_ok_and(|remarks| remarks.awaits_first_version) {
        ui::note(format_args!(
            "its first version is not here yet: 'cairnfs sync {name}' fetches it"
        ));
    }
    Ok(())
}

fn ticket(args: &JoinArgs) -> Result<(Secret, BucketId)> {
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
        1..=Secret::MAX_BYTES => {
            net::examine_ticket(ticket.expose()).map(|bucket| (ticket, bucket))
        }
        _ => Err(Failure::new(Code::WrongKey, "this is no ticket: it is too long")),
    }
}
