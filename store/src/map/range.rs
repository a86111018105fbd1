//! Walking over the entries of a map.

use std::ops::Bound;

use super::cursor::{Cursor, Pick, Side};
use super::node::Slice;
use super::{MapReader, Root};
use crate::Result;

/// The entries between two keys, ascending. Ends after the first error.
#[derive(Debug)]
pub struct Range {
    reader: MapReader,
    root: Root,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    state: State,
}

#[derive(Debug)]
enum State {
    New,
    At(Cursor),
    Done,
}

type Item = Result<(Slice, Slice)>;

impl Range {
    pub(super) fn new(reader: MapReader, root: Root, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Self {
        let (from, to) = (from.map(<[u8]>::to_vec), to.map(<[u8]>::to_vec));
        Self { reader, root, from, to, state: State::New }
    }

    fn first(&self) -> Result<Cursor> {
        let pick = match &self.from {
            Bound::Included(key) | Bound::Excluded(key) => Pick::Floor(key),
            Bound::Unbounded => Pick::First,
        };
        let mut cursor = Cursor::open(&self.reader, &self.root, 0, pick)?;
        if cursor.item().is_some_and(|(key, _)| !is_behind(&key, &self.from)) {
            cursor.step(Side::Behind)?;
        }
        Ok(cursor)
    }
}

/// Whether a key lies at or behind a lower bound.
fn is_behind(key: &[u8], from: &Bound<Vec<u8>>) -> bool {
    match from {
        Bound::Included(from) => key >= from.as_slice(),
        Bound::Excluded(from) => key > from.as_slice(),
        Bound::Unbounded => true,
    }
}

/// Whether a key lies at or before an upper bound.
fn is_before(key: &[u8], to: &Bound<Vec<u8>>) -> bool {
    match to {
        Bound::Included(to) => key <= to.as_slice(),
        Bound::Excluded(to) => key < to.as_slice(),
        Bound::Unbounded => true,
    }
}

impl Iterator for Range {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let cursor = match std::mem::replace(&mut self.state, State::Done) {
            State::New => self.first(),
            State::At(mut cursor) => cursor.step(Side::Behind).map(|()| cursor),
            State::Done => return None,
        };
        let cursor = match cursor {
            Ok(cursor) => cursor,
            Err(err) => return Some(Err(err)),
        };
        let item = cursor.item().filter(|(key, _)| is_before(key, &self.to))?;
        self.state = State::At(cursor);
        Some(Ok(item))
    }
}
