//! The device's identity: one Ed25519 key.

use std::fmt;
use std::path::Path;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Secret, random};
use crate::Result;
use crate::disk::{Disk, Open, write_new_file};
use crate::error::IoContext;
use crate::keys::keyfile::{KeyFileError, begin_reading};

const MAGIC: &[u8; 8] = b"cairndev";
const VERSION: u16 = 1;
/// Magic, version, seed, public key, check.
const FILE_BYTES: usize = 8 + 2 + 32 + 32 + 8;

/// The name of a device: the Ed25519 public key that its signatures are checked with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DevicePublicKey(pub [u8; 32]);

impl fmt::Display for DevicePublicKey {
    /// Eight hexadecimal digits, enough for a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

impl fmt::Debug for DevicePublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DevicePublicKey({self})")
    }
}

/// A device's signing key.
pub struct DeviceKey {
    seed: Secret,
    pair: Ed25519KeyPair,
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceKey")
    }
}

impl DeviceKey {
    /// Makes a new identity.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Random`] if the system gives no random numbers.
    pub fn generate() -> Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        random(seed.as_mut())?;
        Ok(Self::from_seed(&Secret::new(*seed)))
    }

    /// The identity with this seed (RFC 8032, section 5.1.5: the 32-byte private key).
    ///
    /// # Panics
    ///
    /// Never: every 32 bytes are a seed.
    #[must_use]
    pub fn from_seed(seed: &Secret) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose())
            .expect("because any 32 bytes are an Ed25519 seed");
        Self { seed: seed.clone(), pair }
    }

    /// The seed, for a TLS identity made of the same key.
    #[must_use]
    pub const fn seed(&self) -> &Secret {
        &self.seed
    }

    /// The public key: the device's name.
    ///
    /// # Panics
    ///
    /// Never: an Ed25519 public key has 32 bytes.
    #[must_use]
    pub fn public(&self) -> DevicePublicKey {
        let key = self.pair.public_key();
        let bytes = key.as_ref().try_into();
        DevicePublicKey(bytes.expect("because an Ed25519 public key has 32 bytes"))
    }

    /// Signs `message`.
    ///
    /// # Panics
    ///
    /// Never: an Ed25519 signature has 64 bytes.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.pair.sign(message);
        signature.as_ref().try_into().expect("because an Ed25519 signature has 64 bytes")
    }

    /// Writes the key to a new file of mode 0600; durable when this returns.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`] if the file exists already or cannot be written.
    pub fn save(&self, disk: &dyn Disk, path: &Path) -> Result<()> {
        write_new_file(disk, path, &self.encode())
    }

    /// Reads the key that [`Self::save`] wrote.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`] if the file is missing, damaged or newer than this version.
    pub fn load(disk: &dyn Disk, path: &Path) -> Result<Self, KeyFileError> {
        let file = disk.open(path, Open::Existing).at("open", path)?;
        let len = file.len().at("read", path)?;
        if len != FILE_BYTES as u64 {
            return Err(KeyFileError::Corrupt);
        }
        let mut bytes = Zeroizing::new([0; FILE_BYTES]);
        file.read_at(bytes.as_mut(), 0).at("read", path)?;
        Self::decode(bytes.as_ref())
    }

    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(FILE_BYTES));
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(self.seed.expose());
        out.extend_from_slice(&self.public().0);
        let check = crate::check8(&out);
        out.extend_from_slice(&check);
        out
    }

    /// Decodes the content of a device file.
    ///
    /// # Errors
    ///
    /// [`KeyFileError::Corrupt`] or [`KeyFileError::Newer`].
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyFileError> {
        let mut reader = begin_reading(bytes, MAGIC, VERSION)?;
        let seed = Secret::new(reader.array().ok_or(KeyFileError::Corrupt)?);
        let public = DevicePublicKey(reader.array().ok_or(KeyFileError::Corrupt)?);
        let checked = bytes.len().saturating_sub(reader.rest().len());
        let check: [u8; 8] = reader.array().ok_or(KeyFileError::Corrupt)?;
        let body = bytes.get(..checked).ok_or(KeyFileError::Corrupt)?;
        let key = Self::from_seed(&seed);
        let intact = reader.rest().is_empty() && check == crate::check8(body);
        if !intact || key.public() != public {
            return Err(KeyFileError::Corrupt);
        }
        Ok(key)
    }
}

/// Whether `signature` is this device's signature of `message`.
#[must_use]
pub fn verify(public: &DevicePublicKey, message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, &public.0).verify(message, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    #[test]
    fn a_signature_holds_for_its_message_and_key_only() {
        let [a, b] = [DeviceKey::generate().unwrap(), DeviceKey::generate().unwrap()];
        let signature = a.sign(b"message");
        assert!(verify(&a.public(), b"message", &signature));
        assert!(!verify(&a.public(), b"massage", &signature));
        assert!(!verify(&b.public(), b"message", &signature));
        assert!(!verify(&a.public(), b"message", &signature[..63]));
    }

    #[test]
    fn a_device_file_is_read_back_and_never_overwritten() {
        let disk = SimDisk::new(1);
        let path = Path::new("/device.key");
        let key = DeviceKey::generate().unwrap();
        key.save(&disk, path).unwrap();
        assert!(DeviceKey::generate().unwrap().save(&disk, path).is_err());
        let disk = disk.crash(7);
        assert_eq!(DeviceKey::load(&disk, path).unwrap().public(), key.public());
    }

    #[test]
    fn any_changed_byte_of_a_device_file_is_noticed() {
        let bytes = DeviceKey::generate().unwrap().encode();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(DeviceKey::decode(&bad).is_err(), "byte {at}");
            assert!(DeviceKey::decode(&bytes[..at]).is_err());
        }
    }
}
