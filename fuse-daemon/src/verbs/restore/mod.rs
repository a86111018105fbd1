//! `cairnfs restore`: brings back what an older version holds.

mod putting;

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{self, Path, PathBuf},
};

use cairnfs_mount_core::PastEntry;

use self::putting::Putting;
use super::{Context, log, publish, show};
use crate::{
    cli::RestoreArgs,
    control::{Answer, Client, Event, Request, RestoreRequest},
    exit::{Code, Failure, Result},
    ui::{self, ProgressLine},
    values::{Size, hex},
    when,
};

pub(super) fn run(context: &Context, args: &RestoreArgs) -> Result<()> {
    let bucket = &args.bucket;
    let opening = context.opening(bucket, &args.passphrase)?;
    let path = args.path.as_deref().map(|path| log::inside(context, bucket, path)).transpose()?;
    let path = path.unwrap_or_default();
    let place = match &args.to {
        Some(to) => new_place(to)?,
        None => place_in_mount(context, args, &path)?,
    };
    // What is about to be replaced is a version of its own then.
    let replaces = args.to.is_none() && !args.dry_run && fs::symlink_metadata(&place).is_ok();
    let before = replaces.then(|| publish::publish(context, opening.clone())).transpose()?;

    let request = RestoreRequest {
        opening,
        which: args.at.0.clone(),
        path: path.clone(),
        contents: !args.dry_run,
    };
    let mut line = ProgressLine::new();
    let mut putting = Putting::new(place, path);
    let client = Client::connect_or_start(&context.home, None)?;
    let answer = client.follow(&Request::Restore(request), &mut |event| {
        match event {
            Event::Past(entry) if args.dry_run => foretell(&putting.target(&entry.path), &entry),
            Event::Past(entry) => putting.begin(*entry)?,
            Event::Bytes { offset, bytes } => {
                putting.write(offset, &bytes)?;
                let done = Size(putting.bytes()).about();
                line.show(format_args!("bringing back: {done}"));
            }
            event => show(&mut line, event),
        }
        Ok(())
    })?;
    line.clear();
    let Answer::Restored(id, time) = answer else {
        return Err(Failure::new(Code::Failed, "the daemon gave another answer"));
    };
    if args.dry_run {
        return Ok(());
    }
    let (count, bytes) = putting.finish()?;
    let things = if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
    ui::result(format_args!(
        "brought back {things}, {}, of version {} ({})",
        Size(bytes).about(),
        hex(&id[..8]),
        when::local(time),
    ));
    if let Some(before) = before {
        ui::note(format_args!("what was there before is in version {}", hex(&before[..8])));
    }
    Ok(())
}

/// Refuses a place that is taken.
fn new_place(to: &Path) -> Result<PathBuf> {
    if fs::symlink_metadata(to).is_ok() {
        let message = format!("{}: is there already: --to makes something new", to.display());
        return Err(Failure::usage(message));
    }
    // Its folder has a name then, also where only a name was given.
    path::absolute(to).map_err(|err| Failure::file("find", to, &err))
}

fn place_in_mount(context: &Context, args: &RestoreArgs, path: &[u8]) -> Result<PathBuf> {
    let mount = context.mounts()?.into_iter().find(|mount| mount.bucket == args.bucket);
    let mount = mount.ok_or_else(|| {
        let bucket = &args.bucket;
        Failure::usage(format_args!(
            "bucket '{bucket}' is not mounted: say with --to where to put it"
        ))
    })?;
    Ok(mount.dir.join(OsStr::from_bytes(path)))
}

fn foretell(place: &Path, entry: &PastEntry) {
    if entry.kind.is_dir() {
        return;
    }
    let there = fs::symlink_metadata(place).is_ok();
    let fate = if there { "would replace what is there" } else { "would come back" };
    let name = ui::shown(place.as_os_str().as_bytes());
    ui::result(format_args!("{name} ({}): {fate}", Size(entry.len).about()));
}
