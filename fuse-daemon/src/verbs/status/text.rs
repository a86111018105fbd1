//! What `status` says to people.

use std::fmt::Display;

use cairnfs_mount_core::{Role, Time};

use super::{
    found::{DIED, Found, Whole, what_is_unsafe},
    free_bytes,
};
use crate::{
    control::{AtStartReport, KeptReport, MountReport},
    home::BucketName,
    net::PeerReport,
    remarks::Found as Remarked,
    ui,
    values::{Size, hex},
    verbs::{
        Context, in_step,
        peers::{not_listening, removal, removal_of_mount},
    },
    when,
};

pub(super) fn print(context: &Context, whole: &Whole) {
    let all = &whole.buckets;
    let dangers: Vec<_> = all
        .iter()
        .filter_map(|one| one.danger().map(|why| format!("'{}': {why}", one.name)))
        .collect();
    let is_damaged = |one: &&Found| one.remarks.damage.is_some();
    let damaged: Vec<_> =
        all.iter().filter(is_damaged).map(|one| format!("'{}'", one.name)).collect();
    if !dangers.is_empty() {
        ui::result(format_args!("safe: {}, {}", ui::bad("no"), dangers.join("; ")));
    } else if damaged.is_empty() {
        ui::result(format_args!("safe: {}, everything written is saved", ui::good("yes")));
    } else {
        let damaged = damaged.join(", ");
        let yes = ui::good("yes");
        ui::result(format_args!("safe: {yes}, everything written is saved; damaged: {damaged}"));
    }
    if let Some(why) = &whole.not_listening {
        ui::result(not_listening(why));
    }
    if let Some(why) = &whole.at_start_error {
        ui::result(format_args!("nothing is mounted at start: {}", ui::shown(why.as_bytes())));
    }
    for one in all {
        ui::result("");
        match &one.mount {
            Some(mount) => print_mount(context, mount, one),
            None => {
                let size = Size(context.stored_bytes(&one.name)).about();
                let state = match (&one.still_in_use, &one.kept) {
                    (Some(dir), _) => {
                        format!("unmounted, but still in use, at {}", ui::shown_path(dir))
                    }
                    (None, Some(_)) => "not mounted, kept for other devices".to_owned(),
                    (None, None) => "not mounted".to_owned(),
                };
                ui::result(format_args!("{}: {state}, {size} stored", one.name));
                if let Some(kept) = &one.kept {
                    print_kept(kept, &one.peers);
                } else if one.awaits_first_version() {
                    row("version", none_yet(&one.name));
                }
                if let Some(AtStartReport { dir, at, why, .. }) = &one.at_start {
                    let (dir, ago) = (ui::shown_path(dir), when::ago(Some(*at)));
                    row("at start", format!("could not be mounted at {dir}, {ago}: {why}"));
                }
                if let Some(damage) = &one.remarks.damage {
                    row("health", what_is_damaged(&one.name, damage));
                }
                if let Some(why) = &one.unreadable {
                    row("health", why);
                }
                if let Some(why) = &one.unread {
                    row("health", what_was_found(&one.name, why));
                }
                if let Some(dead) = &one.dead {
                    let dir = ui::shown_path(&dead.dir);
                    row(
                        "health",
                        format!("{DIED}; mount it again at {dir}, or run 'cairnfs umount {dir}'"),
                    );
                } else if let Some(loss) = one.loss() {
                    row("health", loss);
                }
            }
        }
        for view in &one.views {
            row("beside it", view.line());
        }
    }
}

fn row(key: &str, value: impl Display) {
    ui::result(format_args!("  {key:<13} {value}"));
}

/// What was found, when, and what to do.
fn what_is_damaged(bucket: &BucketName, damage: &Remarked) -> String {
    format!(
        "damaged: {}, found {}; 'cairnfs check {bucket}' says where, and with --repair it fetches \
         from other devices what they have whole",
        damage.what,
        when::ago(damage.at())
    )
}

/// Of a bucket whose remarks cannot be read, for this reason.
fn what_was_found(bucket: &BucketName, why: &str) -> String {
    let why = ui::shown(why.as_bytes());
    format!(
        "what was found of it before cannot be told: {why}; remove that file, and run 'cairnfs check \
         {bucket}'"
    )
}

