//! `cairnfs create`: makes a bucket. Needs no daemon.

use cairnfs_mount_core::{Bucket, Error as CoreError};

use super::Context;
use crate::{
    cli::CreateArgs,
    exit::{Failure, Result},
    lock::LockFile,
    passphrase::{self, Source},
    ui,
};

pub(super) fn run(context: &Context, args: &CreateArgs) -> Result<()> {
    let name = &args.bucket;
    let dir = context.home.bucket_dir(name);
    let exists = || Failure::usage(format_args!("a bucket '{name}' exists already"));
    // Said before anybody thinks of a passphrase.
    if dir.exists() {
        return Err(exists());
    }
    let secret = if args.no_passphrase {
        None
    } else {
        let source = Source::find(&args.passphrase, &context.settings, Some(name))?;
        Some(passphrase::for_new(source.as_ref(), Some(name), passphrase::FLAGS)?)
    };
    let device = context.home.device_key()?;
    // A daemon that starts takes what is just being made for something that a crash has left.
    let _held = LockFile::wait(&context.home.create_lock())?;
    let protection = passphrase::protection(secret.as_ref());
    let id = Bucket::create(&dir, &device, protection).map_err(|err| match err {
        CoreError::Exists => exists(),
        err => Failure::bucket(name, &err),
    })?;
    log::info!("create bucket={id}");
    ui::note(format_args!("made bucket '{name}'; mount it with: cairnfs mount {name} DIR"));
    passphrase::say_what_opens(&context.home, name, secret.is_some());
    Ok(())
}
