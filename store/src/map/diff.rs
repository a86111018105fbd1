//! What differs between two maps.

use std::cmp::Ordering;

use super::cursor::{Cursor, Pick};
use super::node::Slice;
use super::{MapReader, Root};
use crate::Result;

/// A key whose value differs. `old` and `new` are not both `None`, and not equal.
#[derive(Clone, Debug)]
pub struct Change {
    /// The key.
    pub key: Slice,
    /// Its value in the old map.
    pub old: Option<Slice>,
    /// Its value in the new map.
    pub new: Option<Slice>,
}

/// The changes from one map to another, ascending by key. Ends after the first error.
#[derive(Debug)]
pub struct Diff {
    state: State,
}

#[derive(Debug)]
enum State {
    New { reader: MapReader, old: Root, new: Root },
    Walk { old: Cursor, new: Cursor },
    Done,
}

/// What to do about the entries that the two cursors stand at.
enum Step {
    /// Both are the same subtree, or the same value.
    SkipBoth,
    EnterOld,
    EnterNew,
    EnterBoth,
    Removed,
    Added,
    Replaced,
    End,
}

impl Diff {
    pub(super) fn new(reader: &MapReader, old: Root, new: Root) -> Self {
        if old == new {
            return Self { state: State::Done };
        }
        Self { state: State::New { reader: reader.clone(), old, new } }
    }
}

impl Iterator for Diff {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Self::Item> {
        let opened = match std::mem::replace(&mut self.state, State::Done) {
            State::New { reader, old, new } => Cursor::at_root(&reader, &old)
                .and_then(|old| Ok((old, Cursor::at_root(&reader, &new)?))),
            State::Walk { old, new } => Ok((old, new)),
            State::Done => return None,
        };
        let found = opened.and_then(|(mut old, mut new)| {
            let change = walk(&mut old, &mut new)?;
            Ok((change, old, new))
        });
        match found {
            Ok((Some(change), old, new)) => {
                self.state = State::Walk { old, new };
                Some(Ok(change))
            }
            Ok((None, ..)) => None,
            Err(err) => Some(Err(err)),
        }
    }
}

/// Walks to the next change and past it.
fn walk(old: &mut Cursor, new: &mut Cursor) -> Result<Option<Change>> {
    loop {
        match step(old, new) {
            Step::SkipBoth => {
                old.skip();
                new.skip();
            }
            Step::EnterOld => old.enter(Pick::First)?,
            Step::EnterNew => new.enter(Pick::First)?,
            Step::EnterBoth => {
                old.enter(Pick::First)?;
                new.enter(Pick::First)?;
            }
            Step::Removed => {
                let item = old.item();
                old.skip();
                return Ok(item.map(|(key, value)| Change { key, old: Some(value), new: None }));
            }
            Step::Added => {
                let item = new.item();
                new.skip();
                return Ok(item.map(|(key, value)| Change { key, old: None, new: Some(value) }));
            }
            Step::Replaced => {
                let items = old.item().zip(new.item());
                old.skip();
                new.skip();
                let change =
                    |((key, old), (_, new))| Change { key, old: Some(old), new: Some(new) };
                return Ok(items.map(change));
            }
            Step::End => return Ok(None),
        }
    }
}

fn step(old: &Cursor, new: &Cursor) -> Step {
    let (old_entry, new_entry) = match (old.entry(), new.entry()) {
        (None, None) => return Step::End,
        (Some((0, ..)), None) => return Step::Removed,
        (Some(_), None) => return Step::EnterOld,
        (None, Some((0, ..))) => return Step::Added,
        (None, Some(_)) => return Step::EnterNew,
        (Some(old), Some(new)) => (old, new),
    };
    let (old_level, old_key, old_child) = old_entry;
    let (new_level, new_key, new_child) = new_entry;
    match (old_key.cmp(new_key), old_level.cmp(&new_level)) {
        // All below an entry is at or behind its key: the lesser key goes first.
        (Ordering::Less, _) if old_level == 0 => Step::Removed,
        (Ordering::Less, _) => Step::EnterOld,
        (Ordering::Greater, _) if new_level == 0 => Step::Added,
        (Ordering::Greater, _) => Step::EnterNew,
        (Ordering::Equal, Ordering::Greater) => Step::EnterOld,
        (Ordering::Equal, Ordering::Less) => Step::EnterNew,
        (Ordering::Equal, Ordering::Equal) if old_level > 0 => {
            if old_child == new_child {
                Step::SkipBoth
            } else {
                Step::EnterBoth
            }
        }
        (Ordering::Equal, Ordering::Equal) => {
            let same = old.item().zip(new.item()).is_some_and(|(old, new)| *old.1 == *new.1);
            if same { Step::SkipBoth } else { Step::Replaced }
        }
    }
}
