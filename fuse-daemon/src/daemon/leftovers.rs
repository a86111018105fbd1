//! What a crash has left: beside the buckets one that was being made or brought anew; in them a key
//! file that was to replace the one that is there. What was being dropped goes in
//! [`dropping`](super::dropping).

use std::{fs, io, path::PathBuf};

use cairnfs_mount_core::Bucket;

use crate::{
    exit::{Failure, Result},
    home::{BucketName, Home},
    lock::LockFile,
};

/// Removes it all. The caller holds the home, and has not begun with any bucket.
pub(super) fn remove(home: &Home) -> Result<()> {
    remove_in_buckets(home)?;
    // `create` needs no daemon, and what it is just making is not left.
    let Ok(_held) = LockFile::take(&home.create_lock())? else { return Ok(()) };
    for dir in find(home)? {
        fs::remove_dir_all(&dir).map_err(|err| Failure::file("remove", &dir, &err))?;
        log::info!("leftover removed={dir:?}");
    }
    Ok(())
}

fn remove_in_buckets(home: &Home) -> Result<()> {
    for name in home.bucket_names()? {
        let dir = home.bucket_dir(&name);
        match Bucket::remove_leftover(&dir) {
            Ok(false) => (),
            Ok(true) => log::info!("leftover removed=\"key file\" of={dir:?}"),
            // The others are worth it.
            Err(err) => log::warn!("leftover of={dir:?} reason={err}"),
        }
    }
    Ok(())
}

fn find(home: &Home) -> Result<Vec<PathBuf>> {
    let buckets = home.buckets_dir();
    let names: io::Result<Vec<_>> = fs::read_dir(&buckets)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
    let mut names = names.map_err(|err| Failure::file("read", &buckets, &err))?;
    names.retain(|name| name.to_str().is_some_and(is_leftover));
    Ok(names.iter().map(|name| buckets.join(name)).collect())
}

/// Whether this is the name of something that is to become a bucket, or was one: `.NAME.anew`,
/// `.NAME.unfinished`, or `..NAME.anew.unfinished`.
fn is_leftover(name: &str) -> bool {
    let inner = name
        .strip_prefix('.')
        .and_then(|name| name.strip_suffix(".anew").or_else(|| name.strip_suffix(".unfinished")));
    inner.is_some_and(|inner| inner.parse::<BucketName>().is_ok() || is_leftover(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_that_was_to_replace_another_goes_from_every_bucket() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(dir.path())).unwrap();
        home.prepare().unwrap();
        // The first is no bucket.
        fs::write(home.buckets_dir().join("a"), "").unwrap();
        let bucket = home.buckets_dir().join("b");
        fs::create_dir(&bucket).unwrap();
        for name in ["key", "key.new"] {
            fs::write(bucket.join(name), name).unwrap();
        }
        remove(&home).unwrap();
        assert_eq!(fs::read(bucket.join("key")).unwrap(), b"key");
        assert!(!bucket.join("key.new").exists());
    }

    #[test]
    fn nothing_is_a_leftover_that_this_program_does_not_leave() {
        for name in [".a.anew", ".a.unfinished", "..a.anew.unfinished", ".a.b.anew"] {
            assert!(is_leftover(name), "{name}");
        }
        for name in ["a", "a.anew", "a.unfinished", ".a", ".anew", "..anew", ".a b.anew", ""] {
            assert!(!is_leftover(name), "{name}");
        }
    }
}
