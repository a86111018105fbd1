//! The mounts that the daemon makes by itself when it starts.

use std::{collections::BTreeMap, path::Path, sync::Arc, thread};

use cairnfs_mount_core::Time;

use super::{Awaited, Daemon, Happening, Running, ending, table::Doing};
use crate::{
    at_start::{self, Remembered},
    control::{AtStartReport, MountRequest},
    exit::plain,
    home::BucketName,
    order::{self, Mutex},
    tell::tell,
};

/// What could not be mounted, until it is mounted after all.
#[derive(Debug, Default)]
pub(super) struct NotMounted(Mutex<BTreeMap<BucketName, AtStartReport>, order::NotMounted>);

impl NotMounted {
    fn note(&self, one: &Remembered, why: String) {
        let (bucket, dir) = (one.bucket().clone(), one.dir().to_owned());
        let report = AtStartReport { bucket: bucket.clone(), dir, at: Time::now(), why };
        self.0.lock().insert(bucket, report);
    }

    /// It is mounted now.
    pub(super) fn forget(&self, bucket: &BucketName) {
        self.0.lock().remove(bucket);
    }

    /// All of them that are to be mounted at start still, of which `remembered` is the list.
    fn of(&self, remembered: &[Remembered]) -> Vec<AtStartReport> {
        let is_to_be = |bucket: &BucketName, dir: &Path| {
            remembered.iter().any(|one| one.bucket() == bucket && one.dir() == dir)
        };
        let failed = self.0.lock();
        failed.values().filter(|it| is_to_be(&it.bucket, &it.dir)).cloned().collect()
    }
}

impl Running {
    /// Mounts what is to be mounted at start, but not `except`. What fails is logged, and told to who
    /// asks for the status: the others are worth having.
    ///
    /// Returns when that is done, or when the daemon is to end: a command that is to give a passphrase
    /// may never end.
    pub(crate) fn mount_at_start(&mut self, except: Option<&BucketName>) {
        let mut remembered = match at_start::read(&self.shared.home) {
            Ok(remembered) => remembered,
            Err(failure) => return log::error!("at-start reason={:?}", failure.message),
        };
        remembered.retain(|one| Some(one.bucket()) != except);
        if remembered.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let remembered = Arc::new(remembered);
        let all = Arc::clone(&remembered);
        let mount = move || {
            shared.mount_remembered(&all);
            // The receiver goes only with the process.
            tell(&shared.happenings, Happening::Started);
        };
        match thread::Builder::new().name("at-start".into()).spawn(mount) {
            Ok(_) => self.wait_for(Awaited::Started),
            Err(err) => {
                log::error!("at-start reason={:?}", plain(&err));
                remembered.iter().for_each(|one| self.shared.not_mounted.note(one, plain(&err)));
            }
        }
    }
}

impl Daemon {
    fn mount_remembered(&self, remembered: &[Remembered]) {
        for one in remembered {
            if self.table.is_ending() {
                return;
            }
            let mount = |request: MountRequest| {
                self.mount_as(Doing::MountingAtStart, &request, &mut ending::logged)
            };
            if let Err(failure) = one.request(&self.home).and_then(mount) {
                let bucket = one.bucket();
                log::error!("at-start bucket={bucket} mounted=no reason={:?}", failure.message);
                self.not_mounted.note(one, failure.message);
            }
        }
    }

    /// What could not be mounted at start, and is not mounted yet.
    pub(super) fn failed_at_start(&self) -> Vec<AtStartReport> {
        // Who asks reads the list too, and tells if it cannot be read.
        self.not_mounted.of(&at_start::read(&self.home).unwrap_or_default())
    }
}
