//! Byte strings with rules: names of directory entries, keys and values of attributes.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why bytes are not a [`Name`] or an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// No bytes at all.
    #[error("a name is empty")]
    Empty,
    /// More bytes than allowed.
    #[error("a name or value has {len} bytes, at most {max} are allowed")]
    TooLong {
        /// How many there are.
        len: usize,
        /// How many there may be.
        max: usize,
    },
    /// `.` or `..`.
    #[error("`.` and `..` cannot be names")]
    Dots,
    /// A slash or a NUL byte.
    #[error("a name contains a slash or a NUL byte")]
    Forbidden,
}

/// The name of a directory entry: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Checks `bytes` and copies them.
    ///
    /// # Errors
    ///
    /// [`BadName`] says which rule they break.
    pub fn new(bytes: &[u8]) -> Result<Self, BadName> {
        match bytes {
            [] => Err(BadName::Empty),
            b"." | b".." => Err(BadName::Dots),
            _ if bytes.len() > Self::MAX_BYTES => {
                Err(BadName::TooLong { len: bytes.len(), max: Self::MAX_BYTES })
            }
            _ if bytes.iter().any(|byte| matches!(byte, b'/' | 0)) => Err(BadName::Forbidden),
            _ => Ok(Self(bytes.into())),
        }
    }

    /// The name that comes before all others.
    #[must_use]
    pub fn least() -> Self {
        Self([1].into())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// The key of an attribute: 1 to 255 bytes.
///
/// A key that begins with `~` is *quiet*: housekeeping, such as times. Of concurrent values the
/// latest counts, and nobody is told.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttrKey(Arc<[u8]>);

impl AttrKey {
    /// The longest key, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Checks `bytes` and copies them.
    ///
    /// # Errors
    ///
    /// [`BadName::Empty`] or [`BadName::TooLong`].
    pub fn new(bytes: &[u8]) -> Result<Self, BadName> {
        match bytes.len() {
            0 => Err(BadName::Empty),
            len if len > Self::MAX_BYTES => Err(BadName::TooLong { len, max: Self::MAX_BYTES }),
            _ => Ok(Self(bytes.into())),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is `mtime`, the time at which the content was changed: writing sets that too, so that
    /// it belongs to the version it came with.
    #[must_use]
    pub fn is_of_content(&self) -> bool {
        *self.0 == *b"mtime"
    }

    /// Whether it begins with `~`: a difference is housekeeping then, and never reported.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.0.first() == Some(&b'~')
    }
}

/// The value of an attribute: at most 64 KiB.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttrValue(Arc<[u8]>);

impl AttrValue {
    /// The longest value, in bytes; that of an extended attribute on Linux.
    pub const MAX_BYTES: usize = 65_536;

    /// Checks `bytes` and copies them.
    ///
    /// # Errors
    ///
    /// [`BadName::TooLong`].
    pub fn new(bytes: &[u8]) -> Result<Self, BadName> {
        match bytes.len() {
            len if len > Self::MAX_BYTES => Err(BadName::TooLong { len, max: Self::MAX_BYTES }),
            _ => Ok(Self(bytes.into())),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a short byte string")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Vec<u8>, S::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
            if bytes.len() > AttrValue::MAX_BYTES {
                return Err(S::Error::custom("a byte string is too long"));
            }
        }
        Ok(bytes)
    }
}

macro_rules! checked_bytes {
    ($($type:ident),*) => {$(
        impl Borrow<[u8]> for $type {
            fn borrow(&self) -> &[u8] {
                &self.0
            }
        }

        impl AsRef<[u8]> for $type {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $type {
            type Error = BadName;

            fn try_from(bytes: &[u8]) -> Result<Self, BadName> {
                Self::new(bytes)
            }
        }

        impl TryFrom<&str> for $type {
            type Error = BadName;

            fn try_from(text: &str) -> Result<Self, BadName> {
                Self::new(text.as_bytes())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", String::from_utf8_lossy(&self.0))
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let bytes = deserializer.deserialize_bytes(BytesVisitor)?;
                Self::new(&bytes).map_err(D::Error::custom)
            }
        }
    )*};
}

checked_bytes!(Name, AttrKey, AttrValue);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn illegal_names_are_refused() {
        assert_eq!(Name::new(b""), Err(BadName::Empty));
        assert_eq!(Name::new(b"."), Err(BadName::Dots));
        assert_eq!(Name::new(b".."), Err(BadName::Dots));
        assert_eq!(Name::new(b"a/b"), Err(BadName::Forbidden));
        assert_eq!(Name::new(b"a\0"), Err(BadName::Forbidden));
        assert!(matches!(Name::new(&[b'x'; 256]), Err(BadName::TooLong { .. })));
        assert!(Name::new(&[b'x'; 255]).is_ok());
    }

    #[test]
    fn decoding_checks_as_the_constructor_does() {
        let good = postcard::to_stdvec(&Name::new(b"ok").unwrap()).unwrap();
        assert_eq!(good, b"\x02ok");
        assert!(postcard::from_bytes::<Name>(&good).is_ok());
        assert!(postcard::from_bytes::<Name>(b"\x03a/b").is_err());
    }
}
