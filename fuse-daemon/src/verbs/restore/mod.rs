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
    let putting = match &args.to {
        Some(to) => Putting::elsewhere(new_place(to)?, &path),
        None => Putting::in_place(mount_dir(context, args)?, &path, &publish),
    };
    let mut restoring = Restoring {
        replaces: fs::symlink_metadata(putting.target(&path)).is_ok(),
        putting,
        dry_run: args.dry_run,
        lacking: 0,
        unchanged: 0,
    };
    let request = RestoreRequest {
        opening: opening.clone(),
        which: args.at.0.clone(),
        path,
        in_place: args.to.is_none(),
        contents: !args.dry_run,
    };
    let mut line = ProgressLine::new();
    let client = Client::connect_or_start(&context.home, None)?;
    let answer =
        client.follow(&Request::Restore(request), &mut |event| restoring.take(&mut line, event));
    line.clear();
    restoring.end(answer)
}

/// What comes back, as the daemon tells of it.
struct Restoring<'p> {
    putting: Putting<'p>,
    /// Whether there is something in its place.
    replaces: bool,
    /// Whether is only said what would come back.
    dry_run: bool,
    /// Files that cannot come back.
    lacking: u64,
    /// Files that are what they were.
    unchanged: u64,
}

impl Restoring<'_> {
    fn take(&mut self, line: &mut ProgressLine, event: Event) -> Result<()> {
        match event {
            Event::Kept(before) if self.replaces => {
                let before = hex(&before[..8]);
                ui::note(format_args!("what was there before is in version {before}"));
            }
            Event::Past(entry) if !entry.is_here => {
                self.lacking += 1;
                self.putting.lacks(&entry)?;
                line.clear();
                let name = ui::shown(self.putting.target(&entry.path).as_os_str().as_bytes());
                ui::note(format_args!("{name}: cannot come back, not all of it is here"));
            }
            Event::Past(entry) if self.is_unchanged(&entry) => {
                self.unchanged += 1;
                self.putting.end_file()?;
            }
            Event::Past(entry) if self.dry_run => {
                foretell(&self.putting.target(&entry.path), &entry)?;
            }
            Event::Past(entry) => self.putting.begin(*entry)?,
            Event::Bytes { offset, bytes } => {
                self.putting.write(offset, &bytes)?;
                let done = Size(self.putting.bytes()).about();
                line.show(format_args!("bringing back: {done}"));
            }
            event => show(line, event),
        }
        Ok(())
    }

    /// What was changed after that version was made is in none; only a plan makes none first.
    fn is_unchanged(&self, entry: &PastEntry) -> bool {
        entry.is_unchanged && (!self.dry_run || self.putting.is_as(entry))
    }

    /// Says what came of it.
    fn end(mut self, answer: Result<Answer>) -> Result<()> {
        let (id, time) = match answer {
            Ok(Answer::Restored(id, time)) => (hex(&id[..8]), time),
            Ok(_) => return Err(Failure::unexpected_answer()),
            Err(failure) => {
                // What has come back stays, with the attributes that it had.
                if let Ok(count @ 1..) = self.putting.give_up() {
                    ui::note(format_args!("{} had come back before that", files(count)));
                }
                return Err(failure);
            }
        };
        let unchanged = self.unchanged;
        let count = self.putting.finish()?;
        if !self.dry_run {
            let left =
                if unchanged > 0 { format!("; {unchanged} unchanged") } else { String::new() };
            ui::result(format_args!(
                "brought back {}, {}, of version {id} ({}){left}",
                files(count),
                Size(self.putting.bytes()).about(),
                when::local(time),
            ));
        } else if unchanged > 0 {
            ui::result(format_args!("{unchanged} unchanged"));
        }
        if self.lacking == 0 {
            return Ok(());
        }
        let message = format!(
            "{} of version {id} cannot come back: given up for space, or never on this device",
            files(self.lacking),
        );
        Err(Failure::new(Code::Failed, message))
    }
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
