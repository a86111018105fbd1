//! The verbs: what each does with its arguments.

mod check;
mod config;
mod conflicts;
mod create;
mod daemon;
mod demo;
mod doctor;
mod drop;
mod id;
mod in_step;
mod invite;
mod join;
mod list;
mod log;
mod members;
mod mount;
mod mount_at;
mod pages;
mod passphrase;
mod peers;
mod publish;
mod rejoin;
mod resolve;
mod restore;
mod status;
mod strategy;
mod sync;
mod target;
mod umount;
mod views;

use std::{collections::BTreeSet, fs, io, os::unix::fs::MetadataExt, path::Path};

use ::log::LevelFilter;
use cairnfs_mount_core::{Bucket, Description};

use crate::{
    cli::{Cli, MountOptions, PassphraseArgs, Verb},
    control::{self, Client, Event, Limit, Opening, Progress, StatusReport},
    exit::{Failure, Result},
    footprint,
    home::{BucketName, Home},
    interrupt, logger,
    net::{JoinProgress, SyncProgress},
    passphrase::{Source, for_existing, note_unused},
    settings::Settings,
    ui::{self, ProgressLine},
    values::Size,
};

/// What most verbs need: where the buckets are, and the settings that hold there.
#[derive(Debug)]
struct Context {
    home: Home,
    settings: Settings,
}

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<()> {
    let stays = match &cli.verb {
        Verb::Daemon(_) => true,
        Verb::Mount(args) => args.foreground,
        _ => false,
    };
    if stays {
        footprint::settle();
    }
    if matches!(&cli.verb, Verb::Daemon(args) if args.detach) {
        control::detach()?;
    }
    // The daemon has a thread of its own for signals.
    if !matches!(cli.verb, Verb::Daemon(_)) {
        interrupt::watch().map_err(|err| Failure::io("cannot watch for signals", &err))?;
    }
    match cli.verb {
        Verb::Completions(args) => pages::completions(&args),
        Verb::Man(args) => pages::man(&args),
        Verb::Version => pages::version(),
        verb => {
            let context = Context::new(cli.home, &verb, cli.log, stays)?;
            context.run(verb)
        }
    }
}

/// Whether what is wrong with the settings is not to keep `verb` from what it does: it is for what
/// runs already, and applies none of them.
fn goes_on_without_settings(verb: &Verb) -> bool {
    matches!(verb, Verb::Umount(_) | Verb::Stop | Verb::List(_) | Verb::Status(_))
}

impl Context {
    fn new(
        home: Option<std::path::PathBuf>,
        verb: &Verb,
        level: Option<LevelFilter>,
        stays: bool,
    ) -> Result<Self> {
        // fstab has no environment, so there the home may be a mount option.
        let home = match verb {
            Verb::Mount(args) => home.or(MountOptions::parse(&args.options)?.home),
            _ => home,
        };
        let home = Home::locate(home.as_deref())?;
        let settings = match Settings::load(&home) {
            // Finds that itself.
            Err(_) if matches!(verb, Verb::Doctor) => Settings::default(),
            Err(failure) if goes_on_without_settings(verb) => {
                ui::warning(format_args!("{} (goes on without the settings)", failure.message));
                Settings::default()
            }
            loaded => loaded?,
        };
        let default = if stays { LevelFilter::Info } else { LevelFilter::Warn };
        let level = level.or_else(|| settings.get("log", None)).unwrap_or(default);
        let in_background = matches!(verb, Verb::Daemon(args) if args.detach);
        logger::start(level, in_background.then(|| home.log_file()).as_deref());
        Ok(Self { home, settings })
    }

    fn run(&self, verb: Verb) -> Result<()> {
        match verb {
            Verb::Create(args) => create::run(self, &args),
            Verb::Mount(args) => mount::run(self, &args),
            Verb::Umount(args) => umount::run(self, &args),
            Verb::Daemon(args) => daemon::run(self, &args),
            Verb::Stop => daemon::stop(self),
            Verb::List(args) => list::run(self, &args),
            Verb::Status(args) => status::run(self, &args),
            Verb::Log(args) => log::run(self, &args),
            Verb::Restore(args) => restore::run(self, &args),
            Verb::Publish(args) => publish::run(self, &args),
            Verb::Check(args) => check::run(self, &args),
            Verb::Passphrase(args) => passphrase::run(self, &args),
            Verb::Conflicts(args) => conflicts::run(self, &args),
            Verb::Resolve(args) => resolve::run(self, &args),
            Verb::Strategy(args) => strategy::run(self, &args),
            Verb::Invite(args) => invite::run(self, &args),
            Verb::Join(args) => join::run(self, &args),
            Verb::Rejoin(args) => rejoin::run(self, &args),
            Verb::Drop(args) => drop::run(self, &args),
            Verb::Peers(args) => peers::run(self, &args),
            Verb::Sync(args) => sync::run(self, &args),
            Verb::Members(args) => members::run(self, &args),
            Verb::Role(args) => members::change(self, &args.member, Some(args.role.into())),
            Verb::Remove(args) => members::change(self, &args, None),
            Verb::Id(args) => id::run(self, &args),
            Verb::Config(args) => config::run(self, &args),
            Verb::Doctor => doctor::run(self),
            Verb::Demo(args) => demo::run(&args),
            Verb::Completions(_) | Verb::Man(_) | Verb::Version => Ok(()),
        }
    }

