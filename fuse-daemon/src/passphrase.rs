//! Where a passphrase comes from: a flag, the settings, systemd's credentials, or the terminal.
//!
//! The first that says anything counts, in this order: `--passphrase-file` and
//! `--passphrase-command`; the same as mount options; `CAIRNFS_PASSPHRASE_FILE` and
//! `..._COMMAND`, then the configuration; `$CREDENTIALS_DIRECTORY/passphrase.BUCKET`, then
//! `.../passphrase`; a question.

use std::{
    env, fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use cairnfs_mount_core::{Passphrase, Protection, Unlock};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    cli::PassphraseArgs,
    exit::{Code, Failure, Result, plain},
    home::{BucketName, Home},
    interrupt::OnInterrupt,
    secret::Secret,
    settings::Settings,
    ui,
};

/// A place that gives a passphrase without anybody typing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// The first line of a file.
    PassphraseFile(PathBuf),
    /// The first line that a command prints.
    PassphraseCommand(String),
    /// What systemd gives to the process that reads it: where that is differs from one to the next.
    Credential,
}

/// The flags by which a passphrase is given.
pub(crate) const FLAGS: &str = "--passphrase-file FILE or --passphrase-command COMMAND";

const NO_TERMINAL: &str = "there is no terminal to ask on: use";

impl Source {
    /// The place that flags and settings name, if any does.
    pub(crate) fn find(
        flags: &PassphraseArgs,
        settings: &Settings,
        bucket: Option<&BucketName>,
    ) -> Result<Option<Self>> {
        let flags =
            Self::given(flags.passphrase_file.as_deref(), flags.passphrase_command.as_deref())?;
        if flags.is_some() {
            return Ok(flags);
        }
        let path = settings.get::<PathBuf>("passphrase_file", bucket);
        let command = settings.get::<String>("passphrase_command", bucket);
        let settings = Self::given(path.as_deref(), command.as_deref())?;
        if settings.is_some() {
            return Ok(settings);
        }
        Ok(Self::credential(bucket))
    }

    /// The credential of this process, if it was given one for the bucket or for all.
    pub(crate) fn credential(bucket: Option<&BucketName>) -> Option<Self> {
        credential_file(bucket).map(|_| Self::Credential)
    }

    /// The file or the command, if one of them is given.
    pub(crate) fn given(file: Option<&Path>, command: Option<&str>) -> Result<Option<Self>> {
        if let Some(path) = file {
            return std::path::absolute(path)
                .map(|path| Some(Self::PassphraseFile(path)))
                .map_err(|err| Failure::file("find", path, &err));
        }
        Ok(command.map(|command| Self::PassphraseCommand(command.to_owned())))
    }

    /// Gets the passphrase of `bucket`, whose name need not be known.
    pub(crate) fn read(&self, bucket: Option<&BucketName>) -> Result<Secret> {
        match self {
            Self::PassphraseFile(path) => read_file(path),
            Self::PassphraseCommand(command) => run(command),
            Self::Credential => match credential_file(bucket) {
                Some(path) => read_file(&path),
                None => Err(Failure::usage(
                    "the passphrase is to come from a systemd credential called 'passphrase', and \
                     there is none",
                )),
            },
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PassphraseFile(path) => write!(f, "the file {}", ui::shown_path(path)),
            Self::PassphraseCommand(command) => write!(f, "'{}'", ui::shown(command.as_bytes())),
            Self::Credential => f.write_str("a systemd credential"),
        }
    }
}

/// That of the bucket counts before the one for all.
fn credential_file(bucket: Option<&BucketName>) -> Option<PathBuf> {
    let dir = PathBuf::from(env::var_os("CREDENTIALS_DIRECTORY")?);
    let own = bucket.map(|bucket| dir.join(format!("passphrase.{bucket}")));
    own.into_iter().chain([dir.join("passphrase")]).find(|path| path.exists())
}

