//! `cairnfs passphrase`: changes the passphrase of a bucket on this device.

use cairnfs_mount_core::Bucket;

use super::Context;
use crate::{
    at_start,
    cli::{ChangePassphraseArgs, PassphraseArgs},
    control::{ChangePassphraseRequest, Client, Opening, Request},
    exit::{Failure, Result},
    home::BucketName,
    passphrase::{self, Source},
    secret::Secret,
    ui,
};

/// The flags by which the new passphrase is given.
const NEW_FLAGS: &str = "--new-passphrase-file FILE or --new-passphrase-command COMMAND";

pub(super) fn run(context: &Context, args: &ChangePassphraseArgs) -> Result<()> {
    let bucket = &args.bucket;
    let had_one = context.describe(bucket)?.needs_passphrase;
    let present = present(context, args, had_one)?;
    if !had_one && args.no_passphrase {
        ui::note(format_args!("bucket '{bucket}' has no passphrase: nothing was changed"));
        return Ok(());
    }
    if args.dry_run {
        return plan(args, had_one);
    }
    let new = new(args)?;
    let has_one = new.is_some();
    let read_at = if has_one { where_it_is_read(context, bucket)? } else { Vec::new() };
    let opening = Opening { bucket: bucket.clone(), secret: present };
    let request = Request::ChangePassphrase(ChangePassphraseRequest { opening, new });
    Client::connect_or_start(&context.home, None)?.ask(&request, &mut |_| ())?;
    say_what_changed(context, bucket, had_one, has_one);
    read_at.iter().for_each(ui::note);
    Ok(())
}

/// Says what would be done. A new passphrase that is given is read, and nobody is asked for one.
fn plan(args: &ChangePassphraseArgs, had_one: bool) -> Result<()> {
    let is_given = args.new_passphrase_file.is_some() || args.new_passphrase_command.is_some();
    if is_given {
        new(args)?;
    }
    let what = match (had_one, args.no_passphrase) {
        (_, true) => "take the passphrase off",
        (true, false) => "change the passphrase of",
        (false, false) => "put a passphrase on",
    };
    ui::result(format_args!("would {what} bucket '{}'", args.bucket));
    Ok(())
}

/// The present passphrase, which is tried before anybody thinks of a new one.
fn present(
    context: &Context,
    args: &ChangePassphraseArgs,
    had_one: bool,
) -> Result<Option<Secret>> {
    let bucket = &args.bucket;
    let secret = if had_one {
        let source = Source::find(&args.passphrase, &context.settings, Some(bucket))?;
        Some(passphrase::for_existing(source.as_ref(), bucket)?)
    } else {
        passphrase::note_unused(&args.passphrase, bucket);
        None
    };
    Bucket::try_key(&context.home.bucket_dir(bucket), passphrase::unlock(secret.as_ref()))
        .map_err(|err| Failure::bucket(bucket, &err))?;
    Ok(secret)
}

/// The new passphrase. The settings name where the present one comes from, and not this one.
fn new(args: &ChangePassphraseArgs) -> Result<Option<Secret>> {
    if args.no_passphrase {
        return Ok(None);
    }
    let source =
        Source::given(args.new_passphrase_file.as_deref(), args.new_passphrase_command.as_deref())?;
    passphrase::for_new(source.as_ref(), Some(&args.bucket), NEW_FLAGS).map(Some)
}

fn say_what_changed(context: &Context, bucket: &BucketName, had_one: bool, has_one: bool) {
    let key_file = context.home.key_file(bucket);
    let key_file = ui::shown_path(&key_file);
    if has_one {
        ui::note(format_args!("bucket '{bucket}' has a new passphrase on this device"));
    } else {
        ui::note(format_args!(
            "bucket '{bucket}' has no passphrase any more: who can read {key_file} can read it"
        ));
    }
    let how = if had_one { "with the old passphrase" } else { "without a passphrase" };
    ui::note(format_args!(
        "A copy of its key file from before still opens it {how}, as the secrets in it are the same: \
         destroy such copies, and make a new one of {key_file}."
    ));
    ui::note("Other devices have key files of their own; their passphrases stay as they are.");
}

/// What to say of the places where a passphrase is read, which may be the old one still.
fn where_it_is_read(context: &Context, bucket: &BucketName) -> Result<Vec<String>> {
    let flags = PassphraseArgs::default();
    let settings = Source::find(&flags, &context.settings, Some(bucket))?.map(|source| {
        format!("The settings take the passphrase from {source}: see to it that it is the new one.")
    });
    let at_start = at_start::read(&context.home)?;
    let at_start = at_start.iter().filter(|mount| mount.bucket() == bucket).map(|mount| {
        mount.passphrase().map_or_else(
            || {
                "The daemon mounts it no more when it starts, unless it is given a systemd \
                 credential: mount it with --at-start and --passphrase-file or --passphrase-command."
                    .to_owned()
            },
            |source| {
                format!(
                    "The daemon takes it from {source} when it starts: see to it that it is the \
                     new one."
                )
            },
        )
    });
    Ok(settings.into_iter().chain(at_start).collect())
}
