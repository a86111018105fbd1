//! Work on a bucket that need not be mounted: its log, a version, a check.

use std::cell::RefCell;

use cairnfs_mount_core::{Mount, Options};

use super::{Daemon, mounting::give_up};
use crate::{
    control::{CheckRequest, Event, LogRequest, Opening, Progress, VersionReport},
    exit::{Code, Failure, Result},
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
        if let Some(mount) = self.table.open(&opening.bucket) {
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
        match (request.repair, is_open) {
            (true, true) => self.mend(name, say)?,
            (true, false) => self.repair(&request.opening, say)?,
            (false, _) => (),
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
            0 => return Ok(()),
            1 => "1 damage found".to_owned(),
            more => format!("{more} damages found"),
        };
        let left = match (request.repair, is_open) {
            (true, true) => ", which no connected device has whole",
            (true, false) => {
                ", for which there is no other copy here: mounted, the same command asks other \
                 devices"
            }
            (false, _) => "",
        };
        Err(Failure::new(Code::Damage, format!("bucket '{name}': {found}{left}")))
    }
}
