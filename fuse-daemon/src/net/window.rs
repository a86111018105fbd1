//! How much is asked for ahead of one peer: what it brings in a few seconds, so that the line is never
//! idle, and little is on its way when another one has its turn or the fetch is given up.

use std::time::Duration;

use cairnfs_mount_core::FetchProgress;

/// Bytes that may be on their way, as far as can be told before they come: at first, and within
/// which bounds. The least keeps a line of 1 MiB/s busy over a quarter of a second to the peer and
/// back, the most one of 100 MB/s over 80 ms.
const FIRST_BYTES: u64 = 1 << 20;
const LEAST_BYTES: u64 = 256 << 10;
const MOST_BYTES: u64 = 8 << 20;
/// An answer that came sooner: more may be asked for.
const SOON: Duration = Duration::from_secs(1);
/// An answer that came later: too much was asked for.
const LATE: Duration = Duration::from_secs(4);
/// Blobs that may be on their way: four, so that a quarter of them is one.
const LEAST_BLOBS: u64 = 4;
const MOST_BLOBS: u64 = 2048;
/// What a blob is taken to have before any has come: most of the first are small.
const BLOB_BYTES_GUESS: u64 = 16 << 10;

/// See the module's doc.
#[derive(Debug)]
pub(super) struct Window {
    bytes: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { bytes: FIRST_BYTES }
    }
}

impl Window {
    /// How many blobs may be on their way, if they are like those that have come.
    pub(super) fn blobs(&self, come: FetchProgress) -> usize {
        let usual = come.bytes.checked_div(come.blobs).unwrap_or(BLOB_BYTES_GUESS);
        let blobs = (self.bytes / usual.max(1)).clamp(LEAST_BLOBS, MOST_BLOBS);
        usize::try_from(blobs).unwrap_or(usize::MAX)
    }

    /// So long after they were asked for so many bytes have come.
    pub(super) fn answered(&mut self, after: Duration, bytes: u64) {
        // That little comes soon says nothing of much.
        if after < SOON && bytes >= self.bytes / 8 {
            self.bytes = (self.bytes * 2).min(MOST_BYTES);
        } else if after > LATE {
            self.bytes = (self.bytes / 2).max(LEAST_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much is on its way in the end from a peer that brings so many bytes a second.
    fn settles_at(bytes_a_second: u64) -> u64 {
        let mut window = Window::default();
        for _ in 0..100 {
            // A quarter of it is asked for at a time, and comes behind the rest.
            let millis = window.bytes * 1000 / bytes_a_second;
            window.answered(Duration::from_millis(millis), window.bytes / 4);
        }
        window.bytes
    }

    #[test]
    fn what_is_on_its_way_takes_seconds_whatever_the_line() {
        for bytes_a_second in [64 << 10, 100 << 10, 1 << 20, 5 << 20] {
            let seconds = settles_at(bytes_a_second) / bytes_a_second;
            assert!((1..=4).contains(&seconds), "{seconds} s at {bytes_a_second} bytes a second");
        }
        assert_eq!(settles_at(1 << 30), MOST_BYTES);
        assert_eq!(settles_at(10 << 10), LEAST_BYTES);
    }

    #[test]
    fn little_that_comes_soon_says_nothing_of_much() {
        let mut window = Window::default();
        window.answered(Duration::ZERO, 300);
        assert_eq!(window.bytes, FIRST_BYTES);
    }

    #[test]
    fn as_many_blobs_are_asked_for_as_are_worth_that() {
        let blobs = |blobs, bytes| {
            Window::default().blobs(FetchProgress { blobs, bytes, ..FetchProgress::default() })
        };
        assert_eq!(blobs(0, 0), 64);
        assert_eq!(blobs(10, 10 << 10), 1024);
        assert_eq!(blobs(10, 10), 2048);
        assert_eq!(blobs(3, 30 << 20), 4);
    }
}
