//! What a save puts into the log.

use std::sync::Arc;

use cairnfs_merge::{DeviceId, Node, NodeId, OpId};
use cairnfs_store::{BlobRef, SaveKind};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    file::{Data, FileRecord},
};

/// The changes since the save before, or since a version.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SaveRecord {
    /// The version that these and all further changes lie on; what was saved before is in it.
    pub(crate) head: Option<Head>,
    /// The operation under which changes are made.
    pub(crate) op: OpId,
    /// Nodes as they are now; `None` for one that is gone.
    pub(crate) nodes: Vec<(NodeId, Option<Arc<Node<Data>>>)>,
    /// Changed contents that no node holds yet.
    pub(crate) files: Vec<(NodeId, FileRecord)>,
}

/// The version a device stands on, and what it remembers for itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) manifest: BlobRef,
    /// Devices in the order of their index in inode numbers.
    pub(crate) devices: Vec<DeviceId>,
    /// See [`Manifest`](crate::manifest::Manifest).
    pub(crate) incarnation: u32,
    /// The version that the contents beside this lie on, where that is another one: `manifest` came
    /// from a merge, which has not put them where they belong in it.
    pub(crate) before: Option<BlobRef>,
}

/// The form of [`SaveRecord`] that this program writes.
const FORMAT: u8 = 2;
/// The form without [`Head::before`], which is read still.
const FORMAT_ALONE: u8 = 1;

/// The body of [`FORMAT_ALONE`].
#[derive(Deserialize)]
struct Alone {
    head: Option<(BlobRef, Vec<DeviceId>, u32)>,
    op: OpId,
    nodes: Vec<(NodeId, Option<Arc<Node<Data>>>)>,
    files: Vec<(NodeId, FileRecord)>,
}

impl SaveRecord {
    /// One that begins on a version needs nothing that was saved before.
    pub(crate) fn kind(&self) -> SaveKind {
        SaveKind::checkpoint_if(self.head.is_some())
    }

    /// The version that contents of it lie on, where that is not the one it begins.
    pub(crate) fn before(&self) -> Option<BlobRef> {
        self.head.as_ref()?.before.filter(|_| !self.files.is_empty())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        // Room for what is large, so that it is not copied as the record grows.
        let bytes: usize = self.files.iter().map(|(_, file)| file.bytes()).sum();
        let mut out = Vec::with_capacity(bytes + bytes / 64 + 512);
        out.push(FORMAT);
        postcard::to_extend(self, out).expect("because save records always encode")
    }

    /// # Errors
    ///
    /// [`Error::Newer`], [`Error::Damaged`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let bad = |err: postcard::Error| Error::Damaged { what: format!("a save record ({err})") };
        match bytes.split_first() {
            Some((&FORMAT, body)) => postcard::from_bytes(body).map_err(bad),
            Some((&FORMAT_ALONE, body)) => {
                postcard::from_bytes::<Alone>(body).map(Self::from).map_err(bad)
            }
            Some((&found, _)) => {
                Err(Error::Newer { found: u32::from(found), known: u32::from(FORMAT) })
            }
            None => Err(Error::Damaged { what: "an empty save record".into() }),
        }
    }
}

impl From<Alone> for SaveRecord {
    fn from(old: Alone) -> Self {
        let Alone { head, op, nodes, files } = old;
        let head = head.map(|(manifest, devices, incarnation)| Head {
            manifest,
            devices,
            incarnation,
            before: None,
        });
        Self { head, op, nodes, files }
    }
}
