//! Paths in messages, as the bytes that they are: serde writes only those that are UTF-8.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use serde::{Deserializer, Serializer};

pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    serde_bytes::serialize(path.as_os_str().as_bytes(), to)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    let bytes: Vec<u8> = serde_bytes::deserialize(from)?;
    Ok(OsString::from_vec(bytes).into())
}
