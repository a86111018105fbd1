//! Dirty extents: what was written to a file since its content was last sealed.
//!
//! A [`Pieces`] lies over the sealed content like patches over cloth. Each piece is bytes or a
//! hole, and knows whether a save has made it durable. A writer thread takes a cheap snapshot,
//! works on it without a lock, and later removes exactly those pieces that have not changed since:
//! every change gives a piece a new stamp.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::cut::CHUNK_BYTES_AVERAGE;

/// Longest piece in bytes: bounds what splitting one copies.
pub(crate) const PIECE_BYTES_MAX: usize = 128 << 10;
/// A file is looked at in places of so many bytes: of a usual chunk.
pub(crate) const PLACE_BYTES: u64 = CHUNK_BYTES_AVERAGE as u64;

/// What a piece takes besides its bytes: its places in two trees, and the heads of two allocations
/// (counted from their sizes, with trees two thirds full).
const PIECE_OVERHEAD_BYTES: u64 = 160;

/// Bytes or a hole at one offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Written bytes; never empty.
    Bytes(Arc<Vec<u8>>),
    /// Nothing: reads as zeroes. The length is never 0.
    Hole(u64),
}

impl Fill {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Hole(len) => *len,
        }
    }

    /// The memory that a piece of it takes, in bytes: more than it holds where it grew.
    fn weight(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => PIECE_OVERHEAD_BYTES + bytes.capacity() as u64,
            Self::Hole(_) => PIECE_OVERHEAD_BYTES,
        }
    }

    /// The part from `skip` on, at most `len` long.
    fn slice(&self, skip: u64, len: u64) -> Self {
        match self {
            Self::Bytes(bytes) => {
                let from = to_usize(skip);
                Self::Bytes(Arc::new(bytes[from..from + to_usize(len)].to_vec()))
            }
            Self::Hole(_) => Self::Hole(len),
        }
    }
}

/// One dirty extent.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) fill: Fill,
    /// Whether a barrier covers it.
    pub(crate) saved: bool,
    /// Changes whenever the piece does.
    stamp: u64,
}

/// The dirty extents of one file: sorted, not overlapping.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces {
    by_start: BTreeMap<u64, Piece>,
    /// Bytes that were written; none in holes.
    bytes: u64,
    /// The memory that the pieces take, in bytes.
    weight: u64,
    /// The part of `bytes` that no barrier covers.
    unsaved_bytes: u64,
    /// Where the pieces start that no barrier covers.
    unsaved: BTreeSet<u64>,
}

