//! The names of things in the store.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of a blob: the bucket-keyed BLAKE3 hash of its plaintext.
///
/// Equal plaintext has equal names on every device of a bucket, and nobody without the bucket's
/// secret can compute or test one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobId(pub [u8; 32]);

impl fmt::Display for BlobId {
    /// Eight hexadecimal digits, enough for a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

/// All that is needed to name a blob and to bound what reading it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// The blob's name.
    pub id: BlobId,
    /// Length of the plaintext in bytes.
    pub len: u32,
}

/// What a blob is for. It is told in the clear, so that a scrub without keys can say what it
/// found damaged; it has no part in the blob's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Kind {
    /// A piece of a file.
    Chunk = 1,
    /// A node of an ordered Merkle map.
    Node = 2,
    /// A published version.
    Manifest = 3,
    /// Anything else that the layer above keeps.
    Other = 4,
}

impl Kind {
    /// The kind with this number, if this version knows it.
    #[must_use]
    pub const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Chunk),
            2 => Some(Self::Node),
            3 => Some(Self::Manifest),
            4 => Some(Self::Other),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chunk => "chunk",
            Self::Node => "node",
            Self::Manifest => "manifest",
            Self::Other => "other",
        })
    }
}

/// The number of a save: 1 for the first one of a bucket, one more for each that follows.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
