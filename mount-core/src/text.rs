//! Merging the versions of a text: the strategy `merge-text`.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use cairnfs_merge::{
    Conflict, Content as Value, ContentId, MergeContent, NodeId, Tree, text::merge_lines,
};
use cairnfs_store::{Appender, BlobId};

use crate::{
    Error, Result, Time,
    file::{Base, Data, File, Tail},
    shared::Shared,
    tree::BaseTree,
    vault::{Sealer, Vault},
    versions::Ancestry,
};

/// Longest text that is merged, in bytes: all versions of it are held in memory at once.
const TEXT_BYTES_MAX: u64 = 1 << 20;
/// How many versions back a common ancestor is looked for.
const VERSIONS_BACK_MAX: usize = 1024;

/// Merges texts whose common ancestor is still here; seals what comes of it.
pub(crate) struct Texts<'a> {
    vault: Arc<Vault>,
    sealer: RefCell<Sealer<'a>>,
    ancestors: BTreeMap<ContentId, Value<Data>>,
}

impl<'a> Texts<'a> {
    /// Looks for the contents that the versions in `conflicts` come from, in `head` and the
    /// versions before it.
    ///
    /// # Errors
    ///
    /// Damage in the store. A version that was given up is passed over.
    pub(crate) fn new(
        shared: &'a Shared,
        appender: &'a mut Appender,
        head: BlobId,
        conflicts: &[Conflict<Data>],
    ) -> Result<Self> {
        let wanted: Vec<(NodeId, ContentId)> = conflicts
            .iter()
            .filter_map(|conflict| Some((conflict, conflict.hist_base?)))
            .flat_map(|(conflict, base)| {
                let owners = conflict.versions.iter().flat_map(|it| it.entry.owners.keys());
                owners.map(move |id| (*id, base)).collect::<Vec<_>>()
            })
            .collect();
        let ancestors = find(shared, head, wanted)?;
        let sealer = RefCell::new(Sealer::new(appender, &shared.vault));
        Ok(Self { vault: Arc::clone(&shared.vault), sealer, ancestors })
    }

    fn read(&self, value: &Value<Data>) -> Option<Vec<u8>> {
        if value.len > TEXT_BYTES_MAX {
            return None;
        }
        let file = File::new(Base::new(value.body.clone(), value.len));
        let bytes = match file.lock().extract(0, value.len).read(&self.vault) {
            Ok(bytes) => bytes,
            Err(err) => {
                log::warn!("merge-text failed reason={:?}", err.to_string());
                return None;
            }
        };
        // What holds a NUL is no text.
        (!bytes.contains(&0)).then_some(bytes)
    }

    fn seal(&self, bytes: &[u8]) -> Result<Value<Data>> {
        let file = File::new(Base::empty());
        let mut content = file.lock();
        content.write(0, bytes, Time::default())?;
        let base = content.fold(&self.vault, &mut self.sealer.borrow_mut(), Tail::Seal)?;
        let id = ContentId(self.vault.content_id(&base));
        Ok(Value::new(id, base.sealed_len, base.data))
    }
}

impl MergeContent<Data> for Texts<'_> {
    fn merge(&self, base: ContentId, sides: &[&Value<Data>]) -> Option<Value<Data>> {
        let base = self.read(self.ancestors.get(&base)?)?;
        let sides: Vec<Vec<u8>> =
            sides.iter().map(|side| self.read(side)).collect::<Option<_>>()?;
        let sides: Vec<&[u8]> = sides.iter().map(Vec::as_slice).collect();
        let merged = merge_lines(&base, &sides)?;
        match self.seal(&merged) {
            Ok(value) => Some(value),
            Err(err) => {
                // The versions stay as conflict files, which loses nothing.
                log::warn!("merge-text failed reason={:?}", err.to_string());
                None
            }
        }
    }
}

fn find(
    shared: &Shared,
    head: BlobId,
    mut wanted: Vec<(NodeId, ContentId)>,
) -> Result<BTreeMap<ContentId, Value<Data>>> {
    let mut found = BTreeMap::new();
    let mut history = Ancestry::of(head, &shared.vault).take(VERSIONS_BACK_MAX);
    while !wanted.is_empty() {
        let Some(version) = history.next() else { break };
        let (_, manifest) = version?;
        let tree = match BaseTree::open(Arc::clone(&shared.vault), manifest.root) {
            Ok(tree) => tree,
            Err(err) => {
                passed_over(&err);
                continue;
            }
        };
        wanted.retain(|(node, content)| {
            let node = match tree.node(node) {
                Ok(Some(node)) => node,
                Ok(None) => return true,
                Err(err) => {
                    passed_over(&err);
                    return true;
                }
            };
            let value = node.contents().into_iter().find(|(_, value)| value.id == *content);
            match value {
                Some((_, value)) => {
                    found.insert(*content, value.clone());
                    false
                }
                None => true,
            }
        });
    }
    Ok(found)
}

/// Of a version that was only passed through the tree need not be here, so this may be no damage.
fn passed_over(err: &Error) {
    log::debug!("merge-text passed-over reason={:?}", err.to_string());
}