impl Pieces {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }

    /// Bytes that were written.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The memory that the pieces take, in bytes.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// Bytes that were written and that no barrier covers.
    pub(crate) fn unsaved_bytes(&self) -> u64 {
        self.unsaved_bytes
    }

    /// In how many places there are bytes that no barrier covers. Costs what pieces they are.
    pub(crate) fn unsaved_places(&self) -> u64 {
        let mut counted_to = 0;
        let mut places = 0;
        for start in &self.unsaved {
            let Some(Piece { fill: Fill::Bytes(bytes), .. }) = self.by_start.get(start) else {
                continue;
            };
            let first = (start / PLACE_BYTES).max(counted_to);
            let end = (start + bytes.len() as u64).div_ceil(PLACE_BYTES);
            places += end.saturating_sub(first);
            counted_to = counted_to.max(end);
        }
        places
    }

    /// Bytes in holes below `end`.
    pub(crate) fn holes_below(&self, end: u64) -> u64 {
        let holes = self.over(0, end).filter(|(_, piece)| matches!(piece.fill, Fill::Hole(_)));
        holes.map(|(start, piece)| (start + piece.fill.len()).min(end) - start).sum()
    }

    /// All pieces in order of their offsets.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Piece)> {
        self.by_start.iter().map(|(start, piece)| (*start, piece))
    }

    /// The pieces that reach into `start..end`, in order.
    pub(crate) fn over(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, &Piece)> {
        let first = self
            .by_start
            .range(..=start)
            .next_back()
            .filter(|(at, piece)| **at + piece.fill.len() > start)
            .map_or(start, |(at, _)| *at);
        self.by_start.range(first..end.max(first)).map(|(at, piece)| (*at, piece))
    }

    /// The pieces that reach into `start..end`, as pieces of their own.
    pub(crate) fn part(&self, start: u64, end: u64) -> Self {
        let by_start = self.over(start, end).map(|(at, piece)| (at, piece.clone())).collect();
        Self { by_start, ..Self::default() }
    }

    /// The pieces that no barrier covers. Costs what they are, however many others there are.
    pub(crate) fn unsaved_part(&self) -> Self {
        let piece = |start: &u64| {
            let piece = self.by_start.get(start).expect("because unsaved pieces are pieces");
            (*start, piece.clone())
        };
        let by_start: BTreeMap<u64, Piece> = self.unsaved.iter().map(piece).collect();
        let weight = by_start.values().map(|piece| piece.fill.weight()).sum();
        let (bytes, unsaved) = (self.unsaved_bytes, self.unsaved.clone());
        Self { by_start, bytes, weight, unsaved_bytes: bytes, unsaved }
    }

    /// Puts `data` at `offset`, over whatever was there.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        let mut at = offset;
        for part in data.chunks(PIECE_BYTES_MAX) {
            self.write_part(at, part);
            at += part.len() as u64;
        }
    }

    fn write_part(&mut self, offset: u64, data: &[u8]) {
        if self.overwrite_in_place(offset, data) || self.append_in_place(offset, data) {
            return;
        }
        self.clear(offset, offset + data.len() as u64);
        self.insert(offset, Fill::Bytes(Arc::new(data.to_vec())), false);
    }

    /// Rewriting the same block again and again, as databases do, must not grow anything.
    fn overwrite_in_place(&mut self, offset: u64, data: &[u8]) -> bool {
        let Some((start, piece)) = self.by_start.range_mut(..=offset).next_back() else {
            return false;
        };
        let Fill::Bytes(bytes) = &mut piece.fill else { return false };
        let from = to_usize(offset - start);
        if piece.saved || from + data.len() > bytes.len() {
            return false;
        }
        // Fails while a snapshot holds the bytes: then they must not change.
        let Some(bytes) = Arc::get_mut(bytes) else { return false };
        bytes[from..from + data.len()].copy_from_slice(data);
        piece.stamp = fresh_stamp();
        true
    }

    /// Small sequential writes share a piece.
    fn append_in_place(&mut self, offset: u64, data: &[u8]) -> bool {
        let len = data.len() as u64;
        if self.over(offset, offset + len).next().is_some() {
            return false;
        }
        let Some((start, piece)) = self.by_start.range_mut(..offset).next_back() else {
            return false;
        };
        let Fill::Bytes(bytes) = &mut piece.fill else { return false };
        if piece.saved
            || start + bytes.len() as u64 != offset
            || bytes.len() + data.len() > PIECE_BYTES_MAX
        {
            return false;
        }
        let Some(bytes) = Arc::get_mut(bytes) else { return false };
        let capacity_before = bytes.capacity();
        bytes.extend_from_slice(data);
        self.weight += (bytes.capacity() - capacity_before) as u64;
        piece.stamp = fresh_stamp();
        self.bytes += len;
        self.unsaved_bytes += len;
        true
    }

    /// Makes a hole of `start..end`, over whatever was there.
    pub(crate) fn punch(&mut self, start: u64, end: u64) {
        if start < end {
            self.clear(start, end);
            self.insert(start, Fill::Hole(end - start), false);
        }
    }

    /// Removes what lies at or beyond `end`.
    pub(crate) fn truncate(&mut self, end: u64) {
        self.clear(end, u64::MAX);
    }

    /// Puts a piece that a save record carried, as saved.
    pub(crate) fn restore(&mut self, start: u64, fill: Fill) {
        self.clear(start, start.saturating_add(fill.len()));
        self.insert(start, fill, true);
    }

    /// Forgets what is dirty in `start..end`; pieces that stick out keep their outer parts.
    fn clear(&mut self, start: u64, end: u64) {
        let touched: Vec<u64> = self.over(start, end).map(|(at, _)| at).collect();
        for at in touched {
            let piece = self.remove(at);
            let piece_end = at + piece.fill.len();
            if at < start {
                self.insert(at, piece.fill.slice(0, start - at), piece.saved);
            }
            if piece_end > end {
                self.insert(end, piece.fill.slice(end - at, piece_end - end), piece.saved);
            }
        }
    }

    /// Everything is covered by a barrier that `snapshot` was saved with, unless changed since.
    pub(crate) fn mark_saved(&mut self, snapshot: &Self) {
        for (start, old) in &snapshot.by_start {
            if let Some(piece) = self.by_start.get_mut(start)
                && piece.stamp == old.stamp
                && !piece.saved
            {
                piece.saved = true;
                self.unsaved.remove(start);
                if let Fill::Bytes(bytes) = &piece.fill {
                    self.unsaved_bytes -= bytes.len() as u64;
                }
            }
        }
    }

    /// The content below `end` was sealed from `snapshot`: forgets it where it has not changed.
    pub(crate) fn remove_sealed(&mut self, snapshot: &Self, end: u64) {
        for (start, old) in snapshot.by_start.range(..end) {
            if self.by_start.get(start).is_some_and(|piece| piece.stamp == old.stamp) {
                let piece = self.remove(*start);
                let piece_end = start + piece.fill.len();
                if piece_end > end {
                    let rest = piece.fill.slice(end - start, piece_end - end);
                    self.insert(end, rest, piece.saved);
                }
            }
        }
    }

    fn insert(&mut self, start: u64, fill: Fill, saved: bool) {
        self.weight += fill.weight();
        if let Fill::Bytes(bytes) = &fill {
            self.bytes += bytes.len() as u64;
            self.unsaved_bytes += if saved { 0 } else { bytes.len() as u64 };
        }
        if !saved {
            self.unsaved.insert(start);
        }
        let piece = Piece { fill, saved, stamp: fresh_stamp() };
        let before = self.by_start.insert(start, piece);
        debug_assert!(before.is_none(), "the range was cleared first");
    }

    fn remove(&mut self, start: u64) -> Piece {
        let piece = self.by_start.remove(&start).expect("because the caller just found it there");
        self.unsaved.remove(&start);
        self.weight -= piece.fill.weight();
        if let Fill::Bytes(bytes) = &piece.fill {
            self.bytes -= bytes.len() as u64;
            self.unsaved_bytes -= if piece.saved { 0 } else { bytes.len() as u64 };
        }
        piece
    }
}

