//! What is said over the socket.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use cairnfs_mount_core::{
    ConflictInfo, Health, Mount, Options, PastEntry, PathChange, Role, SavePolicy, Settings,
    Version, Which,
};
use serde::{Deserialize, Serialize};

use super::{
    path_bytes,
    sharing::{
        ConflictsRequest, InviteRequest, JoinRequest, Loss, MembersReport, PeersReport,
        RejoinRequest, RemoveRequest, ResolveRequest, Resolved, SettingsRequest, StoredReport,
        SyncRequest,
    },
};
use crate::{
    exit::Failure,
    home::BucketName,
    net::{Invite, JoinProgress, PeerReport, SyncOutcome, SyncProgress},
    secret::Secret,
    values::hex,
    when,
};

/// What a verb asks of the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Save, publish and unmount everything, then end.
    Stop,
    /// How are the mounts?
    Status {
        /// Save everything first.
        save: bool,
    },
    /// Mount a bucket.
    Mount(MountRequest),
    /// Mount an older version of a bucket.
    View(ViewRequest),
    /// Answer when what is mounted there has ended.
    AwaitEnd(#[serde(with = "path_bytes")] PathBuf),
    /// Unmount a directory.
    Unmount(UnmountRequest),
    /// The versions of a bucket.
    Log(LogRequest),
    /// What does an older version hold?
    Restore(RestoreRequest),
    /// Seal a version.
    Publish(Opening),
    /// Verify a bucket.
    Check(CheckRequest),
    /// What conflicts in a bucket.
    Conflicts(ConflictsRequest),
    /// Settle conflicts.
    Resolve(ResolveRequest),
    /// How are conflicts treated?
    Settings(Opening),
    /// Treat them so.
    SetSettings(SettingsRequest),
    /// Who has a bucket?
    Members(Opening),
    /// Take a bucket from a device.
    Remove(RemoveRequest),
    /// Invite a device.
    Invite(InviteRequest),
    /// Take an invitation.
    Join(JoinRequest),
    /// Bring a bucket anew.
    Rejoin(RejoinRequest),
    /// Which devices are there?
    Peers,
    /// Wait until what is here and there has met.
    Sync(SyncRequest),
    /// Change a bucket's passphrase.
    ChangePassphrase(ChangePassphraseRequest),
}

/// A bucket and what opens it, if it is not open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Opening {
    /// The bucket.
    pub(crate) bucket: BucketName,
    /// Its passphrase.
    pub(crate) secret: Option<Secret>,
}

/// A bucket whose passphrase is to change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ChangePassphraseRequest {
    /// The bucket and its present passphrase, also if it is open.
    pub(crate) opening: Opening,
    /// The one that is to protect it; none for a key file only.
    pub(crate) new: Option<Secret>,
}

/// A mount to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MountRequest {
    /// The bucket and what opens it.
    pub(crate) opening: Opening,
    /// Where; absolute.
    #[serde(with = "path_bytes")]
    pub(crate) dir: PathBuf,
    /// How it is to be served.
    pub(crate) how: How,
}

/// A version to mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ViewRequest {
    /// The bucket and what opens it.
    pub(crate) opening: Opening,
    /// The version.
    pub(crate) which: Which,
    /// Where; absolute.
    #[serde(with = "path_bytes")]
    pub(crate) dir: PathBuf,
    /// Memory for what was read, if the bucket is not open already.
    pub(crate) cache_bytes: u64,
    /// Let other users in.
    pub(crate) allow_other: bool,
    /// Options for FUSE.
    pub(crate) fuse: Vec<String>,
}

/// How a mount is to be served.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct How {
    /// The save policy, as text.
    pub(crate) save: String,
    /// Memory for what was read.
    pub(crate) cache_bytes: u64,
    /// Memory for what is not saved yet.
    pub(crate) dirty_bytes: u64,
    /// Publish after this long without a change.
    pub(crate) publish_quiet: Duration,
    /// Publish at the latest after this long.
    pub(crate) publish_max: Duration,
    /// Refuse every change.
    pub(crate) read_only: bool,
    /// Let other users in.
    pub(crate) allow_other: bool,
    /// Options for FUSE.
    #[serde(default)]
    pub(crate) fuse: Vec<String>,
}

impl How {
    /// Options for the file system, and those for FUSE.
    pub(crate) fn new(options: &Options, allow_other: bool, fuse: Vec<String>) -> Self {
        Self {
            save: options.policy.to_string(),
            cache_bytes: options.limits.cache_bytes,
            dirty_bytes: options.limits.dirty_bytes,
            publish_quiet: options.publish_quiet,
            publish_max: options.publish_max,
            read_only: options.read_only,
            allow_other,
            fuse,
        }
    }

    /// The part that the file system needs.
    pub(crate) fn options(&self) -> Result<Options, Failure> {
        let policy: SavePolicy = self.save.parse().map_err(Failure::usage)?;
        Ok(Options {
            policy,
            limits: cairnfs_mount_core::Limits {
                cache_bytes: self.cache_bytes,
                dirty_bytes: self.dirty_bytes,
            },
            read_only: self.read_only,
            publish_quiet: self.publish_quiet,
            publish_max: self.publish_max,
        })
    }
}

