//! The command line: what may be written, and what is said to what may not.

mod args;
mod helper;
mod joining;
mod mount_options;
mod passphrase;
mod refusal;
mod sharing;

use std::{ffi::OsString, path::PathBuf};

use clap::{Parser, Subcommand, error::ErrorKind};

pub(crate) use args::{
    CheckArgs, CompletionsArgs, ConfigArgs, CreateArgs, DaemonArgs, DemoArgs, JsonArgs, LogArgs,
    ManArgs, MountArgs, PublishArgs, RestoreArgs, StatusArgs, UmountArgs,
};
pub(crate) use joining::{DropArgs, InviteArgs, JoinArgs, RejoinArgs, SyncArgs};
pub(crate) use mount_options::MountOptions;
pub(crate) use passphrase::{ChangePassphraseArgs, PassphraseArgs};
pub(crate) use sharing::{
    ConflictsArgs, MemberArgs, MembersArgs, ResolveArgs, RoleArgs, StrategyArgs,
};

use crate::exit::{Code, Failure};

const AFTER_HELP: &str = "Example:\n  cairnfs create photos\n  mkdir ~/photos\n  cairnfs mount photos \
                          ~/photos\n  cairnfs status\n  cairnfs umount ~/photos\n\nSee 'cairnfs \
                          VERB --help' for an example of each verb. 'cairnfs demo' shows the whole.";

/// What follows the long help: also what the exit codes say.
fn after_long_help() -> String {
    let codes = Code::ALL.map(|code| format!("{} {}", code.number(), code.meaning()));
    format!("{AFTER_HELP}\n\nExit codes: 0 done; {}.", codes.join("; "))
}

