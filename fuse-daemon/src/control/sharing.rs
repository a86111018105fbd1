//! What is said about conflicts, members and peers.

use std::{collections::BTreeMap, fmt, net::SocketAddr, time::Duration};

use cairnfs_mount_core::{ConflictInfo, Health, Keep, Member, Mount, Role, Seen, Settings, Time};
use serde::{Deserialize, Serialize};

use super::Opening;
use crate::{home::BucketName, net::PeerReport, secret::Secret};

/// Conflicts to tell of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ConflictsRequest {
    /// The bucket and what opens it.
    pub(crate) opening: Opening,
    /// Only those that have something at this path or below it.
    pub(crate) path: Option<Vec<u8>>,
    /// They are to be settled: what is written and in no version yet takes part, in a new version.
    pub(crate) to_settle: bool,
}

/// A conflict to settle, or many.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ResolveRequest {
    /// The bucket and what opens it.
    pub(crate) opening: Opening,
    /// The contested names, and what who decides has seen of each.
    pub(crate) seen: BTreeMap<Vec<u8>, Seen>,
    /// What is to stay.
    pub(crate) keep: Keep,
}

/// A member that may do something else from now on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SetMemberRequest {
    /// The bucket and what opens it.
    pub(crate) opening: Opening,
    /// The member, as it is.
    pub(crate) member: Member,
    /// What it is to be; none if it is to be removed.
    pub(crate) role: Option<Role>,
}

/// How conflicts are to be treated from now on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SettingsRequest {
    /// The bucket and what opens it.
    pub(crate) opening: Opening,
    /// All of them, rules included.
    pub(crate) settings: Settings,
}

/// Who has a bucket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MembersReport {
    /// By key.
    pub(crate) members: Vec<Member>,
    /// What this device may do.
    pub(crate) role: Option<Role>,
}

/// What became of conflicts that were to be settled.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Resolved {
    /// So many are settled.
    pub(crate) settled: u32,
    /// Names under which more took part than was seen: nothing of them was changed.
    pub(crate) changed: Vec<Vec<u8>>,
    /// What else conflicts still, of all that was named.
    pub(crate) left: Vec<ConflictInfo>,
}

/// An invitation to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct InviteRequest {
    /// A bucket that is mounted.
    pub(crate) bucket: BucketName,
    /// What the other device may do.
    pub(crate) role: Role,
    /// For how long it is good.
    pub(crate) lifetime: Duration,
    /// How many devices may use it.
    pub(crate) uses: u32,
}

/// An invitation to take.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct JoinRequest {
    /// The ticket.
    pub(crate) ticket: Secret,
    /// What to call the bucket here; what it is called there, if nobody says.
    pub(crate) name: Option<BucketName>,
    /// The passphrase that is to protect it here; none for a key file.
    pub(crate) secret: Option<Secret>,
}

/// The device that made a ticket, to be found again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FindInviterRequest {
    /// The ticket.
    pub(crate) ticket: Secret,
    /// The bucket, which is here already, and what opens it.
    pub(crate) opening: Opening,
}

/// A bucket to bring anew.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RejoinRequest {
    /// The bucket and what opens it.
    pub(crate) opening: Opening,
    /// Also if something may be lost.
    pub(crate) force: bool,
    /// Find out whether something may be lost, and change nothing.
    pub(crate) dry_run: bool,
}

/// A bucket to take off this device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DropRequest {
    /// The bucket and what opens it; not needed if it is forced.
    pub(crate) opening: Opening,
    /// Also if something may be lost.
    pub(crate) force: bool,
    /// Find out whether something may be lost, and change nothing.
    pub(crate) dry_run: bool,
}

/// What no other device is known to have, of those that can be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Loss {
    /// Changes that no version holds yet.
    pub(crate) changes: bool,
    /// The newest version.
    pub(crate) newest: bool,
    /// So many of the versions before it.
    pub(crate) older: u64,
}

impl Loss {
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes = self.changes.then(|| "what was changed since the newest version".to_owned());
        let newest = self.newest.then(|| "the newest version".to_owned());
        let older = match self.older {
            0 => None,
            1 => Some("1 older version".to_owned()),
            more => Some(format!("{more} older versions")),
        };
        let parts: Vec<_> = [changes, newest, older].into_iter().flatten().collect();
        f.write_str(&parts.join(" and "))
    }
}

/// Peers to meet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SyncRequest {
    /// One bucket and what opens it; all that are mounted, if nobody says.
    pub(crate) opening: Option<Opening>,
    /// Give up after this long.
    pub(crate) timeout: Option<Duration>,
}

/// The devices that share something with this one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PeersReport {
    /// Where this device is reached, if it is.
    pub(crate) listening: Option<SocketAddr>,
    /// Why it is not, if it is to be.
    pub(crate) not_listening: Option<String>,
    /// All of them, connected or not.
    pub(crate) peers: Vec<PeerReport>,
}

/// A bucket that is not mounted, but kept for other devices.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct KeptReport {
    /// The bucket.
    pub(crate) bucket: BucketName,
    /// The last version; none before the first one has come.
    pub(crate) head: Option<[u8; 32]>,
    /// When it was made or came in.
    pub(crate) last_publish: Option<Time>,
    /// Conflicts: a file with several names counts once. `None` if the tree cannot be read.
    pub(crate) conflicts: Option<u64>,
    /// Why nothing more is saved, if that is so.
    pub(crate) trouble: Option<String>,
}

impl KeptReport {
    /// The report of one bucket.
    pub(crate) fn new(bucket: BucketName, mount: &Mount) -> Self {
        let status = mount.status();
        Self {
            bucket,
            head: mount.head(),
            last_publish: status.last_publish.map(Time::from),
            conflicts: status.conflicts,
            trouble: match status.health {
                Health::Good => None,
                Health::NoSpace => Some("no space left".to_owned()),
                Health::Poisoned { reason } => Some(reason),
            },
        }
    }
}
