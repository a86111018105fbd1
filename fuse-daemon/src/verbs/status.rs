//! `cairnfs status`: first of all, is everything safe? Then how each bucket fares.

use cairnfs_mount_core::Role;
use serde::Serialize;

use super::{
    Context, in_step,
    members::word,
    peers::{called, removal},
    views::{self, View},
};
use crate::{
    cli::StatusArgs,
    control::{MountReport, StatusReport, StoredReport, Trouble},
    exit::{Code, Failure, Result},
    home::BucketName,
    net::{PeerReport, Step},
    place::{self, Listed},
    ui::{self, PathText},
    values::{Size, Span, hex},
    when,
};

/// What a daemon that died leaves behind. It alone knew whether anything was unsaved.
const LOST: &str = "its daemon died: what was not saved by then is lost";

/// The whole, as a document.
#[derive(Serialize)]
struct Status {
    safe: bool,
    unsaved_bytes: u64,
    unsaved_changes: u64,
    unsaved_since: Option<String>,
    buckets: Vec<Bucket>,
}

#[derive(Serialize)]
struct Bucket {
    name: String,
    mounted: bool,
    /// Where it is mounted, or was until its daemon died.
    dir: Option<PathText>,
    dead_mount: bool,
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
    /// `good`, `no-space` or `failed`.
    health: &'static str,
    health_reason: Option<String>,
    barriers: Option<u64>,
    open_handles: Option<u64>,
    /// Versions of it that are mounted.
    views: Vec<View>,
}

/// A bucket of the home, and its mount if it has one.
struct Found {
    name: BucketName,
    mount: Option<MountReport>,
    dead: Option<Listed>,
    /// How it is kept for other devices, if it is not mounted.
    stored: Option<StoredReport>,
    /// Versions of it that are mounted: nothing of them can be unsaved.
    views: Vec<View>,
    /// Other devices that have it, connected or not.
    peers: Vec<PeerReport>,
}

impl Found {
    /// Why not everything that was written is saved; none if it is.
    fn danger(&self) -> Option<String> {
        match (&self.mount, &self.dead) {
            (Some(mount), _) => (!mount.is_safe()).then(|| what_is_unsafe(mount)),
            (None, dead) => dead.as_ref().map(|_| LOST.to_owned()),
        }
    }
}

pub(super) fn run(context: &Context, args: &StatusArgs) -> Result<()> {
    if let Some(name) = &args.bucket {
        context.describe(name)?;
    }
    let StatusReport { mut mounts, views, stored, peers } = context.status(args.wait_safe)?;
    let mut all = Vec::new();
    for name in context.home.bucket_names()? {
        if args.bucket.as_ref().is_some_and(|wanted| *wanted != name) {
            continue;
        }
        let mount = mounts.iter().position(|mount| mount.bucket == name);
        let mount = mount.map(|index| mounts.swap_remove(index));
        // Of a version nothing can be lost.
        let is_lost = |dead: &Listed| {
            dead.bucket == name.as_str() && dead.version.is_none() && dead.is_of(&context.home)
        };
        let dead = place::dead_mounts(|dead| mount.is_none() && is_lost(dead));
        let peers = peers.iter().filter(|peer| peer.step(&name).is_some()).cloned().collect();
        let stored = stored.iter().find(|stored| stored.bucket == name).cloned();
        let views = views::of(&name, &views);
        all.push(Found { name, dead: dead.into_iter().next(), mount, stored, views, peers });
    }
    if args.json {
        ui::json(&document(context, &all))?;
    } else {
        print(context, &all);
    }
    let unsafe_one = all.iter().find_map(|one| one.danger().map(|why| (&one.name, why)));
    match unsafe_one {
        Some((name, why)) if args.wait_safe => {
            Err(Failure::new(Code::Unsaved, format_args!("bucket '{name}': {why}")))
        }
        _ => Ok(()),
    }
}

