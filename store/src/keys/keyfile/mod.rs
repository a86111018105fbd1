//! The file that a bucket's secrets lie in, under a passphrase or in the clear.
//!
//! The file bears a checksum over everything, so that damage and a wrong passphrase are two
//! different answers. The cost parameters stand in the file and are bounded when read: a file
//! from elsewhere must not make this device allocate without limit.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod cost;
mod files;

use ring::aead::{Aad, LessSafeKey, Nonce};
use zeroize::Zeroizing;

pub use self::cost::Cost;
use self::cost::{in_bounds, stretch};
use self::files::FILE_BYTES_MAX;
pub use self::files::{create, overwrite, read, remove_leftover, replace};
use super::{Secret, random};
use crate::bytes::{Reader, len32};
use crate::{Error, check8};

const MAGIC: &[u8; 8] = b"cairnkey";
const VERSION: u16 = 1;
/// Magic, version, protection, three cost parameters, salt, nonce, length of what is sealed.
const HEADER_BYTES: usize = 8 + 2 + 1 + 12 + 16 + 12 + 4;
/// What went wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The passphrase is not the one the file was made with.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// The file is protected and no passphrase was given.
    #[error("the key file needs a passphrase")]
    NeedsPassphrase,
    /// The file is not a key file, or is damaged.
    #[error("the key file is damaged")]
    Corrupt,
    /// Trying a passphrase would cost more than a key file may ask for, or less than Argon2 can.
    #[error("the cost of trying a passphrase is out of bounds")]
    BadCost,
    /// The system does not give the memory that trying a passphrase costs.
    #[error("there is too little memory to try a passphrase")]
    NoMemory,
    /// There are more secrets than a key file may hold.
    #[error("there are too many secrets for a key file")]
    TooMany,
    /// Written by a newer version of this software.
    #[error("the key file has format version {found}, this version reads {supported}")]
    Newer {
        /// Its version.
        found: u16,
        /// The known version.
        supported: u16,
    },
    /// It cannot be read, written or sealed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// How the secrets are protected.
#[derive(Debug)]
pub enum Protection<'a> {
    /// Sealed under a passphrase.
    Passphrase {
        /// The passphrase's bytes.
        passphrase: &'a [u8],
        /// What trying one costs.
        cost: Cost,
    },
    /// In the clear: the file's mode is all that protects them.
    None,
}

/// Makes the content of a key file.
///
/// Costs what `protection` says.
///
/// # Errors
///
/// As [`WrappingKey::new`].
pub fn protect(
    secrets: &[(u16, Secret)],
    protection: &Protection<'_>,
) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    WrappingKey::new(protection)?.protect(secrets)
}

fn plain_of(secrets: &[(u16, Secret)]) -> Zeroizing<Vec<u8>> {
    let mut plain = Zeroizing::new(Vec::with_capacity(secrets.len().saturating_mul(34)));
    for (epoch, secret) in secrets {
        plain.extend_from_slice(&epoch.to_le_bytes());
        plain.extend_from_slice(secret.expose());
    }
    plain
}

#[cfg(test)]
pub(crate) fn seal_with(
    plain: Zeroizing<Vec<u8>>,
    protection: &Protection<'_>,
    salt: [u8; 16],
    nonce: [u8; 12],
) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    Ok(WrappingKey::salted(protection, salt)?.encode(plain, nonce))
}

/// Whether [`open`] will need a passphrase for these bytes.
///
/// # Errors
///
/// [`KeyFileError::Corrupt`] or [`KeyFileError::Newer`].
pub fn needs_passphrase(bytes: &[u8]) -> Result<bool, KeyFileError> {
    Ok(Header::decode(bytes)?.cost.is_some())
}

/// Takes the secrets out of a key file's content.
///
/// # Errors
///
/// As [`unlock`].
pub fn open(bytes: &[u8], passphrase: Option<&[u8]>) -> Result<Vec<(u16, Secret)>, KeyFileError> {
    unlock(bytes, passphrase).map(|(secrets, _)| secrets)
}

