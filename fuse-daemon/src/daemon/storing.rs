//! Buckets that are not mounted and kept for other devices all the same, as on a machine that only
//! stores: `cairnfs daemon` opens whatever needs no passphrase, so that peers find it.

use cairnfs_mount_core::{Limits, Options};

use super::{
    Daemon,
    mounting::give_up,
    table::{Claim, OPENING},
};
use crate::{
    control::{Opening, StoredReport},
    exit::{Failure, Result},
    home::BucketName,
};

/// Memory for what was read; nobody reads but peers.
const CACHE_BYTES: u64 = 4 << 20;

impl Daemon {
    /// Opens and offers every bucket that nobody uses and that needs no passphrase. What fails is
    /// logged: the others are worth having.
    pub(super) fn store_rest(&self) {
        let names = match self.home.bucket_names() {
            Ok(names) => names,
            Err(failure) => return log::error!("store reason={:?}", failure.message),
        };
        for name in names.iter().filter(|name| self.table.is_free(name)) {
            if let Err(failure) = self.store(name) {
                log::warn!("store reason={:?}", failure.message);
            }
        }
    }

    fn store(&self, bucket: &BucketName) -> Result<()> {
        let described = cairnfs_mount_core::Bucket::describe(&self.home.bucket_dir(bucket));
        if described.map_err(|err| Failure::bucket(bucket, &err))?.needs_passphrase {
            return Ok(());
        }
        // Nobody is told of this claim: one that comes to nothing would be tried again at once.
        let claim = self.displace(bucket, OPENING)?;
        let limits = Limits { cache_bytes: CACHE_BYTES, ..Limits::default() };
        let opening = Opening { bucket: bucket.clone(), secret: None };
        let mount = self.open(&opening, Options { limits, ..Options::default() })?;
        self.net.serve(bucket, &mount);
        if let Err(mount) = claim.store(mount) {
            self.net.withdraw(bucket);
            give_up(&mount);
        }
        Ok(())
    }

    /// Takes the place of `bucket` as [`Table::claim`](super::table::Table::claim) does, also if
    /// it is kept for others: that ends, and begins again when the claim does.
    pub(super) fn claim(&self, bucket: &BucketName, doing: &'static str) -> Result<Claim<'_>> {
        let mut claim = self.displace(bucket, doing)?;
        claim.tell(&self.happenings);
        Ok(claim)
    }

    fn displace(&self, bucket: &BucketName, doing: &'static str) -> Result<Claim<'_>> {
        let mut claim = self.table.claim(bucket, doing)?;
        if let Some(stored) = claim.displaced() {
            self.net.withdraw(bucket);
            give_up(&stored);
        }
        Ok(claim)
    }

    /// Ends everything that is kept for others. Nothing begins any more.
    pub(super) fn end_stored(&self) -> Result<()> {
        let mut result = Ok(());
        for (bucket, mount) in self.table.take_stored() {
            self.net.withdraw(&bucket);
            let stopped = mount.stop().map_err(|err| Failure::bucket(&bucket, &err));
            result = result.and(stopped);
        }
        result
    }

    /// What is kept for others.
    pub(super) fn stored(&self) -> Vec<StoredReport> {
        let stored = self.table.stored().into_iter();
        stored.map(|(bucket, mount)| StoredReport::new(bucket, &mount)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicUsize};

    use cairnfs_mount_core::{Bucket, Protection};
    use crossbeam_channel::bounded;

    use super::*;
    use crate::{
        daemon::{Happening, table::Table},
        home::Home,
        net::{Net, NetOptions},
    };

    #[test]
    fn what_a_verb_took_is_kept_for_others_again() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(dir.path())).unwrap();
        home.prepare().unwrap();
        let device = Arc::new(home.device_key().unwrap());
        let net = Net::start(&home, Arc::clone(&device), NetOptions::default()).unwrap();
        let bucket: BucketName = "b".parse().unwrap();
        Bucket::create(&home.bucket_dir(&bucket), &device, Protection::KeyFile).unwrap();
        let (happenings, inbox) = bounded(8);
        let daemon = Daemon {
            home,
            device,
            device_name: "a test".into(),
            net,
            table: Table::default(),
            happenings,
            connections: AtomicUsize::new(0),
        };
        daemon.store_rest();
        assert_eq!(daemon.stored().len(), 1);
        assert!(inbox.try_recv().is_err(), "storing is nobody's work but the main thread's");
        let claim = daemon.claim(&bucket, "being read").unwrap();
        assert!(daemon.stored().is_empty());
        drop(claim);
        assert!(matches!(inbox.try_recv(), Ok(Happening::Freed)));
        daemon.store_rest();
        assert_eq!(daemon.stored().len(), 1);
        daemon.end_stored().unwrap();
        daemon.net.stop();
    }
}
