//! Work on a bucket that need not be mounted: its log, a version, a check.

use std::{cell::RefCell, time::SystemTime};

use cairnfs_mount_core::{Error, Mount, Options, Past, PastItem, Time, Wanted, Which};

use super::{Daemon, table::Doing};
use crate::{
    control::{
        Answer, CheckRequest, Event, LogRequest, Opening, Progress, Repair, RestoreRequest,
        VersionReport,
    },
    exit::{Code, Failure, Result},
    home::BucketName,
    ui::shown,
    values::hex,
    when,
};

impl Daemon {
    /// Calls `work` with the bucket's file system: the mounted one, or one that is opened for the
    /// while.
    pub(super) fn visit<T>(
        &self,
        opening: &Opening,
        doing: Doing,
        options: Options,
        work: impl FnOnce(&Mount) -> Result<T>,
    ) -> Result<T> {
        let bucket = &opening.bucket;
        if let Some(mount) = self.table.at_hand(bucket) {
            return self.heed(bucket, work(&mount));
        }
        let _claim = match (self.claim(bucket, doing), self.table.at_hand(bucket)) {
            (Ok(claim), _) => claim,
            // It has been mounted at start just now.
            (Err(_), Some(mount)) => return self.heed(bucket, work(&mount)),
            (Err(failure), None) => return Err(failure),
        };
        let mount = self.open(opening, options)?;
        let outcome = self.heed(bucket, work(&mount));
        self.give_up(bucket, &mount);
        outcome
    }

