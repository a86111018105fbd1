//! What is said over the socket.

use std::{path::PathBuf, time::Duration};

use cairnfs_mount_core::{
    ConflictInfo, Options, Owner, PastEntry, SavePolicy, Settings, Time, Which,
};
use serde::{Deserialize, Serialize};

use super::{
    path_bytes,
    report::{StatusReport, VersionReport, ViewReport},
    sharing::{
        ConflictsRequest, DropRequest, FindInviterRequest, InviteRequest, JoinRequest, Loss,
        MembersReport, PeersReport, RejoinRequest, ResolveRequest, Resolved, SetMemberRequest,
        SettingsRequest, SyncRequest,
    },
};
use crate::{
    exit::Failure,
    home::BucketName,
    net::{Invite, Inviter, JoinProgress, SyncOutcome, SyncProgress},
    secret::Secret,
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
    /// Change what a device may do in a bucket, or remove it.
    SetMember(SetMemberRequest),
    /// Invite a device.
    Invite(InviteRequest),
    /// Take an invitation.
    Join(JoinRequest),
    /// Find the device again that made a ticket.
    FindInviter(FindInviterRequest),
    /// Bring a bucket anew.
    Rejoin(RejoinRequest),
    /// Which devices are there?
    Peers,
    /// Wait until what is here and there has met.
    Sync(SyncRequest),
    /// Change a bucket's passphrase.
    ChangePassphrase(ChangePassphraseRequest),
    /// Take a bucket off this device.
    Drop(DropRequest),
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
    /// As whom the owner is shown; else as where the bucket is mounted.
    pub(crate) owner: Owner,
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
    /// As whom the owner is shown.
    pub(crate) owner: Owner,
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
            owner: options.owner,
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
            owner: self.owner,
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
    /// The versions that were asked for are all told.
    Logged {
        /// Whether something has changed that is in none yet.
        unpublished: bool,
    },
    /// The id of the version.
    Published([u8; 32]),
    /// The version that was read: its id, and when it was published.
    Restored([u8; 32], Time),
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
    /// The device that made the ticket.
    InviterFound(Inviter),
    /// What was lost, or would be.
    Rejoined(Loss),
    /// The devices there are.
    Peers(PeersReport),
    /// With whom all has met.
    Synced(SyncOutcome),
}