/// A stamp that no piece of any copy has had.
fn fresh_stamp() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Only distinctness matters.
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Lengths of things in memory fit a `usize`.
pub(crate) fn to_usize(len: u64) -> usize {
    usize::try_from(len).expect("because it is the length of something in memory")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What reads as `Some` is dirty.
    fn flat(pieces: &Pieces, len: usize) -> Vec<Option<u8>> {
        let mut out = vec![None; len];
        for (start, piece) in pieces.iter() {
            for index in 0..piece.fill.len() {
                let byte = match &piece.fill {
                    Fill::Bytes(bytes) => bytes[to_usize(index)],
                    Fill::Hole(_) => 0,
                };
                out[to_usize(start + index)] = Some(byte);
            }
        }
        out
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        Punch(u64, u64),
        Truncate(u64),
        Snapshot,
        Saved,
        Sealed(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..80_u64, prop::collection::vec(1..=255_u8, 1..20))
                .prop_map(|(at, data)| Step::Write(at, data)),
            1 => (0..80_u64, 1..20_u64).prop_map(|(at, len)| Step::Punch(at, at + len)),
            1 => (0..100_u64).prop_map(Step::Truncate),
            1 => Just(Step::Snapshot),
            1 => Just(Step::Saved),
            1 => (0..100_u64).prop_map(Step::Sealed),
        ]
    }

    proptest! {
        #[test]
        fn pieces_behave_like_an_array(steps in prop::collection::vec(step(), 1..60)) {
            let mut pieces = Pieces::default();
            let mut model: Vec<Option<u8>> = vec![None; 128];
            let mut sealed_view: Option<(Pieces, Vec<Option<u8>>)> = None;
            let mut to_save: Option<Pieces> = None;
            for step in steps {
                match step {
                    Step::Write(at, data) => {
                        pieces.write(at, &data);
                        for (index, byte) in data.iter().enumerate() {
                            model[to_usize(at) + index] = Some(*byte);
                        }
                        sealed_view = sealed_view.map(|(snap, mut same)| {
                            for index in 0..data.len() { same[to_usize(at) + index] = Some(1); }
                            (snap, same)
                        });
                    }
                    Step::Punch(start, end) => {
                        pieces.punch(start, end);
                        model[to_usize(start)..to_usize(end)].fill(Some(0));
                        sealed_view = None;
                    }
                    Step::Truncate(end) => {
                        pieces.truncate(end);
                        model[to_usize(end)..].fill(None);
                        sealed_view = None;
                    }
                    Step::Snapshot => {
                        sealed_view = Some((pieces.clone(), vec![None; 128]));
                        to_save = Some(pieces.unsaved_part());
                    }
                    Step::Saved => if let (Some((all, _)), Some(part)) = (&sealed_view, &to_save) {
                        let mut by_all = pieces.clone();
                        by_all.mark_saved(all);
                        pieces.mark_saved(part);
                        let saved = |pieces: &Pieces| -> Vec<bool> {
                            pieces.iter().map(|(_, piece)| piece.saved).collect()
                        };
                        prop_assert_eq!(saved(&by_all), saved(&pieces), "the part is enough");
                        prop_assert_eq!(by_all.unsaved_bytes(), pieces.unsaved_bytes());
                    },
                    Step::Sealed(end) => if let Some((snap, changed)) = sealed_view.take() {
                        let before = flat(&snap, 128);
                        pieces.remove_sealed(&snap, end);
                        // A sealed byte may go only where nothing was written after the snapshot.
                        let now = flat(&pieces, 128);
                        for index in 0..128 {
                            if now[index].is_none() && model[index].is_some() {
                                prop_assert!(changed[index].is_none() && (index as u64) < end);
                                prop_assert_eq!(before[index], model[index]);
                                model[index] = None;
                            }
                        }
                    },
                }
                prop_assert_eq!(&flat(&pieces, 128), &model);
                let held: u64 = pieces.iter().map(|(_, p)| match &p.fill {
                    Fill::Bytes(bytes) => bytes.len() as u64,
                    Fill::Hole(_) => 0,
                }).sum();
                prop_assert_eq!(held, pieces.bytes());
                let weight: u64 = pieces.iter().map(|(_, piece)| piece.fill.weight()).sum();
                prop_assert_eq!(weight, pieces.weight());
                prop_assert!(pieces.unsaved_bytes() <= held);
                let part = pieces.unsaved_part();
                let unsaved = pieces.iter().filter(|(_, piece)| !piece.saved);
                prop_assert!(unsaved.map(|(start, _)| start).eq(part.iter().map(|(start, _)| start)));
                prop_assert_eq!(part.unsaved_bytes(), pieces.unsaved_bytes());
                let weight: u64 = part.iter().map(|(_, piece)| piece.fill.weight()).sum();
                prop_assert_eq!(weight, part.weight());
            }
        }
    }
}