/// A mount to end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UnmountRequest {
    /// Where; absolute.
    #[serde(with = "path_bytes")]
    pub(crate) dir: PathBuf,
    /// Give up after this long.
    pub(crate) timeout: Option<Duration>,
    /// Go on although something cannot be saved.
    pub(crate) discard: bool,
    /// If it is busy, take it out of sight and end it when the last user has gone.
    pub(crate) detach_busy: bool,
}

/// Versions to list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LogRequest {
    /// The bucket and what opens it.
    pub(crate) opening: Opening,
    /// Only those that changed this path.
    pub(crate) path: Option<Vec<u8>>,
    /// At most so many.
    pub(crate) limit: u32,
    /// At most so many changed paths of each.
    pub(crate) max_changes: u32,
}

/// Something to be read from an older version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RestoreRequest {
    /// The bucket and what opens it.
    pub(crate) opening: Opening,
    /// The version.
    pub(crate) which: Which,
    /// What of it, with all that is below; all if empty.
    pub(crate) path: Vec<u8>,
    /// It is to go where it was: what is there is to be a version before, and the folders above are
    /// told first.
    pub(crate) in_place: bool,
    /// Not only names, attributes and lengths.
    pub(crate) contents: bool,
}

/// A bucket to verify.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CheckRequest {
    /// The bucket and what opens it.
    pub(crate) opening: Opening,
    /// Make good what can be made good: of a mounted bucket from other devices, else from what is
    /// there.
    pub(crate) repair: Option<Repair>,
}

/// How to repair.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Repair {
    /// Only say what would be done.
    Plan,
    /// Do it.
    Do,
}

/// What the daemon says while it works, and at last.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// Still at it.
    Progress(Progress),
    /// Something that the person should know, one line.
    Note(String),
    /// One version.
    Version(VersionReport),
    /// Something damaged: the path, unless no path leads to it, and what is wrong.
    Damage(Option<Vec<u8>>, String),
    /// Something that conflicts.
    Conflict(Box<ConflictInfo>),
    /// What was there is in this version.
    Kept([u8; 32]),
    /// The next name of an older version.
    Past(Box<PastEntry>),
    /// Content of the file named last.
    Bytes {
        /// Where in the file it belongs.
        offset: u64,
        /// What stands there.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// Nothing follows.
    End(Result<Answer, Failure>),
}

/// How far something is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Progress {
    /// A last save.
    Saving {
        /// The bucket.
        bucket: BucketName,
        /// Not durable yet.
        unsaved_bytes: u64,
    },
    /// Verifying.
    Checking {
        /// Bytes read.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Becoming a member.
    Joining(JoinProgress),
    /// Meeting others.
    Syncing(SyncProgress),
}

/// What a request comes to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It is done.
    Done,
    /// The mounts there are.
    Status(StatusReport),
    /// The id of the version.
    Published([u8; 32]),
    /// The version that was read: its id, and when it was published.
    Restored([u8; 32], SystemTime),
    /// The version that is shown.
    Viewed(ViewReport),
    /// What became of conflicts.
    Resolved(Resolved),
    /// How conflicts are treated.
    Settings(Settings),
    /// Who has the bucket.
    Members(MembersReport),
    /// The invitation.
    Invite(Invite),
    /// What the bucket is called here.
    Joined(BucketName),
    /// What was lost, or would be.
    Rejoined(Loss),
    /// The devices there are.
    Peers(PeersReport),
    /// With whom all has met.
    Synced(SyncOutcome),
}

/// All mounts, and who else is there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct StatusReport {
    /// By bucket.
    pub(crate) mounts: Vec<MountReport>,
    /// Versions that are mounted.
    pub(crate) views: Vec<ViewReport>,
    /// What is kept for other devices only.
    pub(crate) stored: Vec<StoredReport>,
    /// Connected or not.
    pub(crate) peers: Vec<PeerReport>,
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
    pub(crate) time: SystemTime,
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
    pub(crate) unsaved_since: Option<SystemTime>,
    /// The last save.
    pub(crate) last_save: Option<SystemTime>,
    /// The last version.
    pub(crate) last_publish: Option<SystemTime>,
    /// Its id.
    pub(crate) head: [u8; 32],
    /// Whether saved changes wait to be published.
    pub(crate) unpublished: bool,
    /// Names that conflict.
    pub(crate) conflicts: u64,
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
            unsaved_since: status.unsaved_since,
            last_save: status.last_save,
            last_publish: status.last_publish,
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
    pub(crate) time: SystemTime,
    /// The key of the device that published it.
    pub(crate) author: [u8; 32],
    /// What that device is called, if it is a member and has a name.
    pub(crate) author_name: String,
    /// The versions that it follows from; several for a merge.
    pub(crate) parents: Vec<[u8; 32]>,
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
            time: version.time,
            author: version.author,
            author_name,
            parents: version.parents,
            changes: changes.collect(),
            more_changes: version.more_changes,
        }
    }
}
