//! The arguments of the verbs by which devices meet.
#![allow(clippy::doc_markdown, reason = "these comments are the help texts, which are plain")]

use std::ffi::OsString;

use cairnfs_mount_core::Role;
use clap::{Args, ValueEnum};

use super::PassphraseArgs;
use crate::{home::BucketName, values::Span};

/// What a device that is invited may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum RoleArg {
    /// Also invite and remove
    Owner,
    /// Read and write
    Writer,
    /// Read
    Reader,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Owner => Self::Owner,
            RoleArg::Writer => Self::Writer,
            RoleArg::Reader => Self::Reader,
        }
    }
}

/// `invite`
#[derive(Args, Debug)]
pub(crate) struct InviteArgs {
    /// A bucket that is mounted, or that 'cairnfs daemon' keeps
    #[arg(value_name = "NAME")]
    pub(crate) bucket: BucketName,
    /// What the other device may do
    #[arg(long, value_enum, default_value_t = RoleArg::Writer)]
    pub(crate) role: RoleArg,
    /// How long the ticket is good
    #[arg(long = "for", value_name = "TIME", default_value = "24h")]
    pub(crate) lifetime: Span,
    /// How many devices may use it
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) uses: u32,
}

/// `join`
#[derive(Args, Debug)]
pub(crate) struct JoinArgs {
    /// What 'cairnfs invite' printed; '-' reads it from stdin
    pub(crate) ticket: OsString,
    /// What to call the bucket on this device; without it, what it is called there
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<BucketName>,
    /// Protect it here by nothing but a key file that only you can read
    #[arg(long, conflicts_with_all = ["passphrase_file", "passphrase_command"])]
    pub(crate) no_passphrase: bool,
    /// Else asked for, twice; it need not be the one of the other device.
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

/// `rejoin`
#[derive(Args, Debug)]
pub(crate) struct RejoinArgs {
    /// A bucket that is not mounted
    #[arg(value_name = "NAME")]
    pub(crate) bucket: BucketName,
    /// Go on even if versions are lost that no device that can be reached has
    #[arg(long)]
    pub(crate) force: bool,
    /// Say what would be lost and change nothing; without --force exit with 9 if it is something
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// It stays the one of this bucket.
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

/// `drop`
#[derive(Args, Debug)]
pub(crate) struct DropArgs {
    /// A bucket that is not mounted
    #[arg(value_name = "NAME")]
    pub(crate) bucket: BucketName,
    /// Do not ask whether to go on
    #[arg(long)]
    pub(crate) yes: bool,
    /// Go on even if something is lost that no other device has, or the bucket does not open
    #[arg(long)]
    pub(crate) force: bool,
    /// Say whether it can be dropped, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// To see what is in it, unless with --force.
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

/// `sync`
#[derive(Args, Debug)]
pub(crate) struct SyncArgs {
    /// Only this bucket, mounted or not; without it, all that are mounted
    #[arg(value_name = "NAME")]
    pub(crate) bucket: Option<BucketName>,
    /// Give up after so long
    #[arg(long, value_name = "TIME")]
    pub(crate) timeout: Option<Span>,
    /// For a bucket that is not mounted.
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}
