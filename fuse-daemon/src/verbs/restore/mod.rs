//! `cairnfs restore`: brings back what an older version holds.

mod keeping;
mod putting;

use std::{
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
    let publish = || publish::publish(context, opening.clone()).map(drop);
    let mut putting = match &args.to {
        Some(to) => Putting::elsewhere(new_place(to)?, &path),
        None => Putting::in_place(mount_dir(context, args)?, &path, &publish),
    };
    let replaces = fs::symlink_metadata(putting.target(&path)).is_ok();
    let request = RestoreRequest {
        opening: opening.clone(),
        which: args.at.0.clone(),
        path,
        in_place: args.to.is_none(),
        contents: !args.dry_run,
    };
    let mut line = ProgressLine::new();
    let client = Client::connect_or_start(&context.home, None)?;
    let answer = client.follow(&Request::Restore(request), &mut |event| {
        match event {
            Event::Kept(before) if replaces => {
                let before = hex(&before[..8]);
                ui::note(format_args!("what was there before is in version {before}"));
            }
            Event::Past(entry) if args.dry_run => foretell(&putting.target(&entry.path), &entry)?,
            Event::Past(entry) => putting.begin(*entry)?,
            Event::Bytes { offset, bytes } => {
                putting.write(offset, &bytes)?;
                let done = Size(putting.bytes()).about();
                line.show(format_args!("bringing back: {done}"));
            }
            event => show(&mut line, event),
        }
        Ok(())
    });
    line.clear();
    let ended = match answer {
        Ok(Answer::Restored(id, time)) => putting.finish().map(|count| (count, id, time)),
        Ok(_) => Err(Failure::new(Code::Failed, "the daemon gave another answer")),
        Err(failure) => {
            // What has come back stays, with the attributes that it had.
            if let Ok(count @ 1..) = putting.give_up() {
                ui::note(format_args!("{} had come back before that", files(count)));
            }
            Err(failure)
        }
    };
    let (count, id, time) = ended?;
    if !args.dry_run {
        ui::result(format_args!(
            "brought back {}, {}, of version {} ({})",
            files(count),
            Size(putting.bytes()).about(),
            hex(&id[..8]),
            when::local(time),
        ));
    }
    Ok(())
}

fn files(count: u64) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
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

fn mount_dir(context: &Context, args: &RestoreArgs) -> Result<PathBuf> {
    let bucket = &args.bucket;
    let mount = context.mounts()?.into_iter().find(|mount| mount.bucket == *bucket);
    mount.map(|mount| mount.dir).ok_or_else(|| {
        let what = format!("bucket '{bucket}' is not mounted: say with --to where to put it");
        Failure::usage(what)
    })
}

fn foretell(place: &Path, entry: &PastEntry) -> Result<()> {
    if entry.kind.is_dir() {
        return putting::is_dir(place).map(drop);
    }
    let there = fs::symlink_metadata(place).is_ok();
    let fate = if there { "would replace what is there" } else { "would come back" };
    let name = ui::shown(place.as_os_str().as_bytes());
    ui::result(format_args!("{name} ({}): {fate}", Size(entry.len).about()));
    Ok(())
}