/// As [`open`], with what the file is sealed with, to make it anew once there are more secrets.
///
/// # Errors
///
/// - [`KeyFileError::WrongPassphrase`], [`KeyFileError::NeedsPassphrase`], [`KeyFileError::NoMemory`]
/// - [`KeyFileError::Corrupt`] if any byte of the file was changed, [`KeyFileError::Newer`]
pub fn unlock(
    bytes: &[u8],
    passphrase: Option<&[u8]>,
) -> Result<(Vec<(u16, Secret)>, WrappingKey), KeyFileError> {
    let header = Header::decode(bytes)?;
    let mut sealed = Zeroizing::new(header.sealed.to_vec());
    let protection = match header.cost {
        None => Protection::None,
        Some(cost) => Protection::Passphrase {
            passphrase: passphrase.ok_or(KeyFileError::NeedsPassphrase)?,
            cost,
        },
    };
    let wrapping = WrappingKey::salted(&protection, header.salt)?;
    let plain = match &wrapping.key {
        None => sealed.as_slice(),
        Some((key, _)) => key
            .open_in_place(
                Nonce::assume_unique_for_key(header.nonce),
                Aad::from(header.bytes),
                &mut sealed,
            )
            .map_err(|ring::error::Unspecified| KeyFileError::WrongPassphrase)?,
    };
    let (entries, rest) = plain.as_chunks::<34>();
    if entries.is_empty() || !rest.is_empty() {
        return Err(KeyFileError::Corrupt);
    }
    let mut secrets = Vec::with_capacity(entries.len());
    for entry in entries {
        let mut reader = Reader::new(entry);
        let epoch = reader.u16().ok_or(KeyFileError::Corrupt)?;
        let secret = reader.array().ok_or(KeyFileError::Corrupt)?;
        secrets.push((epoch, Secret::new(secret)));
    }
    Ok((secrets, wrapping))
}

/// What a key file is sealed with: the key that was stretched from a passphrase, which is not kept
/// itself; or nothing.
pub struct WrappingKey {
    salt: [u8; 16],
    /// `None`: not protected.
    key: Option<(LessSafeKey, Cost)>,
}

impl std::fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WrappingKey")
    }
}

impl WrappingKey {
    /// Stretches a new one, which is like no other though the passphrase may be.
    ///
    /// Costs what `protection` says.
    ///
    /// # Errors
    ///
    /// [`KeyFileError::Store`] if the system gives no random numbers, [`KeyFileError::BadCost`],
    /// [`KeyFileError::NoMemory`].
    pub fn new(protection: &Protection<'_>) -> Result<Self, KeyFileError> {
        let mut salt = [0; 16];
        random(&mut salt)?;
        Self::salted(protection, salt)
    }

    fn salted(protection: &Protection<'_>, salt: [u8; 16]) -> Result<Self, KeyFileError> {
        let key = match protection {
            Protection::Passphrase { passphrase, cost } => {
                Some((stretch(passphrase, &salt, *cost)?, *cost))
            }
            Protection::None => None,
        };
        Ok(Self { salt, key })
    }

