//! Seeing to it that what is read of a log is what the medium has.
//!
//! A process that ended between a write and its barrier leaves records that only the system's memory has:
//! they read back whole, and go with the power. After a barrier that failed the system may even take
//! them for written, so that no other one ever writes them (Rebello et al., ATC 2020).

use super::packs::Packs;
use crate::Result;
use crate::error::IoContext;

/// The packs whose writes may not be durable.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unsettled {
    /// The last one, and the one before: that is written to again if the last was only begun. Those
    /// before it were durable when another was begun.
    Last,
    /// Any: a repair writes headers anew, and may not have come to its end.
    Any,
}

/// Directories whose names count: that of the packs, that of the store, and the one in which it is.
const DIRS: usize = 3;

/// Makes the log as it reads now durable, with the names that lead to it, and has what is read of it from
/// here on come from the medium. Before it nothing of a log that was open may be believed.
///
/// Costs a barrier for each of the packs and directories, which is quick where nothing is on its way.
pub(crate) fn settle(packs: &Packs, which: Unsettled) -> Result<()> {
    let numbers = packs.list()?;
    let first = match which {
        Unsettled::Last => numbers.len().saturating_sub(2),
        Unsettled::Any => 0,
    };
    for &number in numbers.iter().skip(first) {
        let file = packs.file(number)?;
        // What one that fails leaves is another matter for who tries again.
        let synced = file.barrier().at("sync", &packs.path(number));
        file.forget_cached();
        synced?;
    }
    let mut dirs = packs.dir().ancestors().take(DIRS).filter(|dir| !dir.as_os_str().is_empty());
    dirs.try_for_each(|dir| packs.disk().sync_dir(dir).at("sync", dir))
}
