//! Making the index anew from a log that is damaged.
//!
//! # Invariants
//!
//! 1. The index that was there stays until the log is mended and the new one durable: it alone tells
//!    that there was more. So a repair that is interrupted anywhere can be begun again.

use std::path::Path;
use std::sync::Arc;

use super::{Damage, LostEnd, Told, told};
use crate::disk::Disk;
use crate::index::{Index, Mark};
use crate::journal::Pos;
use crate::journal::packs::Packs;
use crate::journal::recover::recover;
use crate::journal::settle::Unsettled;
use crate::open::{lock_packs, saves_left};
use crate::reserve::Reserve;
use crate::{Error, KeyRing, Options, Result};

/// What [`repair`] could not bring back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// What is damaged, in the order of the log.
    pub damage: Vec<Damage>,
    /// What the log had lost at its end.
    pub lost_end: Option<LostEnd>,
}

/// Makes the index anew, from whatever of the packs can be read: afterwards the store opens, and
/// what is damaged is an error only for who reads it. It needs room for a second index meanwhile.
///
/// A save record that is damaged is lost with its payload; the blobs of its batch are kept.
///
/// # Errors
///
/// As [`crate::open`], but not for damaged records. It can be begun again then, and finds what it would
/// have found.
#[allow(clippy::needless_pass_by_value, reason = "as `open` takes them")]
pub fn repair(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    keys: KeyRing,
    options: Options,
) -> Result<Repaired> {
    let packs = Packs::new(Arc::clone(disk), dir);
    let _lock = lock_packs(&packs, dir, &keys, Unsettled::Any)?;
    let remake = || remake(disk, dir, &packs, &keys, options);
    match remake() {
        Err(Error::NoSpace { .. })
            if Reserve::new(disk, dir, options.reserve_bytes).release()? =>
        {
            remake()
        }
        repaired => repaired,
    }
}

fn remake(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    packs: &Packs,
    keys: &KeyRing,
    options: Options,
) -> Result<Repaired> {
    let Told { lost_end, seen } = told(disk, dir, packs)?;
    let damage = Index::beside(disk, dir, options.index_cache_bytes).and_then(|index| {
        let damage = mend(packs, keys, &index, seen)?;
        index.replace(dir)?;
        Ok(damage)
    });
    if damage.is_err()
        && let Err(left) = Index::remove_unfinished(&**disk, dir)
    {
        log::warn!("repair left-behind reason={left}");
    }
    Ok(Repaired { damage: damage?, lost_end })
}

/// Mends the log and has `index`, an empty one, take it in, durably. Answers with what is damaged.
fn mend(packs: &Packs, keys: &KeyRing, index: &Index, seen: Pos) -> Result<Vec<Damage>> {
    let mut hand_over = |entries: &mut Vec<_>, mark: &Mark| {
        index.commit(entries, &[], mark)?;
        entries.clear();
        Ok(())
    };
    let mut damage = Vec::new();
    let mut recovered = recover(packs, keys, None, seen, &mut hand_over, Some(&mut damage))?;
    index.set_left(&saves_left(packs, keys, &recovered, &mut damage)?)?;
    // Also where nothing can be read: without a mark the next opening would begin where this did.
    index.commit(&mut recovered.entries, &[], &recovered.mark)?;
    Ok(damage)
}
