//! What is not known behind saves that are missing.
//!
//! A save says of most contents only what has changed since the save before. Where a repair has left one
//! out, nobody knows what the changes behind it are changes of: applied to what was saved before, they
//! would make bytes that never were. They are left out too, until a record tells the whole content.
//!
//! Nodes are saved whole. But where one has a name that another one had before, that must have been
//! removed or renamed in what is missing: it is put aside, under a name that nobody else has.

use std::collections::{BTreeSet, HashSet};

use cairnfs_merge::{Edit, Kind, Name, NodeEdits, NodeId, Tree, spots};
use cairnfs_store::LeftOut;

use crate::{
    Result,
    file::{Data, FileRecord},
    places,
    shared::Core,
};

/// So much is kept of the name of what is put aside.
const STEM_BYTES_MAX: usize = 128;

/// Is told of all records in their order.
pub(super) struct Doubt<'a> {
    left_out: &'a LeftOut,
    /// Whether saves are missing, and the repair that left them out is still to come.
    is_there: bool,
    /// Contents that were told whole since.
    known: HashSet<NodeId>,
    /// Files that are as they were before, though something was saved of them behind it.
    set_back: BTreeSet<NodeId>,
}

impl<'a> Doubt<'a> {
    pub(super) fn new(left_out: &'a LeftOut) -> Self {
        Self { left_out, is_there: false, known: HashSet::new(), set_back: BTreeSet::new() }
    }

    /// The save with this index comes next.
    pub(super) fn save(&mut self, index: usize) {
        if self.left_out.before.contains(&index) {
            self.is_there = true;
            self.known.clear();
        }
        if index >= self.left_out.older {
            self.is_there = false;
        }
    }

    /// What can be applied of a record.
    pub(super) fn file(&mut self, id: NodeId, record: FileRecord) -> Option<FileRecord> {
        if !self.is_there || self.known.contains(&id) {
            return Some(record);
        }
        let alone = record.alone();
        if alone.is_some() {
            self.known.insert(id);
            self.set_back.remove(&id);
        } else {
            self.set_back.insert(id);
        }
        alone
    }

    /// Puts aside what has the names that `nodes` are about to take.
    ///
    /// # Errors
    ///
    /// Damage in the tree.
    pub(super) fn make_way(&mut self, core: &mut Core, nodes: &NodeEdits<Data>) -> Result<()> {
        if !self.is_there {
            return Ok(());
        }
        for (id, node) in nodes.iter().filter_map(|(id, node)| Some((id, node.as_ref()?))) {
            for spot in spots(node, None) {
                let there = core.tree.named(&spot.parent, &spot.name)?;
                if there.iter().any(|(other, _)| other == id) {
                    // It had the name before. What shares it did so then, as in a conflict.
                    continue;
                }
                for (other, kind) in there {
                    // Directories of one name are shown as one.
                    let may_share = kind == Kind::Dir && node.kind == Kind::Dir;
                    if !nodes.contains_key(&other) && !may_share {
                        put_aside(core, &other)?;
                        self.set_back.insert(other);
                    }
                }
            }
        }
        Ok(())
    }

    /// A content goes that this save should have had in another place.
    pub(super) fn loses(&mut self, id: NodeId) {
        if self.is_there {
            self.set_back.insert(id);
        }
    }

    pub(super) fn set_back(self) -> BTreeSet<NodeId> {
        self.set_back
    }
}

fn put_aside(core: &mut Core, id: &NodeId) -> Result<()> {
    let Some(entry) = places::entry_of_node(&core.tree, id)? else { return Ok(()) };
    let stem = entry.name.as_bytes();
    let stem = &stem[..stem.len().min(STEM_BYTES_MAX)];
    let name = Name::new(&[stem, format!("~{id}").as_bytes()].concat())
        .expect("because neither a part of a name nor an id has a slash in it");
    let mut edit = Edit::new(&core.tree, core.op);
    edit.rename(&entry, &entry.dirs, &name)?;
    let edited = edit.finish();
    core.tree.apply(edited);
    Ok(())
}
