//! `cairnfs mount`: has the daemon mount a bucket, or is the daemon itself.

use std::path::{Path, PathBuf};

use cairnfs_mount_core::{Bucket, Limits, Owner};

use super::{Context, mount_at, peers::removal_of_mount, show};
use crate::{
    at_start::{self, Remembered},
    cli::{MountArgs, MountOptions, PassphraseArgs},
    control::{Client, How, MountRequest, Opening, Request, StatusReport, UnmountRequest},
    daemon::{self, Running, Until},
    exit::{Code, Failure, Result},
    fuse,
    home::BucketName,
    interrupt::{self, OnInterrupt},
    passphrase::{self, Source},
    place, ui,
    ui::ProgressLine,
    values::{Id, Size, Span, Switch},
    when::Moment,
};

/// With less, writing a large file takes ten times as long: each of the kernel's writes waits for
/// the one before it to be stored.
const DIRTY_BYTES_MIN: u64 = 1 << 20;

pub(super) fn run(context: &Context, args: &MountArgs) -> Result<()> {
    let options = MountOptions::parse(&args.options)?;
    if let Some(Moment(which)) = args.at.clone().or_else(|| options.at.clone()) {
        return mount_at::run(context, args, options, which);
    }
    let description = context.describe(&args.bucket)?;
    fuse::examine(&options.fuse).map_err(|err| daemon::refused(&err))?;
    let dir = place::resolve(&args.dir)?;
    place::examine(&dir)?;
    let mut source = if description.needs_passphrase {
        Source::find(&passphrase_flags(args, &options), &context.settings, Some(&args.bucket))?
    } else {
        passphrase::note_unused(&args.passphrase, &args.bucket);
        None
    };
    if args.at_start {
        // Else it would be mounted, and then not be kept.
        at_start::read(&context.home)?;
        if description.needs_passphrase && source.is_none() {
            refuse_nobody(context, &args.bucket)?;
        }
        refuse_not_text(&dir, source.as_ref())?;
    }
    let mut request = MountRequest {
        opening: Opening { bucket: args.bucket.clone(), secret: None },
        dir,
        how: how(context, args, options)?,
    };
    if args.dry_run || description.needs_passphrase {
        // Before anybody is asked for a passphrase in vain.
        refuse_mounted(context, &request)?;
    }
    if description.needs_passphrase {
        let secret = passphrase::for_existing(source.as_ref(), &args.bucket)?;
        request.opening.secret = Some(secret);
        // What was typed now the daemon has from elsewhere at start.
        source = source.or(Some(Source::Credential));
    }
    if args.dry_run {
        return plan(context, &request);
    }
    if args.foreground {
        in_foreground(context, args, request, source)
    } else {
        let client = Client::connect_or_start(&context.home, Some(&args.bucket))?;
        ask(client, &request)?;
        note_removal(context, &args.bucket);
        keep(context, args, &request, source)
    }
}

/// Refuses what could not be mounted when nobody is there: its passphrase comes from nowhere, also
/// not with the daemon that runs.
fn refuse_nobody(context: &Context, bucket: &BucketName) -> Result<()> {
    if context.status(false)?.credentials.contains(bucket) {
        return Ok(());
    }
    Err(Failure::usage(format_args!(
        "bucket '{bucket}' needs a passphrase that nobody can type at start: use \
         --passphrase-file FILE or --passphrase-command COMMAND with --at-start, or start the \
         daemon with a systemd credential called 'passphrase' or 'passphrase.{bucket}' before"
    )))
}

/// Refuses what cannot be written down.
fn refuse_not_text(dir: &Path, source: Option<&Source>) -> Result<()> {
    let file = match source {
        Some(Source::PassphraseFile(file)) => Some(file.as_path()),
        _ => None,
    };
    match [Some(dir), file].into_iter().flatten().find(|path| path.to_str().is_none()) {
        Some(path) => Err(Failure::usage(format_args!(
            "{} is not UTF-8: what is mounted at start is kept in a file of text (TOML), which \
             cannot hold it",
            path.display()
        ))),
        None => Ok(()),
    }
}

/// Refuses what the daemon would refuse, as the bucket or the place is taken.
fn refuse_mounted(context: &Context, request: &MountRequest) -> Result<()> {
    let mounts = context.mounts()?;
    let mut mounts = mounts.iter().filter(|mount| !mount.detached);
    let taken = mounts.find(|it| it.bucket == request.opening.bucket || it.dir == request.dir);
    taken.map_or(Ok(()), |mount| {
        let (bucket, dir) = (&mount.bucket, ui::shown_path(&mount.dir));
        let message = format!("bucket '{bucket}' is mounted already, at {dir}");
        Err(Failure::new(Code::MountPoint, message))
    })
}

/// Says what would be done, after looking at what can be seen without doing it.
fn plan(context: &Context, request: &MountRequest) -> Result<()> {
    let Opening { bucket, secret } = &request.opening;
    let dir = ui::shown_path(&request.dir);
    Bucket::try_key(&context.home.bucket_dir(bucket), passphrase::unlock(secret.as_ref()))
        .map_err(|err| Failure::bucket(bucket, &err))?;
    let How { save, read_only, .. } = &request.how;
    let read_only = if *read_only { ", read-only" } else { "" };
    ui::result(format_args!("would mount bucket '{bucket}' at {dir}, policy {save}{read_only}"));
    Ok(())
}

/// The flags win over the mount options, and both over the settings.
pub(super) fn passphrase_flags(args: &MountArgs, options: &MountOptions) -> PassphraseArgs {
    let flags = args.passphrase.clone();
    if flags.passphrase_file.is_some() || flags.passphrase_command.is_some() {
        return flags;
    }
    PassphraseArgs {
        passphrase_file: options.passphrase_file.clone(),
        passphrase_command: options.passphrase_command.clone(),
    }
}

