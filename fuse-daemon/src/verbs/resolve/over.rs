//! A content and the contested file that it is to be written over.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use cairnfs_mount_core::{ConflictInfo, ConflictSide};

use super::changed;
use crate::{
    exit::{Failure, Result},
    verbs::target::Target,
};

/// See the module's doc.
pub(super) struct Over {
    from: File,
    to: File,
    path: PathBuf,
    /// The device and inode number of `to`.
    number: (u64, u64),
    /// Whether both are one file.
    is_same: bool,
}

impl Over {
    /// Opens both, and changes nothing.
    pub(super) fn open(file: &Path, path: &Path) -> Result<Self> {
        let from = File::open(file).map_err(|err| Failure::file("read", file, &err))?;
        let failed = |err: &io::Error| Failure::file("write", path, err);
        if !fs::symlink_metadata(path).map_err(|err| failed(&err))?.is_file() {
            let message = format!("{}: only a regular file can take a content", path.display());
            return Err(Failure::usage(message));
        }
        let to = OpenOptions::new().write(true).open(path).map_err(|err| failed(&err))?;
        let number = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino()));
        let source = number(&from).map_err(|err| Failure::file("read", file, &err))?;
        let number = number(&to).map_err(|err| failed(&err))?;
        Ok(Self { from, to, path: path.to_owned(), number, is_same: source == number })
    }

    /// The contested file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the one over the other, and syncs it.
    pub(super) fn write(&self) -> Result<()> {
        if self.is_same {
            return Ok(());
        }
        let written = self
            .to
            .set_len(0)
            .and_then(|()| io::copy(&mut &self.from, &mut &self.to))
            .and_then(|_len| Ok(rustix::fs::fsync(&self.to)?));
        written.map_err(|err| Failure::file("write", &self.path, &err))
    }

    /// Whether `path` shows what was written.
    fn is_at(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.number)
    }

    /// The version that this has made in the conflict.
    pub(super) fn version(&self, conflict: &ConflictInfo, target: &Target) -> Result<[u8; 32]> {
        let is_written = |side: &&ConflictSide| self.is_at(&target.outside(&side.path));
        let written = conflict.sides.iter().find(is_written);
        written.map(|side| side.id).ok_or_else(|| changed(&self.path))
    }

    /// The failure to settle what was written over already with what is in `file`.
    pub(super) fn but_written(&self, file: &Path, failure: Failure) -> Failure {
        if self.is_same {
            return failure;
        }
        let Failure { code, message } = failure;
        let file = file.display();
        Failure::new(
            code,
            format_args!(
                "{message}; {file} was written there, and the version before is in 'cairnfs log'"
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Code;

    #[test]
    fn a_file_replaces_the_content_and_nothing_but_a_file_does() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "merged by hand").unwrap();
        fs::write(&to, "what was there, which is longer").unwrap();
        for source in [&from, &to] {
            let over = Over::open(source, &to).unwrap();
            over.write().unwrap();
            assert_eq!(fs::read(&to).unwrap(), b"merged by hand");
            assert!(over.is_at(&to) && !over.is_at(&from));
        }
        assert_eq!(Over::open(&from, dir.path()).err().map(|err| err.code), Some(Code::Usage));
    }
}
