//! Another passphrase for a bucket.

use cairnfs_mount_core::Bucket;

use super::{Daemon, mounting::once_let_go, table::Doing};
use crate::{
    control::{ChangePassphraseRequest, Opening},
    exit::{Failure, Result},
    passphrase,
};

impl Daemon {
    /// Changes the passphrase of a bucket, mounted or not.
    pub(super) fn change_passphrase(&self, request: &ChangePassphraseRequest) -> Result<()> {
        let Opening { bucket, secret } = &request.opening;
        let dir = self.home.bucket_dir(bucket);
        let present = passphrase::unlock(secret.as_ref());
        let new = passphrase::protection(request.new.as_ref());
        let changed = if let Some(served) = self.table.find(bucket) {
            served.mount.change_passphrase(&dir, present, new)
        } else {
            // What is kept for other devices is kept on only if it still needs no passphrase.
            let _claim = self.claim(bucket, Doing::Protecting)?;
            once_let_go(|| Bucket::change_passphrase(&dir, present, new))
        };
        changed.map_err(|err| Failure::bucket(bucket, &err))
    }
}