/// An encrypted, versioned folder that syncs between a person's own machines.
#[derive(Parser, Debug)]
#[command(
    name = "cairnfs",
    version,
    max_term_width = 100,
    after_help = AFTER_HELP,
    after_long_help = after_long_help()
)]
#[allow(clippy::doc_markdown, reason = "these comments are the help texts, which are plain")]
pub(crate) struct Cli {
    /// Keep everything in DIR instead of the XDG folders [env: CAIRNFS_HOME]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// How much to log: error, warn, info, debug or trace [env: CAIRNFS_LOG]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) log: Option<log::LevelFilter>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What can be done.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Make a bucket
    #[command(after_help = "Example:\n  cairnfs create photos")]
    Create(CreateArgs),
    /// Mount a bucket on a directory; returns when it is usable
    #[command(
        after_help = "Example:\n  cairnfs mount photos ~/photos --save interval:10s\n  cairnfs \
                            mount photos ~/then --at 2h\n\nAn older version is read-only. It stands \
                            beside the bucket and other versions, and is unmounted with the bucket, or \
                            by 'cairnfs umount ~/then'."
    )]
    Mount(MountArgs),
    /// Wait for pending saves, publish, unmount
    #[command(after_help = "Example:\n  cairnfs umount ~/photos --timeout 30s")]
    Umount(UmountArgs),
    /// Serve all mounts of this home, in the foreground, and keep for other devices what is not
    /// mounted and needs no passphrase. A verb that needs a daemon starts one that only serves mounts
    #[command(after_help = "Example:\n  cairnfs daemon --listen 192.0.2.7:7117 --no-discovery")]
    Daemon(DaemonArgs),
    /// Stop the daemon: save, publish, unmount everything
    #[command(after_help = "Example:\n  cairnfs stop")]
    Stop,
    /// List buckets and where they are mounted
    #[command(after_help = "Example:\n  cairnfs list")]
    List(JsonArgs),
    /// Show whether everything is safe, and how each bucket fares
    #[command(after_help = "Example:\n  cairnfs status --wait-safe && sudo poweroff")]
    Status(StatusArgs),
    /// List the versions of a bucket, or of a path in it
    #[command(after_help = "Example:\n  cairnfs log photos 2026/summer")]
    Log(LogArgs),
    /// Bring back what an older version holds
    #[command(after_help = "Example:\n  cairnfs restore photos 2026/summer --at 2h\n  cairnfs \
                            restore photos notes.txt --at 015123ebb9dfd241 --to /tmp/notes.txt\n\n\
                            Files of the version take the place of those that are there; others \
                            stay. What was there before is a version of its own. What had come \
                            back before it was interrupted stays.")]
    Restore(RestoreArgs),
    /// Seal the saved state as a version now and print its id
    #[command(after_help = "Example:\n  cairnfs publish photos")]
    Publish(PublishArgs),
    /// Read and verify everything in a bucket
    #[command(after_help = "Example:\n  cairnfs check photos")]
    Check(CheckArgs),
    /// Change the passphrase of a bucket on this device, mounted or not
    #[command(after_help = "Example:\n  cairnfs passphrase photos\n  cairnfs passphrase photos \
                            --passphrase-command 'pass photos' --new-passphrase-file new.txt\n\n\
                            Asks for the present passphrase, which the settings and \
                            --passphrase-file and --passphrase-command give as in all verbs, then \
                            twice for the new one. It is the one of the bucket's key file on this \
                            device: each device has a key file of its own, under a passphrase of \
                            its own. A copy of the key file from before still opens the bucket \
                            with the old passphrase. The key of the device itself, by which others \
                            know it, is under no passphrase.")]
    Passphrase(ChangePassphraseArgs),
    /// List what was changed on two devices in different ways; exits with 10 if there is any
    #[command(
        after_help = "Example:\n  cairnfs conflicts photos\n\nWith --json, 'removed' of a version \
                            says that a device, this one or another, had removed the file before it \
                            saw this version."
    )]
    Conflicts(ConflictsArgs),
    /// Settle a conflict: say which version is to stay
    #[command(after_help = "Example:\n  cairnfs resolve ~/photos/notes.txt --keep theirs\n  \
                            cairnfs resolve ~/photos --all --keep both --dry-run\n\nA removal is \
                            no version: where one device removed a file that another changed, 'rm' of \
                            the file keeps the removal.")]
    Resolve(ResolveArgs),
    /// Show or set how conflicts are treated
    #[command(after_help = "Example:\n  cairnfs strategy photos conflict-file --rule \
                            '*.md=merge-text'")]
    Strategy(StrategyArgs),
    /// Print a ticket with which another device joins a bucket
    #[command(after_help = "Example:\n  cairnfs invite photos --for 10m")]
    Invite(InviteArgs),
    /// Become a member of a bucket of another device, and bring it here; or find that device again
    #[command(
        after_help = "Example:\n  cairnfs join TICKET --name photos\n\nIf the bucket is here already, \
                            join TICKET looks for the device that made the ticket where the ticket says \
                            it is, so that two devices that have both moved meet again. That changes no \
                            rights and does not use the ticket up. With --name it is refused (exit code 2)."
    )]
    Join(JoinArgs),
    /// Drop what is here of a bucket and bring it anew from other devices, without a ticket
    #[command(
        after_help = "Example:\n  cairnfs rejoin photos\n\nFor a device that was put back to \
                            an older state and cannot go on from there: 'cairnfs sync' says so. Only \
                            the newest version comes, so that 'log' and 'restore' begin there. If \
                            there is a version here, or a change since, that no other device which \
                            can be reached is known to have, it says so and changes nothing (exit \
                            code 9)."
    )]
    Rejoin(RejoinArgs),
    /// Take a bucket off this device; other devices keep it
    #[command(after_help = "Example:\n  cairnfs drop photos\n\nIf there is a version here, or a \
                            change since, that no other device which can be reached is known to \
                            have, or if no other device has the bucket at all, it says so and \
                            changes nothing (exit code 9, or 11 if nobody can be reached). \
                            Afterwards this device can join again with a ticket, and has the \
                            newest version only. It is no way to leave: to the others it is still \
                            a member.")]
    Drop(DropArgs),
    /// Show which devices are connected, and what each of them has
    #[command(after_help = "Example:\n  cairnfs peers")]
    Peers(JsonArgs),
    /// Wait until everything published here and on the devices that can be reached has met
    #[command(after_help = "Example:\n  cairnfs sync photos --timeout 1m")]
    Sync(SyncArgs),
    /// List the devices that have a bucket
    #[command(after_help = "Example:\n  cairnfs members photos")]
    Members(MembersArgs),
    /// Say what a device may do in a bucket from now on
    #[command(after_help = "Example:\n  cairnfs role photos nas owner")]
    Role(RoleArgs),
    /// Remove a device from a bucket: it keeps what it has, and gets nothing that is written from
    /// now on
    #[command(after_help = "Example:\n  cairnfs remove photos old-laptop")]
    Remove(MemberArgs),
    /// Show this device's name and key
    #[command(after_help = "Example:\n  cairnfs id")]
    Id(JsonArgs),
    /// Show every setting and where its value comes from
    #[command(after_help = "Example:\n  cairnfs config photos")]
    Config(ConfigArgs),
    /// Find out what this machine lacks, and how to mend it
    #[command(after_help = "Example:\n  cairnfs doctor")]
    Doctor,
    /// Show the main job before your eyes, in a throw-away home
    #[command(after_help = "Example:\n  cairnfs demo")]
    Demo(DemoArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  cairnfs completions bash > \
                            ~/.local/share/bash-completion/completions/cairnfs")]
    Completions(CompletionsArgs),
    /// Write the manual pages into a directory
    #[command(after_help = "Example:\n  cairnfs man ~/.local/share/man/man1")]
    Man(ManArgs),
    /// Print the version
    #[command(after_help = "Example:\n  cairnfs version")]
    Version,
}