fn read_file(path: &Path) -> Result<Secret> {
    // Like one that is empty: nothing was begun, and another has to be named.
    let failed = |err: &io::Error| {
        let path = path.display();
        Failure::usage(format_args!("cannot read the passphrase file {path}: {}", plain(err)))
    };
    let file = File::open(path).map_err(|err| failed(&err))?;
    first_line(file, &path.display()).map_err(|err| match err {
        LineError::Io(err) => failed(&err),
        LineError::Wrong(failure) => failure,
    })
}

/// The passphrase that is to protect a bucket, whose name need not be known: typed ones are asked
/// for twice. `flags` are those that name a source.
pub(crate) fn for_new(
    source: Option<&Source>,
    bucket: Option<&BucketName>,
    flags: &str,
) -> Result<Secret> {
    if let Some(source) = source {
        return source.read(bucket);
    }
    let no_terminal = format!("{NO_TERMINAL} {flags}, or --no-passphrase for a key file only");
    let whose = bucket.map_or_else(|| "the bucket".to_owned(), |name| format!("bucket '{name}'"));
    let first = ask(&format!("New passphrase for {whose}: "), &no_terminal)?;
    let second = ask("The same again: ", &no_terminal)?;
    if first != second {
        return Err(Failure::usage("the two passphrases differ: nothing was done"));
    }
    Ok(first)
}

/// The passphrase of a bucket that has one.
pub(crate) fn for_existing(source: Option<&Source>, bucket: &BucketName) -> Result<Secret> {
    match source {
        Some(source) => source.read(Some(bucket)),
        None => {
            let no_terminal =
                format!("bucket '{bucket}' needs its passphrase and {NO_TERMINAL} {FLAGS}");
            ask(&format!("Passphrase for bucket '{bucket}': "), &no_terminal)
        }
    }
}

fn ask(prompt: &str, no_terminal: &str) -> Result<Secret> {
    // Opening the terminal tells whether there is one, wherever stdin comes from.
    let Ok(terminal) = File::open("/dev/tty") else { return Err(Failure::usage(no_terminal)) };
    // A verb that is interrupted while somebody types must not leave the terminal without echo.
    let _restored = tcgetattr(&terminal).ok().map(|before| {
        OnInterrupt::undo(move || {
            // A terminal that went away needs no echo.
            tcsetattr(&terminal, OptionalActions::Now, &before).ok();
        })
    });
    let typed = rpassword::prompt_password(prompt).map_err(|err| match err.kind() {
        io::ErrorKind::Interrupted => Failure::new(Code::Interrupted, "interrupted"),
        io::ErrorKind::UnexpectedEof => Failure::usage("no passphrase given"),
        _ => Failure::io("cannot ask for the passphrase", &err),
    })?;
    accept(typed.into_bytes(), &"the terminal")
}

/// Runs `command` in a shell; it may talk to the terminal.
fn run(command: &str) -> Result<Secret> {
    let failed = |err: &io::Error| Failure::io("cannot run the passphrase command", err);
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|err| failed(&err))?;
    let out = child.stdout.take().expect("asked for a pipe");
    let line = first_line(out, &"the passphrase command");
    let status = child.wait().map_err(|err| failed(&err))?;
    if !status.success() {
        return Err(Failure::new(
            Code::Failed,
            format_args!("the passphrase command failed ({status})"),
        ));
    }
    line.map_err(|err| match err {
        LineError::Io(err) => failed(&err),
        LineError::Wrong(failure) => failure,
    })
}

enum LineError {
    Io(io::Error),
    Wrong(Failure),
}

/// Reads up to the first line's end.
fn first_line(input: impl Read, from: &dyn fmt::Display) -> Result<Secret, LineError> {
    let limit = Secret::MAX_BYTES + 2;
    // Room for all of it, so that no copy is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit));
    input
        .take(u64::try_from(limit).unwrap_or(u64::MAX))
        .read_to_end(&mut bytes)
        .map_err(LineError::Io)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    accept(line.to_vec(), from).map_err(LineError::Wrong)
}

