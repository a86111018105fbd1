//! What is said of mounts and versions.

use std::{collections::BTreeMap, path::PathBuf};

use cairnfs_mount_core::{Health, Mount, PathChange, Role, Time, Version};
use cairnfs_store::DevicePublicKey;
use serde::{Deserialize, Serialize};

use super::{path_bytes, sharing::KeptReport};
use crate::{home::BucketName, net::PeerReport, remarks::Found, values::hex, when};

/// All mounts, and who else is there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct StatusReport {
    /// By bucket.
    pub(crate) mounts: Vec<MountReport>,
    /// Versions that are mounted.
    pub(crate) views: Vec<ViewReport>,
    /// What is mounted no longer, but still in use.
    pub(crate) lingering: Vec<LingeringReport>,
    /// What is kept for other devices only.
    pub(crate) kept: Vec<KeptReport>,
    /// What was to be mounted when the daemon started, and could not be.
    pub(crate) failed_at_start: Vec<AtStartReport>,
    /// What mounts that ended could not save.
    pub(crate) lost: BTreeMap<BucketName, Found>,
    /// Connected or not.
    pub(crate) peers: Vec<PeerReport>,
    /// Why nothing listens, if it is to.
    pub(crate) not_listening: Option<String>,
    /// Buckets for which the daemon was given a passphrase when it was started.
    pub(crate) credentials: Vec<BucketName>,
}

/// A bucket that was unmounted, and is still in use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LingeringReport {
    /// The bucket.
    pub(crate) bucket: BucketName,
    /// Where it was mounted.
    #[serde(with = "path_bytes")]
    pub(crate) dir: PathBuf,
}

/// A mount that the daemon could not make when it started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AtStartReport {
    /// The bucket.
    pub(crate) bucket: BucketName,
    /// Where.
    #[serde(with = "path_bytes")]
    pub(crate) dir: PathBuf,
    /// When it was tried.
    pub(crate) at: Time,
    /// What failed.
    pub(crate) why: String,
}

/// A version that is mounted, as `status` and `list` show it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ViewReport {
    /// The bucket.
    pub(crate) bucket: BucketName,
    /// Where.
    #[serde(with = "path_bytes")]
    pub(crate) dir: PathBuf,
    /// Whether somebody took it out of the file tree, where it is still in use.
    pub(crate) detached: bool,
    /// The version's id.
    pub(crate) version: [u8; 32],
    /// When it was published.
    pub(crate) time: Time,
}

impl ViewReport {
    /// `version 015123ebb9dfd241 (2026-11-22 14:23:56)`
    pub(crate) fn version(&self) -> String {
        format!("version {} ({})", hex(&self.version[..8]), when::local(self.time))
    }
}

/// A mount as `status` and `list` show it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MountReport {
    /// The bucket.
    pub(crate) bucket: BucketName,
    /// Where.
    #[serde(with = "path_bytes")]
    pub(crate) dir: PathBuf,
    /// Whether somebody took it out of the file tree, where it is still in use.
    pub(crate) detached: bool,
    /// Whether other users are let in.
    pub(crate) allow_other: bool,
    /// The save policy, as text.
    pub(crate) policy: String,
    /// Whether changes are refused.
    pub(crate) read_only: bool,
    /// What this device may do; none if it is no member any more.
    pub(crate) role: Option<Role>,
    /// Devices that have the bucket, this one included.
    pub(crate) members: u32,
    /// Bytes not durable yet.
    pub(crate) unsaved_bytes: u64,
    /// Changes not durable yet.
    pub(crate) unsaved_changes: u64,
    /// When the oldest of them was made.
    pub(crate) unsaved_since: Option<Time>,
    /// The last save.
    pub(crate) last_save: Option<Time>,
    /// The last version.
    pub(crate) last_publish: Option<Time>,
    /// Its id.
    pub(crate) head: [u8; 32],
    /// Whether saved changes wait to be published.
    pub(crate) unpublished: bool,
    /// Conflicts: a file with several names counts once. `None` if the tree cannot be read.
    pub(crate) conflicts: Option<u64>,
    /// Why saves do not reach the disk, if they do not.
    pub(crate) trouble: Option<Trouble>,
    /// Barriers since it was mounted.
    pub(crate) barriers: u64,
    /// Open files and directories.
    pub(crate) open_handles: u64,
}

