//! The mounts that the daemon makes by itself when it starts.

use std::{collections::BTreeMap, path::Path};

use cairnfs_mount_core::Time;

use super::{Daemon, Running, ending};
use crate::{
    at_start::{self, Remembered},
    control::AtStartReport,
    home::BucketName,
    order::{self, Mutex},
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
    pub(crate) fn mount_at_start(&self, except: Option<&BucketName>) {
        let remembered = match at_start::read(&self.shared.home) {
            Ok(remembered) => remembered,
            Err(failure) => return log::error!("at-start reason={:?}", failure.message),
        };
        for one in remembered.iter().filter(|one| Some(one.bucket()) != except) {
            if let Err(failure) =
                one.request().and_then(|request| self.shared.mount(&request, &mut ending::logged))
            {
                log::error!("at-start mounted=no reason={:?}", failure.message);
                self.shared.not_mounted.note(one, failure.message);
            }
        }
    }
}

impl Daemon {
    /// What could not be mounted at start, and is not mounted yet.
    pub(super) fn failed_at_start(&self) -> Vec<AtStartReport> {
        // Who cannot read the list is told so by whoever uses it.
        self.not_mounted.of(&at_start::read(&self.home).unwrap_or_default())
    }
}
