//! From a mount to a directory again: save, publish, unmount, end.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use cairnfs_mount_core::{Error as CoreError, Mount};
use crossbeam_channel::{RecvTimeoutError, bounded};

use super::{
    Daemon, Happening,
    table::{STILL_IN_USE, Served, Viewed, not_mounted},
};
use crate::{
    control::{Event, Progress, UnmountRequest},
    exit::{Code, Failure, Result},
    fuse::{Session, UnmountError},
    holders,
    home::BucketName,
    noted,
    tell::tell,
    values::{Size, Span},
};

/// How often somebody who waits hears how much is left.
const TICK: Duration = Duration::from_millis(200);

/// How long until a save is tried again that found no space.
const RETRY: Duration = Duration::from_secs(1);

/// How long the kernel may take to let go of what was unmounted and is in use nowhere.
const LETTING_GO: Duration = Duration::from_secs(2);

/// What to do with what stands in the way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    deadline: Option<Instant>,
    /// Unsaved data that cannot be saved is no reason to stay.
    discard: bool,
    /// A user of the mount is no reason to stay.
    detach_busy: bool,
    /// The process that wants it, which is no such user, wherever it was started.
    asking: Option<u32>,
}

impl Terms {
    /// Nothing stands in the way.
    const AT_ONCE: Self = Self { deadline: None, discard: true, detach_busy: true, asking: None };

    /// The same for what is only read: nobody loses anything by it.
    pub(super) fn at_once(self) -> Self {
        Self { asking: self.asking, ..Self::AT_ONCE }
    }
}

