//! Mounting an older version of a bucket, and unmounting it.
//!
//! It is read through the file system of its bucket: the mounted one, or one that is opened for it and
//! is on no network. So it ends with that, at the latest.

use std::sync::Arc;

use cairnfs_mount_core::{Limits, Mount, Options, PastView};
use crossbeam_channel::bounded;

use super::{
    Daemon, Happening,
    ending::{Terms, take_down},
    table::{Doing, Viewed},
    visiting,
};
use crate::{
    control::{Event, ViewReport, ViewRequest},
    exit::{Code, Failure, Result},
    fuse::{MountSpec, Shows},
    home::BucketName,
    noted,
    order::Mutex,
    tell::tell,
    values::hex,
};

impl Daemon {
    /// Mounts a version; returns when the mount can be used.
    pub(super) fn view(
        &self,
        request: &ViewRequest,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<ViewReport> {
        let _dir = self.claim_dir(&request.dir)?;
        let serial = self.table.next_serial();
        let mount = self.lend(request, serial)?;
        let shown = self.show_version(request, mount, serial, say);
        if shown.is_err() {
            self.give_back(&request.opening.bucket, serial);
        }
        shown
    }

    /// The file system of the bucket, opened if it is not open.
    fn lend(&self, request: &ViewRequest, serial: u64) -> Result<Mount> {
        let bucket = &request.opening.bucket;
        if let Some(mount) = self.table.lend(bucket, serial) {
            return Ok(mount);
        }
        let claim = match self.claim(bucket, Doing::Opening) {
            Ok(claim) => claim,
            // Somebody has just opened it.
            Err(failure) => return self.table.lend(bucket, serial).ok_or(failure),
        };
        let limits = Limits { cache_bytes: request.cache_bytes, ..Limits::default() };
        let mount = self.open(&request.opening, Options { limits, ..Options::default() })?;
        claim.view(mount.clone(), serial).map_err(|mount| {
            self.give_up(bucket, &mount);
            Failure::new(Code::Failed, "the daemon is ending")
        })?;
        Ok(mount)
    }

    /// Has the kernel show the version.
    fn show_version(
        &self,
        request: &ViewRequest,
        mount: Mount,
        serial: u64,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<ViewReport> {
        let bucket = &request.opening.bucket;
        let past = visiting::find(bucket, &mount, &request.which, say)?.shown_as(&request.owner);
        let view = PastView::new(past.map_err(|err| Failure::bucket(bucket, &err))?);
        let spec = MountSpec {
            shows: Shows::Past(view.clone()),
            name: name_of(bucket, &view),
            dir: request.dir.clone(),
            read_only: true,
            allow_other: request.allow_other,
            options: request.fuse.clone(),
        };
        let happenings = self.happenings.clone();
        // The receiver goes only with the process.
        let ended = move || tell(&happenings, Happening::SessionEnded(serial));
        let session = self.start_session(&spec, Box::new(ended))?;
        let (end, ended) = bounded(0);
        let viewed = Viewed {
            serial,
            bucket: bucket.clone(),
            dir: session.dir().to_owned(),
            view,
            mount,
            session,
            ended,
            end: Mutex::new(Some(end)),
        };
        let report = viewed.report();
        self.table.add_view(viewed).map_err(|viewed| {
            if let Err(err) = viewed.session.detach() {
                log::warn!("detach serial={serial} reason={err}");
            }
            viewed.view.end();
            Failure::new(Code::InUse, format_args!("bucket '{bucket}' is just being unmounted"))
        })?;
        Ok(report)
    }

    /// Unmounts a version, unless it is busy.
    pub(super) fn unmount_view(
        &self,
        viewed: &Viewed,
        terms: Terms,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<()> {
        let dir = viewed.dir.display();
        let viewed = self.table.leave_view(viewed.serial).ok_or_else(|| {
            Failure::new(Code::InUse, format_args!("{dir} is just being unmounted"))
        })?;
        take_down(&viewed.session, terms, say)
            .inspect_err(|_stays| self.table.keep_view(viewed.serial))?;
        self.end_view(&viewed);
        say(Event::Note(format!("unmounted {dir}")));
        Ok(())
    }

    /// Ends the versions that are `wanted`, also where they are in use: nothing is lost by that.
    pub(super) fn end_views(
        &self,
        wanted: impl Fn(&Viewed) -> bool,
        terms: Terms,
        say: &mut dyn FnMut(Event) -> bool,
    ) {
        for viewed in self.table.views().iter().filter(|viewed| wanted(viewed)) {
            // Else somebody is ending it.
            let Some(viewed) = self.table.leave_view(viewed.serial) else { continue };
            if let Err(failure) = take_down(&viewed.session, terms.at_once(), say) {
                say(Event::Note(failure.message));
            }
            self.end_view(&viewed);
            let (dir, bucket) = (viewed.dir.display(), &viewed.bucket);
            let version = hex(&viewed.view.id()[..8]);
            say(Event::Note(format!("unmounted {dir}, version {version} of bucket '{bucket}'")));
        }
    }

    /// Somebody else has unmounted something: says whether it was a version.
    pub(super) fn view_ended(&self, serial: u64) -> bool {
        let Some(viewed) = self.table.leave_view(serial) else { return false };
        log::info!("unmounted serial={serial} by=others");
        self.end_view(&viewed);
        true
    }

    fn end_view(&self, viewed: &Arc<Viewed>) {
        viewed.view.end();
        self.give_back(&viewed.bucket, viewed.serial);
        noted::remove(&self.home, &name_of(&viewed.bucket, &viewed.view), &viewed.dir);
        self.table.view_gone(viewed);
        // If there is no room the main thread will look anyway; it may be the one that is here.
        self.happenings.try_send(Happening::Freed).ok();
    }

    /// A version is not shown any more: ends what was open for it alone.
    fn give_back(&self, bucket: &BucketName, serial: u64) {
        if let Some((mut claim, mount)) = self.table.give_back(bucket, serial) {
            claim.tell(&self.happenings);
            self.give_up(bucket, &mount);
        }
    }
}

/// What a version is called in the kernel's table of mounts.
fn name_of(bucket: &BucketName, view: &PastView) -> String {
    format!("{bucket}@{}", hex(&view.id()[..8]))
}
