//! What the cipher and the hash do on this CPU: no save can be quicker than they.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::error::Unspecified;
use serde::Serialize;

/// MiB per second of one core, on pieces of 64 KiB.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Speeds {
    /// AES-256-GCM.
    pub aes_gcm_mib_s: f64,
    /// ChaCha20-Poly1305.
    pub chacha_mib_s: f64,
    /// BLAKE3.
    pub blake3_mib_s: f64,
}

/// One AEAD, keyed.
#[derive(Debug)]
pub struct Cipher {
    key: LessSafeKey,
}

impl Cipher {
    /// AES-256-GCM.
    ///
    /// # Errors
    ///
    /// Never in practice.
    pub fn aes() -> Result<Self> {
        Self::new(&AES_256_GCM)
    }

    /// ChaCha20-Poly1305.
    ///
    /// # Errors
    ///
    /// Never in practice.
    pub fn chacha() -> Result<Self> {
        Self::new(&CHACHA20_POLY1305)
    }

    fn new(algorithm: &'static Algorithm) -> Result<Self> {
        let key = UnboundKey::new(algorithm, &[7; 32]).map_err(unspecified)?;
        Ok(Self { key: LessSafeKey::new(key) })
    }

    /// Encrypts `data` in place.
    ///
    /// # Errors
    ///
    /// If `data` is too long for the cipher.
    pub fn seal(&self, data: &mut [u8]) -> Result<()> {
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let sealed = self.key.seal_in_place_separate_tag(nonce, Aad::empty(), data);
        sealed.map(drop).map_err(unspecified)
    }
}

/// `ring` says no more than that it failed, and implements no `Error` without its own std feature.
fn unspecified(err: Unspecified) -> anyhow::Error {
    anyhow!("the cipher failed: {err}")
}

/// Measures for about half a second: the best of several rounds, as nothing but disturbance makes
/// any of them slower.
///
/// # Errors
///
/// As [`Cipher::seal`].
pub fn speeds() -> Result<Speeds> {
    let (aes, chacha) = (Cipher::aes()?, Cipher::chacha()?);
    let mut data = vec![0; 64 << 10];
    let mut best = [Duration::MAX; 3];
    for _ in 0..100 {
        let start = Instant::now();
        aes.seal(&mut data)?;
        best[0] = best[0].min(start.elapsed());
        let start = Instant::now();
        chacha.seal(&mut data)?;
        best[1] = best[1].min(start.elapsed());
        let start = Instant::now();
        std::hint::black_box(blake3::hash(&data));
        best[2] = best[2].min(start.elapsed());
    }
    let [aes, chacha, hash] = best.map(|time| 64.0 / 1024.0 / time.as_secs_f64());
    Ok(Speeds { aes_gcm_mib_s: aes, chacha_mib_s: chacha, blake3_mib_s: hash })
}
