//! Buckets that are not mounted and kept for other devices all the same, as on a machine that only
//! stores: `cairnfs daemon` opens whatever needs no passphrase, so that peers find it.

use cairnfs_mount_core::{Limits, Options};

use super::{
    Daemon,
    table::{Claim, Doing},
};
use crate::{
    control::{KeptReport, Opening},
    exit::{Failure, Result},
    home::BucketName,
};

/// Memory for what was read; nobody reads but peers.
const CACHE_BYTES: u64 = 4 << 20;

impl Daemon {
    /// Opens and offers every bucket that nobody uses and that needs no passphrase. What fails is
    /// logged: the others are worth having.
    pub(super) fn keep_rest(&self) {
        let names = match self.home.bucket_names() {
            Ok(names) => names,
            Err(failure) => return log::error!("keep reason={:?}", failure.message),
        };
        for name in names.iter().filter(|name| self.table.is_free(name)) {
            if let Err(failure) = self.keep(name) {
                log::warn!("keep bucket={name} reason={:?}", failure.message);
            }
        }
    }

    fn keep(&self, bucket: &BucketName) -> Result<()> {
        let described = cairnfs_mount_core::Bucket::describe(&self.home.bucket_dir(bucket));
        if described.map_err(|err| Failure::bucket(bucket, &err))?.needs_passphrase {
            return Ok(());
        }
        // Nobody is told of this claim: one that comes to nothing would be tried again at once.
        let claim = self.displace(bucket, Doing::Opening)?;
        let limits = Limits { cache_bytes: CACHE_BYTES, ..Limits::default() };
        let opening = Opening { bucket: bucket.clone(), secret: None };
        let mount = self.open(&opening, Options { limits, ..Options::default() })?;
        self.net.serve(bucket, &mount);
        if let Err(mount) = claim.keep(mount) {
            self.net.withdraw(bucket);
            self.give_up(bucket, &mount);
        }
        Ok(())
    }

    /// Takes the place of `bucket` as [`Table::claim`](super::table::Table::claim) does, also if
    /// it is kept for others: that ends, and begins again when the claim does.
    pub(super) fn claim(&self, bucket: &BucketName, doing: Doing) -> Result<Claim<'_>> {
        let mut claim = self.displace(bucket, doing)?;
        claim.tell(&self.happenings);
        Ok(claim)
    }

    fn displace(&self, bucket: &BucketName, doing: Doing) -> Result<Claim<'_>> {
        let mut claim = self.table.claim(bucket, doing)?;
        if let Some(kept) = claim.displaced() {
            self.net.withdraw(bucket);
            self.give_up(bucket, &kept);
        }
        Ok(claim)
    }

    /// Ends everything that is kept for others. Nothing begins any more.
    pub(super) fn end_kept(&self) -> Result<()> {
        let mut result = Ok(());
        for (bucket, mount) in self.table.take_kept() {
            self.net.withdraw(&bucket);
            self.remember(&bucket, &mount);
            let stopped = mount.stop().map_err(|err| Failure::bucket(&bucket, &err));
            result = result.and(stopped);
        }
        result
    }

    /// What is kept for others.
    pub(super) fn kept(&self) -> Vec<KeptReport> {
        let kept = self.table.kept().into_iter();
        let report = |(bucket, mount)| {
            self.remember(&bucket, &mount);
            KeptReport::new(bucket, &mount)
        };
        kept.map(report).collect()
    }
}

#[cfg(test)]
mod tests {
    use cairnfs_mount_core::{Bucket, Protection};

    use super::*;
    use crate::daemon::Happening;

    #[test]
    fn what_a_verb_took_is_kept_for_others_again() {
        let dir = tempfile::tempdir().unwrap();
        let (daemon, inbox) = Daemon::for_test(dir.path());
        let bucket: BucketName = "b".parse().unwrap();
        let place = daemon.home.bucket_dir(&bucket);
        Bucket::create(&place, &daemon.device, Protection::KeyFile).unwrap();
        daemon.keep_rest();
        assert_eq!(daemon.kept().len(), 1);
        assert!(inbox.try_recv().is_err(), "keeping is nobody's work but the main thread's");
        let claim = daemon.claim(&bucket, Doing::Reading).unwrap();
        assert!(daemon.kept().is_empty());
        drop(claim);
        assert!(matches!(inbox.try_recv(), Ok(Happening::Freed)));
        daemon.keep_rest();
        assert_eq!(daemon.kept().len(), 1);
        daemon.end_kept().unwrap();
        daemon.net.stop();
    }
}
