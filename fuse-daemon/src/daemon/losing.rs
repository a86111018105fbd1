//! What a mount that ended could not save, until the bucket is mounted again.

use std::{collections::BTreeMap, time::SystemTime};

use super::{Daemon, table::Served};
use crate::{
    home::BucketName,
    order::{self, Mutex},
    remarks::Found,
};

/// What was lost of which bucket. It is remarked on the bucket too, but the disk that could not take
/// the bytes may not take the remark either.
#[derive(Debug, Default)]
pub(super) struct Losses(Mutex<BTreeMap<BucketName, Loss>, order::Losses>);

#[derive(Debug)]
struct Loss {
    /// The number of the mount that lost it.
    serial: u64,
    found: Found,
}

impl Losses {
    pub(super) fn all(&self) -> BTreeMap<BucketName, Found> {
        let losses = self.0.lock();
        losses.iter().map(|(bucket, loss)| (bucket.clone(), loss.found.clone())).collect()
    }

    /// The bucket is not here any more.
    pub(super) fn forget(&self, bucket: &BucketName) {
        self.0.lock().remove(bucket);
    }

    fn note(&self, bucket: &BucketName, loss: Loss) {
        self.0.lock().insert(bucket.clone(), loss);
    }

    /// Forgets what mounts before this one have lost; says whether that is all that is known.
    fn forget_before(&self, bucket: &BucketName, serial: u64) -> bool {
        let mut losses = self.0.lock();
        let is_before = losses.get(bucket).is_none_or(|loss| loss.serial < serial);
        if is_before {
            losses.remove(bucket);
        }
        is_before
    }
}

impl Daemon {
    /// Takes note of what a mount that ended has lost, if it has.
    pub(super) fn heed_loss(&self, served: &Served) {
        if let Some(why) = served.lost.get() {
            self.note_loss(&served.bucket, served.serial, why);
        }
    }

    fn note_loss(&self, bucket: &BucketName, serial: u64, why: &str) {
        let found = Found::new(SystemTime::now(), why.to_owned());
        self.losses.note(bucket, Loss { serial, found: found.clone() });
        self.remark(bucket, |remarks| remarks.lost = Some(found));
    }

    /// It is mounted now, under this number: whoever looks sees what is there. This mount may have ended
    /// already, and what it lost stays.
    pub(super) fn forget_loss(&self, bucket: &BucketName, serial: u64) {
        self.remark(bucket, |remarks| {
            // As the remarks are changed: what is noted later is remarked later too.
            if self.losses.forget_before(bucket, serial) {
                remarks.lost = None;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::remarks;

    #[test]
    fn a_mount_makes_those_losses_forgotten_that_were_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let (daemon, _inbox) = Daemon::for_test(dir.path());
        let bucket: BucketName = "b".parse().unwrap();
        let place = daemon.home.bucket_dir(&bucket);
        fs::create_dir_all(&place).unwrap();
        let told = || {
            let all = daemon.losses.all();
            let told = all.get(&bucket).cloned();
            assert_eq!(told, remarks::read(&place).unwrap().lost);
            told.map(|found| found.what)
        };
        daemon.note_loss(&bucket, 1, "the first");
        daemon.forget_loss(&bucket, 2);
        assert_eq!(told(), None);
        // That mount has ended before it was told that it is there.
        daemon.note_loss(&bucket, 2, "the second");
        daemon.forget_loss(&bucket, 2);
        assert_eq!(told().as_deref(), Some("the second"));
        daemon.forget_loss(&bucket, 3);
        assert_eq!(told(), None);
        daemon.net.stop();
    }
}
