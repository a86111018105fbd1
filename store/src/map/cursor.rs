//! A place in a map: the nodes from the root down to it.

use std::sync::Arc;

use super::node::{MapNode, Slice};
use super::{MapReader, Root};
use crate::{BlobRef, Error, Result};

/// Which entry to take on the way down.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pick<'a> {
    First,
    Last,
    /// The one with the greatest key that is at most this, or the first.
    Floor(&'a [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    Behind,
}

/// A path of nodes; every node is the child of the entry that its parent stands at.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    reader: MapReader,
    stack: Vec<Frame>,
}

#[derive(Clone, Debug)]
struct Frame {
    node: Arc<MapNode>,
    at: usize,
}

impl Pick<'_> {
    fn of(self, node: &MapNode) -> usize {
        match self {
            Self::First => 0,
            Self::Last => node.len() - 1,
            Self::Floor(key) => node.search(key).unwrap_or_else(|next| next.saturating_sub(1)),
        }
    }
}

impl Cursor {
    /// Goes down from the root to a node of `level`. Of the empty map the cursor is nowhere.
    pub(super) fn open(reader: &MapReader, root: &Root, level: u8, pick: Pick<'_>) -> Result<Self> {
        let mut cursor = Self::at_root(reader, root)?;
        if let Some(top) = cursor.stack.last_mut() {
            top.at = pick.of(&top.node);
        }
        cursor.descend(level, pick)?;
        Ok(cursor)
    }

    /// Stands at the root's first entry.
    pub(super) fn at_root(reader: &MapReader, root: &Root) -> Result<Self> {
        let mut stack = Vec::new();
        if let Some(root) = root.0 {
            stack.push(Frame { node: reader.load(&root)?, at: 0 });
        }
        Ok(Self { reader: reader.clone(), stack })
    }

    /// The node the cursor is in; `None` if it is nowhere.
    pub(super) fn node(&self) -> Option<&Arc<MapNode>> {
        self.stack.last().map(|frame| &frame.node)
    }

    /// The entry it stands at, in the node it is in.
    pub(super) fn item(&self) -> Option<(Slice, Slice)> {
        let frame = self.stack.last()?;
        Some((Slice::key(&frame.node, frame.at), Slice::value(&frame.node, frame.at)))
    }

    /// Level, key and child of the entry it stands at.
    pub(super) fn entry(&self) -> Option<(u8, &[u8], Option<BlobRef>)> {
        let frame = self.stack.last()?;
        Some((frame.node.level(), frame.node.key(frame.at), frame.node.child(frame.at)))
    }

    /// Goes down to `level`.
    pub(super) fn descend(&mut self, level: u8, pick: Pick<'_>) -> Result<()> {
        while self.stack.last().is_some_and(|frame| frame.node.level() > level) {
            self.enter(pick)?;
        }
        Ok(())
    }

    /// Goes one level down, into the child it stands at.
    pub(super) fn enter(&mut self, pick: Pick<'_>) -> Result<()> {
        let Some((parent_level, first, Some(child))) = self.entry() else { return Ok(()) };
        let node = self.reader.load(&child)?;
        let bad = |reason| Err(Error::BadNode { id: child.id, reason });
        if node.level().checked_add(1) != Some(parent_level) {
            return bad("level");
        }
        if node.key(0) != first {
            return bad("first key is not the parent's");
        }
        if self.limit_below().is_some_and(|limit| node.key(node.len() - 1) >= limit) {
            return bad("keys beyond the parent's");
        }
        let at = pick.of(&node);
        self.stack.push(Frame { node, at });
        Ok(())
    }

    /// The key of the entry behind the one it stands at, whichever node that is in: what is below
    /// must be less.
    fn limit_below(&self) -> Option<&[u8]> {
        let next = |frame: &'_ Frame| frame.at + 1 < frame.node.len();
        let frame = self.stack.iter().rev().find(|frame| next(frame))?;
        Some(frame.node.key(frame.at + 1))
    }

    /// The first key of the node behind the one it is in, on the same level. Reads nothing.
    pub(super) fn next_node_key(&self) -> Option<&[u8]> {
        let above = self.stack.split_last()?.1;
        let frame = above.iter().rev().find(|frame| frame.at + 1 < frame.node.len())?;
        Some(frame.node.key(frame.at + 1))
    }

    /// The reference to the node it is in; `None` for the root.
    pub(super) fn node_ref(&self) -> Option<BlobRef> {
        let parent = self.stack.split_last()?.1.last()?;
        parent.node.child(parent.at)
    }

    /// Whether there is a node before the one it is in, on the same level.
    pub(super) fn has_node_before(&self) -> bool {
        self.stack.split_last().is_some_and(|(_, above)| above.iter().any(|frame| frame.at > 0))
    }

    /// Goes to the neighbour of the node it is in, on the same level: to the end that is nearest.
    /// Nowhere if there is none.
    pub(super) fn go_to_neighbour(&mut self, side: Side) -> Result<()> {
        let Some(level) = self.stack.pop().map(|frame| frame.node.level()) else { return Ok(()) };
        while let Some(frame) = self.stack.last_mut() {
            let next = match side {
                Side::Before => frame.at.checked_sub(1),
                Side::Behind => Some(frame.at + 1).filter(|&at| at < frame.node.len()),
            };
            if let Some(at) = next {
                frame.at = at;
                let pick = if side == Side::Before { Pick::Last } else { Pick::First };
                return self.descend(level, pick);
            }
            self.stack.pop();
        }
        Ok(())
    }

    /// Goes to the next entry of the level it is on, or nowhere.
    pub(super) fn step(&mut self, side: Side) -> Result<()> {
        let Some(frame) = self.stack.last_mut() else { return Ok(()) };
        let next = match side {
            Side::Before => frame.at.checked_sub(1),
            Side::Behind => Some(frame.at + 1).filter(|&at| at < frame.node.len()),
        };
        match next {
            Some(at) => frame.at = at,
            None => self.go_to_neighbour(side)?,
        }
        Ok(())
    }

    /// Goes behind the entry it stands at and all below it: to the next entry of this node, or of
    /// the nearest one above that has one. Does not go down again.
    pub(super) fn skip(&mut self) {
        while let Some(frame) = self.stack.last_mut() {
            frame.at += 1;
            if frame.at < frame.node.len() {
                return;
            }
            self.stack.pop();
        }
    }
}
