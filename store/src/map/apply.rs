//! Changing a map: a new root that shares with the old one whatever did not change.
//!
//! The levels are done one after another, from the leaves up. On each level the edits lead to
//! *regions*: runs of neighbouring nodes that are read, and written anew with the edits in them.
//! What a region did to the nodes (one gone, two new) are the edits of the level above.
//!
//! A region begins with the node that its first edit falls into; with the one before it if that
//! edit may take away the node's beginning. It ends at the end of the first node whose successor
//! begins where it did before.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::boundary::{FULL_BYTES, entry_bytes};
use super::cursor::{Cursor, Pick, Side};
use super::node::{CHILD_BYTES, KEY_BYTES_MAX, LEVEL_MAX, MapNode, VALUE_BYTES_MAX};
use super::writer::{Encoded, NodeWriter};
use super::{MapReader, Root};
use crate::bytes::len32;
use crate::{Appender, BlobRef, Error, Kind, Result};

/// A key and its new value; `None` removes it.
pub type Edit = (Vec<u8>, Option<Vec<u8>>);

/// Encoded nodes that wait to be sealed together.
const PENDING_BYTES: usize = 1 << 20;

/// The map that `root` becomes by `edits`, which are strictly ascending by key.
///
/// The new nodes are put into the appender's batch. Costs, for k edits of n entries,
/// O(k log n) nodes read and written; removing what is not there writes nothing.
///
/// # Errors
///
/// - [`Error::Unsorted`]; [`Error::TooLarge`] for a key over [`KEY_BYTES_MAX`] or a value over
///   [`VALUE_BYTES_MAX`].
/// - As [`MapReader::load`] and [`Appender::put`]. Some nodes may then be in the batch.
pub fn apply(
    reader: &MapReader,
    appender: &mut Appender,
    root: &Root,
    edits: impl IntoIterator<Item = Edit>,
) -> Result<Root> {
    let mut edits: Vec<Edit> = edits.into_iter().collect();
    check(&edits)?;
    if edits.is_empty() {
        return Ok(*root);
    }
    let old = root.0.map(|root| reader.load(&root)).transpose()?;
    let top = old.as_ref().map(|node| node.level());
    let mut level = 0;
    loop {
        let has_old = top.is_some_and(|top| top >= level);
        let mut pass = Pass {
            reader,
            level,
            root: if has_old { *root } else { Root::EMPTY },
            edits: &edits,
            next: 0,
            writer: NodeWriter::new(level),
            sink: Sink {
                reader,
                appender,
                pending: Vec::new(),
                bytes: 0,
                changes: BTreeMap::new(),
            },
        };
        pass.run()?;
        let changes = pass.sink.finish()?;
        if top.is_some_and(|top| top > level) {
            edits = changes.into_iter().filter_map(Slot::into_edit).collect();
            if edits.is_empty() {
                return Ok(*root);
            }
        } else {
            // All nodes of this level are new or were gone through: they are the whole of it.
            let nodes: Vec<(Vec<u8>, BlobRef)> =
                changes.into_iter().filter_map(|(key, slot)| Some((key, slot.new?))).collect();
            match nodes.as_slice() {
                [] => return Ok(Root::EMPTY),
                [(_, node)] => return collapse(reader, *node),
                _ => {
                    let above = nodes.into_iter().map(|(key, node)| (key, Some(encode(&node))));
                    edits = above.collect();
                }
            }
        }
        if level == LEVEL_MAX {
            return Err(Error::TooLarge {
                len: usize::from(level) + 1,
                max: usize::from(LEVEL_MAX),
            });
        }
        level += 1;
    }
}

fn check(edits: &[Edit]) -> Result<()> {
    for (key, value) in edits {
        let value = value.as_ref().map_or(0, Vec::len);
        for (len, max) in [(key.len(), KEY_BYTES_MAX), (value, VALUE_BYTES_MAX)] {
            if len > max {
                return Err(Error::TooLarge { len, max });
            }
        }
    }
    if edits.is_sorted_by(|a, b| a.0 < b.0) { Ok(()) } else { Err(Error::Unsorted) }
}

/// Takes nodes with a single child off the top.
fn collapse(reader: &MapReader, node: BlobRef) -> Result<Root> {
    let mut root = node;
    // The levels fall, which `load` by way of the cursor checks elsewhere: bound it here too.
    for _ in 0..=LEVEL_MAX {
        let loaded = reader.load(&root)?;
        match loaded.child(0) {
            Some(child) if loaded.len() == 1 => root = child,
            _ => return Ok(Root(Some(root))),
        }
    }
    Err(Error::BadNode { id: root.id, reason: "level" })
}

