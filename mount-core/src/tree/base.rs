//! The published tree: read from the ordered map.

use std::sync::Arc;

use cairnfs_merge::{Child, Displaced, Kind, Name, Node, NodeId, Tree};
use cairnfs_store::{BlobRef, map::Root};
use quick_cache::sync::Cache;

use super::{Data, keys};
use crate::{Error, Result, vault::Vault};

/// Longest node kept as a value of the map, in bytes; a longer one is a blob of its own.
const NODE_BYTES_MAX: usize = 3072;

/// So many decoded nodes are kept: a call looks at the same few again and again.
const RECENT_NODES: usize = 128;

const IN_PLACE: u8 = 0;
const BLOB: u8 = 1;

/// The tree of one version.
#[derive(Clone, Debug)]
pub(crate) struct BaseTree {
    pub(crate) vault: Arc<Vault>,
    pub(crate) root: Root,
    /// Whether any name is contested or any node displaced: in peace this saves a look-up in each
    /// directory.
    disturbed: bool,
    recent: Arc<Cache<NodeId, Arc<Node<Data>>>>,
}

impl BaseTree {
    pub(crate) fn open(vault: Arc<Vault>, root: Root) -> Result<Self> {
        let recent = Arc::new(Cache::new(RECENT_NODES));
        let mut tree = Self { vault, root, disturbed: true, recent };
        let contested = keys::all_contested();
        tree.disturbed = tree
            .vault
            .scan(root, &contested, &keys::end(&keys::all_displaced()))
            .next()
            .transpose()?
            .is_some();
        Ok(tree)
    }

    /// How `node` is stored: within the map, or as a blob if it has many attributes.
    pub(crate) fn encode(
        node: &Node<Data>,
        put: impl FnOnce(&[u8]) -> Result<BlobRef>,
    ) -> Result<Vec<u8>> {
        let bytes = encode_node(node, IN_PLACE);
        if bytes.len() <= NODE_BYTES_MAX {
            return Ok(bytes);
        }
        let blob = put(&bytes[1..])?;
        let mut value = vec![BLOB];
        value.extend(postcard::to_stdvec(&blob).expect("because references always encode"));
        Ok(value)
    }

    /// The blob that a stored node lies in, if it is not in the map itself.
    pub(crate) fn outside(value: &[u8]) -> Option<BlobRef> {
        let (&tag, blob) = value.split_first()?;
        if tag == BLOB { postcard::from_bytes(blob).ok() } else { None }
    }

    /// Reads a node that lies in a blob of its own.
    pub(crate) fn decode_long(bytes: &[u8]) -> Result<Arc<Node<Data>>> {
        decode_node(bytes)
    }

    pub(crate) fn decode(&self, value: &[u8]) -> Result<Arc<Node<Data>>> {
        match value.split_first() {
            Some((&IN_PLACE, bytes)) => decode_node(bytes),
            Some((&BLOB, bytes)) => {
                let blob: BlobRef =
                    postcard::from_bytes(bytes).map_err(|err| damaged_node(&err))?;
                self.vault.long_node(&blob, decode_node)
            }
            _ => Err(Error::Damaged { what: "a node of an unknown form".into() }),
        }
    }
}

/// `tag`, then the node: as it stands in the map and, without the tag, in save records.
fn encode_node(node: &Node<Data>, tag: u8) -> Vec<u8> {
    postcard::to_extend(node, vec![tag]).expect("because nodes always encode")
}

fn decode_node(bytes: &[u8]) -> Result<Arc<Node<Data>>> {
    Ok(Arc::new(postcard::from_bytes(bytes).map_err(|err| damaged_node(&err))?))
}

fn damaged_node(err: &postcard::Error) -> Error {
    Error::Damaged { what: format!("a node of the tree ({err})") }
}

fn damaged_key() -> Error {
    Error::Damaged { what: "a key of the tree".into() }
}

