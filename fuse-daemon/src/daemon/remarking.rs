//! What is remarked on a bucket, for who asks when nobody has it open.

use cairnfs_mount_core::Mount;
use cairnfs_store::Rot;

use super::Daemon;
use crate::{
    exit::{Code, Failure, Result},
    home::BucketName,
    remarks::{self, Found, Remarks},
};

impl Daemon {
    /// Passes on what came of something, having taken note if that was damage.
    pub(super) fn heed<T>(&self, bucket: &BucketName, outcome: Result<T>) -> Result<T> {
        if let Err(failure) = &outcome
            && failure.code == Code::Damage
        {
            let found = found(bucket, failure);
            // A check knows better than who met some of it.
            self.remark(bucket, |remarks| {
                remarks.damage.get_or_insert(found);
            });
        }
        outcome
    }

    /// Takes note of what a check came to.
    pub(super) fn heed_check<T>(&self, bucket: &BucketName, outcome: &Result<T>) {
        match outcome {
            Ok(_) => self.remark(bucket, |remarks| remarks.damage = None),
            Err(failure) if failure.code == Code::Damage => {
                self.remark(bucket, |remarks| remarks.damage = Some(found(bucket, failure)));
            }
            Err(_) => (),
        }
    }

    /// Takes note of what is known of an open bucket, before it is closed or asked for.
    pub(super) fn remember(&self, bucket: &BucketName, mount: &Mount) {
        let awaits_first_version = mount.awaits_first_version();
        let met = mount.rot().map(met);
        self.remark(bucket, |remarks| {
            remarks.awaits_first_version = awaits_first_version;
            remarks.damage = remarks.damage.take().or(met);
        });
    }

    pub(super) fn remark(&self, bucket: &BucketName, change: impl FnOnce(&mut Remarks)) {
        remarks::change(&self.home.bucket_dir(bucket), change);
    }
}

/// What readers met.
fn met(Rot { blobs, since }: Rot) -> Found {
    let what = match blobs {
        1 => "1 piece could not be read".to_owned(),
        more => format!("{more} pieces could not be read"),
    };
    Found::new(since, what)
}

/// What is damaged, without what `status` says of it anyway.
fn found(bucket: &BucketName, failure: &Failure) -> Found {
    let of_bucket = [format!("bucket '{bucket}': "), format!("bucket '{bucket}' is damaged: ")];
    let remedy = format!(" (run 'cairnfs check {bucket}')");
    let what = failure.message.as_str();
    let what = of_bucket.iter().find_map(|start| what.strip_prefix(start)).unwrap_or(what);
    let what = what.strip_suffix(&remedy).unwrap_or(what);
    Found::new(std::time::SystemTime::now(), what.to_owned())
}

#[cfg(test)]
mod tests {
    use cairnfs_mount_core::Error;

    use super::*;

    #[test]
    fn what_status_says_anyway_is_not_remarked() {
        let bucket: BucketName = "b".parse().unwrap();
        let damaged = Error::Damaged { what: "a record".into() };
        assert_eq!(found(&bucket, &Failure::bucket(&bucket, &damaged)).what, "a record");
        let checked = Failure::new(Code::Damage, "bucket 'b': 2 damages found");
        assert_eq!(found(&bucket, &checked).what, "2 damages found");
    }
}