fn encode(node: &BlobRef) -> Vec<u8> {
    let mut out = Vec::with_capacity(CHILD_BYTES);
    out.extend_from_slice(&node.id.0);
    out.extend_from_slice(&node.len.to_le_bytes());
    out
}

/// What became of the node that begins, or began, with some key.
#[derive(Debug, Default)]
struct Slot {
    old: Option<BlobRef>,
    new: Option<BlobRef>,
}

impl Slot {
    fn into_edit((key, slot): (Vec<u8>, Self)) -> Option<Edit> {
        (slot.old != slot.new).then(|| (key, slot.new.as_ref().map(encode)))
    }
}

/// Takes the new nodes of a level, and notes what changed.
struct Sink<'a> {
    reader: &'a MapReader,
    appender: &'a mut Appender,
    pending: Vec<Encoded>,
    bytes: usize,
    changes: BTreeMap<Vec<u8>, Slot>,
}

impl Sink<'_> {
    fn gone(&mut self, first_key: &[u8], node: Option<BlobRef>) {
        self.changes.entry(first_key.to_vec()).or_default().old = node;
    }

    fn made(&mut self, node: Option<Encoded>) -> Result<()> {
        let Some(node) = node else { return Ok(()) };
        self.bytes += node.plain.len();
        self.pending.push(node);
        if self.bytes >= PENDING_BYTES { self.seal() } else { Ok(()) }
    }

    fn seal(&mut self) -> Result<()> {
        let plains: Vec<&[u8]> = self.pending.iter().map(|node| node.plain.as_slice()).collect();
        let refs = self.appender.put_all(Kind::Node, &plains)?;
        for (node, at) in self.pending.drain(..).zip(refs) {
            debug_assert_eq!(at.len, len32(node.plain.len()), "the reference says the length");
            self.reader.keep(&at, node.plain.into())?;
            match self.changes.entry(node.first_key) {
                Entry::Occupied(mut slot) => slot.get_mut().new = Some(at),
                Entry::Vacant(slot) => {
                    slot.insert(Slot { old: None, new: Some(at) });
                }
            }
        }
        self.bytes = 0;
        Ok(())
    }

    fn finish(mut self) -> Result<BTreeMap<Vec<u8>, Slot>> {
        self.seal()?;
        Ok(self.changes)
    }
}

/// The edits of one level, on their way into its nodes.
struct Pass<'a> {
    reader: &'a MapReader,
    level: u8,
    root: Root,
    edits: &'a [Edit],
    /// The next edit.
    next: usize,
    writer: NodeWriter,
    sink: Sink<'a>,
}

impl<'a> Pass<'a> {
    fn run(&mut self) -> Result<()> {
        while let Some(edit) = self.edit() {
            let mut cursor =
                Cursor::open(self.reader, &self.root, self.level, Pick::Floor(&edit.0))?;
            if self.may_take_beginning(edit, &cursor) {
                cursor.go_to_neighbour(Side::Before)?;
            }
            self.region(&mut cursor)?;
            let last = self.writer.take();
            self.sink.made(last)?;
        }
        Ok(())
    }

