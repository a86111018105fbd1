//! What `status` says to scripts.

use cairnfs_mount_core::Time;
use serde::Serialize;

use super::{
    found::{Found, Whole},
    free_bytes,
};
use crate::{
    control::Trouble,
    net::{PeerReport, Step},
    remarks::Found as Remarked,
    ui::PathText,
    values::hex,
    verbs::{
        Context,
        members::word,
        peers::{called, removal},
        views::View,
    },
    when,
};

/// The whole, as a document.
#[derive(Serialize)]
pub(super) struct Status {
    safe: bool,
    unsaved_bytes: u64,
    unsaved_changes: u64,
    unsaved_since: Option<String>,
    /// Why this device does not listen, if it is to.
    not_listening: Option<String>,
    /// Why nothing is mounted at start, if what is to be cannot be told.
    at_start_error: Option<String>,
    buckets: Vec<Bucket>,
}

#[derive(Serialize)]
struct Bucket {
    name: String,
    mounted: bool,
    /// Where it is mounted, or was until its daemon died.
    dir: Option<PathText>,
    dead_mount: bool,
    /// Where it was mounted, if it is no longer and still in use.
    still_in_use: Option<PathText>,
    safe: bool,
    unsaved_bytes: u64,
    unsaved_changes: u64,
    unsaved_since: Option<String>,
    last_save: Option<String>,
    last_publish: Option<String>,
    head: Option<String>,
    unpublished: Option<bool>,
    policy: Option<String>,
    read_only: Option<bool>,
    allow_other: Option<bool>,
    /// Whether it is not mounted, but kept for other devices.
    kept: bool,
    /// Why it could not be mounted when the daemon started; null if it was, or was not to be.
    at_start_error: Option<String>,
    /// Whether it was joined, and its first version has not come yet.
    awaits_first_version: bool,
    conflicts: Option<u64>,
    /// What this device may do.
    role: Option<&'static str>,
    /// Devices that have it, this one included.
    members: Option<u32>,
    /// Names of devices that are connected.
    peers_connected: Vec<String>,
    /// Names of devices that are connected and in step with this one.
    in_step_with: Vec<String>,
    /// Whether these are all that have it; null if no other device does.
    in_step: Option<bool>,
    last_contact: Option<String>,
    /// Whether this device was removed from it, as far as it was told.
    removed: bool,
    stored_bytes: u64,
    free_bytes: Option<u64>,
    /// `good`, `damaged`, `no-space` or `failed`.
    health: &'static str,
    health_reason: Option<String>,
    /// When damage was found that no check has found whole since.
    damage_found: Option<String>,
    barriers: Option<u64>,
    open_handles: Option<u64>,
    /// Versions of it that are mounted.
    views: Vec<View>,
}

pub(super) fn of(context: &Context, whole: &Whole) -> Status {
    let all = &whole.buckets;
    let mounts = || all.iter().filter_map(|one| one.mount.as_ref());
    Status {
        safe: all.iter().all(|one| one.danger().is_none()),
        unsaved_bytes: mounts().map(|mount| mount.unsaved_bytes).sum(),
        unsaved_changes: mounts().map(|mount| mount.unsaved_changes).sum(),
        unsaved_since: mounts().filter_map(|it| it.unsaved_since).min().map(when::rfc3339),
        not_listening: whole.not_listening.clone(),
        at_start_error: whole.at_start_error.clone(),
        buckets: all.iter().map(|one| bucket(context, one)).collect(),
    }
}

fn bucket(context: &Context, one: &Found) -> Bucket {
    let mount = one.mount.as_ref();
    let unreadable = one.unreadable.as_ref().or(one.unread.as_ref());
    let (health, health_reason) = match mount.and_then(|mount| mount.trouble.clone()) {
        None => match (one.loss(), &one.remarks.damage, unreadable) {
            (Some(loss), ..) => ("failed", Some(loss)),
            (None, Some(damage), _) => ("damaged", Some(damage.what.clone())),
            (None, None, Some(why)) => ("failed", Some(why.clone())),
            (None, None, None) => ("good", None),
        },
        Some(Trouble::NoSpace) => ("no-space", None),
        Some(Trouble::Poisoned(reason) | Trouble::SaveFailed(reason)) => ("failed", Some(reason)),
    };
    let dead_dir = one.dead.as_ref().map(|dead| dead.dir.clone());
    Bucket {
        name: one.name.to_string(),
        mounted: mount.is_some(),
        dir: mount.map(|it| it.dir.clone()).or(dead_dir).map(PathText),
        dead_mount: one.dead.is_some(),
        still_in_use: one.still_in_use.clone().map(PathText),
        safe: one.danger().is_none(),
        unsaved_bytes: mount.map_or(0, |it| it.unsaved_bytes),
        unsaved_changes: mount.map_or(0, |it| it.unsaved_changes),
        unsaved_since: mount.and_then(|it| it.unsaved_since).map(when::rfc3339),
        last_save: mount.and_then(|it| it.last_save).map(when::rfc3339),
        last_publish: mount.and_then(|it| it.last_publish).map(when::rfc3339),
        head: mount
            .map(|it| it.head)
            .or(one.kept.as_ref().and_then(|it| it.head))
            .map(|head| hex(&head)),
        unpublished: mount.map(|it| it.unpublished),
        policy: mount.map(|it| it.policy.clone()),
        read_only: mount.map(|it| it.read_only),
        allow_other: mount.map(|it| it.allow_other),
        kept: one.kept.is_some(),
        at_start_error: one.at_start.as_ref().map(|failed| failed.why.clone()),
        awaits_first_version: one.awaits_first_version(),
        conflicts: match (mount, &one.kept) {
            (Some(mount), _) => mount.conflicts,
            (None, kept) => kept.as_ref().and_then(|kept| kept.conflicts),
        },
        role: mount.and_then(|it| it.role).map(word),
        members: mount.map(|it| it.members),
        peers_connected: one.peers.iter().filter(|it| it.connected.is_some()).map(called).collect(),
        in_step_with: in_step_with(one).into_iter().map(called).collect(),
        in_step: (!one.peers.is_empty()).then(|| in_step_with(one).len() == one.peers.len()),
        last_contact: last_contact(&one.peers).map(when::rfc3339),
        removed: removal(&one.name, &one.peers).is_some(),
        stored_bytes: context.stored_bytes(&one.name),
        free_bytes: free_bytes(context, &one.name),
        health,
        health_reason,
        damage_found: one.remarks.damage.as_ref().and_then(Remarked::at).map(when::rfc3339),
        barriers: mount.map(|it| it.barriers),
        open_handles: mount.map(|it| it.open_handles),
        views: one.views.clone(),
    }
}

fn in_step_with(one: &Found) -> Vec<&PeerReport> {
    let is_in_step = |peer: &&PeerReport| peer.step(&one.name).is_some_and(Step::is_in_step);
    one.peers.iter().filter(is_in_step).collect()
}

fn last_contact(peers: &[PeerReport]) -> Option<Time> {
    peers.iter().filter_map(|peer| peer.last_seen).max()
}
