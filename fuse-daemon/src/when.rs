//! Points in time, as people and scripts read them.

use std::time::{Duration, SystemTime};

use jiff::{Timestamp, tz::TimeZone};

use crate::values::Span;

/// `2026-11-22 13:15:46`, in the zone of the one who reads.
pub(crate) fn local(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(
        |_| "at an impossible time".to_owned(),
        |at| at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

/// `2 s ago (2026-11-22 13:15:46)`, or `never`.
pub(crate) fn ago(time: Option<SystemTime>) -> String {
    time.map_or_else(
        || "never".to_owned(),
        |time| format!("{} ago ({})", Span(since(time)).about(), local(time)),
    )
}

/// How long ago; nothing if the clock was set back meanwhile.
pub(crate) fn since(time: SystemTime) -> Duration {
    SystemTime::now().duration_since(time).unwrap_or_default()
}

/// `2026-11-22T12:15:46.5Z`, for scripts.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| String::new(), |at| at.to_string())
}