    fn edit(&self) -> Option<&'a Edit> {
        self.edits.get(self.next)
    }

    /// Whether after this edit its node may begin elsewhere, so that what is left of it belongs
    /// to the node before.
    fn may_take_beginning(&self, (key, value): &Edit, cursor: &Cursor) -> bool {
        let first = cursor.node().is_some_and(|node| node.key(0) == key.as_slice());
        first && cursor.has_node_before() && !value.as_ref().is_some_and(|v| self.begins(key, v))
    }

    fn begins(&self, key: &[u8], value: &[u8]) -> bool {
        self.reader.boundary().begins_node(self.level, key, entry_bytes(key, value))
    }

    /// Writes anew the nodes from the cursor's on, as far as the edits reach.
    fn region(&mut self, cursor: &mut Cursor) -> Result<()> {
        loop {
            let Some(node) = cursor.node().cloned() else {
                // There are no nodes: what is added makes the first ones.
                return self.add_until(None);
            };
            let at = cursor.node_ref().or(self.root.0);
            self.sink.gone(node.key(0), at);
            let limit = cursor.next_node_key().map(<[u8]>::to_vec);
            self.merge(&node)?;
            self.add_until(limit.as_deref())?;
            let Some(limit) = limit else { return Ok(()) };
            // An edit of the next node's beginning belongs to this region: a region of its own
            // would step back to this node, and write again what is gone.
            let edited = self.edit().is_some_and(|(key, _)| *key == limit);
            // A node that was full may have ended without a boundary. But if all before is gone,
            // the next node is the first of the map, and begins where it did.
            let unsure = node.bytes() >= FULL_BYTES && !self.writer.is_empty();
            if !edited && !unsure {
                return Ok(());
            }
            cursor.go_to_neighbour(Side::Behind)?;
        }
    }

    /// Writes the entries of a node, with the edits that lie among them.
    fn merge(&mut self, node: &MapNode) -> Result<()> {
        for index in 0..node.len() {
            let key = node.key(index);
            self.add_until(Some(key))?;
            match self.edit().map(|(edited, value)| (edited.as_slice().cmp(key), value)) {
                Some((Ordering::Equal, value)) => {
                    self.next += 1;
                    if let Some(value) = value {
                        self.push(key, value, None)?;
                    }
                }
                // An entry that was inside a node and has not changed begins none.
                _ => self.push(key, node.value(index), (index > 0).then_some(false))?,
            }
        }
        Ok(())
    }

    /// Writes what is added before `limit`.
    fn add_until(&mut self, limit: Option<&[u8]>) -> Result<()> {
        while let Some((key, value)) = self.edit() {
            if limit.is_some_and(|limit| key.as_slice() >= limit) {
                break;
            }
            self.next += 1;
            if let Some(value) = value {
                self.push(key, value, None)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, key: &[u8], value: &[u8], begins: Option<bool>) -> Result<()> {
        if !self.writer.is_empty() {
            let begins = begins.unwrap_or_else(|| self.begins(key, value));
            if begins || self.writer.is_full() {
                let node = self.writer.take();
                self.sink.made(node)?;
            }
        }
        self.writer.push(key, value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::sim::SimDisk;
    use crate::{KeyRing, Options, Secret, create};

    /// Whoever holds the key can choose names that are no boundaries. Nodes stay bounded then,
    /// and the shape still depends on the content only.
    #[test]
    fn nodes_without_boundaries_are_cut_by_length_and_alike_whatever_the_order() {
        let keys = KeyRing::new([(0, Secret::new([5; 32]))]).unwrap();
        let options = Options { reserve_bytes: 0, index_thread: false, ..Options::default() };
        let (mut appender, blobs) =
            create(Arc::new(SimDisk::new(1)), Path::new("/b"), keys, options).unwrap();
        let reader = MapReader::new(blobs, 64 << 20);
        let value = |n: u32| vec![n.to_le_bytes()[0]; 700];
        let chosen: Vec<Vec<u8>> = (0..2_000u32)
            .map(|n| format!("{n:06}").into_bytes())
            .filter(|key| !reader.boundary().begins_node(0, key, entry_bytes(key, &value(0))))
            .take(900)
            .collect();
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> =
            chosen.iter().zip(0..).map(|(key, n)| (key.clone(), value(n))).collect();
        let build = |appender: &mut Appender, model: &BTreeMap<Vec<u8>, Vec<u8>>| {
            let edits = model.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
            apply(&reader, appender, &Root::EMPTY, edits).unwrap()
        };
        let mut root = build(&mut appender, &model);
        let mut count = 0;
        let node = |count: &mut u32, _: &BlobRef| {
            *count += 1;
            Ok::<_, Error>(true)
        };
        reader.walk(&root, &mut count, node, |_, _, _| Ok(())).unwrap();
        assert!((8..20).contains(&count), "{count} nodes of 64 KiB and one above");
        for step in 0..300u32 {
            let mut edits: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
            for n in 0..=step % 4 {
                let key = &chosen[(step * 131 + n * 397) as usize % chosen.len()];
                let gone = model.contains_key(key) && (step + n) % 3 > 0;
                edits.insert(key.clone(), (!gone).then(|| value(step)));
            }
            for (key, value) in &edits {
                match value {
                    Some(value) => model.insert(key.clone(), value.clone()),
                    None => model.remove(key),
                };
            }
            root = apply(&reader, &mut appender, &root, edits).unwrap();
            assert_eq!(root, build(&mut appender, &model), "step {step}");
        }
    }
}
