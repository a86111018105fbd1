//! The arguments of the verbs about conflicts, members and peers.
#![allow(clippy::doc_markdown, reason = "these comments are the help texts, which are plain")]

use std::{ffi::OsString, path::PathBuf, str::FromStr};

use cairnfs_mount_core::Strategy;
use clap::Args;

use super::{PassphraseArgs, joining::RoleArg};
use crate::home::BucketName;

/// `conflicts`
#[derive(Args, Debug)]
pub(crate) struct ConflictsArgs {
    /// A bucket, or a path below its mount point; without it all that is mounted
    #[arg(value_name = "NAME|PATH")]
    pub(crate) what: Option<OsString>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    /// For a bucket that is not mounted.
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

/// `resolve`
#[derive(Args, Debug)]
pub(crate) struct ResolveArgs {
    /// The contested file or one of its copies, below a mount point; with --all also a bucket or a
    /// folder, and without it everything that is mounted
    #[arg(required_unless_present = "all")]
    pub(crate) path: Option<PathBuf>,
    /// What is to stay: the newest version of this device (ours) or of another (theirs), each as a
    /// file of its own (both), the version with this id, or the content of this file
    #[arg(long, value_name = "ours|theirs|both|VERSION|FILE")]
    pub(crate) keep: OsString,
    /// Settle everything at or below the path, or in all that is mounted
    #[arg(long)]
    pub(crate) all: bool,
    /// Say what would be done, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// For a bucket that is not mounted.
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

/// `strategy`
#[derive(Args, Debug)]
pub(crate) struct StrategyArgs {
    /// The bucket
    #[arg(value_name = "NAME")]
    pub(crate) bucket: BucketName,
    /// conflict-file (show both), last-write-wins, base-wins (the device that merges), fork (as
    /// conflict-file), or merge-text (put edits of different lines together); without it and
    /// without rules: show what holds
    pub(crate) strategy: Option<Strategy>,
    /// Treat paths that match GLOB in another way; the first rule that matches applies
    #[arg(long = "rule", value_name = "GLOB=STRATEGY")]
    pub(crate) rules: Vec<Rule>,
    /// Remove the rule for GLOB
    #[arg(long = "remove-rule", value_name = "GLOB")]
    pub(crate) removed_rules: Vec<String>,
    /// Say what would hold, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    /// For a bucket that is not mounted.
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

/// A glob and what applies where it matches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rule {
    pub(crate) glob: String,
    pub(crate) strategy: Strategy,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A glob may hold '=', a strategy does not.
        let (glob, strategy) =
            text.rsplit_once('=').ok_or("write GLOB=STRATEGY, as in '*.md=merge-text'")?;
        let strategy: Strategy = strategy.parse().map_err(|err| format!("{err}"))?;
        let rules = cairnfs_merge::PathRules::new(cairnfs_merge::Strategy::ConflictFile);
        rules.rule(glob, cairnfs_merge::Strategy::ConflictFile).map_err(|err| err.to_string())?;
        if glob.is_empty() {
            return Err("the glob is empty: '*' matches everything".to_owned());
        }
        Ok(Self { glob: glob.to_owned(), strategy })
    }
}

/// `members`
#[derive(Args, Debug)]
pub(crate) struct MembersArgs {
    /// The bucket
    #[arg(value_name = "NAME")]
    pub(crate) bucket: BucketName,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    /// For a bucket that is not mounted.
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

/// Which member a verb is about, and whether it only says what it would do.
#[derive(Args, Debug)]
pub(crate) struct MemberArgs {
    /// The bucket
    #[arg(value_name = "NAME")]
    pub(crate) bucket: BucketName,
    /// The device's name, or how its key begins, as 'cairnfs members' shows them
    pub(crate) device: String,
    /// Say what would be done, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// For a bucket that is not mounted.
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

/// `role`
#[derive(Args, Debug)]
pub(crate) struct RoleArgs {
    /// Whose.
    #[command(flatten)]
    pub(crate) member: MemberArgs,
    /// What it may do from now on
    #[arg(value_enum)]
    pub(crate) role: RoleArg,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_a_glob_and_a_strategy() {
        let rule: Rule = "a=b/*.md=merge-text".parse().unwrap();
        assert_eq!(rule, Rule { glob: "a=b/*.md".into(), strategy: Strategy::MergeText });
        for bad in ["*.md", "*.md=", "=fork", "[=fork", "*.md=forks"] {
            assert!(bad.parse::<Rule>().is_err(), "{bad}");
        }
        let err = "*.md=forks".parse::<Rule>().unwrap_err();
        assert!(err.contains("merge-text"), "{err}");
    }
}
