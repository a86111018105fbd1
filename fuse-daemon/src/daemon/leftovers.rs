//! What a crash has left beside the buckets: one that was being made, brought anew, or dropped.

use std::{fs, io, path::PathBuf};

use crate::{
    exit::{Failure, Result},
    home::{BucketName, Home},
    lock::LockFile,
};

/// Removes it all. The caller holds the home, and has not begun with any bucket.
pub(super) fn remove(home: &Home) -> Result<()> {
    // `create` needs no daemon, and what it is just making is not left.
    let Ok(_held) = LockFile::take(&home.create_lock())? else { return Ok(()) };
    for dir in find(home)? {
        fs::remove_dir_all(&dir).map_err(|err| Failure::file("remove", &dir, &err))?;
        log::info!("leftover removed={dir:?}");
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
    fn nothing_is_a_leftover_that_this_program_does_not_leave() {
        for name in [".a.anew", ".a.unfinished", "..a.anew.unfinished", ".a.b.anew"] {
            assert!(is_leftover(name), "{name}");
        }
        for name in ["a", "a.anew", "a.unfinished", ".a", ".anew", "..anew", ".a b.anew", ""] {
            assert!(!is_leftover(name), "{name}");
        }
    }
}
