//! What is about to be replaced is in a version.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path, time::SystemTime};

use cairnfs_mount_core::Time;

use crate::exit::{Code, Failure, Result};

/// How often there is another version at the most before something is replaced: whoever writes all the
/// time is not to be waited for.
const VERSIONS_MAX: u32 = 10;

/// Sees to it.
pub(super) struct Keeping<'p> {
    /// Has all that is there be in a version.
    publish: &'p dyn Fn() -> Result<()>,
    /// When that was last begun.
    published: SystemTime,
}

/// What tells whether something has been changed.
#[derive(PartialEq)]
struct State {
    ino: u64,
    changed: SystemTime,
    len: u64,
}

impl<'p> Keeping<'p> {
    /// For what is in a version now.
    pub(super) fn new(publish: &'p dyn Fn() -> Result<()>) -> Self {
        Self { publish, published: SystemTime::now() }
    }

    /// Has what is at `place` be in a version, if it may have been changed since the last one.
    pub(super) fn keep(&mut self, place: &Path) -> Result<()> {
        let Some(mut state) = look(place)? else { return Ok(()) };
        if state.changed < self.published {
            return Ok(());
        }
        for _ in 0..VERSIONS_MAX {
            self.published = SystemTime::now();
            (self.publish)()?;
            // By whichever clock it was changed: it is as it was before the version.
            match look(place)? {
                Some(now) if now != state => state = now,
                _ => return Ok(()),
            }
        }
        let message = format!("{}: left as it is, as it is being written to", place.display());
        Err(Failure::new(Code::Failed, message))
    }
}

/// `None` if nothing is there.
fn look(place: &Path) -> Result<Option<State>> {
    match fs::symlink_metadata(place) {
        Ok(meta) => {
            let nanos = u32::try_from(meta.ctime_nsec()).unwrap_or(0);
            let changed = Time { seconds: meta.ctime(), nanos }.into();
            Ok(Some(State { ino: meta.ino(), changed, len: meta.len() }))
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(Failure::file("look at", place, &err)),
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, time::Duration};

    use super::*;

    /// How many versions it takes to keep a file that is changed by the first few of them.
    fn versions(changes: u32, published: SystemTime) -> (u32, Result<()>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let count = Cell::new(0);
        let publish = || {
            count.set(count.get() + 1);
            if count.get() <= changes {
                fs::write(&file, "x".repeat(count.get() as usize)).unwrap();
            }
            Ok(())
        };
        let kept = Keeping { publish: &publish, published }.keep(&file);
        (count.get(), kept)
    }

    #[test]
    fn what_may_have_changed_is_kept_until_it_stays_as_it_is() {
        let hour = Duration::from_secs(3600);
        let (count, kept) = versions(0, SystemTime::now() + hour);
        assert!(kept.is_ok() && count == 0, "it is older than the version");
        // As if by a clock that is an hour ahead of ours.
        let (count, kept) = versions(0, SystemTime::now() - hour);
        assert!(kept.is_ok() && count == 1);
        let (count, kept) = versions(2, SystemTime::now() - hour);
        assert!(kept.is_ok() && count == 3);
        let (count, kept) = versions(u32::MAX, SystemTime::now() - hour);
        assert!(kept.is_err() && count == VERSIONS_MAX);
    }
}
