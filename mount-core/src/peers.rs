//! What is said about versions, members and conflicts to those who sync.

use std::{collections::BTreeSet, fmt, str::FromStr, time::SystemTime};

use cairnfs_merge::ConflictKind;
use cairnfs_store::DevicePublicKey;
use serde::{Deserialize, Serialize};

use crate::{Error, Ino, Result};

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

/// What of a device is published, at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Published {
    /// The version that it stands on, as [`Mount::head`](crate::Mount::head) has it.
    pub head: Option<VersionId>,
    /// Whether that holds all that was changed here.
    pub holds_all: bool,
}

/// What a merge did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MergeOutcome {
    /// The version that this device stands on now.
    pub head: VersionId,
    /// What kind of step it was.
    pub step: MergeStep,
    /// Conflicts in that version, whatever was changed since.
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
    /// Both sides have changes, and this device may not write: nothing was merged. One that may
    /// write has to merge the two.
    NotPermitted,
    /// Nothing was merged: a device was put back to an older state, and in their version some of its
    /// operations mean something else than here, or may: where versions were given up that cannot be
    /// told. It will see that when it merges ours, and go on under another name.
    Forgotten,
}

impl MergeStep {
    /// Whether all that is in their version is here now.
    #[must_use]
    pub fn knows_theirs(self) -> bool {
        match self {
            Self::Nothing | Self::FastForward | Self::Merged => true,
            Self::NotPermitted | Self::Forgotten => false,
        }
    }
}

/// A device that wrote something.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Author {
    /// Its key, if it is or was a member.
    pub key: Option<DevicePublicKey>,
    /// What it is called; empty if it has no name.
    pub name: String,
    /// Whether it is this device.
    pub ours: bool,
}

/// One version that takes part in a conflict.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConflictSide {
    /// The path under which it is shown.
    pub path: Vec<u8>,
    /// Its content's id; zeros for a directory.
    pub id: [u8; 32],
    /// The device that wrote it.
    pub author: Author,
    /// Whether a device, this one or another, has removed it before it saw this version, which is shown
    /// for that.
    pub removed: bool,
    /// Whether it is the newest of those that this device wrote, or of those that others wrote: by
    /// their operations, whatever clocks say.
    pub newest: bool,
    /// When it was last changed.
    #[serde(with = "crate::types::system_time")]
    pub time: SystemTime,
    /// Length in bytes.
    pub len: u64,
}

/// What was set of something on two devices, besides its content.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Setting {
    /// The path that it was moved to.
    Path(Vec<u8>),
    /// Its permissions.
    Mode(u32),
    /// The user who owns it.
    Owner(u32),
    /// Its group.
    Group(u32),
    /// The time that it is to have been changed at.
    Modified(SystemTime),
    /// An extended attribute, by its name; none if it was removed.
    Attribute(Vec<u8>, Option<Vec<u8>>),
}

impl Setting {
    fn hash(&self) -> [u8; 32] {
        let bytes = postcard::to_stdvec(self).expect("because memory takes what is written");
        *blake3::hash(&bytes).as_bytes()
    }
}

/// One of several such settings that differ.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConflictSetting {
    /// What was set.
    pub what: Setting,
    /// The device that set it.
    pub author: Author,
    /// Whether it is what is shown.
    pub shown: bool,
    /// When it was set, if that is known.
    pub time: Option<SystemTime>,
}

/// Something that was changed on two devices in different ways.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConflictInfo {
    /// The path of the contested name, without a leading slash.
    pub path: Vec<u8>,
    /// What they disagree about.
    pub kind: ConflictKind,
    /// What is shown for it, the version that has the name first.
    pub sides: Vec<ConflictSide>,
    /// What was set, of a conflict about places or attributes.
    pub settings: Vec<ConflictSetting>,
    /// Who removed what is shown as removed, if only one device can have: who did is written nowhere, but
    /// none of those that wrote what is shown.
    pub remover: Option<Author>,
    /// Other names of the same file, of which the same is to be said: what is decided under one is decided
    /// under all.
    pub other_names: Vec<OtherName>,
}