/// Why saves do not reach the disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Trouble {
    /// The disk is full: writes are refused, and what is dirty, if anything is, waits in memory.
    NoSpace,
    /// A write or barrier failed, with this reason; nothing more is saved.
    Poisoned(String),
    /// The save that was asked for failed.
    SaveFailed(String),
}

/// What the kernel was told when it mounted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KernelOptions {
    /// Refuse every change.
    pub(crate) read_only: bool,
    /// Let other users in.
    pub(crate) allow_other: bool,
}

impl MountReport {
    /// The report of one mount.
    pub(crate) fn new(
        bucket: BucketName,
        dir: PathBuf,
        detached: bool,
        kernel: KernelOptions,
        mount: &Mount,
    ) -> Self {
        let (status, role) = (mount.status(), mount.role());
        Self {
            bucket,
            dir,
            detached,
            allow_other: kernel.allow_other,
            policy: status.policy.to_string(),
            read_only: status.read_only || kernel.read_only,
            role,
            members: u32::try_from(mount.members().len()).unwrap_or(u32::MAX),
            unsaved_bytes: status.unsaved_bytes,
            unsaved_changes: status.unsaved_changes,
            unsaved_since: status.unsaved_since.map(Time::from),
            last_save: status.last_save.map(Time::from),
            last_publish: status.last_publish.map(Time::from),
            head: status.head,
            unpublished: status.unpublished,
            conflicts: status.conflicts,
            trouble: match &status.health {
                Health::Good => None,
                Health::NoSpace => Some(Trouble::NoSpace),
                Health::Poisoned { reason } => Some(Trouble::Poisoned(reason.clone())),
            },
            barriers: status.barriers,
            open_handles: status.open_handles,
        }
    }

    /// Whether everything written is durable. What is refused for want of space is not written.
    pub(crate) fn is_safe(&self) -> bool {
        self.is_saved() && matches!(self.trouble, None | Some(Trouble::NoSpace))
    }

    /// Whether nothing waits to be saved.
    pub(crate) fn is_saved(&self) -> bool {
        self.unsaved_bytes == 0 && self.unsaved_changes == 0
    }
}

/// A version as `log` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct VersionReport {
    /// Its id.
    pub(crate) id: [u8; 32],
    /// When it was published.
    pub(crate) time: Time,
    /// The key of the device that published it.
    pub(crate) author: DevicePublicKey,
    /// What that device is called, if it is a member and has a name.
    pub(crate) author_name: String,
    /// The versions that it follows from; several for a merge.
    pub(crate) parents: Vec<[u8; 32]>,
    /// Whether all that it holds is on this device.
    pub(crate) is_whole: bool,
    /// `+` added, `~` changed, `-` removed, and the path.
    pub(crate) changes: Vec<(char, Vec<u8>)>,
    /// Whether there are more.
    pub(crate) more_changes: bool,
}

impl VersionReport {
    /// The report of one version, whose author is called `author_name`.
    pub(crate) fn new(version: Version, author_name: String) -> Self {
        let changes = version.changes.into_iter().map(|changed| {
            let sign = match changed.change {
                PathChange::Added => '+',
                PathChange::Changed => '~',
                PathChange::Removed => '-',
            };
            (sign, changed.path)
        });
        Self {
            id: version.id,
            time: version.time.into(),
            author: version.author,
            author_name,
            parents: version.parents,
            is_whole: version.is_whole,
            changes: changes.collect(),
            more_changes: version.more_changes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_may_be_of_before_1970() {
        let time = Time { seconds: -14_182_940, nanos: 500_000_000 };
        let at = AtStartReport {
            bucket: "b".parse().unwrap(),
            dir: "/".into(),
            at: time,
            why: "".into(),
        };
        let told = postcard::to_stdvec(&at).unwrap();
        assert_eq!(super::super::decode::<AtStartReport>(&told).unwrap().at, time);
    }
}