impl Daemon {
    /// Saves, publishes and unmounts what is at a directory.
    pub(super) fn unmount(
        &self,
        request: &UnmountRequest,
        asking: u32,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<()> {
        let terms = Terms {
            deadline: request.timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            discard: request.discard,
            detach_busy: request.detach_busy,
            asking: Some(asking),
        };
        if let Some(viewed) = self.table.view_at(&request.dir) {
            return self.unmount_view(&viewed, terms, say);
        }
        let served = self.table.find_dir(&request.dir).ok_or_else(|| not_mounted(&request.dir))?;
        self.table.leave(&served)?;
        let ended = self.end_one(&served, terms, say);
        if self.table.stay(&served) {
            // The main thread heard of it while this one was at it, and left it alone.
            tell(&self.happenings, Happening::SessionEnded(served.serial));
        }
        if !self.table.wait_let_go(served.serial, LETTING_GO) {
            say(Event::Note(format!("bucket '{}' is {STILL_IN_USE}", served.bucket)));
        }
        // Only now: the main thread, which hears of what the kernel lets go, may end by it. The receiver
        // goes only with the process.
        tell(&self.happenings, Happening::Freed);
        ended
    }

    /// Ends everything, whatever stands in the way: what cannot be saved is lost, and said.
    pub(super) fn end_all(&self, say: &mut dyn FnMut(Event) -> bool) -> Result<()> {
        let waited_for = self.table.end(TICK, &mut |served| {
            let ((unsaved_bytes, _), bucket) = (served.mount.unsaved(), served.bucket.clone());
            say(Event::Progress(Progress::Saving { bucket, unsaved_bytes }));
        });
        let terms = Terms::AT_ONCE;
        self.end_views(|_| true, terms, say);
        let mut result = Ok(());
        for served in self.table.all() {
            // Nobody else unmounts anything any more.
            if self.table.leave_at_end(&served).is_ok() {
                result = result.and(self.end_one(&served, terms, say));
            }
        }
        for served in waited_for.values() {
            // Else whoever unmounted it has told all of it, or it stayed and was ended just now.
            if let Some(why) = served.lost.get() {
                let message = format!("bucket '{}' lost what was not saved: {why}", served.bucket);
                result = result.and(Err(Failure::new(Code::Unsaved, message)));
            }
        }
        result.and(self.end_kept())
    }

    /// The mount was unmounted by somebody else, such as `umount`: what it had not saved is saved now.
    pub(super) fn session_ended(&self, serial: u64) {
        if self.view_ended(serial) {
            return;
        }
        self.table.let_go(serial);
        let Some(served) = self.table.leave_serial(serial) else { return };
        log::info!("unmounted serial={serial} by=others");
        self.net.withdraw(&served.bucket);
        let is_of_it = |viewed: &Viewed| viewed.mount.is_same(&served.mount);
        self.end_views(is_of_it, Terms::AT_ONCE, &mut logged);
        if let Err(err) = served.mount.stop() {
            log::error!("stop serial={serial} reason=\"{err}\"");
            served.lost.get_or_init(|| err.to_string());
        }
        self.gone(&served);
    }

    /// Ends a mount that this thread has marked as leaving; afterwards it is gone from the table,
    /// or it could not be ended and the caller lets it stay.
    fn end_one(
        &self,
        served: &Arc<Served>,
        terms: Terms,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<()> {
        let saved = self.save(&served.mount, &served.bucket, terms, say);
        if let Err(failure) = &saved
            && !terms.discard
        {
            let message = format!("{} ('--discard' unmounts all the same)", failure.message);
            return Err(Failure::new(failure.code, message));
        }
        // What is saved is safe; a version of it can be made when it is next mounted.
        if saved.is_ok()
            && let Err(err) = served.mount.publish()
        {
            say(Event::Note(format!("bucket '{}': not published yet: {err}", served.bucket)));
        }
        let is_of_it = |viewed: &Viewed| viewed.mount.is_same(&served.mount);
        // What is mounted within it would keep it busy.
        let is_within = |viewed: &Viewed| viewed.dir.starts_with(&served.dir);
        self.end_views(|viewed| is_of_it(viewed) && is_within(viewed), terms, say);
        take_down(&served.session, terms, say)?;
        self.net.withdraw(&served.bucket);
        self.end_views(is_of_it, terms, say);
        let stopped = served.mount.stop();
        if let Err(err) = &stopped {
            served.lost.get_or_init(|| err.to_string());
        }
        self.gone(served);
        say(Event::Note(format!("unmounted {}", served.dir.display())));
        saved.map_err(|failure| Failure {
            message: format!("{}: lost", failure.message),
            ..failure
        })?;
        stopped.map_err(|err| unsaved(&served.mount, &served.bucket, &err))
    }

    /// Saves everything, telling how it goes.
    fn save(
        &self,
        mount: &Mount,
        bucket: &BucketName,
        terms: Terms,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<()> {
        let began = Instant::now();
        loop {
            let (done, saved) = bounded(1);
            // The receiver may have given up waiting.
            mount.save(Box::new(move |result| tell(&done, result)));
            let result = loop {
                let left = terms
                    .deadline
                    .map(|deadline| deadline.saturating_duration_since(Instant::now()));
                match saved.recv_timeout(left.map_or(TICK, |left| left.min(TICK))) {
                    Ok(result) => break result,
                    Err(RecvTimeoutError::Disconnected) => break Err(CoreError::Stopped),
                    Err(RecvTimeoutError::Timeout) if left.is_some_and(|left| left.is_zero()) => {
                        return Err(too_late(mount, bucket, began.elapsed()));
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        let (unsaved_bytes, _) = mount.unsaved();
                        let bucket = bucket.clone();
                        if !say(Event::Progress(Progress::Saving { bucket, unsaved_bytes })) {
                            return Err(Failure::new(Code::Interrupted, "nobody waits any more"));
                        }
                    }
                }
            };
            match result {
                Ok(()) => return Ok(()),
                // Space may come back for as long as somebody is willing to wait.
                Err(CoreError::NoSpace) if self.may_wait(terms) => {
                    std::thread::sleep(RETRY);
                }
                Err(err) => return Err(unsaved(mount, bucket, &err)),
            }
        }
    }

    /// Whether there is time left to wait for space: none when the daemon is to end.
    fn may_wait(&self, terms: Terms) -> bool {
        terms.deadline.is_some_and(|at| Instant::now() < at) && !self.table.is_ending()
    }

    /// It is mounted no longer. While its place is taken, so that no note of the next mount goes.
    fn gone(&self, served: &Served) {
        self.remember(&served.bucket, &served.mount);
        self.heed_loss(served);
        noted::remove(&self.home, served.bucket.as_str(), &served.dir);
        self.table.gone(served);
    }
}

/// Takes a mount out of the file tree, or says why it stays.
pub(super) fn take_down(
    session: &Session,
    terms: Terms,
    say: &mut dyn FnMut(Event) -> bool,
) -> Result<()> {
    match session.unmount() {
        Ok(()) | Err(UnmountError::NotMounted(_)) => Ok(()),
        Err(UnmountError::Busy(dir)) if terms.detach_busy => {
            let users = users(&dir, terms);
            say(Event::Note(format!("{} is busy{users}", dir.display())));
            if let Err(err) = session.detach() {
                say(Event::Note(err.to_string()));
            }
            Ok(())
        }
        Err(UnmountError::Busy(dir)) => {
            let message = format!(
                "{} is busy{}: close what is open in it, then try again",
                dir.display(),
                users(&dir, terms)
            );
            Err(Failure::new(Code::MountPoint, message))
        }
        Err(err @ UnmountError::Covered(_)) if !terms.detach_busy => {
            Err(Failure::new(Code::MountPoint, err))
        }
        Err(err @ UnmountError::Io { .. }) if !terms.detach_busy => {
            Err(Failure::new(Code::Failed, err))
        }
        Err(err @ (UnmountError::Covered(_) | UnmountError::Io { .. })) => {
            say(Event::Note(err.to_string()));
            Ok(())
        }
    }
}

/// ` (in use by process 12 (bash), ...)`, or nothing if it cannot be told.
fn users(dir: &Path, terms: Terms) -> String {
    let found = holders::of(dir, terms.asking);
    if found.is_empty() { String::new() } else { format!(", in use by {}", found.join(", ")) }
}

fn too_late(mount: &Mount, bucket: &BucketName, after: Duration) -> Failure {
    let message = format!(
        "bucket '{bucket}': {} still unsaved after {}",
        what_is_unsaved(mount),
        Span(after).about()
    );
    Failure::new(Code::Unsaved, message)
}

fn unsaved(mount: &Mount, bucket: &BucketName, err: &CoreError) -> Failure {
    let message = format!("bucket '{bucket}': {} cannot be saved: {err}", what_is_unsaved(mount));
    Failure::new(Code::Unsaved, message)
}

fn what_is_unsaved(mount: &Mount) -> String {
    let (bytes, changes) = mount.unsaved();
    let bytes = Size(bytes).about();
    match changes {
        None => bytes,
        Some(1) => format!("{bytes} in 1 change"),
        Some(changes) => format!("{bytes} in {changes} changes"),
    }
}

/// What nobody listens to goes to the log.
#[allow(clippy::needless_pass_by_value, reason = "takes the place of one who listens")]
pub(super) fn logged(event: Event) -> bool {
    match event {
        Event::Progress(Progress::Saving { unsaved_bytes, .. }) => {
            log::info!("saving unsaved_bytes={unsaved_bytes}");
        }
        Event::Note(line) => log::info!("note={line:?}"),
        _ => (),
    }
    true
}