/// Another name of a contested file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OtherName {
    /// Its path, without a leading slash.
    pub path: Vec<u8>,
    /// The paths under which the versions are shown there, in the order of the conflict's sides.
    pub shown: Vec<Vec<u8>>,
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

impl ConflictInfo {
    /// Which of its sides stay if that is kept, by their places in `sides`; none if there is no such
    /// side.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for digits with which more than one begins.
    pub fn kept(&self, keep: &Keep) -> Result<Vec<usize>> {
        let of = |wanted: &dyn Fn(&ConflictSide) -> bool| -> Vec<usize> {
            let sides = self.sides.iter().enumerate();
            sides.filter(|(_, side)| wanted(side)).map(|(place, _)| place).collect()
        };
        let first = |sides: Vec<usize>| sides.into_iter().take(1).collect();
        Ok(match keep {
            // Both sides show one and the same; what they set of it is chosen by who set it.
            Keep::Ours | Keep::Theirs if !self.kind.is_of_versions() => of(&|_| true),
            Keep::Ours => first(of(&|side| side.author.ours && side.newest)),
            Keep::Theirs => first(of(&|side| !side.author.ours && side.newest)),
            Keep::Both => of(&|_| true),
            Keep::Shown => first(of(&|_| true)),
            Keep::Version(digits) => {
                let digits = digits.to_ascii_lowercase();
                let matching = of(&|side| side.id != [0; 32] && hex(&side.id).starts_with(&digits));
                if matching.len() > 1 {
                    return Err(Error::Invalid("several versions begin with these digits"));
                }
                matching
            }
        })
    }
}

/// What somebody who is about to settle a conflict knows of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    /// The ids of the versions.
    versions: BTreeSet<[u8; 32]>,
    /// Hashes of what was set: an attribute may be long.
    settings: BTreeSet<[u8; 32]>,
}

impl Seen {
    /// Takes note of what `conflict` tells.
    pub fn add(&mut self, conflict: &ConflictInfo) {
        self.versions.extend(conflict.sides.iter().map(|side| side.id));
        self.settings.extend(conflict.settings.iter().map(|setting| setting.what.hash()));
    }

    /// Takes note of the version `id`.
    pub fn add_version(&mut self, id: [u8; 32]) {
        self.versions.insert(id);
    }

    /// Whether it knows all versions and settings that take part in `conflict`.
    #[must_use]
    pub fn knows(&self, conflict: &ConflictInfo) -> bool {
        conflict.sides.iter().all(|side| self.versions.contains(&side.id))
            && conflict.settings.iter().all(|it| self.settings.contains(&it.what.hash()))
    }

    /// How many bytes it takes to pass it on.
    #[must_use]
    pub fn bytes(&self) -> usize {
        (self.versions.len() + self.settings.len()) * 32
    }
}

pub(crate) fn hex(id: &[u8; 32]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn side(id: u8, ours: bool, newest: bool) -> ConflictSide {
        ConflictSide {
            path: vec![id],
            id: [id; 32],
            author: Author { ours, ..Author::default() },
            removed: false,
            newest,
            time: SystemTime::UNIX_EPOCH,
            len: 1,
        }
    }

    #[test]
    fn versions_are_told_by_who_wrote_them_and_by_their_ids() {
        let sides = vec![side(0x1a, true, true), side(0x2a, false, false), side(0x2b, false, true)];
        let (path, kind, settings) = (b"f".to_vec(), ConflictKind::Content, Vec::new());
        let conflict =
            ConflictInfo { path, kind, sides, settings, remover: None, other_names: vec![] };
        let kept = |keep: Keep| conflict.kept(&keep).ok();
        assert_eq!(kept(Keep::Ours), Some(vec![0]));
        assert_eq!(kept(Keep::Theirs), Some(vec![2]));
        assert_eq!(kept(Keep::Both), Some(vec![0, 1, 2]));
        assert_eq!(kept(Keep::Shown), Some(vec![0]));
        assert_eq!(kept(Keep::Version("2A2A".into())), Some(vec![1]));
        assert_eq!(kept(Keep::Version("9".into())), Some(vec![]));
        assert_eq!(kept(Keep::Version("2".into())), None);
    }
}