fn what_is_unsafe(mount: &MountReport) -> String {
    let unsaved = || {
        let since = mount.unsaved_since.map_or_else(String::new, |since| {
            format!(", the oldest for {}", Span(when::since(since)).about())
        });
        let bytes = Size(mount.unsaved_bytes).about();
        match mount.unsaved_changes {
            1 => format!("{bytes} in 1 change not saved yet{since}"),
            changes => format!("{bytes} in {changes} changes not saved yet{since}"),
        }
    };
    match &mount.trouble {
        None => unsaved(),
        Some(Trouble::NoSpace) if mount.is_saved() => "no space left for new writes".to_owned(),
        Some(Trouble::NoSpace) => format!("no space left, {}", unsaved()),
        Some(Trouble::Poisoned(reason)) => format!("nothing is saved any more: {reason}"),
        Some(Trouble::SaveFailed(reason)) => format!("cannot be saved: {reason}"),
    }
}

fn print(context: &Context, all: &[Found]) {
    let dangers: Vec<_> = all
        .iter()
        .filter_map(|one| one.danger().map(|why| format!("'{}': {why}", one.name)))
        .collect();
    if dangers.is_empty() {
        ui::result(format_args!("safe: {}, everything written is saved", ui::good("yes")));
    } else {
        ui::result(format_args!("safe: {}, {}", ui::bad("no"), dangers.join("; ")));
    }
    for one in all {
        ui::result("");
        match &one.mount {
            Some(mount) => print_mount(context, mount, &one.peers),
            None => {
                let size = Size(context.stored_bytes(&one.name)).about();
                let kept = if one.stored.is_some() { ", kept for other devices" } else { "" };
                ui::result(format_args!("{}: not mounted{kept}, {size} stored", one.name));
                if let Some(stored) = &one.stored {
                    print_stored(stored, &one.peers);
                }
                if let Some(dead) = &one.dead {
                    let dir = ui::shown_path(&dead.dir);
                    ui::result(format_args!(
                        "  health        {LOST}; mount it again at {dir}, or run 'cairnfs umount \
                         {dir}'"
                    ));
                }
            }
        }
        for view in &one.views {
            ui::result(format_args!("  {:<13} {}", "beside it", view.line()));
        }
    }
}

fn print_mount(context: &Context, mount: &MountReport, peers: &[PeerReport]) {
    let row = |key: &str, value: String| ui::result(format_args!("  {key:<13} {value}"));
    let place =
        if mount.detached { "unmounted by others, but still in use, at" } else { "mounted at" };
    ui::result(format_args!("{}: {place} {}", mount.bucket, ui::shown_path(&mount.dir)));
    row("last save", when::ago(mount.last_save));
    let head = hex(&mount.head[..8]);
    let more = if mount.unpublished { "; later changes are saved, not published yet" } else { "" };
    row("last publish", format!("{}, version {head}{more}", when::ago(mount.last_publish)));
    row("policy", format!("{}{}", mount.policy, read_only(mount)));
    row("peers", who_has_it(&mount.bucket, Some(mount.members), peers));
    if let Some(removal) = removal(&mount.bucket, peers) {
        row("removed", format!("{removal}: what is changed here stays here"));
    }
    row(
        "conflicts",
        match mount.conflicts {
            0 => "none".into(),
            many => format!("{many} ('cairnfs conflicts {}' shows them)", mount.bucket),
        },
    );
    let free = free_bytes(context, &mount.bucket);
    let free = free.map_or_else(String::new, |free| format!(", {} free", Size(free).about()));
    row("space", format!("{} stored{free}", Size(context.stored_bytes(&mount.bucket)).about()));
    row("health", mount.trouble.as_ref().map_or("good".into(), |_| what_is_unsafe(mount)));
}

fn print_stored(stored: &StoredReport, peers: &[PeerReport]) {
    let row = |key: &str, value: String| ui::result(format_args!("  {key:<13} {value}"));
    let version = stored.head.map_or_else(
        || "none has come yet".to_owned(),
        |head| format!("{}, {}", hex(&head[..8]), when::ago(stored.last_publish)),
    );
    row("version", version);
    row("peers", who_has_it(&stored.bucket, None, peers));
    if let Some(removal) = removal(&stored.bucket, peers) {
        row("removed", removal);
    }
    if let Some(trouble) = &stored.trouble {
        row("health", format!("nothing is saved any more: {trouble}"));
    }
}