/// What the words of a command line come to.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// Something to do.
    Run(Box<Cli>),
    /// A text that was asked for: help or version.
    Text(String),
}

/// Reads a command line, also one as mount(8) writes it.
pub(crate) fn parse(words: Vec<OsString>) -> Result<Parsed, Failure> {
    match Cli::try_parse_from(helper::rewrite(words)) {
        Ok(cli) => Ok(Parsed::Run(Box::new(cli))),
        Err(err) if matches!(err.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Ok(Parsed::Text(err.render().to_string()))
        }
        Err(err) => Err(refusal::of(&err)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(Into::into).collect()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_shows_an_example() {
        for verb in Cli::command().get_subcommands() {
            let text = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("Example:\n  cairnfs {}", verb.get_name());
            assert!(text.starts_with(&example), "{}", verb.get_name());
        }
    }

    #[test]
    fn the_long_help_has_the_exit_codes() {
        let Ok(Parsed::Text(text)) = parse(words("cairnfs --help")) else { panic!("no text") };
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("Exit codes: 0 done; 1 it failed"), "{text}");
        assert!(text.ends_with("130 interrupted."), "{text}");
    }

    #[test]
    fn wrong_usage_is_one_line() {
        for line in [
            "cairnfs",
            "cairnfs moutn",
            "cairnfs help moutn",
            "cairnfs mount x",
            "cairnfs create ../x",
        ] {
            let failure = parse(words(line)).unwrap_err();
            assert_eq!(failure.code.number(), 2, "{line}");
            assert!(!failure.message.contains('\n'), "{line}");
        }
        let failure = parse(words("cairnfs mount x y --save sometimes")).unwrap_err();
        assert!(failure.message.contains("interval:10s"), "{}", failure.message);
    }

    #[test]
    fn help_and_version_are_results() {
        for line in [
            "cairnfs --help",
            "cairnfs mount --help",
            "cairnfs help",
            "cairnfs help mount",
            "cairnfs --version",
        ] {
            assert!(matches!(parse(words(line)), Ok(Parsed::Text(_))), "{line}");
        }
    }
}
