//! The two AEADs, behind one small door: the only code that knows `ring::aead`.

use std::cell::RefCell;
use std::sync::LazyLock;

use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};

use crate::keys::{KeyRing, Secret, random};
use crate::{BlobId, Result};

/// Length of the authentication tag after the ciphertext.
pub(crate) const TAG_BYTES: usize = 16;
/// Nonces drawn from the system at a time: one call costs about as much as sealing 4 KiB.
const NONCE_POOL: usize = 12 * 32;

/// What a record is sealed with. Every device reads both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// AES-256-GCM: 8 GB/s with AES instructions, slow and leaky without.
    Aes256Gcm,
    /// ChaCha20-Poly1305: 2.6 GB/s on any processor with vector instructions.
    ChaCha20Poly1305,
}

impl Cipher {
    /// The faster one on this processor.
    #[must_use]
    pub fn for_this_cpu() -> Self {
        static CHOICE: LazyLock<Cipher> = LazyLock::new(Cipher::detect);
        *CHOICE
    }

    /// What tells the keys of one blob apart.
    fn purpose(self) -> u8 {
        match self {
            Self::Aes256Gcm => 0,
            Self::ChaCha20Poly1305 => 1,
        }
    }

    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    fn detect() -> Self {
        let fast = std::arch::is_x86_feature_detected!("aes")
            && std::arch::is_x86_feature_detected!("pclmulqdq");
        if fast { Self::Aes256Gcm } else { Self::ChaCha20Poly1305 }
    }

    #[cfg(target_arch = "aarch64")]
    fn detect() -> Self {
        let fast = std::arch::is_aarch64_feature_detected!("aes")
            && std::arch::is_aarch64_feature_detected!("pmull");
        if fast { Self::Aes256Gcm } else { Self::ChaCha20Poly1305 }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    fn detect() -> Self {
        Self::ChaCha20Poly1305
    }
}

/// The key of one blob under one cipher.
pub(super) struct AeadKey(LessSafeKey);

impl AeadKey {
    /// The key that seals, and its epoch.
    pub(super) fn current(keys: &KeyRing, id: &BlobId, cipher: Cipher) -> (u16, Self) {
        let (epoch, secret) = keys.seal_key(id, cipher.purpose());
        (epoch, Self::new(&secret, cipher))
    }

    /// The keys that may open: one, but where two owners gave an epoch the same number.
    pub(super) fn candidates(
        keys: &KeyRing,
        epoch: u16,
        id: &BlobId,
        cipher: Cipher,
    ) -> Result<impl Iterator<Item = Self> + use<>> {
        let secrets = keys.open_keys(epoch, id, cipher.purpose())?;
        Ok(secrets.into_iter().map(move |secret| Self::new(&secret, cipher)))
    }

    fn new(secret: &Secret, cipher: Cipher) -> Self {
        let algorithm = match cipher {
            Cipher::Aes256Gcm => &AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, secret.expose())
            .expect("because both ciphers take 32 bytes");
        Self(LessSafeKey::new(key))
    }

    pub(super) fn seal(&self, nonce: [u8; 12], aad: &[u8], body: &mut [u8]) -> [u8; TAG_BYTES] {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(aad), body)
            .expect("because a blob is far shorter than what the ciphers can seal");
        tag.as_ref().try_into().expect("because both ciphers have tags of 16 bytes")
    }

    /// The plaintext in `body`, where the tag stands at its end. `None` if it is not authentic.
    pub(super) fn open<'a>(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        body: &'a mut [u8],
    ) -> Option<&'a [u8]> {
        let len = body.len().checked_sub(TAG_BYTES)?;
        let (body, tag) = body.split_at_mut(len);
        let tag = Tag::try_from(&*tag).ok()?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plain = self.0.open_in_place_separate_tag(nonce, Aad::from(aad), tag, body, 0..);
        plain.ok().map(|plain| &*plain)
    }
}

/// A random nonce. They are public, so a few of them may wait in memory.
pub(super) fn nonce() -> Result<[u8; 12]> {
    thread_local! {
        static POOL: RefCell<(usize, [u8; NONCE_POOL])> = const { RefCell::new((0, [0; NONCE_POOL])) };
    }
    POOL.with_borrow_mut(|(left, pool)| {
        if *left == 0 {
            random(pool)?;
            *left = NONCE_POOL / 12;
        }
        *left -= 1;
        Ok(pool.as_chunks::<12>().0[*left])
    })
}