fn how(context: &Context, args: &MountArgs, given: MountOptions) -> Result<How> {
    let bucket = &args.bucket;
    let mut options = context.settings.options(bucket);
    if let Some(policy) = args.save.or(given.save) {
        options.policy = policy;
    }
    if let Some(Size(bytes)) = args.cache.or(given.cache) {
        options.limits.cache_bytes = bytes;
    }
    if let Some(Size(bytes)) = args.dirty.or(given.dirty) {
        options.limits.dirty_bytes = bytes;
    }
    if let Some(Span(time)) = args.publish_quiet.or(given.publish_quiet) {
        options.publish_quiet = time;
    }
    if let Some(Span(time)) = args.publish_max.or(given.publish_max) {
        options.publish_max = time;
    }
    options.owner = owner(options.owner, args, &given);
    refuse_limits(options.limits)?;
    options.read_only = args.read_only || given.read_only;
    let setting = context.settings.get("allow_other", Some(bucket));
    let allow_other = args.allow_other || given.allow_other || setting == Some(Switch(true));
    Ok(How::new(&options, allow_other, given.fuse))
}

/// Refuses what is no limit, and one with which whoever writes would wait all the time.
pub(super) fn refuse_limits(limits: Limits) -> Result<()> {
    let memory = rustix::system::sysinfo();
    let memory = u128::from(memory.totalram) * u128::from(memory.mem_unit);
    for (name, bytes) in [("cache", limits.cache_bytes), ("dirty", limits.dirty_bytes)] {
        if u128::from(bytes) > memory {
            let memory = Size(u64::try_from(memory).unwrap_or(u64::MAX)).about();
            return Err(Failure::usage(format_args!(
                "{name} = {}: this machine has {memory} of memory",
                Size(bytes)
            )));
        }
    }
    if limits.dirty_bytes < DIRTY_BYTES_MIN {
        let (dirty, min) = (Size(limits.dirty_bytes), Size(DIRTY_BYTES_MIN));
        return Err(Failure::usage(format_args!("dirty = {dirty}: it takes {min} at least")));
    }
    Ok(())
}

/// As whom the owner is shown, where the settings say `set`.
pub(super) fn owner(set: Owner, args: &MountArgs, options: &MountOptions) -> Owner {
    let id = |id: Option<Id>| id.map(|Id(id)| id);
    Owner {
        user: id(args.uid.or(options.uid)).or(set.user),
        group: id(args.gid.or(options.gid)).or(set.group),
    }
}

fn ask(client: Client, request: &MountRequest) -> Result<()> {
    let mut line = ProgressLine::new();
    client.ask(&Request::Mount(request.clone()), &mut |event| show(&mut line, event)).map(drop)
}

/// Says so if this device was removed from the bucket: nobody takes what is changed here.
fn note_removal(context: &Context, bucket: &BucketName) {
    // The mount is there, whether this is known or not.
    let Ok(StatusReport { mounts, peers, .. }) = context.status(false) else { return };
    let read_only = mounts.iter().any(|mount| mount.bucket == *bucket && mount.read_only);
    if let Some(removal) = removal_of_mount(bucket, read_only, &peers) {
        ui::note(removal);
    }
}

/// Remembers a mount for the next start, if that is wanted.
fn keep(
    context: &Context,
    args: &MountArgs,
    request: &MountRequest,
    source: Option<Source>,
) -> Result<()> {
    if args.at_start {
        at_start::remember(&context.home, Remembered::new(request, source))?;
        ui::note(
            "the daemon will mount it again when it starts ('cairnfs umount --forget' ends that)",
        );
    }
    Ok(())
}

/// Stays until the mount ends or a signal ends it.
fn in_foreground(
    context: &Context,
    args: &MountArgs,
    request: MountRequest,
    source: Option<Source>,
) -> Result<()> {
    match Running::start(context.home.clone(), context.settings.net())? {
        Ok(mut daemon) => {
            interrupt::hand_over();
            daemon.mount_at_start(Some(&args.bucket));
            let mounted =
                daemon.mount(&request).and_then(|()| keep(context, args, &request, source));
            if let Err(failure) = mounted {
                // What was mounted at start is not left without its daemon.
                return daemon.end().and(Err(failure));
            }
            drop(request);
            daemon.serve(Until::NothingMounted)
        }
        Err(_) => beside_a_daemon(context, args, request, source),
    }
}

/// The mount is the running daemon's; this process only stands for it.
fn beside_a_daemon(
    context: &Context,
    args: &MountArgs,
    mut request: MountRequest,
    source: Option<Source>,
) -> Result<()> {
    ask(Client::connect_or_start(&context.home, Some(&args.bucket))?, &request)?;
    let _end = OnInterrupt::finish(unmounter(context, request.dir.clone()));
    keep(context, args, &request, source)?;
    request.opening.secret = None;
    let client = Client::connect_or_start(&context.home, None)?;
    client.ask(&Request::AwaitEnd(request.dir), &mut |_| ()).map(drop)
}

pub(super) fn unmounter(
    context: &Context,
    dir: PathBuf,
) -> impl FnOnce() -> Result<()> + Send + 'static {
    let home = context.home.clone();
    move || {
        let Some(client) = Client::connect(&home)? else { return Ok(()) };
        let request = UnmountRequest { dir, timeout: None, discard: true, detach_busy: true };
        let mut line = ProgressLine::new();
        client.ask(&Request::Unmount(request), &mut |event| show(&mut line, event)).map(drop)
    }
}
