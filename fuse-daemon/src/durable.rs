//! Small files of the home that must not be lost.

use std::{io, path::Path};

use cairnfs_store::disk::{Disk, Open, RealDisk};

use crate::exit::{Failure, Result};

/// Gives the file at `path`, which ends in `.toml`, the content `text`. Afterwards, and after a
/// crash at any moment, there is the old file or the new one. Its mode is 0600.
pub(crate) fn replace(path: &Path, text: &str) -> Result<()> {
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
