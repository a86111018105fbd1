//! Work on a bucket that need not be mounted: its log, a version, a check.

use std::cell::RefCell;

use cairnfs_mount_core::{Error, Mount, Options, Past, PastItem};

use super::{Daemon, mounting::give_up};
use crate::{
    control::{
        Answer, CheckRequest, Event, LogRequest, Opening, Progress, Repair, RestoreRequest,
        VersionReport,
    },
    exit::{Code, Failure, Result},
    home::BucketName,
    ui::shown,
    values::hex,
};

impl Daemon {
    /// Calls `work` with the bucket's file system: the mounted one, or one that is opened for the
    /// while.
    pub(super) fn visit<T>(
        &self,
        opening: &Opening,
        doing: &'static str,
        options: Options,
        work: impl FnOnce(&Mount) -> Result<T>,
    ) -> Result<T> {
        if let Some(mount) = self.table.at_hand(&opening.bucket) {
            return work(&mount);
        }
        let _claim = self.claim(&opening.bucket, doing)?;
        let mount = self.open(opening, options)?;
        let outcome = work(&mount);
        give_up(&mount);
        outcome
    }

    pub(super) fn log(
        &self,
        request: &LogRequest,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<()> {
        let options = Options { read_only: true, ..Options::default() };
        let failed = |err| Failure::bucket(&request.opening.bucket, &err);
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        let (limit, max_changes) = (count(request.limit), count(request.max_changes));
        let (versions, members) = self.visit(&request.opening, "being read", options, |mount| {
            let versions = mount.log(request.path.as_deref(), limit, max_changes);
            Ok((versions.map_err(failed)?, mount.members()))
        })?;
        for version in versions {
            let author = members.iter().find(|member| member.key == version.author);
            let name = author.map_or_else(String::new, |member| member.name.clone());
            if !say(Event::Version(VersionReport::new(version, name))) {
                break;
            }
        }
        Ok(())
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
        self.visit(opening, "being read", options, |mount| {
            let failed = |err| Failure::bucket(bucket, &err);
            // Found first: making a version may have older ones given up on a disk that runs low.
            let past = mount.past(which).map_err(failed)?.ok_or_else(|| no_version(bucket))?;
            let unread = |err| unreadable(bucket, &past, path, &err);
            if *in_place {
                let above = past.above(path).map_err(unread)?;
                past.walk(path, false, &mut |_| false).map_err(unread)?;
                if *contents {
                    say(Event::Kept(mount.publish().map_err(failed)?));
                }
                for entry in above {
                    say(Event::Past(Box::new(entry)));
                }
            }
            let walked = past.walk(path, *contents, &mut |item| {
                say(match item {
                    PastItem::Entry(entry) => Event::Past(Box::new(entry.clone())),
                    PastItem::Bytes { offset, bytes } => {
                        Event::Bytes { offset, bytes: bytes.to_vec() }
                    }
                })
            });
            walked.map_err(unread)?;
            Ok(Answer::Restored(past.id(), past.time()))
        })
    }

    pub(super) fn publish(&self, opening: &Opening) -> Result<[u8; 32]> {
        let failed = |err| Failure::bucket(&opening.bucket, &err);
        self.visit(opening, "being published", Options::default(), |mount| {
            mount.publish().map_err(failed)
        })
    }

    /// Says what is damaged; succeeds only if nothing is.
    pub(super) fn check(
        &self,
        request: &CheckRequest,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<()> {
        let name = &request.opening.bucket;
        let options = Options { read_only: true, ..Options::default() };
        let is_open = self.table.open(name).is_some();
        let mut lost_end = None;
        match (request.repair, is_open) {
            (Some(Repair::Plan), false) => return self.plan_repair(&request.opening, say),
            (Some(Repair::Do), true) => self.mend(name, say)?,
            (Some(Repair::Do), false) => lost_end = self.repair(&request.opening, say)?,
            (Some(Repair::Plan), true) | (None, _) => (),
        }
        let mut damages = 0_u64;
        let say = RefCell::new(say);
        self.visit(&request.opening, "being checked", options, |mount| {
            mount
                .check(
                    &mut |done, total| {
                        (say.borrow_mut())(Event::Progress(Progress::Checking { done, total }));
                    },
                    &mut |path, what| {
                        damages += 1;
                        log::error!("check damage={what:?}");
                        let path = path.map(<[u8]>::to_vec);
                        (say.borrow_mut())(Event::Damage(path, what.to_owned()));
                    },
                )
                .map_err(|err| Failure::bucket(name, &err))
        })?;
        let found = match damages {
            0 if lost_end.is_none() => return Ok(()),
            0 => {
                let message = "what was saved last is lost, what is left is whole";
                return Err(Failure::new(Code::Damage, format_args!("bucket '{name}': {message}")));
            }
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

pub(super) fn no_version(bucket: &BucketName) -> Failure {
    let message = format!(
        "bucket '{bucket}' has no such version ('cairnfs log {bucket}' lists those there are)"
    );
    Failure::new(Code::Failed, message)
}

/// Why a path of a version cannot be read.
fn unreadable(bucket: &BucketName, past: &Past, path: &[u8], err: &Error) -> Failure {
    let version = format!("version {} of bucket '{bucket}'", hex(&past.id()[..8]));
    match err {
        Error::NotFound => {
            Failure::new(Code::Failed, format_args!("{version} has no '{}'", shown(path)))
        }
        Error::Damaged { what } => Failure::new(
            Code::Damage,
            format_args!(
                "{version} is not whole any more: {what} ('cairnfs check {bucket}' tells whether that \
                 is damage, or a part of it was given up for space)"
            ),
        ),
        err => Failure::bucket(bucket, err),
    }
}
