//! How a verb ends: an exit code that scripts can rely on, and one line that says why.

use std::{fmt::Display, io, path::Path, process::ExitCode};

use cairnfs_mount_core::Error as CoreError;
use serde::{Deserialize, Serialize};

/// The result of a verb or of a part of one.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// The exit codes; the numbers are part of the command line's contract.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Code {
    /// It failed; the message says why.
    Failed,
    /// Wrong usage; nothing was changed.
    Usage,
    /// No such bucket, mount or device.
    NotFound,
    /// Wrong passphrase, key or ticket.
    WrongKey,
    /// In use by another process.
    InUse,
    /// Mount point missing, busy or not empty.
    MountPoint,
    /// FUSE is not available.
    NoFuse,
    /// Damage was found.
    Damage,
    /// Unsaved data remains.
    Unsaved,
    /// Conflicts remain.
    Conflicts,
    /// No peer can be reached.
    NoPeer,
    /// No space left.
    NoSpace,
    /// Written by a newer version.
    Newer,
    /// Interrupted by a signal.
    Interrupted,
}

impl Code {
    /// All of them, by number.
    pub(crate) const ALL: [Self; 14] = [
        Self::Failed,
        Self::Usage,
        Self::NotFound,
        Self::WrongKey,
        Self::InUse,
        Self::MountPoint,
        Self::NoFuse,
        Self::Damage,
        Self::Unsaved,
        Self::Conflicts,
        Self::NoPeer,
        Self::NoSpace,
        Self::Newer,
        Self::Interrupted,
    ];

    /// The number that the process exits with.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::WrongKey => 4,
            Self::InUse => 5,
            Self::MountPoint => 6,
            Self::NoFuse => 7,
            Self::Damage => 8,
            Self::Unsaved => 9,
            Self::Conflicts => 10,
            Self::NoPeer => 11,
            Self::NoSpace => 12,
            Self::Newer => 13,
            Self::Interrupted => 130,
        }
    }

    /// What it says, for the help and the manual.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Failed => "it failed, the last line on stderr says why",
            Self::Usage => "wrong usage, nothing was changed",
            Self::NotFound => "no such bucket, mount or device",
            Self::WrongKey => "wrong passphrase, key or ticket",
            Self::InUse => "in use by another process",
            Self::MountPoint => "mount point missing, busy or not empty",
            Self::NoFuse => "FUSE not available",
            Self::Damage => "damage found",
            Self::Unsaved => "unsaved data remains",
            Self::Conflicts => "conflicts remain",
            Self::NoPeer => "no peer reachable",
            Self::NoSpace => "no space",
            Self::Newer => "written by a newer version",
            Self::Interrupted => "interrupted",
        }
    }

    /// The code of an exit status, where it is one of ours.
    pub(crate) fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|code| i32::from(code.number()) == number)
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.number())
    }
}

/// Why a verb failed. Travels from the daemon to the verb that asked it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub(crate) struct Failure {
    /// What scripts see.
    pub(crate) code: Code,
    /// What people see: one line, without the program's name and without a full stop.
    pub(crate) message: String,
}

impl Failure {
    /// A failure with `message`, made one line if it is several. Within a line it stays as it is: a
    /// path in it may be there to be copied.
    pub(crate) fn new(code: Code, message: impl Display) -> Self {
        let message = message.to_string();
        let lines = message.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
        Self { code, message: lines.collect::<Vec<_>>().join(" ") }
    }

    /// The daemon answered, but not what was asked.
    pub(crate) fn unexpected_answer() -> Self {
        Self::new(Code::Failed, "the daemon gave another answer")
    }

    /// Wrong usage: nothing was changed.
    pub(crate) fn usage(message: impl Display) -> Self {
        Self::new(Code::Usage, message)
    }

    /// A failed call of the system; a full disk has a code of its own.
    pub(crate) fn io(doing: impl Display, err: &io::Error) -> Self {
        let code = match err.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::NoSpace,
            _ => Code::Failed,
        };
        Self::new(code, format_args!("{doing}: {}", plain(err)))
    }

    /// A failed call on one file.
    pub(crate) fn file(doing: &str, path: &Path, err: &io::Error) -> Self {
        Self::io(format_args!("cannot {doing} {}", path.display()), err)
    }

    /// What went wrong with the bucket `name`.
    pub(crate) fn bucket(name: impl Display, err: &CoreError) -> Self {
        let (code, message) = match err {
            CoreError::NoBucket(_) => (
                Code::NotFound,
                format!("no bucket '{name}' ('cairnfs list' shows those there are)"),
            ),
            CoreError::NoKeyFile(path) => (
                Code::WrongKey,
                format!(
                    "bucket '{name}': its key file is missing: put a copy of it back as {}",
                    path.display()
                ),
            ),
            CoreError::WrongKeyFile { path } => (
                Code::WrongKey,
                format!(
                    "bucket '{name}': {err}: put its own back as {}, or if only the id file is wrong \
                     remove that, and it is written anew",
                    path.display()
                ),
            ),
            CoreError::NoPacks(dir) => (
                Code::Damage,
                format!(
                    "bucket '{name}' is damaged: all of its log is missing: put the packs back in {} \
                     from a backup",
                    dir.display()
                ),
            ),
            CoreError::WrongPassphrase => {
                (Code::WrongKey, format!("wrong passphrase for bucket '{name}'"))
            }
            CoreError::NeedsPassphrase => (
                Code::WrongKey,
                format!("bucket '{name}' needs its passphrase, and none was given"),
            ),
            CoreError::MissingSecret { epoch, .. } => (
                Code::WrongKey,
                format!(
                    "bucket '{name}': its key file is older than its newest secret (epoch \
                     {epoch}): put the newest copy of it in place"
                ),
            ),
            CoreError::KeyFileReplaced => (
                Code::Failed,
                format!(
                    "bucket '{name}': its key file was replaced meanwhile: try again, and unmount it \
                     first if this comes again"
                ),
            ),
            CoreError::Locked { pid: None } => {
                (Code::InUse, format!("bucket '{name}' is in use by another process"))
            }
            CoreError::Locked { pid: Some(pid) } => {
                (Code::InUse, format!("bucket '{name}' is in use by process {pid}"))
            }
            CoreError::LogDamaged { .. } => {
                (Code::Damage, format!("bucket '{name}': {}", with_remedy(&name, err)))
            }
            // A check needs it too.
            CoreError::KeyFileDamaged => {
                (Code::Damage, format!("bucket '{name}' is damaged: {err}: put a copy of it back"))
            }
            CoreError::Damaged { what } => (
                Code::Damage,
                format!("bucket '{name}' is damaged: {what} (run 'cairnfs check {name}')"),
            ),
            CoreError::NoSpace => {
                (Code::NoSpace, format!("bucket '{name}': no space left on its disk"))
            }
            CoreError::Newer { .. } => (Code::Newer, format!("bucket '{name}': {err}")),
            CoreError::Poisoned => (Code::Unsaved, format!("bucket '{name}': {err}")),
            _ => (Code::Failed, format!("bucket '{name}': {}", with_remedy(&name, err))),
        };
        Self::new(code, message)
    }
}

