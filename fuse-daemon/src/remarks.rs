//! What is to be known of a bucket also while nobody has it open: `remarks.toml` in its folder.
//!
//! No name in a bucket is in it. It is only a remark: where it cannot be written nothing else fails.

use std::{fs, io, path::Path, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    durable,
    exit::{Failure, Result},
    order::{self, Mutex},
    when,
};

/// Held by whoever changes a file; only the daemon does.
static CHANGING: Mutex<(), order::Remarks> = Mutex::new(());

/// The file; there is none if there is nothing to say.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Remarks {
    /// Whether it was joined, and its first version has not come yet.
    #[serde(default)]
    pub(crate) awaits_first_version: bool,
    /// What was found damaged, and no check has found whole since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) damage: Option<Found>,
    /// What its last mount could not save.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<Found>,
}

/// Damage or a loss, and when it was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Found {
    /// As [`when::rfc3339`] writes it.
    at: String,
    /// Such as `2 damages found`, or why nothing could be saved.
    pub(crate) what: String,
}

impl Found {
    pub(crate) fn new(at: SystemTime, what: String) -> Self {
        Self { at: when::rfc3339(at), what }
    }

    /// When; `None` if somebody has edited the file.
    pub(crate) fn at(&self) -> Option<SystemTime> {
        when::parse(&self.at)
    }
}

/// The remarks on the bucket in `dir`.
///
/// # Errors
///
/// The file is there and cannot be read, or somebody has edited it.
pub(crate) fn read(dir: &Path) -> Result<Remarks> {
    durable::load(&path(dir))
}

/// Changes the remarks on the bucket in `dir`. What fails is logged.
pub(crate) fn change(dir: &Path, change: impl FnOnce(&mut Remarks)) {
    let _changing = CHANGING.lock();
    if let Err(failure) = try_change(dir, change) {
        log::warn!("remark reason={:?}", failure.message);
    }
}

fn try_change(dir: &Path, change: impl FnOnce(&mut Remarks)) -> Result<()> {
    let path = path(dir);
    let before = read(dir)?;
    let mut remarks = before.clone();
    change(&mut remarks);
    if remarks == before {
        return Ok(());
    }
    if remarks != Remarks::default() {
        return durable::store(&path, "Written by the daemon, for 'cairnfs status'.", &remarks);
    }
    match fs::remove_file(&path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(Failure::file("remove", &path, &err))
        }
        _ => Ok(()),
    }
}

fn path(dir: &Path) -> std::path::PathBuf {
    dir.join("remarks.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_told_until_it_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), Remarks::default());
        let found = Found::new(SystemTime::now(), "2 damages found".to_owned());
        change(dir.path(), |remarks| remarks.damage = Some(found.clone()));
        assert_eq!(read(dir.path()).unwrap().damage, Some(found.clone()));
        assert!(when::since(found.at().unwrap()).as_secs() < 60);
        change(dir.path(), |remarks| remarks.damage = None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left of it");
    }

    #[test]
    fn what_cannot_be_read_is_no_remark_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(path(dir.path()), "damage = what was found").unwrap();
        assert!(read(dir.path()).is_err());
        change(dir.path(), |remarks| remarks.awaits_first_version = true);
        assert_eq!(fs::read(path(dir.path())).unwrap(), b"damage = what was found");
    }
}
