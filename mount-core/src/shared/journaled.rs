//! What the next opening brings back of what is in no version.

use std::collections::HashMap;

use cairnfs_merge::{Node, NodeId};

use super::Batch;
use crate::{
    file::{Data, File},
    tree::{LiveTree, contents},
    writer::save::Snapshot,
};

/// What contents lie in, by the last save since the record that began the version. An opening needs that,
/// whatever has been changed or removed since and is not saved.
#[derive(Debug, Default)]
pub(crate) struct Journaled {
    nodes: HashMap<NodeId, Vec<Data>>,
    files: HashMap<NodeId, Data>,
}

impl Journaled {
    /// What was saved is `tree` with `files`.
    pub(crate) fn recovered<'f>(
        tree: &LiveTree,
        files: impl Iterator<Item = (NodeId, &'f File)>,
    ) -> Self {
        let mut journaled = Self::default();
        for id in tree.changed_ids() {
            journaled.note_node(*id, tree.changed(id).flatten().as_deref());
        }
        for (id, file) in files {
            journaled.note_file(id, file.lock().sealed());
        }
        journaled
    }

    /// A record that begins a version was saved, and carries these.
    pub(crate) fn begin(&mut self, carried: &[Snapshot]) {
        *self = Self::default();
        self.note_files(carried);
    }

    /// All that `batch` holds was saved.
    pub(crate) fn save(&mut self, batch: &Batch) {
        for (id, node) in &batch.nodes {
            self.note_node(*id, node.as_deref());
        }
        self.note_files(&batch.files);
    }

    pub(crate) fn contents(&self) -> impl Iterator<Item = &Data> {
        self.nodes.values().flatten().chain(self.files.values())
    }

    fn note_node(&mut self, id: NodeId, node: Option<&Node<Data>>) {
        let all = node.into_iter().flat_map(contents).map(|content| &content.body);
        let outside: Vec<Data> = all.filter(|data| is_outside(data)).cloned().collect();
        if outside.is_empty() {
            self.nodes.remove(&id);
        } else {
            self.nodes.insert(id, outside);
        }
        if node.is_none() {
            self.files.remove(&id);
        }
    }

    fn note_files(&mut self, files: &[Snapshot]) {
        for Snapshot { id, content, base, .. } in files {
            let sealed = base.as_ref().map_or_else(|| content.sealed(), |base| &base.data);
            id.iter().for_each(|id| self.note_file(*id, sealed));
        }
    }

    fn note_file(&mut self, id: NodeId, sealed: &Data) {
        if is_outside(sealed) {
            self.files.insert(id, sealed.clone());
        } else {
            self.files.remove(&id);
        }
    }
}

/// Whether it lies in blobs.
fn is_outside(data: &Data) -> bool {
    matches!(data, Data::Chunk(_) | Data::Map { .. })
}
