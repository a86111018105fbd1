//! Small files of the home that must not be lost: TOML, read whole and replaced whole.

use std::{fs, io, path::Path};

use cairnfs_store::{
    Error as StoreError,
    disk::{RealDisk, replace_file},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::exit::{Code, Failure, Result};

/// The text of the file at `path`, if there is one.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(Failure::file("read", path, &err)),
    }
}

/// What is in the file at `path`; nothing if there is none.
///
/// # Errors
///
/// [`Code::Usage`] if it does not parse: somebody has edited it.
pub(crate) fn load<T: DeserializeOwned + Default>(path: &Path) -> Result<T> {
    read(path)?.map_or_else(|| Ok(T::default()), |text| parse(path, &text))
}

/// What the file at `path` holds, of which this is the text.
pub(crate) fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    toml::from_str(text).map_err(|err: toml::de::Error| {
        Failure::usage(format_args!("{}: {}", path.display(), err.message()))
    })
}

/// Makes `contents` what is in the file at `path`, below a line of comment. Afterwards, and after a
/// crash at any moment, there is the old file or the new one. Its mode is 0600.
pub(crate) fn store<T: Serialize>(path: &Path, comment: &str, contents: &T) -> Result<()> {
    let text = toml::to_string(contents).map_err(|err| {
        Failure::new(Code::Failed, format_args!("cannot write {}: {err}", path.display()))
    })?;
    let text = format!("# {comment}\n{text}");
    replace_file(&RealDisk, path, text.as_bytes()).map_err(|err| match err {
        StoreError::Io { what, path, source } => Failure::file(what, &path, &source),
        StoreError::NoSpace { .. } => {
            let message = format!("cannot write {}: no space left on its disk", path.display());
            Failure::new(Code::NoSpace, message)
        }
        err => Failure::new(Code::Failed, err),
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn nobody_else_reads_a_file_because_of_what_a_crash_has_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some.toml");
        let left = dir.path().join("some.toml.new");
        fs::write(&left, "lef").unwrap();
        fs::set_permissions(&left, PermissionsExt::from_mode(0o644)).unwrap();
        store(&path, "Written by a test.", &BTreeMap::<String, u32>::new()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!left.exists());
    }

    #[test]
    fn what_is_stored_is_loaded_and_nothing_if_there_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some.toml");
        type Contents = BTreeMap<String, u32>;
        assert_eq!(load::<Contents>(&path), Ok(Contents::new()));
        for number in [1, 2] {
            let contents: Contents = [("key".to_owned(), number)].into();
            store(&path, "Written by a test.", &contents).unwrap();
            assert_eq!(load::<Contents>(&path), Ok(contents));
        }
        assert_eq!(read(&path).unwrap().unwrap(), "# Written by a test.\nkey = 2\n");
        fs::write(&path, "key = ").unwrap();
        let failure = load::<Contents>(&path).unwrap_err();
        assert_eq!(failure.code, Code::Usage);
        assert!(failure.message.contains("some.toml"), "{}", failure.message);
    }
}
