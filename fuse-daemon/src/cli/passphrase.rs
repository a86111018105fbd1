//! The arguments that are about passphrases.
#![allow(clippy::doc_markdown, reason = "these comments are the help texts, which are plain")]

use std::path::PathBuf;

use clap::Args;

use crate::home::BucketName;

/// Where a passphrase comes from.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PassphraseArgs {
    /// Read the passphrase from the first line of FILE [env: CAIRNFS_PASSPHRASE_FILE]
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_command")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Take the first line that COMMAND prints as the passphrase
    /// [env: CAIRNFS_PASSPHRASE_COMMAND]
    #[arg(long, value_name = "COMMAND")]
    pub(crate) passphrase_command: Option<String>,
}

/// `passphrase`
#[derive(Args, Debug)]
pub(crate) struct ChangePassphraseArgs {
    /// The bucket
    #[arg(value_name = "NAME")]
    pub(crate) bucket: BucketName,
    /// Read the new passphrase from the first line of FILE
    #[arg(long, value_name = "FILE", conflicts_with = "new_passphrase_command")]
    pub(crate) new_passphrase_file: Option<PathBuf>,
    /// Take the first line that COMMAND prints as the new passphrase
    #[arg(long, value_name = "COMMAND")]
    pub(crate) new_passphrase_command: Option<String>,
    /// From now on protect it by nothing but a key file that only you can read
    #[arg(long, conflicts_with_all = ["new_passphrase_file", "new_passphrase_command"])]
    pub(crate) no_passphrase: bool,
    /// Try the present passphrase, ask for no new one, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The present one.
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}
