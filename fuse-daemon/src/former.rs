//! Buckets that were here and were dropped, or brought anew: `former.toml`.
//!
//! A device that joins one again goes on under a name that it has not had there, its next
//! incarnation: others may know operations of its former life of which whoever lets it in has never
//! heard, and what it does now must not be mistaken for those.

use cairnfs_mount_core::BucketId;
use serde::{Deserialize, Serialize};

use crate::{durable, exit::Result, home::Home, lock::LockFile};

/// Buckets remembered; of those that are one too many the oldest goes.
const FORMER_MAX: usize = 1024;

/// How many incarnations a device is taken to have had since it joined a bucket that does not open: each
/// time that it was put back to an older state it had one more. Others name it as the author of what it
/// writes in its first sixteen.
const UNKNOWN: u32 = 8;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Former {
    id: String,
    /// The incarnation of the next life.
    next: u32,
}

#[derive(Default, Serialize, Deserialize)]
struct File {
    #[serde(default)]
    bucket: Vec<Former>,
}

/// The incarnation with which this device joins a bucket.
pub(crate) fn next_incarnation(home: &Home, bucket: BucketId) -> Result<u32> {
    let File { bucket: all } = durable::load(&home.former_file())?;
    let id = bucket.to_string();
    Ok(all.iter().find(|one| one.id == id).map_or(0, |one| one.next))
}

/// A bucket is about to be dropped, or brought anew, in which this device has this incarnation; `None` of
/// one that does not open.
pub(crate) fn remember(home: &Home, bucket: BucketId, incarnation: Option<u32>) -> Result<()> {
    let _held = LockFile::wait(&home.run_dir().join("former.lock"))?;
    let joined = next_incarnation(home, bucket)?;
    let next = match incarnation {
        Some(incarnation) => incarnation.max(joined).saturating_add(1),
        None => joined.saturating_add(UNKNOWN),
    };
    let mut file: File = durable::load(&home.former_file())?;
    let id = bucket.to_string();
    file.bucket.retain(|one| one.id != id);
    file.bucket.push(Former { id, next });
    let excess = file.bucket.len().saturating_sub(FORMER_MAX);
    file.bucket.drain(..excess);
    durable::store(&home.former_file(), "Buckets that were dropped here, or brought anew.", &file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_it_joins_a_device_has_another_incarnation() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(dir.path())).unwrap();
        home.prepare().unwrap();
        let (bucket, other) = (BucketId([1; 16]), BucketId([2; 16]));
        let next = || next_incarnation(&home, bucket).unwrap();
        assert_eq!(next(), 0);
        remember(&home, bucket, Some(0)).unwrap();
        assert_eq!(next(), 1);
        // Which began anew since.
        remember(&home, bucket, Some(3)).unwrap();
        assert_eq!(next(), 4);
        remember(&home, bucket, None).unwrap();
        assert_eq!((next(), next_incarnation(&home, other).unwrap()), (4 + UNKNOWN, 0));
        for n in 0..FORMER_MAX {
            let mut id = BucketId([3; 16]);
            id.0[..8].copy_from_slice(&n.to_le_bytes());
            remember(&home, id, None).unwrap();
        }
        assert_eq!(next(), 0, "it was the oldest");
    }
}
