//! The whole visible tree, for tools that want all of it at once.

use std::collections::BTreeMap;

use crate::entry::Entry;
use crate::ids::NodeId;
use crate::name::Name;
use crate::node::Body;
use crate::tree::Tree;
use crate::view::View;

/// One entry of a rendered tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<B> {
    /// The index of the directory it is in; `None` in the root.
    pub parent: Option<usize>,
    /// What is shown.
    pub entry: Entry<B>,
}

/// All visible entries, every directory before what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered<B> {
    /// The entries.
    pub items: Vec<Item<B>>,
}

impl<B> Rendered<B> {
    /// The path of an item, without a slash in front.
    #[must_use]
    pub fn path(&self, index: usize) -> Vec<u8> {
        let mut names: Vec<&Name> = Vec::new();
        let mut at = Some(index);
        while let Some(item) = at.and_then(|at| self.items.get(at)) {
            names.push(&item.entry.name);
            at = item.parent;
        }
        names.reverse();
        join_path(&names)
    }

    /// Entries by path. Long for a deep tree: every path is written out.
    #[must_use]
    pub fn by_path(&self) -> BTreeMap<Vec<u8>, &Entry<B>> {
        let entries = self.items.iter().enumerate();
        entries.map(|(index, item)| (self.path(index), &item.entry)).collect()
    }
}

pub(crate) fn join_path(names: &[&Name]) -> Vec<u8> {
    let bytes: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    bytes.join(&b'/')
}

impl<B: Body, T: Tree<B>> View<'_, B, T> {
    /// Reads the whole visible tree.
    ///
    /// # Errors
    ///
    /// Whatever the tree answers.
    pub fn render(&self) -> Result<Rendered<B>, T::Error> {
        let mut items: Vec<Item<B>> = Vec::new();
        let mut todo = vec![(None, vec![NodeId::Root])];
        while let Some((parent, dirs)) = todo.pop() {
            for entry in self.entries(&dirs)? {
                if entry.kind.is_dir() {
                    todo.push((Some(items.len()), entry.ids.clone()));
                }
                items.push(Item { parent, entry });
            }
        }
        Ok(Rendered { items })
    }

    /// All entries of the united directories `dirs`, sorted by name.
    ///
    /// # Errors
    ///
    /// Whatever the tree answers.
    pub fn entries(&self, dirs: &[NodeId]) -> Result<Vec<Entry<B>>, T::Error> {
        let disputes = self.disputes(dirs)?;
        let mut entries = disputes.shown;
        for dir in dirs {
            for name in self.all_names(dir)? {
                if !disputes.names.contains(&name)
                    && !entries.contains_key(&name)
                    && let Some(entry) = self.slot(dirs, &name)?.into_winner()
                {
                    entries.insert(name, entry);
                }
            }
        }
        Ok(entries.into_values().collect())
    }
}
