//! How a mount saves, and what it may use.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// When a change is made durable without being asked (SEMANTICS.md, Saving).
///
/// `fsync`, `O_SYNC` and unmounting wait for a barrier under every policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SavePolicy {
    /// `close` returns after the barrier.
    #[default]
    Flush,
    /// `close` returns at once; saved when the last handle of the file is closed.
    Release,
    /// `close` returns at once; whatever is dirty is saved this often.
    Interval(Duration),
}

impl SavePolicy {
    /// The longest that a change stays unsaved when nobody asks for a save.
    #[must_use]
    pub fn max_age(self) -> Duration {
        match self {
            Self::Flush | Self::Release => Duration::from_secs(1),
            Self::Interval(every) => every,
        }
    }
}

impl fmt::Display for SavePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flush => f.write_str("flush"),
            Self::Release => f.write_str("release"),
            Self::Interval(every) if every.subsec_millis() == 0 => {
                write!(f, "interval:{}s", every.as_secs())
            }
            Self::Interval(every) => write!(f, "interval:{}ms", every.as_millis()),
        }
    }
}

/// The text names no policy.
#[derive(Debug, thiserror::Error)]
pub enum ParsePolicyError {
    /// It is none at all.
    #[error("unknown save policy {0:?}: use flush, release, or interval:TIME such as interval:10s")]
    Unknown(String),
    /// Of its time only the number is there.
    #[error("save policy {0:?}: the time has no unit: write {0}s, or ms, m or h")]
    NoUnit(String),
    /// It would save without end.
    #[error("save policy {0:?}: the time must not be zero; flush saves at every close")]
    Zero(String),
    /// Longer than anybody wants to lose.
    #[error("save policy {0:?}: the time is longer than a day")]
    TooLong(String),
}

impl FromStr for SavePolicy {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || Self::Err::Unknown(text.to_owned());
        match text {
            "flush" => Ok(Self::Flush),
            "release" => Ok(Self::Release),
            _ => {
                let time = text.strip_prefix("interval:").ok_or_else(bad)?;
                let digits = time.find(|c: char| !c.is_ascii_digit()).unwrap_or(time.len());
                let count: u64 = time[..digits].parse().map_err(|_overflow| bad())?;
                let unit = match &time[digits..] {
                    "ms" => 1,
                    "s" => 1_000,
                    "m" => 60_000,
                    "h" => 3_600_000,
                    // Whatever its unit.
                    "" if count == 0 => return Err(Self::Err::Zero(text.to_owned())),
                    "" => return Err(Self::Err::NoUnit(text.to_owned())),
                    _ => return Err(bad()),
                };
                match count.saturating_mul(unit) {
                    0 => Err(Self::Err::Zero(text.to_owned())),
                    millis @ 1..=86_400_000 => Ok(Self::Interval(Duration::from_millis(millis))),
                    _ => Err(Self::Err::TooLong(text.to_owned())),
                }
            }
        }
    }
}

/// What a mount may use of memory, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Decrypted chunks, decoded tree nodes and versions kept for reading.
    pub cache_bytes: u64,
    /// Memory for what was written and is not yet cut into chunks, saved or not, and for changes of
    /// names and attributes that no version holds; who changes something waits beyond three quarters
    /// of it.
    pub dirty_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cache_bytes: 32 << 20, dirty_bytes: 32 << 20 }
    }
}

/// As whom the owner of the bucket's top directory is shown, which is who has made the bucket unless
/// that was changed: the person who mounts it may have another number on this machine. What they make
/// belongs to that owner, everywhere; the two numbers change places, and all others stay as they are.
///
/// Who the owner is counts as it is when something is first looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Owner {
    /// User id; none to show it as it is.
    pub user: Option<u32>,
    /// Group id; none to show it as it is.
    pub group: Option<u32>,
}

/// How a mount is to behave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// When changes are made durable.
    pub policy: SavePolicy,
    /// What may be used of memory.
    pub limits: Limits,
    /// Refuse every change.
    pub read_only: bool,
    /// Publish after this long without a change.
    pub publish_quiet: Duration,
    /// Publish at the latest this long after the first unpublished change.
    pub publish_max: Duration,
    /// As whom the owner is shown.
    pub owner: Owner,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            policy: SavePolicy::default(),
            limits: Limits::default(),
            read_only: false,
            publish_quiet: Duration::from_secs(1),
            publish_max: Duration::from_secs(10),
            owner: Owner::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_read_back_as_they_are_written() {
        for text in ["flush", "release", "interval:10s", "interval:500ms"] {
            assert_eq!(text.parse::<SavePolicy>().unwrap().to_string(), text);
        }
        assert_eq!("interval:2m".parse::<SavePolicy>().unwrap().to_string(), "interval:120s");
    }

    #[test]
    fn a_bad_policy_is_refused() {
        for text in
            ["", "Flush", "interval", "interval:", "interval:0s", "interval:10", "interval:9d"]
        {
            assert!(text.parse::<SavePolicy>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_time_is_said() {
        for (text, says) in [
            ("interval:5", "no unit: write interval:5s"),
            ("interval:0s", "must not be zero"),
            ("interval:0", "must not be zero"),
            ("interval:25h", "longer than a day"),
            ("interval:9999999999999999h", "longer than a day"),
            ("interval:s", "unknown save policy"),
            ("often", "unknown save policy"),
        ] {
            let err = text.parse::<SavePolicy>().unwrap_err().to_string();
            assert!(err.contains(says), "{text}: {err}");
        }
    }
}
