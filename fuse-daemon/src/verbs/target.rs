//! What a person means by a bucket's name or a path below a mount point.

use std::{
    ffi::OsStr,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Component, Path, PathBuf},
};

use super::Context;
use crate::{
    control::MountReport,
    exit::{Code, Failure, Result},
    home::BucketName,
    place,
};

/// A bucket, or something in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Target {
    pub(super) bucket: BucketName,
    /// Where the bucket is mounted, if it is.
    pub(super) dir: Option<PathBuf>,
    /// The path in the bucket; empty for all of it.
    pub(super) path: Vec<u8>,
}

impl Target {
    /// A mount as a whole.
    pub(super) fn of(mount: &MountReport) -> Self {
        Self { bucket: mount.bucket.clone(), dir: Some(mount.dir.clone()), path: Vec::new() }
    }

    /// What `text` means: the bucket of this name, else a path below a mount point.
    pub(super) fn find(context: &Context, text: &OsStr) -> Result<Self> {
        let mounts = context.mounts()?;
        let name = text.to_str().and_then(|text| text.parse::<BucketName>().ok());
        if let Some(name) = &name
            && !context.home.bucket_dir(name).exists()
            && !Path::new(text).exists()
        {
            // Refuses in the words of all other verbs.
            context.describe(name)?;
        }
        if let Some(bucket) = name.filter(|name| context.home.bucket_dir(name).exists()) {
            let mount = mounts.iter().find(|mount| mount.bucket == bucket);
            let dir = mount.map(|mount| mount.dir.clone());
            return Ok(Self { bucket, dir, path: Vec::new() });
        }
        Self::below(&mounts, Path::new(text))
    }

    /// The mount that a path leads into, and the path in its bucket.
    pub(super) fn below(mounts: &[MountReport], path: &Path) -> Result<Self> {
        let place = place::resolve_parent(path)?;
        let found = mounts
            .iter()
            .find_map(|mount| place.strip_prefix(&mount.dir).ok().map(|below| (mount, below)));
        let Some((mount, below)) = found else {
            let message = format!(
                "{} is in no mounted bucket ('cairnfs list' shows what is mounted where)",
                path.display()
            );
            return Err(Failure::new(Code::NotFound, message));
        };
        Ok(Self { path: joined(below, path)?, ..Self::of(mount) })
    }

    /// A path in the bucket, as a person can use it: in the mount, if there is one.
    pub(super) fn outside(&self, path: &[u8]) -> PathBuf {
        let path = Path::new(OsStr::from_bytes(path));
        self.dir.as_ref().map_or_else(|| path.to_owned(), |dir| dir.join(path))
    }
}

/// The parts of a path, joined as they are in a bucket. `shown` is what a refusal names.
pub(super) fn joined(path: &Path, shown: &Path) -> Result<Vec<u8>> {
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => inside.push(name),
            Component::RootDir | Component::CurDir => (),
            Component::ParentDir | Component::Prefix(_) => {
                let message = format!("{}: write the path without '..'", shown.display());
                return Err(Failure::usage(message));
            }
        }
    }
    Ok(inside.into_os_string().into_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_in_the_mount_if_there_is_one() {
        let mut target =
            Target { bucket: "b".parse().unwrap(), dir: None, path: b"notes".to_vec() };
        assert_eq!(target.outside(b"notes/a"), Path::new("notes/a"));
        target.dir = Some("/mnt".into());
        assert_eq!(target.outside(b"notes/a"), Path::new("/mnt/notes/a"));
    }

    #[test]
    fn a_path_in_a_bucket_has_no_dots() {
        let joined = |path: &str| joined(Path::new(path), Path::new(path));
        assert_eq!(joined("/a//b/./c").unwrap(), b"a/b/c");
        assert_eq!(joined("").unwrap(), b"");
        assert_eq!(joined("a/../b").unwrap_err().code, Code::Usage);
    }
}