/// What went wrong with the bucket `name`, with the command that helps if there is one: only here it is
/// known what commands there are.
pub(crate) fn with_remedy(name: &impl Display, err: &CoreError) -> String {
    match err {
        CoreError::LogDamaged { .. } => format!("{err}; run: cairnfs check {name} --repair"),
        CoreError::PutBack => format!("{err} with 'cairnfs rejoin {name} --force'"),
        // On another device, where the bucket may have another name.
        CoreError::WrittenTwice => format!("{err} ('cairnfs rejoin')"),
        _ => err.to_string(),
    }
}

/// The text of an error without the number that std appends to it.
pub(crate) fn plain(err: &io::Error) -> String {
    let text = err.to_string();
    text.find(" (os error").map_or(text.clone(), |end| text[..end].to_lowercase())
}

#[cfg(test)]
mod tests {
    use cairnfs_mount_core::{Bucket, Protection, Unlock};

    use super::*;

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(Failure::usage("\nno\n  such \r\n\tthing\n").message, "no such thing");
    }

    #[test]
    fn a_path_in_a_message_stays_as_it_is() {
        let said = Failure::usage("run 'cairnfs umount /a  b\tc'").message;
        assert_eq!(said, "run 'cairnfs umount /a  b\tc'");
    }

    #[test]
    fn an_older_key_file_is_a_wrong_key() {
        let failure =
            Failure::bucket("notes", &CoreError::MissingSecret { epoch: 7, record: None });
        assert_eq!(failure.code.number(), 4);
        assert!(failure.message.contains("newest copy"), "{}", failure.message);
    }

    #[test]
    fn what_a_command_helps_against_names_it_and_the_bucket() {
        let failure = |err| Failure::bucket("notes", &err);
        let log = failure(CoreError::LogDamaged { what: "1.pack is damaged at 88".into() });
        assert_eq!(log.code.number(), 8);
        assert_eq!(
            log.message,
            "bucket 'notes': 1.pack is damaged at 88; run: cairnfs check notes --repair"
        );
        let put_back = failure(CoreError::PutBack).message;
        assert!(put_back.ends_with("with 'cairnfs rejoin notes --force'"), "{put_back}");
    }

    #[test]
    fn what_helps_against_a_damaged_key_file_is_a_copy_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = dir.path().join("b");
        let device = std::sync::Arc::new(cairnfs_store::DeviceKey::generate().unwrap());
        Bucket::create(&bucket, &device, Protection::KeyFile).unwrap();
        std::fs::write(bucket.join("key"), "not a key file").unwrap();
        let err = Bucket::open(&bucket, device, Unlock::KeyFile).unwrap_err();
        let failure = Failure::bucket("notes", &err);
        assert_eq!(failure.code, Code::Damage);
        assert!(failure.message.ends_with("put a copy of it back"), "{}", failure.message);
    }

    #[test]
    fn the_key_file_of_another_bucket_is_a_wrong_key_and_a_check_is_no_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let device = std::sync::Arc::new(cairnfs_store::DeviceKey::generate().unwrap());
        let [one, other] = ["one", "other"].map(|name| dir.path().join(name));
        for bucket in [&one, &other] {
            Bucket::create(bucket, &device, Protection::KeyFile).unwrap();
        }
        std::fs::copy(other.join("key"), one.join("key")).unwrap();
        let err = Bucket::open(&one, device, Unlock::KeyFile).unwrap_err();
        let failure = Failure::bucket("notes", &err);
        assert_eq!(failure.code, Code::WrongKey);
        let key = one.join("key");
        assert!(failure.message.contains(&*key.to_string_lossy()), "{}", failure.message);
        assert!(!failure.message.contains("cairnfs check"), "{}", failure.message);
    }

    #[test]
    fn a_full_disk_has_its_own_code() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(Failure::io("cannot write", &full).code.number(), 12);
    }

    #[test]
    fn every_code_is_found_by_its_number() {
        for code in Code::ALL {
            assert_eq!(Code::from_number(i32::from(code.number())), Some(code));
        }
        assert_eq!(Code::from_number(0), None);
    }
}