impl Tree<Data> for BaseTree {
    type Error = Error;

    fn node(&self, id: &NodeId) -> Result<Option<Arc<Node<Data>>>> {
        if let Some(node) = self.recent.get(id) {
            return Ok(Some(node));
        }
        let Some(value) = self.vault.get(self.root, &keys::node(id))? else { return Ok(None) };
        let node = self.decode(&value)?;
        // Long ones are kept by the vault, which knows how much they take.
        if value.first() == Some(&IN_PLACE) {
            self.recent.insert(*id, Arc::clone(&node));
        }
        Ok(Some(node))
    }

    fn named(&self, dir: &NodeId, name: &Name) -> Result<Vec<(NodeId, Kind)>> {
        let prefix = keys::named(dir, name);
        self.vault
            .scan(self.root, &prefix, &keys::end(&prefix))
            .map(|entry| {
                let (key, value) = entry?;
                let (_, id) = keys::parse_child(dir, &key).ok_or_else(damaged_key)?;
                Ok((id, keys::parse_kind(&value).ok_or_else(damaged_key)?))
            })
            .collect()
    }

    fn children(
        &self,
        dir: &NodeId,
        after: Option<(&Name, &NodeId)>,
        limit: usize,
    ) -> Result<Vec<Child>> {
        let prefix = keys::children(dir);
        let from = match after {
            Some((name, id)) => {
                let mut key = keys::child(dir, name, id);
                key.push(0);
                key
            }
            None => prefix.clone(),
        };
        self.vault
            .scan(self.root, &from, &keys::end(&prefix))
            .take(limit)
            .map(|entry| {
                let (key, value) = entry?;
                let (name, id) = keys::parse_child(dir, &key).ok_or_else(damaged_key)?;
                Ok((name, id, keys::parse_kind(&value).ok_or_else(damaged_key)?))
            })
            .collect()
    }

    fn contested(&self, dir: &NodeId) -> Result<Vec<Name>> {
        if !self.disturbed {
            return Ok(Vec::new());
        }
        let prefix = keys::contested_in(dir);
        self.vault
            .scan(self.root, &prefix, &keys::end(&prefix))
            .map(|entry| {
                let (_, name) = keys::parse_contested(&entry?.0).ok_or_else(damaged_key)?;
                Ok(name)
            })
            .collect()
    }

    fn is_contested(&self, dir: &NodeId, name: &Name) -> Result<bool> {
        Ok(self.disturbed && self.vault.get(self.root, &keys::contested(dir, name))?.is_some())
    }

    fn is_at_peace(&self) -> Result<bool> {
        Ok(!self.disturbed)
    }

    fn contested_dirs(&self) -> Result<Vec<NodeId>> {
        if !self.disturbed {
            return Ok(Vec::new());
        }
        let prefix = keys::all_contested();
        let mut dirs = Vec::new();
        for entry in self.vault.scan(self.root, &prefix, &keys::end(&prefix)) {
            let (dir, _) = keys::parse_contested(&entry?.0).ok_or_else(damaged_key)?;
            if dirs.last() != Some(&dir) {
                dirs.push(dir);
            }
        }
        Ok(dirs)
    }

    fn displaced(&self, id: &NodeId) -> Result<Option<Displaced>> {
        if !self.disturbed {
            return Ok(None);
        }
        match self.vault.get(self.root, &keys::displaced(id))? {
            Some(value) => postcard::from_bytes(&value).map(Some).map_err(|err| damaged_node(&err)),
            None => Ok(None),
        }
    }

    fn all_displaced(&self) -> Result<Vec<NodeId>> {
        if !self.disturbed {
            return Ok(Vec::new());
        }
        let prefix = keys::all_displaced();
        self.vault
            .scan(self.root, &prefix, &keys::end(&prefix))
            .map(|entry| keys::parse_only_node(&entry?.0).ok_or_else(damaged_key))
            .collect()
    }
}