    /// Whether files sealed with the one open with the other: both come from one [`Self::new`].
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.salt == other.salt
    }

    /// The content of a key file.
    ///
    /// # Errors
    ///
    /// [`KeyFileError::TooMany`] if it were longer than [`read`] takes; [`KeyFileError::Store`] if
    /// the system gives no random numbers.
    pub fn protect(&self, secrets: &[(u16, Secret)]) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
        let mut nonce = [0; 12];
        random(&mut nonce)?;
        let content = self.encode(plain_of(secrets), nonce);
        if content.len() as u64 > FILE_BYTES_MAX { Err(KeyFileError::TooMany) } else { Ok(content) }
    }

    fn encode(&self, mut plain: Zeroizing<Vec<u8>>, nonce: [u8; 12]) -> Zeroizing<Vec<u8>> {
        let (tag, cost, sealed_len) = match &self.key {
            Some((_, cost)) => (1, *cost, plain.len().saturating_add(16)),
            None => (0, Cost { memory_kib: 0, passes: 0, lanes: 0 }, plain.len()),
        };
        let mut out = Zeroizing::new(Vec::with_capacity(sealed_len.saturating_add(HEADER_BYTES)));
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.push(tag);
        for field in [cost.memory_kib, cost.passes, cost.lanes] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&len32(sealed_len).to_le_bytes());
        if let Some((key, _)) = &self.key {
            key.seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(out.as_slice()),
                &mut *plain,
            )
            .expect("because what is too long for the cipher does not fit into memory");
        }
        out.extend_from_slice(&plain);
        let check = check8(&out);
        out.extend_from_slice(&check);
        out
    }
}

/// What follows the name and the version that a file with keys begins with.
pub(super) fn begin_reading<'a>(
    bytes: &'a [u8],
    magic: &[u8; 8],
    supported: u16,
) -> Result<Reader<'a>, KeyFileError> {
    let mut reader = Reader::new(bytes);
    if reader.array() != Some(*magic) {
        return Err(KeyFileError::Corrupt);
    }
    match reader.u16().ok_or(KeyFileError::Corrupt)? {
        found if found == supported => Ok(reader),
        found => Err(KeyFileError::Newer { found, supported }),
    }
}

/// What stands before the secrets.
struct Header<'a> {
    /// `None`: not protected.
    cost: Option<Cost>,
    salt: [u8; 16],
    nonce: [u8; 12],
    /// The header's own bytes, which the seal authenticates.
    bytes: &'a [u8],
    sealed: &'a [u8],
}

