//! What it costs to try a passphrase.

use argon2::{Algorithm, Argon2, Params, Version};
use ring::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use zeroize::Zeroizing;

use super::KeyFileError;

/// The most memory a key file may ask for, in KiB: 1 GiB.
const MEMORY_KIB_MAX: u32 = 1 << 20;
/// The most passes a key file may ask for.
const PASSES_MAX: u32 = 64;
/// The most lanes a key file may ask for.
const LANES_MAX: u32 = 16;

/// What trying one passphrase costs. Argon2id, RFC 9106.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Cost {
    /// 64 MiB and three passes (RFC 9106, section 4, the second choice with one lane): 0.24 s on
    /// the machine this was measured on.
    pub const USUAL: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 };
    /// 19 MiB and two passes, for machines with little memory (OWASP's minimum): 0.04 s.
    pub const SMALL: Self = Self { memory_kib: 19 * 1024, passes: 2, lanes: 1 };

    /// What suits this machine: [`Self::SMALL`] below 512 MiB of memory.
    #[must_use]
    pub fn for_this_machine() -> Self {
        let info = rustix::system::sysinfo();
        // The fields' types differ between platforms.
        #[allow(clippy::useless_conversion, clippy::cast_lossless, reason = "platform types")]
        let bytes = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit));
        if bytes < 512 << 20 { Self::SMALL } else { Self::USUAL }
    }
}

/// What Argon2 takes, and this device can afford.
pub(super) fn in_bounds(cost: Cost) -> bool {
    let lanes_fit = (1..=LANES_MAX).contains(&cost.lanes);
    // Each lane has blocks of its own (RFC 9106, section 3.1).
    let least_kib = cost.lanes.saturating_mul(Params::MIN_M_COST);
    lanes_fit
        && (least_kib..=MEMORY_KIB_MAX).contains(&cost.memory_kib)
        && (1..=PASSES_MAX).contains(&cost.passes)
}

/// The key that a passphrase is stretched to.
///
/// # Errors
///
/// [`KeyFileError::BadCost`], [`KeyFileError::NoMemory`].
pub(super) fn stretch(
    passphrase: &[u8],
    salt: &[u8; 16],
    cost: Cost,
) -> Result<LessSafeKey, KeyFileError> {
    if !in_bounds(cost) {
        return Err(KeyFileError::BadCost);
    }
    let mut key = Zeroizing::new([0; 32]);
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32))
        .expect("because the cost is in bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, salt, key.as_mut())
        .map_err(|err| match err {
            argon2::Error::OutOfMemory => KeyFileError::NoMemory,
            // No passphrase is 4 GiB long, and salt and key have lengths that it takes.
            _ => KeyFileError::BadCost,
        })?;
    let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_ref())
        .expect("because the key has the cipher's length");
    Ok(LessSafeKey::new(key))
}
