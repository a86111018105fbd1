//! What is said about conflicts, members and peers.

use cairnfs_mount_core::{ConflictInfo, Keep, Member, Role, Settings};
use serde::{Deserialize, Serialize};

use super::Opening;

/// A conflict to settle, or many.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ResolveRequest {
    /// The bucket and what opens it.
    pub(crate) opening: Opening,
    /// The contested names.
    pub(crate) paths: Vec<Vec<u8>>,
    /// What is to stay.
    pub(crate) keep: Keep,
}

/// A member to take the bucket from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RemoveRequest {
    /// The bucket and what opens it.
    pub(crate) opening: Opening,
    /// The member.
    pub(crate) member: Member,
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
    /// What conflicts still, of all that was named.
    pub(crate) left: Vec<ConflictInfo>,
}
