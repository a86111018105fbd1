//! What there is to be said of each bucket: what the daemon reports, and what lies in the home.

use std::path::PathBuf;

use crate::{
    at_start,
    cli::StatusArgs,
    control::{AtStartReport, KeptReport, MountReport, StatusReport, Trouble},
    exit::Result,
    home::BucketName,
    net::PeerReport,
    place::{self, Listed},
    remarks::{self, Found as Remarked, Remarks},
    values::{Size, Span},
    verbs::{
        Context,
        views::{self, View},
    },
    when,
};

/// What a daemon that died leaves behind. It alone knew whether anything was unsaved.
pub(super) const DIED: &str = "its daemon died: what was not saved by then is lost";

/// Of a bucket that is mounted.
const FOLDER_GONE: &str =
    "its folder was moved or deleted while it was mounted: nothing more can be saved";

/// What there is to be said.
pub(super) struct Whole {
    pub(super) buckets: Vec<Found>,
    /// Why this device does not listen, if it is to.
    pub(super) not_listening: Option<String>,
    /// Why it cannot be told what is to be mounted at start: then nothing is.
    pub(super) at_start_error: Option<String>,
}

/// A bucket of the home, and its mount if it has one.
pub(super) struct Found {
    pub(super) name: BucketName,
    pub(super) mount: Option<MountReport>,
    pub(super) dead: Option<Listed>,
    /// Where it was mounted, if it is no longer and still in use.
    pub(super) still_in_use: Option<PathBuf>,
    /// How it is kept for other devices, if it is not mounted.
    pub(super) kept: Option<KeptReport>,
    /// Why it is not mounted, if it was to be when the daemon started.
    pub(super) at_start: Option<AtStartReport>,
    /// What its last mount could not save.
    pub(super) lost: Option<Remarked>,
    /// Versions of it that are mounted: nothing of them can be unsaved.
    pub(super) views: Vec<View>,
    /// Other devices that have it, connected or not.
    pub(super) peers: Vec<PeerReport>,
    /// Why it cannot be described, if it is not mounted and cannot: nobody can open it then.
    pub(super) unreadable: Option<String>,
    /// Whether its folder is where it was mounted from no more: nothing can be written to it.
    pub(super) is_gone: bool,
    /// What is known of it whether it is open or not.
    pub(super) remarks: Remarks,
    /// Why the remarks cannot be read, if they cannot: damage that was found may be among them.
    pub(super) unread: Option<String>,
}

impl Found {
    /// Why not everything that was written is saved; none if it is.
    pub(super) fn danger(&self) -> Option<String> {
        match &self.mount {
            Some(mount) if !self.is_gone => (!mount.is_safe()).then(|| what_is_unsafe(mount)),
            Some(_) => self.loss(),
            // Whether anything was lost is noted there.
            None => self.loss().or_else(|| {
                let why = self.unread.as_ref()?;
                Some(format!("what is noted of it cannot be read: {why}"))
            }),
        }
    }

    /// What was lost when its last mount ended, if something was, or that all is lost which is written now.
    pub(super) fn loss(&self) -> Option<String> {
        if self.is_gone {
            return Some(FOLDER_GONE.to_owned());
        }
        match (&self.mount, &self.dead, &self.lost) {
            (Some(_), ..) | (None, None, None) => None,
            (None, Some(_), _) => Some(DIED.to_owned()),
            (None, None, Some(lost)) => Some(format!(
                "what was not saved when it was unmounted, {}, is lost: {}",
                when::ago(lost.at()),
                lost.what
            )),
        }
    }

    /// Whether there is nothing in it yet that could be mounted.
    pub(super) fn awaits_first_version(&self) -> bool {
        match (&self.mount, &self.kept) {
            (Some(_), _) => false,
            (None, Some(kept)) => kept.head.is_none(),
            (None, None) => self.remarks.awaits_first_version,
        }
    }
}

/// Of all buckets of the home, or of the one that was asked for.
pub(super) fn gather(context: &Context, args: &StatusArgs) -> Result<Whole> {
    let report = context.status(args.wait_safe)?;
    let StatusReport {
        mut mounts,
        views,
        lingering,
        kept,
        failed_at_start,
        mut lost,
        peers,
        not_listening,
        credentials: _,
    } = report;
    let mut buckets = Vec::new();
    for name in context.all_names(&mounts)? {
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
        let kept = kept.iter().find(|kept| kept.bucket == name).cloned();
        let views = views::of(&name, &views);
        let (remarks, unread) = match remarks::read(&context.home.bucket_dir(&name)) {
            Ok(remarks) => (remarks, None),
            Err(failure) => (Remarks::default(), Some(failure.message)),
        };
        let dead = dead.into_iter().next();
        // What is mounted could be opened.
        let described = mount.is_none().then(|| context.describe(&name).map(drop));
        let unreadable = described.and_then(|it| it.err().map(|failure| failure.message));
        let is_gone = mount.is_some() && !context.home.bucket_dir(&name).exists();
        let still_in_use = lingering.iter().find(|it| it.bucket == name).map(|it| it.dir.clone());
        let at_start = failed_at_start.iter().find(|failed| failed.bucket == name).cloned();
        let lost = lost.remove(&name).or_else(|| remarks.lost.clone());
        buckets.push(Found {
            name,
            mount,
            dead,
            still_in_use,
            kept,
            at_start,
            lost,
            views,
            peers,
            unreadable,
            is_gone,
            remarks,
            unread,
        });
    }
    let at_start_error = at_start::read(&context.home).err().map(|failure| failure.message);
    Ok(Whole { buckets, not_listening, at_start_error })
}

/// Why not everything that was written to a mount is saved.
pub(super) fn what_is_unsafe(mount: &MountReport) -> String {
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
