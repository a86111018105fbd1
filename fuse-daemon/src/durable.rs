//! Small files of the home that must not be lost: TOML, read whole and replaced whole.

use std::{fs, io, path::Path};

use cairnfs_store::disk::{Disk, Open, RealDisk};
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

/// Makes `contents` what is in the file at `path`, which ends in `.toml`, below a line of comment.
/// Afterwards, and after a crash at any moment, there is the old file or the new one. Its mode is
/// 0600.
pub(crate) fn store<T: Serialize>(path: &Path, comment: &str, contents: &T) -> Result<()> {
    let text = toml::to_string(contents).map_err(|err| {
        Failure::new(Code::Failed, format_args!("cannot write {}: {err}", path.display()))
    })?;
    replace(path, &format!("# {comment}\n{text}"))
}

fn replace(path: &Path, text: &str) -> Result<()> {
    let replace = || {
        let fresh = path.with_extension("toml.new");
        let file = RealDisk.open(&fresh, Open::OrCreate)?;
        file.set_len(0)?;
        file.write_at(text.as_bytes(), 0)?;
        file.barrier()?;
        RealDisk.rename(&fresh, path)?;
        path.parent().map_or(Ok(()), |dir| RealDisk.sync_dir(dir))
    };
    replace().map_err(|err: io::Error| Failure::file("write", path, &err))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

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