    /// What can be told of a bucket without opening it; refuses one that does not exist.
    fn describe(&self, bucket: &BucketName) -> Result<Description> {
        Bucket::describe(&self.home.bucket_dir(bucket)).map_err(|err| Failure::bucket(bucket, &err))
    }

    /// The bucket and what opens it. A typed passphrase is asked for only if the daemon does not
    /// have the bucket open.
    fn opening(&self, bucket: &BucketName, flags: &PassphraseArgs) -> Result<Opening> {
        let needs_passphrase = self.describe(bucket)?.needs_passphrase;
        let secret = if !needs_passphrase {
            note_unused(flags, bucket);
            None
        } else if self.is_open(bucket)? {
            None
        } else {
            let source = Source::find(flags, &self.settings, Some(bucket))?;
            Some(for_existing(source.as_ref(), bucket)?)
        };
        Ok(Opening { bucket: bucket.clone(), secret })
    }

    /// Whether the daemon has the bucket open for somebody who may use it here.
    fn is_open(&self, bucket: &BucketName) -> Result<bool> {
        let status = self.status(false)?;
        Ok(status.mounts.iter().any(|mount| mount.bucket == *bucket)
            || status.views.iter().any(|view| view.bucket == *bucket))
    }

    /// The mounts of the daemon; none if no daemon runs.
    fn mounts(&self) -> Result<Vec<control::MountReport>> {
        self.status(false).map(|status| status.mounts)
    }

    fn status(&self, save: bool) -> Result<StatusReport> {
        let Some(client) = Client::connect_within(&self.home, Limit::soon())? else {
            return Ok(StatusReport::default());
        };
        // A save takes as long as it takes.
        let limit = if save { Limit::NONE } else { Limit::soon() };
        match client.within(limit).ask(&control::Request::Status { save }, &mut |_| ())? {
            control::Answer::Status(status) => Ok(status),
            _ => Err(Failure::unexpected_answer()),
        }
    }

    /// The buckets of the home, and those that are mounted though their folders are gone.
    fn all_names(&self, mounts: &[control::MountReport]) -> Result<BTreeSet<BucketName>> {
        let names = self.home.bucket_names()?.into_iter();
        Ok(names.chain(mounts.iter().map(|mount| mount.bucket.clone())).collect())
    }

    /// Bytes that a bucket takes on disk: packs, index, reserve.
    fn stored_bytes(&self, bucket: &BucketName) -> u64 {
        fn size(dir: &Path) -> io::Result<u64> {
            let mut blocks = 0;
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                // What the daemon removes meanwhile takes no room.
                let Ok(meta) = entry.metadata() else { continue };
                blocks += if meta.is_dir() { size(&entry.path())? } else { meta.blocks() * 512 };
            }
            Ok(blocks)
        }
        // A folder that cannot be read is told by whatever else is asked of it.
        size(&self.home.bucket_dir(bucket)).unwrap_or(0)
    }
}

/// Shows what the daemon says while it works.
fn show(line: &mut ProgressLine, event: Event) {
    match event {
        Event::Progress(Progress::Saving { bucket, unsaved_bytes }) => {
            let left = Size(unsaved_bytes).about();
            line.show(format_args!("saving '{bucket}': {left} to go"));
        }
        Event::Progress(Progress::Checking { done, total }) => {
            let percent = done.saturating_mul(100).checked_div(total).unwrap_or(0);
            let (done, total) = (Size(done).about(), Size(total).about());
            line.show(format_args!("checking: {done} of {total} ({percent} %)"));
        }
        Event::Progress(Progress::Joining(progress)) => match progress {
            JoinProgress::Waiting => line.show("another command is joining the same bucket"),
            JoinProgress::Connecting(address) => line.show(format_args!("trying {address}")),
            JoinProgress::Fetching(transfer) => line.show(peers::receiving(&transfer)),
        },
        Event::Progress(Progress::Syncing(progress)) => match progress {
            SyncProgress::Connecting => line.show("looking for a device that has the same"),
            SyncProgress::Waiting { behind, why } => {
                let why = why.map_or_else(String::new, |why| format!(" ({why})"));
                match behind {
                    1 => line.show(format_args!("1 device is behind{why}")),
                    more => line.show(format_args!("{more} devices or buckets are behind{why}")),
                }
            }
            SyncProgress::Fetching(transfer) => line.show(peers::receiving(&transfer)),
        },
        Event::Note(text) => {
            line.clear();
            ui::note(ui::shown(text.as_bytes()));
        }
        Event::Version(_)
        | Event::Damage(..)
        | Event::Conflict(_)
        | Event::Kept(_)
        | Event::Past(_)
        | Event::Bytes { .. }
        | Event::End(_) => (),
    }
}
