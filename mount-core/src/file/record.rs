//! What a save record says of one file: the changes of its content since the save before.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Base, Content, Data, FILE_BYTES_MAX,
    pieces::{Fill, PIECE_BYTES_MAX, Pieces},
};
use crate::{Error, Result, Time};

/// The bytes of a piece, encoded as bytes are.
mod shared_bytes {
    use std::sync::Arc;

    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Arc<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        serde_bytes::serialize(bytes.as_slice(), to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Arc<Vec<u8>>, D::Error> {
        serde_bytes::deserialize(from).map(Arc::new)
    }
}

/// The changes of one file, to be applied to its state at the save before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    /// New sealed content and its length. All pieces saved before belong to the old one and go.
    base: Option<(Data, u64)>,
    /// How much of the sealed content may be seen.
    visible: u64,
    /// The shortest length that the file had in between.
    cut: Option<u64>,
    /// Offset and fill of what was written.
    pieces: Vec<(u64, RecordFill)>,
    len: u64,
    written: Option<Time>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum RecordFill {
    /// What the piece holds: a record copies nothing before it is encoded.
    Bytes(#[serde(with = "shared_bytes")] Arc<Vec<u8>>),
    Hole(u64),
}

impl RecordFill {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Hole(len) => *len,
        }
    }
}

impl FileRecord {
    /// A lower bound of the length of its encoding: the bytes of its pieces.
    pub(crate) fn bytes(&self) -> usize {
        let bytes = |fill: &RecordFill| match fill {
            RecordFill::Bytes(bytes) => bytes.len(),
            RecordFill::Hole(_) => 0,
        };
        self.pieces.iter().map(|(_, fill)| bytes(fill)).sum()
    }

    /// The same, to be applied to no state at all; `None` if it needs the one at the save before.
    pub(crate) fn alone(mut self) -> Option<Self> {
        if self.base.is_none() {
            // Beyond the shortest length is nothing but what the record itself says.
            let needed = self.cut.unwrap_or(self.len).min(self.len);
            let mut told = 0;
            for (start, fill) in &self.pieces {
                if *start <= told {
                    told = told.max(start.saturating_add(fill.len()));
                }
            }
            if told < needed {
                return None;
            }
            self.base = Some((Data::EMPTY, 0));
        }
        Some(self)
    }
}

impl Content {
    /// What a save record must say of this snapshot.
    pub(crate) fn record(&self) -> FileRecord {
        let with_base = self.base_unsaved;
        let pieces = self.pieces.iter().filter(|(_, piece)| with_base || !piece.saved);
        FileRecord {
            base: with_base.then(|| (self.base.data.clone(), self.base.sealed_len)),
            visible: self.base.visible,
            cut: self.cut,
            pieces: pieces
                .map(|(start, piece)| {
                    let fill = match &piece.fill {
                        Fill::Bytes(bytes) => RecordFill::Bytes(Arc::clone(bytes)),
                        Fill::Hole(len) => RecordFill::Hole(*len),
                    };
                    (start, fill)
                })
                .collect(),
            len: self.len,
            written: self.written,
        }
    }

    /// The record that stands alone over the content in the tree: everything that is dirty.
    pub(crate) fn whole_record(&self) -> FileRecord {
        assert!(!self.to_record, "a record that stands alone needs a whole snapshot");
        let mut whole = self.clone();
        whole.base_unsaved = true;
        whole.record()
    }

    /// Brings back what a record carries.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if the record makes no sense: it was authentic, so this is our own bug or
    /// a version to come, but nothing may panic over stored bytes.
    pub(crate) fn apply(&mut self, record: FileRecord) -> Result<()> {
        let sound = record.len <= FILE_BYTES_MAX
            && record.pieces.iter().all(|(start, fill)| {
                let len = fill.len();
                len > 0 && start.checked_add(len).is_some_and(|end| end <= FILE_BYTES_MAX)
            });
        if !sound {
            return Err(Error::Damaged { what: "a save record with impossible extents".into() });
        }
        if let Some((data, sealed_len)) = record.base {
            self.base = Base::new(data, sealed_len);
            self.pieces = Pieces::default();
        }
        if let Some(cut) = record.cut {
            self.pieces.truncate(cut);
        }
        self.base.visible = record.visible.min(self.base.sealed_len);
        for (start, fill) in record.pieces {
            match fill {
                RecordFill::Bytes(bytes) => {
                    let mut at = start;
                    for part in bytes.chunks(PIECE_BYTES_MAX) {
                        self.pieces.restore(at, Fill::Bytes(Arc::new(part.to_vec())));
                        at += part.len() as u64;
                    }
                }
                RecordFill::Hole(len) => self.pieces.restore(start, Fill::Hole(len)),
            }
        }
        self.len = record.len;
        self.written = record.written;
        self.changed = true;
        Ok(())
    }
}