fn accept(bytes: Vec<u8>, from: &dyn fmt::Display) -> Result<Secret> {
    let len = bytes.len();
    let secret = Secret::new(bytes);
    match len {
        0 => Err(Failure::usage(format_args!("no passphrase came from {from}: it is empty"))),
        1..=Secret::MAX_BYTES => Ok(secret),
        _ => Err(Failure::usage(format_args!(
            "the passphrase from {from} is longer than {} bytes",
            Secret::MAX_BYTES
        ))),
    }
}

/// What opens a bucket that has this passphrase, or none.
pub(crate) fn unlock(secret: Option<&Secret>) -> Unlock<'_> {
    secret.map_or(Unlock::KeyFile, |secret| Unlock::Passphrase(Passphrase(secret.expose())))
}

/// What protects a bucket by this passphrase, or by none.
pub(crate) fn protection(secret: Option<&Secret>) -> Protection<'_> {
    secret.map_or(Protection::KeyFile, |secret| Protection::Passphrase(Passphrase(secret.expose())))
}

/// Says what opens a bucket that has just come here, and what that is worth.
pub(crate) fn say_what_opens(home: &Home, bucket: &BucketName, has_passphrase: bool) {
    let (key_file, device_key) = (home.key_file(bucket), home.device_key_file());
    let (key_file, device_key) = (ui::shown_path(&key_file), ui::shown_path(&device_key));
    ui::note(if has_passphrase {
        format!(
            "Only its passphrase and its key file together open it here. Without either, all that is \
             here is lost: remember the one, and keep a copy of the other elsewhere, {key_file}."
        )
    } else {
        format!(
            "Only its key file opens it here, and opens it to whoever has it. Without it, all that is \
             here is lost: keep a copy elsewhere that nobody else can read, of {key_file}."
        )
    });
    ui::note(format_args!(
        "Keep a copy of {device_key} too: without it this device can only read its buckets."
    ));
}

/// Says that a passphrase given by flag is not needed.
pub(crate) fn note_unused(flags: &PassphraseArgs, bucket: &BucketName) {
    if flags.passphrase_file.is_some() || flags.passphrase_command.is_some() {
        ui::note(format_args!("bucket '{bucket}' has no passphrase; the one given is not used"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &[u8]) -> Option<Vec<u8>> {
        first_line(text, &"a test").ok().map(|secret| secret.expose().to_vec())
    }

    #[test]
    fn a_passphrase_is_the_first_line() {
        assert_eq!(line(b"correct horse\nsecond"), Some(b"correct horse".to_vec()));
        assert_eq!(line(b"with space \r\n"), Some(b"with space ".to_vec()));
        assert_eq!(line(b"no end"), Some(b"no end".to_vec()));
        assert_eq!(line(b""), None);
        assert_eq!(line(b"\nsecond"), None);
        assert_eq!(line(&[b'x'; Secret::MAX_BYTES]).map(|x| x.len()), Some(Secret::MAX_BYTES));
        assert_eq!(line(&[b'x'; Secret::MAX_BYTES + 1]), None);
    }

    #[test]
    fn a_file_that_gives_no_passphrase_is_wrong_usage() {
        let read = |path: &str| Source::PassphraseFile(path.into()).read(None).unwrap_err().code;
        assert_eq!(read("/dev/null"), Code::Usage);
        assert_eq!(read("/nonexistent"), Code::Usage);
        assert_eq!(read("/"), Code::Usage);
    }

    #[test]
    fn a_command_that_fails_gives_no_passphrase() {
        let run = |command: &str| Source::PassphraseCommand(command.into()).read(None);
        assert_eq!(run("echo one; echo two").unwrap().expose(), b"one");
        assert!(run("echo one; exit 3").is_err());
    }

    #[test]
    fn a_flag_wins_over_the_settings() {
        let flags = PassphraseArgs { passphrase_file: Some("/a".into()), passphrase_command: None };
        let found = Source::find(&flags, &Settings::default(), None).unwrap();
        assert_eq!(found, Some(Source::PassphraseFile("/a".into())));
    }
}
