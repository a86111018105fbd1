//! The saves since the last checkpoint: what they hold.

use crate::check::{Damage, damage};
use crate::error::{is_gone, is_unreadable};
use crate::index::{Index, Left, Mark};
use crate::journal::packs::Packs;
use crate::journal::record::{self, Header, KIND_SAVE};
use crate::journal::recover::{Recovered, damaged};
use crate::journal::save::{self, SaveId};
use crate::journal::{Loc, Pos};
use crate::keys::KeyRing;
use crate::{Error, LeftOut, Result, Seq, seal};

/// The payloads since the last checkpoint: those that were replayed, and those before them; and what a
/// repair has left out of them.
pub(super) fn saves(
    packs: &Packs,
    keys: &KeyRing,
    index: &Index,
    recovered: &Recovered,
    mark: Option<Mark>,
) -> Result<(Vec<Vec<u8>>, LeftOut)> {
    let (mut found, left_out) = match mark.filter(|_| !recovered.checkpoint_seen) {
        Some(mark) => saves_before(packs, keys, index, mark)?,
        None => Default::default(),
    };
    for &at in &recovered.saves {
        found.push(read_save(packs, keys, at)?.payload);
    }
    Ok((found, left_out))
}

/// Of a log that a repair has read from its beginning, the saves since the last checkpoint that can be
/// read, and that one; those between that cannot are noted.
pub(crate) fn saves_left(
    packs: &Packs,
    keys: &KeyRing,
    recovered: &Recovered,
    noted: &mut Vec<Damage>,
) -> Result<Left> {
    let mut left = Left { end: recovered.mark.last_save, saves: Vec::new() };
    for &at in &recovered.saves {
        if can_be_read(packs, keys, at)? {
            left.saves.push(at);
        } else {
            noted.push(damage(packs, at, None));
        }
    }
    Ok(left)
}

/// The payloads from the last checkpoint on to `mark`, and what a repair has left out of them.
fn saves_before(
    packs: &Packs,
    keys: &KeyRing,
    index: &Index,
    mark: Mark,
) -> Result<(Vec<Vec<u8>>, LeftOut)> {
    let left = index.left()?;
    // From the newest back.
    let (mut since, mut next) = (Vec::new(), mark.last_save.zip(Some(mark.seq.0)));
    let (mut found, mut left_out) = Default::default();
    while let Some((at, seq)) = next {
        if let Some(left) = left.as_ref().filter(|left| left.end == Some(at)) {
            (found, left_out) = saves_of(packs, keys, left)?;
            break;
        }
        let save = read_save(packs, keys, at)?;
        // One that stands in the place of another would hide those between the two.
        if save.id.seq != Seq(seq) || save.id.previous.is_some_and(|previous| previous >= at) {
            return Err(damaged(packs, at, "another save than the one that was here"));
        }
        next = save.id.previous.filter(|_| !save.checkpoint).zip(seq.checked_sub(1));
        since.push(save.payload);
    }
    found.extend(since.into_iter().rev());
    Ok((found, left_out))
}

/// The payloads that a repair has left, and where others are missing between them.
fn saves_of(packs: &Packs, keys: &KeyRing, left: &Left) -> Result<(Vec<Vec<u8>>, LeftOut)> {
    let (mut found, mut before, mut last) = (Vec::new(), Vec::new(), None);
    for &at in &left.saves {
        let save = read_save(packs, keys, at)?;
        if last.is_some() && save.id.previous != last {
            before.push(found.len());
        }
        found.push(save.payload);
        last = Some(at);
    }
    let older = found.len();
    Ok((found, LeftOut { before, older }))
}

/// Whether a save is whole, with its parts.
pub(crate) fn can_be_read(packs: &Packs, keys: &KeyRing, at: Pos) -> Result<bool> {
    match read_save(packs, keys, at) {
        Err(Error::Damaged { .. }) => Ok(false),
        save => save.map(|_whole| true),
    }
}

/// The first pack that a save needs: its own, or that of its first part.
pub(crate) fn first_pack_of(packs: &Packs, keys: &KeyRing, at: Pos) -> Result<u32> {
    Ok(read_save(packs, keys, at)?.first_pack)
}

struct Save {
    id: SaveId,
    first_pack: u32,
    payload: Vec<u8>,
    checkpoint: bool,
}

/// `bad` where an error says that the bytes are lost. Any other one may pass, and must not make a repair
/// leave out what can be read another time.
fn damage_of(err: Error, bad: impl FnOnce() -> Error) -> Error {
    match err {
        Error::Io { source, .. } if is_gone(&source) || is_unreadable(&source) => bad(),
        other => other,
    }
}

fn read_save(packs: &Packs, keys: &KeyRing, at: Pos) -> Result<Save> {
    let bad = || damaged(packs, at, "a save record");
    let mut head = [0; record::HEADER_BYTES];
    packs.read_into(at, &mut head).map_err(|err| damage_of(err, bad))?;
    let header = Header::decode(&head).filter(|header| header.kind == KIND_SAVE).ok_or_else(bad)?;
    let open = |loc: Loc| {
        let read = packs.read(loc);
        let mut bytes =
            read.map_err(|err| damage_of(err, || damaged(packs, loc.at, "a save record")))?;
        seal::open(keys, &mut bytes)?.ok_or_else(bad)
    };
    let opened = open(Loc { at, len: crate::bytes::len32(header.record_len()) })?;
    let (parts, end) = save::decode_content(&opened.plain).ok_or_else(bad)?;
    let id = SaveId::decode(&header.id);
    let first_pack = parts.iter().map(|part| part.at.pack).fold(at.pack, u32::min);
    let mut payload = Vec::new();
    for (part, index) in parts.into_iter().zip(0..) {
        let piece = open(part)?;
        if piece.header.id != save::part_id(id.seq, index) {
            return Err(bad());
        }
        payload.extend_from_slice(&piece.plain);
    }
    payload.extend_from_slice(end);
    Ok(Save { id, first_pack, payload, checkpoint: header.flags.checkpoint })
}
