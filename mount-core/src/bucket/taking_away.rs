//! Taking a bucket off this device.
//!
//! ```text
//!   1  it gets another name, at once      from here on there is no such bucket
//!   2  its key file is overwritten        so that what is left of the packs cannot be read
//!   3  all of it is removed
//! ```
//!
//! What a crash leaves after step 1 is no bucket and opens as none: steps 2 and 3 are done again.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use cairnfs_store::{
    self as store,
    disk::{Disk, RealDisk},
    keys::keyfile,
};

use super::{Bucket, BucketId, io_error, read_id};
use crate::{Error, Result, key_file::KeyFile};

impl Bucket {
    /// Step 1: gives the bucket at `dir` the name `aside` beside it, where nothing is. It need not
    /// be one that opens.
    ///
    /// # Errors
    ///
    /// [`Error::NoBucket`] if `dir` is no directory; [`Error::Locked`] if somebody has it open;
    /// [`Error::Io`].
    pub fn set_aside(dir: &Path, aside: &Path) -> Result<()> {
        // Of a link the name would go, and the bucket would stay.
        if !fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir()) {
            return Err(Error::NoBucket(dir.to_owned()));
        }
        let _lock = store::lock(&RealDisk, dir)?;
        fs::rename(dir, aside).map_err(|err| io_error("rename", dir, &err))?;
        sync_parent(aside)
    }

    /// Steps 2 and 3, of what was set aside. No error if nothing is there.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn clear_away(aside: &Path) -> Result<()> {
        if let Err(err) = overwrite_key(aside) {
            // It is removed all the same.
            log::warn!("overwrite key-file of={aside:?} reason={err}");
        }
        match fs::remove_dir_all(aside) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", aside, &err))
            }
            _ => sync_parent(aside),
        }
    }

    /// The name for life that is noted in `dir`, whether that is a bucket that opens, one that does
    /// not, or what was set aside.
    #[must_use]
    pub fn noted_id(dir: &Path) -> Option<BucketId> {
        read_id(dir)
    }
}

/// Overwrites the key file, where its bytes are this bucket's alone: a link to it, or one that it is,
/// is somebody's copy.
fn overwrite_key(dir: &Path) -> Result<()> {
    let path = KeyFile::path(dir);
    match fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_file() && meta.nlink() == 1 => {
            Ok(keyfile::overwrite(&RealDisk, &path)?)
        }
        _ => Ok(()),
    }
}

fn sync_parent(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    RealDisk.sync_dir(parent).map_err(|err| io_error("sync", parent, &err))
}

#[cfg(test)]
mod tests {
    use cairnfs_store::DeviceKey;

    use super::*;
    use crate::Protection;

    fn bucket() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let (dir, aside) = (root.path().join("b"), root.path().join(".b.dropped"));
        let device = DeviceKey::generate().unwrap();
        Bucket::create(&dir, &device, Protection::KeyFile).unwrap();
        (root, dir, aside)
    }

    #[test]
    fn what_is_set_aside_is_no_bucket_and_goes() {
        let (root, dir, aside) = bucket();
        let id = Bucket::describe(&dir).unwrap().id;
        Bucket::set_aside(&dir, &aside).unwrap();
        assert!(matches!(Bucket::describe(&dir), Err(Error::NoBucket(_))));
        assert_eq!(Bucket::noted_id(&aside), id);
        for _ in 0..2 {
            Bucket::clear_away(&aside).unwrap();
            assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn who_has_it_open_keeps_it() {
        let (_root, dir, aside) = bucket();
        let _held = store::lock(&RealDisk, &dir).unwrap();
        assert!(matches!(Bucket::set_aside(&dir, &aside), Err(Error::Locked { .. })));
        assert!(Bucket::describe(&dir).is_ok());
    }

    #[test]
    fn the_key_file_is_overwritten_but_no_copy_of_it() {
        let (root, dir, _) = bucket();
        let key = fs::read(dir.join("key")).unwrap();
        let copy = root.path().join("copy");
        fs::hard_link(dir.join("key"), &copy).unwrap();
        overwrite_key(&dir).unwrap();
        assert_eq!(fs::read(&copy).unwrap(), key);
        fs::remove_file(&copy).unwrap();
        overwrite_key(&dir).unwrap();
        assert_eq!(fs::read(dir.join("key")).unwrap(), vec![0; key.len()]);
    }
}
