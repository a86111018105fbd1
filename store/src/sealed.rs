//! A blob as it goes from one device to another: sealed, with its name.

use serde::{Deserialize, Serialize};

use crate::journal::record::Header;
use crate::{BlobId, BlobRef, Error, Kind, Result};

/// One record, not yet believed: [`crate::Blobs::check`] opens it and looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct SealedBlob {
    bytes: Vec<u8>,
    at: BlobRef,
    kind: Kind,
}

impl SealedBlob {
    /// Takes over the bytes of a record; only its form is checked.
    ///
    /// # Errors
    ///
    /// [`Error::Forged`] if these bytes are no intact record of a blob.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        let header = Header::decode(&bytes);
        let id = header.map_or(BlobId([0; 32]), |header| header.id);
        match header.and_then(|header| Some((header, Kind::from_u8(header.kind)?))) {
            Some((header, kind)) if header.record_len() == bytes.len() => {
                Ok(Self { bytes, at: BlobRef { id, len: header.plain_len }, kind })
            }
            _ => Err(Error::Forged { id }),
        }
    }

    /// The bytes that [`Self::from_bytes`] takes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The name it claims, and the length.
    #[must_use]
    pub const fn claims(&self) -> BlobRef {
        self.at
    }

    /// What it says it is for.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }
}

/// A record that was opened, and whose content has the name that it claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedBlob(SealedBlob);

impl CheckedBlob {
    pub(crate) const fn new(checked: SealedBlob) -> Self {
        Self(checked)
    }

    /// Its bytes, as they were sealed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Its name, and the length.
    #[must_use]
    pub const fn blob(&self) -> BlobRef {
        self.0.at
    }
}

impl TryFrom<Vec<u8>> for SealedBlob {
    type Error = Error;

    fn try_from(bytes: Vec<u8>) -> Result<Self> {
        Self::from_bytes(bytes)
    }
}

impl From<SealedBlob> for Vec<u8> {
    fn from(blob: SealedBlob) -> Self {
        blob.bytes
    }
}
