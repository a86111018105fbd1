//! Frames: a length of four bytes, little-endian, and so many bytes of postcard.
//!
//! A frame is refused by its length before anything is kept for it, and memory grows only with
//! bytes that have come.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use serde::{Serialize, de::DeserializeOwned};

/// Bytes of the length.
pub(super) const HEAD_BYTES: usize = 4;

/// Why bytes make no frame or no message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// Longer than is allowed at this point.
    #[error("a message of {len} bytes, where {max} are allowed")]
    TooLong {
        /// What it claims.
        len: usize,
        /// What is allowed.
        max: usize,
    },
    /// No message of this protocol.
    #[error("a message that makes no sense ({0})")]
    Garbage(String),
}

/// The bytes of a frame that holds `message`.
///
/// # Panics
///
/// If the message is longer than four bytes can say; messages are bounded long before.
pub(super) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = vec![0; HEAD_BYTES];
    bytes = postcard::to_extend(message, bytes).expect("because messages always encode");
    let len = u32::try_from(bytes.len().saturating_sub(HEAD_BYTES))
        .expect("because messages are bounded");
    if let Some(head) = bytes.first_chunk_mut() {
        *head = len.to_le_bytes();
    }
    bytes
}

/// The message in the body of a frame, all of which it must take.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    let garbage = |why: String| FrameError::Garbage(why);
    let (message, rest) =
        postcard::take_from_bytes(body).map_err(|err| garbage(err.to_string()))?;
    if rest.is_empty() { Ok(message) } else { Err(garbage("too many bytes".into())) }
}

/// Bytes as they come, cut into frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    /// How many of them were handed out.
    taken: usize,
}

impl Frames {
    /// Bytes that came.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.taken)
    }

    /// Whether a frame has begun and not ended.
    pub(super) fn is_amid(&self) -> bool {
        self.len() > 0
    }

    /// The body of the next frame, if all of it has come.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`] if it is longer than `max`; nothing more can be read then.
    pub(super) fn next(&mut self, max: usize) -> Result<Option<Vec<u8>>, FrameError> {
        let waiting = self.bytes.get(self.taken..).unwrap_or_default();
        let Some((head, rest)) = waiting.split_first_chunk::<HEAD_BYTES>() else {
            self.forget();
            return Ok(None);
        };
        let len = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
        if len > max {
            return Err(FrameError::TooLong { len, max });
        }
        let Some(body) = rest.get(..len) else {
            self.forget();
            return Ok(None);
        };
        let body = body.to_vec();
        self.taken = self.taken.saturating_add(HEAD_BYTES).saturating_add(len);
        Ok(Some(body))
    }

    /// The next `N` bytes, which are no frame, if all of them have come.
    pub(super) fn take_bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = *self.bytes.get(self.taken..)?.first_chunk()?;
        self.taken = self.taken.saturating_add(N);
        Some(bytes)
    }

    /// Lets go of what was handed out.
    fn forget(&mut self) {
        if self.taken == self.bytes.len() && self.bytes.capacity() > (1 << 20) {
            // A large frame is not what is usual.
            self.bytes = Vec::new();
        } else {
            self.bytes.drain(..self.taken);
        }
        self.taken = 0;
    }
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may fail this way"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
            cuts in prop::collection::vec(1_usize..50, 1..20),
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(encode).collect();
            let mut frames = Frames::default();
            let mut found: Vec<Vec<u8>> = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                frames.push(now);
                while let Some(body) = frames.next(1000).unwrap() {
                    found.push(decode(&body).unwrap());
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found, messages);
            prop_assert!(!frames.is_amid());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic_or_keep_more_than_came(
            bytes in prop::collection::vec(any::<u8>(), 0..2000), max in 0_usize..3000,
        ) {
            let mut frames = Frames::default();
            frames.push(&bytes);
            while let Ok(Some(body)) = frames.next(max) {
                prop_assert!(body.len() <= max);
            }
            prop_assert!(frames.bytes.capacity() <= bytes.len().max(64) * 2);
        }
    }

    #[test]
    fn a_length_is_refused_before_anything_of_it_has_come() {
        let mut frames = Frames::default();
        frames.push(&u32::MAX.to_le_bytes());
        let refused = FrameError::TooLong { len: 0xffff_ffff, max: 100 };
        assert_eq!(frames.next(100), Err(refused));
    }

    #[test]
    fn bytes_behind_a_message_are_refused() {
        assert_eq!(decode::<u8>(&[1]), Ok(1));
        assert!(matches!(decode::<u8>(&[1, 2]), Err(FrameError::Garbage(_))));
        assert!(matches!(decode::<u8>(&[]), Err(FrameError::Garbage(_))));
    }
}