impl<'a> Header<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Self, KeyFileError> {
        let reader = begin_reading(bytes, MAGIC, VERSION)?;
        Self::fields(bytes, reader).ok_or(KeyFileError::Corrupt)
    }

    fn fields(bytes: &'a [u8], mut reader: Reader<'a>) -> Option<Self> {
        let (body, check) = bytes.split_last_chunk::<8>()?;
        if *check != check8(body) {
            return None;
        }
        let protected = reader.u8()?;
        let cost = Cost { memory_kib: reader.u32()?, passes: reader.u32()?, lanes: reader.u32()? };
        let cost = match protected {
            0 => None,
            1 => Some(cost),
            _ => return None,
        };
        if cost.is_some_and(|cost| !in_bounds(cost)) {
            return None;
        }
        let (salt, nonce) = (reader.array()?, reader.array()?);
        let len = usize::try_from(reader.u32()?).ok()?;
        let sealed = reader.take(len)?;
        if reader.rest().len() != 8 {
            return None;
        }
        Some(Self { cost, salt, nonce, bytes: bytes.get(..HEADER_BYTES)?, sealed })
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };

    fn secrets() -> Vec<(u16, Secret)> {
        vec![(0, Secret::new([1; 32])), (3, Secret::new([2; 32]))]
    }

    fn protected(passphrase: &[u8]) -> Zeroizing<Vec<u8>> {
        protect(&secrets(), &Protection::Passphrase { passphrase, cost: CHEAP }).unwrap()
    }

    #[test]
    fn a_key_file_takes_in_another_secret_under_the_same_passphrase() {
        for bytes in [protected(b"word"), protect(&secrets(), &Protection::None).unwrap()] {
            let (mut known, wrapping) = unlock(&bytes, Some(b"word")).unwrap();
            known.push((4, Secret::new([3; 32])));
            let anew = wrapping.protect(&known).unwrap();
            assert_eq!(open(&anew, Some(b"word")).unwrap(), known);
            assert_eq!(needs_passphrase(&anew).unwrap(), needs_passphrase(&bytes).unwrap());
        }
        let anew = unlock(&protected(b"word"), Some(b"word")).unwrap().1.protect(&secrets());
        let wrong = open(&anew.unwrap(), Some(b"other"));
        assert!(matches!(wrong, Err(KeyFileError::WrongPassphrase)));
    }

    #[test]
    fn no_key_file_is_made_that_would_not_be_read() {
        let many = |count: u32| {
            let secret = |n: u32| (1, Secret::new(*blake3::hash(&n.to_le_bytes()).as_bytes()));
            protect(&(0..count).map(secret).collect::<Vec<_>>(), &Protection::None)
        };
        let longest = many(30_000).unwrap();
        assert!(longest.len() as u64 <= FILE_BYTES_MAX);
        assert_eq!(open(&longest, None).unwrap().len(), 30_000);
        assert!(matches!(many(31_000), Err(KeyFileError::TooMany)));
    }

    #[test]
    fn a_wrapping_key_is_known_again_by_its_file_and_like_no_other_of_the_same_passphrase() {
        let protection = Protection::Passphrase { passphrase: b"word", cost: CHEAP };
        let wrapping = WrappingKey::new(&protection).unwrap();
        let bytes = wrapping.protect(&secrets()).unwrap();
        let (_, again) = unlock(&bytes, Some(b"word")).unwrap();
        assert!(wrapping.is_same_as(&again));
        assert!(!wrapping.is_same_as(&WrappingKey::new(&protection).unwrap()));
        let [one, other] = [0, 1].map(|_| WrappingKey::new(&Protection::None).unwrap());
        assert!(!one.is_same_as(&other));
    }

    #[test]
    fn the_right_passphrase_opens_and_others_are_told_apart_from_damage() {
        let bytes = protected(b"correct horse");
        assert_eq!(open(&bytes, Some(b"correct horse")).unwrap(), secrets());
        assert!(matches!(open(&bytes, Some(b"wrong")), Err(KeyFileError::WrongPassphrase)));
        assert!(matches!(open(&bytes, None), Err(KeyFileError::NeedsPassphrase)));
        assert!(needs_passphrase(&bytes).unwrap());
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        for bytes in [protected(b"p"), protect(&secrets(), &Protection::None).unwrap()] {
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 0x10;
                let answer = open(&bad, Some(b"p"));
                let newer = matches!(answer, Err(KeyFileError::Newer { .. }));
                assert!(newer || matches!(answer, Err(KeyFileError::Corrupt)), "byte {at}");
                assert!(open(&bytes[..at], Some(b"p")).is_err());
            }
        }
    }

    #[test]
    fn without_protection_no_passphrase_is_needed() {
        let bytes = protect(&secrets(), &Protection::None).unwrap();
        assert!(!needs_passphrase(&bytes).unwrap());
        assert_eq!(open(&bytes, None).unwrap(), secrets());
    }

    #[test]
    fn what_no_key_file_may_cost_is_refused_when_one_is_made() {
        for (memory_kib, passes, lanes) in [(7, 1, 1), (1 << 21, 1, 1), (8, 1, 2), (64, 0, 1)] {
            let cost = Cost { memory_kib, passes, lanes };
            let made = WrappingKey::new(&Protection::Passphrase { passphrase: b"p", cost });
            assert!(matches!(made, Err(KeyFileError::BadCost)), "{cost:?}");
        }
    }

    #[test]
    fn a_hostile_cost_is_refused_before_anything_is_allocated() {
        let mut bytes = protected(b"p").to_vec();
        bytes.truncate(bytes.len() - 8);
        bytes[11..15].copy_from_slice(&u32::MAX.to_le_bytes());
        let check = check8(&bytes);
        bytes.extend_from_slice(&check);
        assert!(matches!(open(&bytes, Some(b"p")), Err(KeyFileError::Corrupt)));
    }
}