fn print_mount(context: &Context, mount: &MountReport, found: &Found) {
    let peers = &found.peers;
    let place =
        if mount.detached { "unmounted by others, but still in use, at" } else { "mounted at" };
    ui::result(format_args!("{}: {place} {}", mount.bucket, ui::shown_path(&mount.dir)));
    row("last save", saved(mount.last_save));
    row("last publish", published(mount.last_publish, &mount.head, mount.unpublished));
    row("policy", format!("{}{}", mount.policy, read_only(mount)));
    row("peers", who_has_it(&mount.bucket, Some(mount.members), peers));
    if let Some(removal) = removal_of_mount(&mount.bucket, mount.read_only, peers) {
        row("removed", removal);
    }
    row(
        "conflicts",
        match mount.conflicts {
            None => format!(
                "cannot be counted, as the tree cannot be read: run 'cairnfs check {}'",
                mount.bucket
            ),
            Some(0) => "none".into(),
            Some(many) => format!("{many} ('cairnfs conflicts {}' shows them)", mount.bucket),
        },
    );
    let free = free_bytes(context, &mount.bucket);
    let free = free.map_or_else(String::new, |free| format!(", {} free", Size(free).about()));
    row("space", format!("{} stored{free}", Size(context.stored_bytes(&mount.bucket)).about()));
    let trouble = mount.trouble.as_ref().map(|_| what_is_unsafe(mount));
    let damage = found.remarks.damage.as_ref().map(|it| what_is_damaged(&mount.bucket, it));
    let unread = found.unread.as_deref().map(|why| what_was_found(&mount.bucket, why));
    let wrong = trouble.into_iter().chain(found.loss()).chain(damage).chain(unread);
    let wrong: Vec<_> = wrong.collect();
    let health = if wrong.is_empty() { "good".to_owned() } else { wrong.join("; ") };
    row("health", health);
}

/// The last save of this mount, of which there is none until something is changed.
fn saved(at: Option<Time>) -> String {
    at.map_or_else(|| "none since it was mounted".to_owned(), |at| when::ago(Some(at)))
}

/// The newest version. What is not in it need not be saved either: that the first line says.
fn published(at: Option<Time>, head: &[u8], unpublished: bool) -> String {
    let more = if unpublished { "; later changes are not published yet" } else { "" };
    format!("{}, version {}{more}", when::ago(at), hex(&head[..8]))
}

fn print_kept(kept: &KeptReport, peers: &[PeerReport]) {
    let version = kept.head.map_or_else(
        || none_yet(&kept.bucket),
        |head| format!("{}, {}", hex(&head[..8]), when::ago(kept.last_publish)),
    );
    row("version", version);
    row("peers", who_has_it(&kept.bucket, None, peers));
    if let Some(removal) = removal(&kept.bucket, peers) {
        row("removed", removal);
    }
    if let Some(trouble) = &kept.trouble {
        row("health", format!("nothing is saved any more: {trouble}"));
    }
}

/// Of a bucket that was joined, and that nobody has got.
fn none_yet(bucket: &BucketName) -> String {
    format!(
        "the first one is not here yet: 'cairnfs sync {bucket}' fetches it when a device that has it \
         can be reached"
    )
}

fn read_only(mount: &MountReport) -> &'static str {
    match (mount.read_only, mount.role) {
        (true, Some(Role::Reader)) => ", read-only, as this device may only read",
        (true, None) => ", read-only, as this device is no member of the bucket",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_that_has_saved_nothing_yet_is_not_a_bucket_that_never_was_saved() {
        assert_eq!(saved(None), "none since it was mounted");
        assert!(saved(Some(Time::now())).starts_with("0.0 s ago ("));
    }

    #[test]
    fn what_no_version_holds_is_not_called_saved() {
        assert_eq!(published(None, &[0xab; 32], false), "never, version abababababababab");
        let said = published(None, &[0xab; 32], true);
        assert!(said.ends_with("; later changes are not published yet"), "{said}");
    }
}
