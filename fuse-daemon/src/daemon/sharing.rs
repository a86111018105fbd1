//! Conflicts, how they are treated, and members.

use cairnfs_mount_core::{Error as CoreError, Mount, Options, Settings};

use super::{Daemon, table::Doing};
use crate::{
    control::{
        ConflictsRequest, Event, MembersReport, Opening, ResolveRequest, Resolved,
        SetMemberRequest, SettingsRequest,
    },
    exit::{Code, Failure, Result},
    ui,
};

impl Daemon {
    /// Says what conflicts in a bucket.
    pub(super) fn conflicts(
        &self,
        request: &ConflictsRequest,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<()> {
        let ConflictsRequest { opening, path, to_settle } = request;
        let failed = |err| Failure::bucket(&opening.bucket, &err);
        let found = if *to_settle {
            self.visit(opening, Doing::Resolving, Options::default(), |mount| {
                mount.conflicts_to_settle(path.as_deref()).map_err(failed)
            })?
        } else {
            self.look(opening, |mount| mount.conflicts(path.as_deref()).map_err(failed))?
        };
        for one in found {
            if !say(Event::Conflict(Box::new(one))) {
                break;
            }
        }
        Ok(())
    }

    /// Settles conflicts; what cannot be settled in the way that was asked for is left.
    pub(super) fn resolve(&self, request: &ResolveRequest) -> Result<Resolved> {
        let opening = &request.opening;
        self.visit(opening, Doing::Resolving, Options::default(), |mount| {
            let mut resolved = Resolved::default();
            let mut failed = None;
            for (path, seen) in &request.seen {
                match mount.resolve(path, &request.keep, seen) {
                    Ok(()) => resolved.settled += 1,
                    Err(CoreError::Changed) => resolved.changed.push(path.clone()),
                    // Settled together with another one, or none of its versions qualifies.
                    Err(CoreError::NotFound) => (),
                    Err(err) => {
                        let failure = Failure::bucket(&opening.bucket, &err);
                        let message = format!("{}: {}", ui::shown(path), failure.message);
                        failed = Some(Failure::new(failure.code, message));
                        break;
                    }
                }
            }
            // Whoever settles something wants it settled everywhere, and for good: what was settled
            // before something failed too.
            let published = mount.publish().map_err(|err| Failure::bucket(&opening.bucket, &err));
            failed.map_or(published, Err)?;
            let left = mount.conflicts(None);
            let mut left = left.map_err(|err| Failure::bucket(&opening.bucket, &err))?;
            left.retain(|conflict| {
                let path = &conflict.path;
                request.seen.contains_key(path) && !resolved.changed.contains(path)
            });
            resolved.left = left;
            Ok(resolved)
        })
    }

    pub(super) fn settings(&self, opening: &Opening) -> Result<Settings> {
        self.look(opening, |mount| Ok(mount.settings()))
    }

    pub(super) fn set_settings(&self, request: &SettingsRequest) -> Result<()> {
        let bucket = &request.opening.bucket;
        self.visit(&request.opening, Doing::Changing, Options::default(), |mount| {
            mount.set_settings(request.settings.clone()).map_err(|err| match err {
                CoreError::NotPermitted => only_owners(mount, bucket, "change its strategy"),
                err => Failure::bucket(bucket, &err),
            })
        })
    }

    pub(super) fn members(&self, opening: &Opening) -> Result<MembersReport> {
        self.look(opening, |mount| {
            Ok(MembersReport { members: mount.members(), role: mount.role() })
        })
    }

    pub(super) fn set_member(&self, request: &SetMemberRequest) -> Result<()> {
        let (bucket, member) = (&request.opening.bucket, &request.member);
        let what =
            if request.role.is_some() { "say what a device may do" } else { "remove a device" };
        self.visit(&request.opening, Doing::Changing, Options::default(), |mount| {
            let gone = || {
                let message = format!("that device is no member of bucket '{bucket}' any more");
                Failure::new(Code::NotFound, message)
            };
            // Who was removed since comes back by a ticket alone.
            if !mount.members().iter().any(|one| one.key == member.key) {
                return Err(gone());
            }
            mount.set_member(member.key, &member.name, request.role).map_err(|err| match err {
                CoreError::NotPermitted => only_owners(mount, bucket, what),
                CoreError::NotFound => gone(),
                err => Failure::bucket(bucket, &err),
            })?;
            if request.role.is_some() {
                return Ok(());
            }
            // Its ticket, if it came with one, is of no use to another device either.
            self.net.revoke(mount.bucket_id(), &member.key)
        })
    }

    /// Calls `work` with the bucket's file system, which it does not change.
    fn look<T>(&self, opening: &Opening, work: impl FnOnce(&Mount) -> Result<T>) -> Result<T> {
        let options = Options { read_only: true, ..Options::default() };
        self.visit(opening, Doing::Reading, options, work)
    }
}

fn only_owners(mount: &Mount, bucket: &crate::home::BucketName, what: &str) -> Failure {
    let role = mount.role();
    let message = if role == Some(cairnfs_mount_core::Role::Owner) {
        format!("bucket '{bucket}' must keep an owner")
    } else {
        format!("only an owner of bucket '{bucket}' can {what}")
    };
    Failure::new(Code::Failed, message)
}
