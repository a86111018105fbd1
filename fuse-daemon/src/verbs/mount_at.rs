//! `cairnfs mount --at`: has the daemon mount an older version, to be looked at beside the bucket.

use cairnfs_mount_core::{Bucket, Which};

use super::{
    Context,
    mount::{owner, passphrase_flags, refuse_limits},
    show as say,
};
use crate::{
    cli::{MountArgs, MountOptions},
    control::{Answer, Client, Request, ViewReport, ViewRequest},
    daemon::{self, Running, Until},
    exit::{Code, Failure, Result},
    fuse,
    interrupt::{self, OnInterrupt},
    passphrase, place,
    ui::{self, ProgressLine},
    values::{Size, Switch},
    when,
};

/// Mounts the version that `which` means.
pub(super) fn run(
    context: &Context,
    args: &MountArgs,
    options: MountOptions,
    which: Which,
) -> Result<()> {
    if let Some(wrong) = options.only_live() {
        let message = format!("mount option '{wrong}': an older version is only read ('at')");
        return Err(Failure::usage(message));
    }
    let bucket = &args.bucket;
    context.describe(bucket)?;
    fuse::examine(&options.fuse).map_err(|err| daemon::refused(&err))?;
    let dir = place::resolve(&args.dir)?;
    place::examine(&dir)?;
    let opening = context.opening(bucket, &passphrase_flags(args, &options))?;
    let setting = context.settings.get("allow_other", Some(bucket));
    let settings = context.settings.options(bucket);
    let mut limits = settings.limits;
    if let Some(Size(bytes)) = args.cache.or(options.cache) {
        limits.cache_bytes = bytes;
    }
    refuse_limits(limits)?;
    let request = ViewRequest {
        opening,
        which,
        dir,
        cache_bytes: limits.cache_bytes,
        owner: owner(settings.owner, args, &options),
        allow_other: args.allow_other || options.allow_other || setting == Some(Switch(true)),
        fuse: options.fuse,
    };
    if args.dry_run {
        return plan(context, &request);
    }
    if args.foreground {
        return in_foreground(context, request);
    }
    show(&ask(context, &request)?);
    Ok(())
}

/// Says what would be done, after looking at what can be seen without doing it.
fn plan(context: &Context, request: &ViewRequest) -> Result<()> {
    let (bucket, dir) = (&request.opening.bucket, ui::shown_path(&request.dir));
    let status = context.status(false)?;
    let mounts = status.mounts.iter().map(|mount| (&mount.dir, mount.detached));
    let views = status.views.iter().map(|view| (&view.dir, view.detached));
    if mounts.chain(views).any(|(at, detached)| *at == request.dir && !detached) {
        return Err(Failure::new(Code::MountPoint, format_args!("{dir} is mounted already")));
    }
    // Else it is open already.
    if let Some(secret) = &request.opening.secret {
        Bucket::try_key(&context.home.bucket_dir(bucket), passphrase::unlock(Some(secret)))
            .map_err(|err| Failure::bucket(bucket, &err))?;
    }
    let version = match &request.which {
        Which::Id(digits) => format!("version {digits}"),
        Which::By(time) => format!("the newest version of {}", when::local(*time)),
    };
    ui::result(format_args!("would mount {version} of bucket '{bucket}' at {dir}, read-only"));
    Ok(())
}

fn ask(context: &Context, request: &ViewRequest) -> Result<ViewReport> {
    // At start the bucket itself is mounted as ever.
    let client = Client::connect_or_start(&context.home, None)?;
    let mut line = ProgressLine::new();
    match client.ask(&Request::View(request.clone()), &mut |event| say(&mut line, event))? {
        Answer::Viewed(report) => Ok(report),
        _ => Err(Failure::unexpected_answer()),
    }
}

fn show(report: &ViewReport) {
    let (version, dir) = (report.version(), ui::shown_path(&report.dir));
    ui::note(format_args!("{version} is at {dir}, read-only"));
}

/// Stays until it is unmounted or a signal ends it.
fn in_foreground(context: &Context, mut request: ViewRequest) -> Result<()> {
    let Ok(mut daemon) = Running::start(context.home.clone(), context.settings.net())? else {
        let report = ask(context, &request)?;
        show(&report);
        request.opening.secret = None;
        let _end = OnInterrupt::finish(super::mount::unmounter(context, report.dir.clone()));
        let client = Client::connect_or_start(&context.home, None)?;
        return client.ask(&Request::AwaitEnd(report.dir), &mut |_| ()).map(drop);
    };
    interrupt::hand_over();
    daemon.mount_at_start(None);
    match daemon.view(&request) {
        Ok(report) => show(&report),
        // What was mounted at start is not left without its daemon.
        Err(failure) => return daemon.end().and(Err(failure)),
    }
    drop(request);
    daemon.serve(Until::NothingMounted)
}