    pub(super) fn log(
        &self,
        request: &LogRequest,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<Answer> {
        let options = Options { read_only: true, ..Options::default() };
        let failed = |err| Failure::bucket(&request.opening.bucket, &err);
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        let (limit, max_changes) = (count(request.limit), count(request.max_changes));
        let (versions, members, unpublished) =
            self.visit(&request.opening, Doing::Reading, options, |mount| {
                // Before: what is published meanwhile is in the list.
                let unpublished = !mount.published().holds_all;
                let versions = mount.log(request.path.as_deref(), limit, max_changes);
                Ok((versions.map_err(failed)?, mount.members(), unpublished))
            })?;
        for version in versions {
            let author = members.iter().find(|member| member.key == version.author);
            let name = author.map_or_else(String::new, |member| member.name.clone());
            if !say(Event::Version(VersionReport::new(version, name))) {
                break;
            }
        }
        Ok(Answer::Logged { unpublished })
    }

    /// Says what a version holds at a path and below.
    pub(super) fn restore(
        &self,
        request: &RestoreRequest,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<Answer> {
        let RestoreRequest { opening, which, path, in_place, contents } = request;
        let bucket = &opening.bucket;
        let options = Options { read_only: true, ..Options::default() };
        self.visit(opening, Doing::Reading, options, |mount| {
            let failed = |err| Failure::bucket(bucket, &err);
            let past = find(bucket, mount, which, say)?;
            let unread = |err| unreadable(bucket, &past, path, &err);
            if *in_place {
                let above = past.above(path).map_err(unread)?;
                past.walk(path, Wanted::default(), &mut |_| false).map_err(unread)?;
                if *contents {
                    say(Event::Kept(mount.publish().map_err(failed)?));
                }
                for entry in above {
                    say(Event::Past(Box::new(entry)));
                }
            }
            let newest = in_place.then(|| mount.newest()).transpose().map_err(failed)?;
            let wanted = Wanted { contents: *contents, than: newest.as_ref() };
            let walked = past.walk(path, wanted, &mut |item| {
                say(match item {
                    PastItem::Entry(entry) => Event::Past(Box::new(entry.clone())),
                    PastItem::Bytes { offset, bytes } => {
                        Event::Bytes { offset, bytes: bytes.to_vec() }
                    }
                })
            });
            walked.map_err(unread)?;
            Ok(Answer::Restored(past.id(), past.time().into()))
        })
    }

    pub(super) fn publish(&self, opening: &Opening) -> Result<[u8; 32]> {
        let failed = |err| Failure::bucket(&opening.bucket, &err);
        self.visit(opening, Doing::Publishing, Options::default(), |mount| {
            mount.publish().map_err(failed)
        })
    }

    /// Says what is damaged; succeeds only if nothing is. Takes note of it.
    pub(super) fn check(
        &self,
        request: &CheckRequest,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<()> {
        if request.repair == Some(Repair::Plan)
            && self.table.open(&request.opening.bucket).is_none()
        {
            // It reads the log alone.
            return self.plan_repair(&request.opening, say);
        }
        let bucket = &request.opening.bucket;
        let is_open = self.table.open(bucket).is_some();
        let repaired = self.repair_first(request, is_open, say);
        let outcome =
            repaired.and_then(|repaired| self.verify(request, is_open, say).map(|()| repaired));
        self.heed_check(bucket, &outcome);
        let Some(lost) = outcome? else { return Ok(()) };
        let message = format!("bucket '{bucket}': {lost}, what is left is whole");
        Err(Failure::new(Code::Damage, message))
    }

    /// Mends what can be mended, if that is asked for. Answers with what could not be brought back.
    fn repair_first(
        &self,
        request: &CheckRequest,
        is_open: bool,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<Option<&'static str>> {
        match (request.repair, is_open) {
            (Some(Repair::Do), true) => self.mend(&request.opening.bucket, say).map(|()| None),
            (Some(Repair::Do), false) => self.repair(&request.opening, say),
            (Some(Repair::Plan) | None, _) => Ok(None),
        }
    }

    /// Reads everything.
    fn verify(
        &self,
        request: &CheckRequest,
        is_open: bool,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<()> {
        let name = &request.opening.bucket;
        let options = Options { read_only: true, ..Options::default() };
        let mut damages = 0_u64;
        let say = RefCell::new(say);
        let mut is_heard = true;
        self.visit(&request.opening, Doing::Checking, options, |mount| {
            mount
                .check(
                    &mut |done, total| {
                        let progress = Event::Progress(Progress::Checking { done, total });
                        is_heard = (say.borrow_mut())(progress);
                        is_heard
                    },
                    &mut |path, what| {
                        damages += 1;
                        log::error!("check damage={what:?}");
                        let path = path.map(<[u8]>::to_vec);
                        (say.borrow_mut())(Event::Damage(path, what.to_owned()));
                    },
                )
                .map_err(|err| match err {
                    Error::Stopped if !is_heard => {
                        Failure::new(Code::Interrupted, "nobody waits any more")
                    }
                    Error::Stopped => Failure::new(
                        Code::Failed,
                        format_args!(
                            "bucket '{name}' was wanted for something else: not all was checked"
                        ),
                    ),
                    err => Failure::bucket(name, &err),
                })
        })?;
        let found = match damages {
            0 => return Ok(()),
            1 => "1 damage found".to_owned(),
            more => format!("{more} damages found"),
        };
        let left = match (request.repair, is_open) {
            (Some(Repair::Plan), _) => ", which connected devices would be asked for",
            (Some(Repair::Do), true) => ", which no connected device has whole",
            (Some(Repair::Do), false) => {
                ", for which there is no other copy here: mounted, the same command asks other \
                 devices"
            }
            (None, _) => "",
        };
        Err(Failure::new(Code::Damage, format!("bucket '{name}': {found}{left}")))
    }
}

/// The version that `which` means. What no version holds yet belongs to a time that is not over: of
/// that one is made then.
pub(super) fn find(
    bucket: &BucketName,
    mount: &Mount,
    which: &Which,
    say: &mut dyn FnMut(Event) -> bool,
) -> Result<Past> {
    let failed = |err| Failure::bucket(bucket, &err);
    // Found first: making a version may have older ones given up on a disk that runs low.
    let mut past = mount.past(which).map_err(failed)?;
    if let Which::By(by) = which
        && *by >= Time::now()
        && !mount.status().read_only
    {
        match mount.publish() {
            Ok(id) => {
                // It may have taken until that time was over.
                let made = mount.time_of(&id).map_err(failed)?.map_or(*by, Time::from);
                past = mount.past(&Which::By((*by).max(made))).map_err(failed)?;
            }
            // An older one is better than none on a disk that is full.
            Err(err) => {
                let line =
                    format!("bucket '{bucket}': what no version holds yet is left out: {err}");
                say(Event::Note(line));
            }
        }
    }
    past.ok_or_else(|| no_version(bucket, mount, which))
}

/// The refusal of a version that is not kept, and for a time since when there are any.
fn no_version(bucket: &BucketName, mount: &Mount, which: &Which) -> Failure {
    let oldest = match which {
        Which::By(_) => mount.oldest_time(),
        Which::Id(_) => Ok(None),
    };
    match oldest {
        Ok(oldest) => Failure::new(Code::Failed, without(bucket, oldest)),
        Err(err) => Failure::bucket(bucket, &err),
    }
}

fn without(bucket: &BucketName, oldest: Option<SystemTime>) -> String {
    let oldest = oldest.map_or_else(String::new, |oldest| {
        format!(": the oldest is from {}", when::ago(Some(oldest)))
    });
    format!(
        "bucket '{bucket}' has no such version{oldest} ('cairnfs log {bucket}' lists those there are)"
    )
}

/// Why a path of a version cannot be read.
fn unreadable(bucket: &BucketName, past: &Past, path: &[u8], err: &Error) -> Failure {
    let version = format!("version {} of bucket '{bucket}'", hex(&past.id()[..8]));
    match err {
        Error::NotFound => {
            Failure::new(Code::Failed, format_args!("{version} has no '{}'", shown(path)))
        }
        Error::Damaged { .. } if matches!(past.is_whole(), Ok(false)) => Failure::new(
            Code::Failed,
            format_args!(
                "of {version} not all names are here: they were given up for space, or never came to \
                 this device"
            ),
        ),
        err => Failure::bucket(bucket, err),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::sync_channel, thread, time::Duration};

    use cairnfs_mount_core::{Bucket, Protection};

    use super::*;

    /// A daemon that keeps a bucket for others, and what names that.
    fn keeping(dir: &std::path::Path) -> (Daemon, CheckRequest) {
        let (daemon, _) = Daemon::for_test(dir);
        let bucket: BucketName = "b".parse().unwrap();
        let place = daemon.home.bucket_dir(&bucket);
        Bucket::create(&place, &daemon.device, Protection::KeyFile).unwrap();
        daemon.keep_rest();
        let opening = Opening { bucket, secret: None };
        (daemon, CheckRequest { opening, repair: None })
    }

    #[test]
    fn a_check_makes_way_for_who_takes_the_bucket() {
        let dir = tempfile::tempdir().unwrap();
        let (daemon, request) = keeping(dir.path());
        let (begins, has_begun) = sync_channel::<()>(0);
        let (go_on, waits) = sync_channel::<()>(0);
        thread::scope(|scope| {
            let checking = scope.spawn(|| {
                let mut heard = 0;
                let outcome = daemon.check(&request, &mut |_| {
                    heard += 1;
                    // As if the bucket were large. Both fail once it is taken.
                    begins.send(()).ok();
                    waits.recv().ok();
                    true
                });
                drop((begins, waits));
                (outcome, heard)
            });
            has_begun.recv().unwrap();
            let _claim = daemon.claim(&request.opening.bucket, Doing::Mounting).unwrap();
            drop((go_on, has_begun));
            let (outcome, heard) = checking.join().unwrap();
            assert_eq!((outcome.unwrap_err().code, heard), (Code::Failed, 1));
            daemon.open(&request.opening, Options::default()).unwrap().stop().unwrap();
        });
        daemon.net.stop();
    }

    #[test]
    fn who_asks_for_too_old_a_version_is_told_how_old_there_are() {
        let bucket = "b".parse().unwrap();
        let said = without(&bucket, Some(SystemTime::now() - Duration::from_secs(200)));
        assert!(said.contains("no such version: the oldest is from 3 min ago ("), "{said}");
        let said = without(&bucket, None);
        assert!(said.contains("no such version ('cairnfs log b'"), "{said}");
    }

    #[test]
    fn a_check_ends_when_nobody_listens() {
        let dir = tempfile::tempdir().unwrap();
        let (daemon, request) = keeping(dir.path());
        let mut heard = 0;
        let outcome = daemon.check(&request, &mut |_| {
            heard += 1;
            false
        });
        assert_eq!((outcome.unwrap_err().code, heard), (Code::Interrupted, 1));
        daemon.end_kept().unwrap();
        daemon.net.stop();
    }
}
