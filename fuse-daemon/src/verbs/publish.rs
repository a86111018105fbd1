//! `cairnfs publish`: seals the saved state as a version and prints its id.

use super::Context;
use crate::{
    cli::PublishArgs,
    control::{Answer, Client, Opening, Request},
    exit::{Failure, Result},
    ui,
    values::hex,
};

pub(super) fn run(context: &Context, args: &PublishArgs) -> Result<()> {
    let opening = context.opening(&args.bucket, &args.passphrase)?;
    ui::result(hex(&publish(context, opening)?));
    Ok(())
}

/// Has the saved state be a version, and says which.
pub(super) fn publish(context: &Context, opening: Opening) -> Result<[u8; 32]> {
    let client = Client::connect_or_start(&context.home, None)?;
    match client.ask(&Request::Publish(opening), &mut |_| ())? {
        Answer::Published(id) => Ok(id),
        _ => Err(Failure::unexpected_answer()),
    }
}
