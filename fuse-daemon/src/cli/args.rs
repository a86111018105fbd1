//! The arguments of each verb.
#![allow(clippy::doc_markdown, reason = "these comments are the help texts, which are plain")]

use std::path::PathBuf;

use cairnfs_mount_core::SavePolicy;
use clap::{Args, value_parser};

use super::PassphraseArgs;
use crate::{
    home::BucketName,
    values::{Address, Id, Size, Span},
    when::Moment,
};

/// A verb that only shows something.
#[derive(Args, Debug)]
pub(crate) struct JsonArgs {
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// `create`
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// What to call it on this device
    #[arg(value_name = "NAME")]
    pub(crate) bucket: BucketName,
    /// Protect it by nothing but a key file that only you can read
    #[arg(long, conflicts_with_all = ["passphrase_file", "passphrase_command"])]
    pub(crate) no_passphrase: bool,
    /// Else asked for, twice.
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

/// `mount`
#[derive(Args, Debug)]
pub(crate) struct MountArgs {
    /// The bucket, also as df(1) shows it: cairnfs:NAME
    #[arg(value_name = "NAME", value_parser = BucketName::from_source)]
    pub(crate) bucket: BucketName,
    /// An empty directory
    pub(crate) dir: PathBuf,
    /// Show an older version there, read-only: its id as 'log' shows it, or the newest that there was
    /// by a time: 2h (ago), 2026-11-22, '2026-11-22 14:23'
    #[arg(
        long,
        value_name = "VERSION|TIME",
        conflicts_with_all = ["save", "dirty", "publish_quiet", "publish_max", "at_start"]
    )]
    pub(crate) at: Option<Moment>,
    /// When changes are made durable: flush (close waits), release (close does not wait) or
    /// interval:TIME [env: CAIRNFS_SAVE] [default: flush]
    #[arg(long, value_name = "POLICY")]
    pub(crate) save: Option<SavePolicy>,
    /// Refuse every change
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Let other users in, as far as the file modes do [env: CAIRNFS_ALLOW_OTHER]
    #[arg(long)]
    pub(crate) allow_other: bool,
    /// Show the owner of the bucket's top folder, and so of all that is theirs, as this user: for who
    /// has another number here than where it was made [env: CAIRNFS_UID]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) uid: Option<Id>,
    /// The same for the group [env: CAIRNFS_GID]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) gid: Option<Id>,
    /// Memory for what was read [env: CAIRNFS_CACHE] [default: 32MiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) cache: Option<Size>,
    /// Memory for what no version holds yet; writers wait when it gets full [env: CAIRNFS_DIRTY]
    /// [default: 32MiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) dirty: Option<Size>,
    /// Publish a version once nothing has changed for this long, at most 100ms while another device
    /// is connected [env: CAIRNFS_PUBLISH_QUIET] [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub(crate) publish_quiet: Option<Span>,
    /// Publish no later than this after a change [env: CAIRNFS_PUBLISH_MAX] [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub(crate) publish_max: Option<Span>,
    /// Mount options as in fstab: ours (save=, at=, cache=, dirty=, publish_quiet=, publish_max=,
    /// ro, allow_other, uid=, gid=, passphrase_file=, passphrase_command=, home=), as in
    /// save=release,cache=64MiB, and those of FUSE
    #[arg(short = 'o', value_name = "OPT,...")]
    pub(crate) options: Vec<String>,
    /// Stay, and unmount cleanly on a signal
    #[arg(long, short = 'f')]
    pub(crate) foreground: bool,
    /// Say what would be done, mount nothing; checks the options, the passphrase and the mount point, not
    /// whether there is a version as --at wants it
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Mount it again whenever the daemon starts
    #[arg(long)]
    pub(crate) at_start: bool,
    /// Else asked for.
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

/// `umount`
#[derive(Args, Debug)]
pub(crate) struct UmountArgs {
    /// The mount point
    pub(crate) dir: PathBuf,
    /// Give up, and stay mounted, if not everything is saved by then [env: CAIRNFS_TIMEOUT]
    #[arg(long, value_name = "TIME")]
    pub(crate) timeout: Option<Span>,
    /// Unmount even if something cannot be saved: it is lost
    #[arg(long)]
    pub(crate) discard: bool,
    /// Do not mount it any more when the daemon starts
    #[arg(long)]
    pub(crate) forget: bool,
}

/// `daemon`
#[derive(Args, Debug)]
pub(crate) struct DaemonArgs {
    /// Where other devices reach this one [env: CAIRNFS_LISTEN] [default: all addresses, a port
    /// that stays the same]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<Address>,
    /// Neither look for other devices on the local network nor be found there
    /// [env: CAIRNFS_DISCOVERY=false]
    #[arg(long)]
    pub(crate) no_discovery: bool,
    /// Leave the terminal and tell stdout when ready: how other verbs start it.
    #[arg(long, hide = true)]
    pub(crate) detach: bool,
    /// A bucket not to mount at start, because whoever starts this is about to.
    #[arg(long, hide = true)]
    pub(crate) except: Option<BucketName>,
}

/// `status`
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Only this bucket
    #[arg(value_name = "NAME")]
    pub(crate) bucket: Option<BucketName>,
    /// Save everything first; exit with 9 if that cannot be done
    #[arg(long)]
    pub(crate) wait_safe: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// `log`
#[derive(Args, Debug)]
pub(crate) struct LogArgs {
    /// The bucket
    #[arg(value_name = "NAME")]
    pub(crate) bucket: BucketName,
    /// Only versions that changed this: a path below the mount point, or one in the bucket
    pub(crate) path: Option<PathBuf>,
    /// At most so many versions, newest first
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// At most so many changed paths of each version
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) changes: u32,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    /// For a bucket that is not mounted.
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

/// `restore`
#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// The bucket
    #[arg(value_name = "NAME")]
    pub(crate) bucket: BucketName,
    /// What to bring back, a file or a folder: in the bucket, or below its mount point; without it
    /// everything
    pub(crate) path: Option<PathBuf>,
    /// The version: its id as `log` shows it, or the newest that there was by a time: 2h (ago),
    /// the end of 2026-11-22 or of '2026-11-22 14:23', or as `log --json` writes it
    #[arg(long, value_name = "VERSION|TIME")]
    pub(crate) at: Moment,
    /// Put it there, where nothing is yet, instead of where it was
    #[arg(long, value_name = "PATH")]
    pub(crate) to: Option<PathBuf>,
    /// Say what would be brought back, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// For a bucket that is not mounted.
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

/// `publish`
#[derive(Args, Debug)]
pub(crate) struct PublishArgs {
    /// The bucket
    #[arg(value_name = "NAME")]
    pub(crate) bucket: BucketName,
    /// For a bucket that is not mounted.
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

/// `check`
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// The bucket
    #[arg(value_name = "NAME")]
    pub(crate) bucket: BucketName,
    /// Mounted: fetch what is damaged from connected devices. Else: make a log that does not open
    /// open again, without what cannot be read
    #[arg(long)]
    pub(crate) repair: bool,
    /// Say what --repair would do, change nothing
    #[arg(long, requires = "repair")]
    pub(crate) dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    /// For a bucket that is not mounted.
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

/// `config`
#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    /// As it holds for this bucket
    #[arg(value_name = "NAME")]
    pub(crate) bucket: Option<BucketName>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// `demo`
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Only what needs no FUSE
    #[arg(long)]
    pub(crate) no_fuse: bool,
}

/// `completions`
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// `man`
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// An existing directory
    pub(crate) dir: PathBuf,
}
