//! What is said about versions, members and conflicts to those who sync.

use std::{fmt, str::FromStr, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::Ino;

/// The id of a version: the name of its manifest's blob, the same on every device.
pub type VersionId = [u8; 32];

/// How a conflict is treated; see `cairnfs_merge::Strategy`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub enum Strategy {
    /// The losing version is shown beside the other, as `name@<8 hex>`.
    #[default]
    ConflictFile,
    /// The latest version counts.
    LastWriteWins,
    /// The version of the device that merges counts.
    BaseWins,
    /// As [`Self::ConflictFile`].
    Fork,
    /// Edits of different lines of a text are put together; else as [`Self::ConflictFile`].
    MergeText,
}

/// A word that names no strategy.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{0}' is no strategy: use conflict-file, last-write-wins, base-wins, fork or merge-text")]
pub struct ParseStrategyError(String);

impl Strategy {
    const ALL: [Self; 5] =
        [Self::ConflictFile, Self::LastWriteWins, Self::BaseWins, Self::Fork, Self::MergeText];
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConflictFile => "conflict-file",
            Self::LastWriteWins => "last-write-wins",
            Self::BaseWins => "base-wins",
            Self::Fork => "fork",
            Self::MergeText => "merge-text",
        })
    }
}

impl FromStr for Strategy {
    type Err = ParseStrategyError;

    fn from_str(word: &str) -> Result<Self, ParseStrategyError> {
        let found = Self::ALL.into_iter().find(|strategy| strategy.to_string() == word);
        found.ok_or_else(|| ParseStrategyError(word.to_owned()))
    }
}

/// How a bucket treats conflicts; the same on every device, as it is part of each version.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Settings {
    /// What applies where no rule does.
    pub strategy: Strategy,
    /// Globs over paths, the first that matches applies.
    pub rules: Vec<(String, Strategy)>,
}

/// What a merge did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MergeOutcome {
    /// The version that this device stands on now.
    pub head: VersionId,
    /// What kind of step it was.
    pub step: MergeStep,
    /// Conflicts in the tree now.
    pub conflicts: u64,
}

/// What kind of step a merge was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MergeStep {
    /// Everything was known already.
    Nothing,
    /// Nothing was changed here since: their version was taken as it is.
    FastForward,
    /// Both sides had changes.
    Merged,
}

/// One version that takes part in a conflict.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConflictSide {
    /// The path under which it is shown.
    pub path: Vec<u8>,
    /// Its content's id; zeros for a directory.
    pub id: [u8; 32],
    /// The device that wrote it, if it is or was a member.
    pub author: Option<[u8; 32]>,
    /// What that device is called; empty if it has no name.
    pub author_name: String,
    /// Whether this device wrote it.
    pub ours: bool,
    /// When it was last changed.
    pub time: SystemTime,
    /// Length in bytes.
    pub len: u64,
}

/// Something that was changed on two devices in different ways.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConflictInfo {
    /// The path of the contested name, without a leading slash.
    pub path: Vec<u8>,
    /// `content`, `name`, `type`, `rename`, `cycle`, `delmod`, `deladd`, `meta`, `clash` or
    /// `orphan`.
    pub kind: String,
    /// What is shown for it, the version that has the name first.
    pub sides: Vec<ConflictSide>,
}

/// Which version of a conflict is to stay.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Keep {
    /// The newest one that this device wrote.
    Ours,
    /// The newest one that another device wrote.
    Theirs,
    /// All, each as a file of its own.
    Both,
    /// The one that has the name.
    Shown,
    /// The one whose content's id begins with these hex digits.
    Version(String),
}

/// What the kernel must no longer believe after a merge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outdated {
    /// Attributes and pages of an inode.
    Inode(Ino),
    /// What a name means.
    Name {
        /// The directory.
        dir: Ino,
        /// The name.
        name: Vec<u8>,
    },
    /// A name that has gone, and what it meant.
    Gone {
        /// The directory.
        dir: Ino,
        /// The name.
        name: Vec<u8>,
        /// What it meant.
        ino: Ino,
    },
}

/// Hears of what the writer does. Called while locks of the mount are held: must return at once,
/// and call no method of the mount.
pub trait Observer: Send + Sync {
    /// There is a new version, and it is durable.
    fn head_changed(&self, _head: VersionId) {}
    /// These have changed in a way that the kernel cannot know of. Heard before anybody can see it.
    fn outdated(&self, _what: Vec<Outdated>) {}
}