fn read_only(mount: &MountReport) -> &'static str {
    match (mount.read_only, mount.role) {
        (true, Some(Role::Reader)) => ", read-only, as this device may only read",
        (true, None) => ", read-only, as this device was removed from the bucket",
        (true, _) => ", read-only",
        (false, _) => "",
    }
}

/// `in step with 2 devices: laptop, nas`, and what others lack.
fn who_has_it(bucket: &BucketName, members: Option<u32>, peers: &[PeerReport]) -> String {
    match members {
        _ if !peers.is_empty() => in_step::of_bucket(bucket, peers),
        Some(0 | 1) => "none: no other device has this bucket".to_owned(),
        _ => "none connected".to_owned(),
    }
}

fn last_contact(peers: &[PeerReport]) -> Option<std::time::SystemTime> {
    peers.iter().filter_map(|peer| peer.last_seen).max()
}

fn document(context: &Context, all: &[Found]) -> Status {
    let mounts = || all.iter().filter_map(|one| one.mount.as_ref());
    Status {
        safe: all.iter().all(|one| one.danger().is_none()),
        unsaved_bytes: mounts().map(|mount| mount.unsaved_bytes).sum(),
        unsaved_changes: mounts().map(|mount| mount.unsaved_changes).sum(),
        unsaved_since: mounts().filter_map(|it| it.unsaved_since).min().map(when::rfc3339),
        buckets: all.iter().map(|one| bucket(context, one)).collect(),
    }
}

fn bucket(context: &Context, one: &Found) -> Bucket {
    let mount = one.mount.as_ref();
    let (health, health_reason) = match mount.and_then(|mount| mount.trouble.clone()) {
        None if one.dead.is_some() => ("failed", Some(LOST.to_owned())),
        None => ("good", None),
        Some(Trouble::NoSpace) => ("no-space", None),
        Some(Trouble::Poisoned(reason) | Trouble::SaveFailed(reason)) => ("failed", Some(reason)),
    };
    let dead_dir = one.dead.as_ref().map(|dead| dead.dir.clone());
    Bucket {
        name: one.name.to_string(),
        mounted: mount.is_some(),
        dir: mount.map(|it| it.dir.clone()).or(dead_dir).map(PathText),
        dead_mount: one.dead.is_some(),
        safe: one.danger().is_none(),
        unsaved_bytes: mount.map_or(0, |it| it.unsaved_bytes),
        unsaved_changes: mount.map_or(0, |it| it.unsaved_changes),
        unsaved_since: mount.and_then(|it| it.unsaved_since).map(when::rfc3339),
        last_save: mount.and_then(|it| it.last_save).map(when::rfc3339),
        last_publish: mount.and_then(|it| it.last_publish).map(when::rfc3339),
        head: mount
            .map(|it| it.head)
            .or(one.stored.as_ref().and_then(|it| it.head))
            .map(|head| hex(&head)),
        unpublished: mount.map(|it| it.unpublished),
        policy: mount.map(|it| it.policy.clone()),
        read_only: mount.map(|it| it.read_only),
        allow_other: mount.map(|it| it.allow_other),
        kept: one.stored.is_some(),
        conflicts: mount.map(|it| it.conflicts).or(one.stored.as_ref().map(|it| it.conflicts)),
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
        barriers: mount.map(|it| it.barriers),
        open_handles: mount.map(|it| it.open_handles),
        views: one.views.clone(),
    }
}

fn in_step_with(one: &Found) -> Vec<&PeerReport> {
    let is_in_step = |peer: &&PeerReport| peer.step(&one.name).is_some_and(Step::is_in_step);
    one.peers.iter().filter(is_in_step).collect()
}

/// Free bytes of the disk that the bucket lies on.
fn free_bytes(context: &Context, bucket: &BucketName) -> Option<u64> {
    let stat = rustix::fs::statvfs(context.home.bucket_dir(bucket)).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}
