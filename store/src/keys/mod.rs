//! Secrets, what is derived from them, and the files they lie in.

pub mod keyfile;

mod device;
mod keyring;
mod secret;

pub use device::{DeviceKey, DevicePublicKey, verify};
pub use keyring::KeyRing;
pub use secret::Secret;
pub(crate) use secret::random;
